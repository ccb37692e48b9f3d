"""From signals to agreement: numbers within the range of what the map has seen, and a reason outside it."""

import math
from typing import Any

import pytest

from nayer_core.measuring.agreement_map import AgreementMap, Circumstances, fitted_map

DOCUMENT: dict[str, Any] = {
    "intercept": 0.5,
    "terms": [
        {
            "signal": "share",
            "transform": "logit",
            "weight": 1.5,
            "lowest": 0.2,
            "highest": 0.98,
            "clamps": True,
        },
        {
            "signal": "distance",
            "transform": "log",
            "weight": -0.25,
            "lowest": 0.01,
            "highest": 2.0,
            "clamps": False,
        },
    ],
    "half_width": 0.75,
    "method": "nayer",
    "presets": ["quick"],
    "sides": [28, 32],
    "classes": [10, 26],
    "batch_norm": [True],
    "provenance": {"students": 44, "teachers": 11, "coverage": 0.91},
}
LIKE_THOSE_SEEN = Circumstances(method="nayer", preset="quick", side=28, classes=10, batch_norm=True)
SIGNALS = {"share": 0.8, "distance": 0.1}


def test_the_estimate_is_the_linear_map_of_the_transformed_signals() -> None:
    estimate = AgreementMap.from_json(DOCUMENT).estimate(SIGNALS, LIKE_THOSE_SEEN)
    logit = 0.5 + 1.5 * math.log(4) - 0.25 * math.log(0.1)
    low, value, high = (1 / (1 + math.exp(-(logit + shift))) for shift in (-0.75, 0, 0.75))
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((low, value, high))
    assert estimate.basis.startswith("estimated: from synthetic images, by a map fitted to 44 students of 11")
    assert estimate.as_json()["value"] == round(value, 3)


@pytest.mark.parametrize(
    ("signals", "circumstances", "reason"),
    [
        ({}, {"side": 96}, "images of 96 pixels; the map was fitted to 28 to 32 pixels"),
        ({}, {"side": 12}, "images of 12 pixels"),
        ({}, {"classes": 100}, "100 classes; the map was fitted to 10 to 26 classes"),
        ({}, {"batch_norm": False}, "a teacher without BatchNorm, and the map is for none"),
        ({}, {"method": "other"}, "a student of the method other; the map was fitted to nayer"),
        ({}, {"preset": "paper-cifar10"}, "the preset paper-cifar10; the map is for quick"),
        ({"share": math.nan}, {}, "share is nan; the map was fitted to 0.2 to 0.98"),
        ({"distance": 7.0}, {}, "distance is 7; the map was fitted to 0.01 to 2"),
        ({"distance": math.nan}, {}, "distance is nan"),
    ],
)
def test_beyond_what_the_map_has_seen_nothing_is_claimed(
    signals: dict[str, float], circumstances: dict[str, Any], reason: str
) -> None:
    estimate = AgreementMap.from_json(DOCUMENT).estimate(
        {**SIGNALS, **signals}, Circumstances(**{**vars(LIKE_THOSE_SEEN), **circumstances})
    )
    assert (estimate.value, estimate.low, estimate.high) == (None, None, None)
    assert estimate.basis.startswith(f"unknown: {reason}")


def test_a_student_better_than_any_that_the_map_has_seen_counts_as_the_best_of_them() -> None:
    agreement_map = AgreementMap.from_json(DOCUMENT)
    better, best, worse = (
        agreement_map.estimate({**SIGNALS, "share": share}, LIKE_THOSE_SEEN).value
        for share in (0.999, 0.98, 0.97)
    )
    assert better == best
    assert best is not None
    assert worse is not None
    assert best > worse


def test_the_map_that_is_shipped_says_what_it_was_fitted_to() -> None:
    shipped = fitted_map()
    assert {"students", "teachers", "coverage", "error"} <= set(shipped.provenance)
    middle = {term.signal: (term.lowest + term.highest) / 2 for term in shipped.terms}
    like_those_seen = Circumstances(
        "nayer", "quick", shipped.sides[0], shipped.classes[0], shipped.batch_norm[0]
    )
    estimate = shipped.estimate(middle, like_those_seen)
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    assert 0 < estimate.low < estimate.value < estimate.high < 1
