"""The map of the agreement is fitted so that each teacher counts the same, and checked on those left out."""

import numpy as np
import pytest

from benchmarks.estimate import fit
from benchmarks.estimate.fit import Row

SIGNALS = (("signal", "logit"),)


def rows(*, teachers: int = 8, students: int = 4, shift: float = 0.0, seed: int = 0) -> list[Row]:
    """Students whose agreement has the logit 0.5 + 1.2 x that of the signal, moved for each teacher.

    Args:
        teachers: how many.
        students: of each.
        shift: deviation of a teacher's own part, in logits.
        seed: of the numbers.
    """
    rng = np.random.default_rng(seed)
    made = []
    for teacher in range(teachers):
        own = shift * rng.normal()
        for logit in rng.uniform(-2, 2, students):
            real = fit.share_of(0.5 + 1.2 * logit + own)
            made.append({"teacher": f"t{teacher}", "signal": fit.share_of(logit), "real": real})
    return made


def test_a_linear_map_is_recovered_but_for_the_ridge() -> None:
    fitted = fit.fit_map(rows(), SIGNALS)
    assert fitted.weights[0] == pytest.approx(1.2, abs=0.15)
    assert fitted.intercept == pytest.approx(0.5, abs=0.15)


def test_each_teacher_counts_the_same_whatever_the_number_of_its_students() -> None:
    some = rows(teachers=4, shift=1.0)
    once = fit.fit_map(some, SIGNALS)
    often = fit.fit_map([*some, *(row for row in some if row["teacher"] == "t0")], SIGNALS)
    assert often.weights == pytest.approx(once.weights)
    assert often.intercept == pytest.approx(once.intercept)


def test_a_teacher_left_out_does_not_change_its_own_estimate() -> None:
    some = rows(shift=0.5)
    changed = [row | {"real": 0.5} if row["teacher"] == "t3" else row for row in some]
    first, second = (fit.leave_teachers_out(part, SIGNALS).of("t3") for part in (some, changed))
    assert first.predicted == pytest.approx(second.predicted)
    assert first.low == pytest.approx(second.low)


def test_intervals_hold_about_as_often_as_they_claim() -> None:
    checked = fit.leave_teachers_out(rows(teachers=40, shift=0.7), SIGNALS)
    assert checked.coverage == pytest.approx(fit.LEVEL, abs=0.1)
    assert all(checked.low < checked.predicted)
    assert all(checked.predicted < checked.high)


def test_ranks_are_compared_within_a_teacher() -> None:
    some = rows(shift=3.0)
    signal = np.array([row["signal"] for row in some])
    assert list(fit.rank_correlations(some, signal).values()) == pytest.approx([1.0] * 8)
    assert list(fit.rank_correlations(some, -signal).values()) == pytest.approx([-1.0] * 8)
