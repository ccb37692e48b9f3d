"""From label-free signals of a finished run to its student's agreement with the teacher on real images.

A map is linear in transformed signals and gives a logit. `python -m benchmarks.estimate fit` fits it to
runs of which the truth is known and writes it beside this file, with the ranges of what it has seen. Outside
of these nothing is claimed.
"""

import functools
import importlib.resources
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FILE = "agreement_map.json"
LEAST_SHARE = 1e-3  # shares are kept this far from 0 and 1, where a logit is infinite


@dataclass(frozen=True)
class AgreementEstimate:
    """The agreement of a student with its teacher on real images, as far as it is known.

    Args:
        value: share of real images, in [0, 1]; None where it is unknown.
        low: lower end of the 90 % interval; None likewise.
        high: upper end; None likewise.
        basis: what it is known from: begins with `measured:`, `estimated:` or `unknown:`.
    """

    value: float | None
    low: float | None
    high: float | None
    basis: str

    @classmethod
    def unknown(cls, reason: str) -> "AgreementEstimate":
        """Claim nothing, and say why."""
        return cls(None, None, None, f"unknown: {reason}")

    def as_json(self) -> dict[str, Any]:
        """The four fields, numbers rounded to what they can bear."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        rounded = {name: None if number is None else round(number, 3) for name, number in numbers.items()}
        return {**rounded, "basis": self.basis}


@dataclass(frozen=True)
class Term:
    """One signal of the map.

    Args:
        signal: its name in `signals.measure`.
        transform: `logit` for shares, `log` for distances.
        weight: factor of the transformed signal; 0 for one that only says whether the map is for a run.
        lowest: the lowest value of the signal in the runs that the map was fitted to.
        highest: the highest one.
        clamps: whether a value beyond these counts as the nearer of them; else nothing is claimed there.
    """

    signal: str
    transform: str
    weight: float
    lowest: float
    highest: float
    clamps: bool

    def part(self, value: float) -> float:
        """What a value adds to the logit."""
        within = min(max(value, self.lowest), self.highest)
        return self.weight * transformed(within, self.transform)

    def is_for(self, value: float) -> bool:
        """Whether the map was fitted to such values; never for one that is no number."""
        return not math.isnan(value) and (self.clamps or self.lowest <= value <= self.highest)


@dataclass(frozen=True)
class Circumstances:
    """What decides, beside the signals, whether a run is like those that the map was fitted to.

    Args:
        method: its name.
        preset: its name.
        side: height or width of the images in pixels, whichever is greater.
        classes: how many.
        batch_norm: whether the teacher has running statistics.
    """

    method: str
    preset: str
    side: int
    classes: int
    batch_norm: bool


@dataclass(frozen=True)
class AgreementMap:
    """The fitted map.

    Args:
        intercept: the logit where all terms are 0.
        terms: the signals.
        half_width: of the 90 % interval, in logits.
        method: the one whose runs it was fitted to.
        presets: those whose runs it is for.
        sides: least and greatest side of images in pixels that it was fitted to.
        classes: least and greatest number of classes.
        batch_norm: which kinds of teachers it is for: with BatchNorm, without.
        provenance: what it was fitted to, and how well it did on teachers left out.
    """

    intercept: float
    terms: tuple[Term, ...]
    half_width: float
    method: str
    presets: tuple[str, ...]
    sides: tuple[int, int]
    classes: tuple[int, int]
    batch_norm: tuple[bool, ...]
    provenance: Mapping[str, Any]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "AgreementMap":
        """Read the document that `fit` writes."""
        terms = tuple(Term(**term) for term in document["terms"])
        pairs = {name: tuple(document[name]) for name in ("presets", "sides", "classes", "batch_norm")}
        return cls(**{**document, **pairs, "terms": terms})

    def estimate(self, signals: Mapping[str, float], circumstances: Circumstances) -> AgreementEstimate:
        """Estimate the agreement, or say why that cannot be done.

        Args:
            signals: by name, at least those of `terms`.
            circumstances: of the run.
        """
        reason = self._reason_against(signals, circumstances)
        if reason is not None:
            return AgreementEstimate.unknown(reason)
        logit = self.intercept + sum(term.part(signals[term.signal]) for term in self.terms)
        value, low, high = (share_of(logit + shift * self.half_width) for shift in (0, -1, 1))
        known = self.provenance
        basis = (
            f"estimated: from synthetic images, by a map fitted to {known['students']} students of "
            f"{known['teachers']} teachers; {known['coverage']:.0%} of such intervals held the truth where "
            "the map had not seen the teacher"
        )
        return AgreementEstimate(value, low, high, basis)

    def _reason_against(self, signals: Mapping[str, float], circumstances: Circumstances) -> str | None:
        """Why the map says nothing of this run; None where it does."""
        side, classes = circumstances.side, circumstances.classes
        if circumstances.method != self.method:
            return f"a student of the method {circumstances.method}; the map was fitted to {self.method}"
        if circumstances.preset not in self.presets:
            return f"the preset {circumstances.preset}; the map is for {' and '.join(self.presets)}"
        if not self.sides[0] <= side <= self.sides[1]:
            return f"images of {side} pixels; the map was fitted to {_range(self.sides)} pixels"
        if not self.classes[0] <= classes <= self.classes[1]:
            return f"{classes} classes; the map was fitted to {_range(self.classes)} classes"
        if circumstances.batch_norm not in self.batch_norm:
            kind = "with" if circumstances.batch_norm else "without"
            return f"a teacher {kind} BatchNorm, and the map is for none"
        for term in self.terms:
            value = signals[term.signal]
            if not term.is_for(value):
                seen = f"{term.lowest:.3g} to {term.highest:.3g}"
                return f"{term.signal} is {value:.3g}; the map was fitted to {seen}"
        return None


@functools.cache
def fitted_map() -> AgreementMap:
    """The map that belongs to this version of the method."""
    text = importlib.resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return AgreementMap.from_json(json.loads(text))


def transformed(value: float, transform: str) -> float:
    """Bring a signal to the scale on which the map is linear."""
    if transform == "log":
        return math.log(max(value, LEAST_SHARE))
    share = min(max(value, LEAST_SHARE), 1 - LEAST_SHARE)
    return math.log(share / (1 - share))


def share_of(logit: float) -> float:
    """The share in (0, 1) that has this logit."""
    return 1 / (1 + math.exp(-logit))


def _range(pair: tuple[int, int]) -> str:
    return f"{pair[0]} to {pair[1]}" if pair[0] != pair[1] else str(pair[0])
