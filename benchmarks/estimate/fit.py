"""Fits the map from signals to agreement, and says how well it does on teachers that it has not seen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nayer_core.measuring
from nayer_core.measuring.agreement_map import FILE, Term, share_of, transformed

Row = dict[str, Any]
Values = NDArray[np.float64]
Signals = Sequence[tuple[str, str]]  # name and transform

MAP = Path(nayer_core.measuring.__file__).parent / FILE
SIGNALS: Signals = (("bank_cutmix.agree_by_class", "logit"),)
SIGNALS_AND_ACCURACY: Signals = (*SIGNALS, ("teacher_accuracy", "logit"))  # told beside, not used
GUARD = ("bank.as_made", "logit")  # says whether synthesis worked, and nothing of the student
LEAST_AS_MADE = 0.3  # below it synthesis has failed, and no map is fitted to the run
RIDGE = 0.05  # of the squared weights, beside the mean squared error in logits
LEVEL = 0.9  # of intervals
TODAY = "fresh.agree"  # `agreement_on_synthetic`


@dataclass(frozen=True)
class Fit:
    """A linear map to logits."""

    intercept: float
    weights: Values

    def logits(self, rows: Sequence[Row], signals: Signals) -> Values:
        """Predicted logits of the agreement, (rows,)."""
        predicted: Values = self.intercept + _design(rows, signals) @ self.weights
        return predicted


@dataclass(frozen=True)
class Checked:
    """Predictions for each row by a map that has not seen its teacher.

    Args:
        rows: in the order of the other fields.
        predicted: shares, (rows,).
        low, high: ends of the intervals, whose width does not know the teacher either.
    """

    rows: Sequence[Row]
    predicted: Values
    low: Values
    high: Values

    @property
    def real(self) -> Values:
        """The truth, (rows,)."""
        return _real(self.rows)

    @property
    def error(self) -> float:
        """Mean absolute error, a share; each teacher counts the same."""
        return _mean_by_teacher(self.rows, np.abs(self.predicted - self.real))

    @property
    def coverage(self) -> float:
        """Share of intervals that hold the truth; each teacher counts the same."""
        holds = (self.low <= self.real) & (self.real <= self.high)
        return _mean_by_teacher(self.rows, holds.astype(float))

    def of(self, teacher: str) -> "Checked":
        """The rows of one teacher."""
        own = [row["teacher"] == teacher for row in self.rows]
        rows = [row for row in self.rows if row["teacher"] == teacher]
        return Checked(rows, self.predicted[own], self.low[own], self.high[own])


def fit_map(rows: Sequence[Row], signals: Signals) -> Fit:
    """Ridge regression of the logit of the agreement; each teacher counts the same."""
    weight = np.array([1 / sum(other["teacher"] == row["teacher"] for other in rows) for row in rows])
    weight /= weight.sum()
    inputs, target = _design(rows, signals), _logits(_real(rows))
    centre, mean = weight @ inputs, weight @ target
    centred = inputs - centre
    gram = centred.T @ (weight[:, None] * centred) + RIDGE * np.eye(len(signals))
    weights = np.asarray(np.linalg.solve(gram, centred.T @ (weight * (target - mean))), dtype=np.float64)
    return Fit(float(mean - centre @ weights), weights)


def leave_teachers_out(rows: Sequence[Row], signals: Signals) -> Checked:
    """Predict the rows of each teacher with a map, and an interval, made of the other teachers' rows."""
    ordered: list[Row] = []
    parts: list[tuple[Values, float]] = []
    for teacher in teachers_of(rows):
        own, others = of_teacher(rows, teacher)
        predicted = fit_map(others, signals).logits(own, signals)
        parts.append((predicted, half_width(others, signals)))
        ordered += own
    return Checked(
        ordered,
        _shares(np.concatenate([predicted for predicted, _ in parts])),
        _shares(np.concatenate([predicted - half for predicted, half in parts])),
        _shares(np.concatenate([predicted + half for predicted, half in parts])),
    )


def half_width(rows: Sequence[Row], signals: Signals) -> float:
    """Half width of an interval in logits: the `LEVEL` quantile of the errors on teachers left out.

    Each teacher counts the same. With so few teachers this is no guarantee for the next: how many intervals
    hold is measured, on teachers that gave neither map nor width (`Checked.coverage`).
    """
    parts = []
    for teacher in teachers_of(rows):
        own, others = of_teacher(rows, teacher)
        errors = np.abs(fit_map(others, signals).logits(own, signals) - _logits(_real(own)))
        parts.append(np.stack([errors, np.full(len(own), 1 / len(own))]))
    errors, weights = np.concatenate(parts, axis=1)
    order = np.argsort(errors)
    share_below = np.cumsum(weights[order]) / weights.sum()
    return float(errors[order][np.searchsorted(share_below, LEVEL)])


def rank_correlations(rows: Sequence[Row], values: Values) -> dict[str, float]:
    """Spearman's correlation of values with the truth among the students of each teacher."""
    correlations = {}
    for teacher in teachers_of(rows):
        own = np.array([row["teacher"] == teacher for row in rows])
        pair = _ranks(values[own]), _ranks(_real(rows)[own])
        correlations[teacher] = float(np.corrcoef(*pair)[0, 1])
    return correlations


def write_map(rows: Sequence[Row], provenance: Mapping[str, Any]) -> None:
    """Fit the map to all rows, and write it where the product reads it.

    Args:
        rows: those that the map is for.
        provenance: what goes with it.
    """
    checked = leave_teachers_out(rows, SIGNALS)
    quality = {"error": round(checked.error, 4), "coverage": round(checked.coverage, 3)}
    document = _document(rows) | {"provenance": {**provenance, **quality}}
    MAP.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _document(rows: Sequence[Row]) -> dict[str, Any]:
    fitted = fit_map(rows, SIGNALS)
    terms = []
    for (name, transform), weight in zip(SIGNALS, np.round(fitted.weights, 4).tolist(), strict=True):
        values = [row[name] for row in rows]
        terms.append(Term(name, transform, weight, min(values), max(values), clamps=True))
    guard, transform = GUARD
    terms.append(Term(guard, transform, 0.0, min(row[guard] for row in rows), 1.0, clamps=False))
    sides, classes = [max(row["size"][1:]) for row in rows], [row["classes"] for row in rows]
    return {
        "intercept": round(fitted.intercept, 4),
        "terms": [asdict(term) for term in terms],
        "half_width": round(half_width(rows, SIGNALS), 4),
        "method": "nayer",
        "presets": ["quick", "balanced"],  # the same numbers but for the epochs
        "sides": [min(sides), max(sides)],
        "classes": [min(classes), max(classes)],
        "batch_norm": sorted({row["batch_norm"] for row in rows}),
    }


def _design(rows: Sequence[Row], signals: Signals) -> Values:
    return np.array([[transformed(row[name], transform) for name, transform in signals] for row in rows])


def _real(rows: Sequence[Row]) -> Values:
    return np.array([row["real"] for row in rows])


def _logits(shares: Values) -> Values:
    return np.array([transformed(share, "logit") for share in shares])


def _shares(logits: Values) -> Values:
    return np.array([share_of(logit) for logit in logits])


def teachers_of(rows: Sequence[Row]) -> list[str]:
    """Names of the teachers, each once."""
    return sorted({row["teacher"] for row in rows})


def of_teacher(rows: Sequence[Row], teacher: str) -> tuple[list[Row], list[Row]]:
    """The rows of a teacher, and all others."""
    own = [row for row in rows if row["teacher"] == teacher]
    return own, [row for row in rows if row["teacher"] != teacher]


def _mean_by_teacher(rows: Sequence[Row], values: Values) -> float:
    by_teacher = [values[[row["teacher"] == teacher for row in rows]].mean() for teacher in teachers_of(rows)]
    return float(np.mean(by_teacher))


def _ranks(values: Values) -> Values:
    """Ranks from 0; equal values share the mean of theirs."""
    below, upto = (np.searchsorted(np.sort(values), values, side=side) for side in ("left", "right"))
    return (below + upto - 1) / 2
