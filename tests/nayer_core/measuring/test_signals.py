"""What the estimate of an agreement is made from."""

import pytest
import torch

from nayer_core.measuring import signals
from nayer_core.measuring.agreement_map import fitted_map
from tests.support.small_runs import SmallRun


def measured(run: SmallRun, student: torch.nn.Module, seed: int = 1) -> dict[str, float]:
    return signals.measure(
        run.distillands.teacher,
        student,
        run.method.bank,
        run.distillands.augment,
        run.machine.arithmetic,
        torch.Generator().manual_seed(seed),
    )


@pytest.fixture
def run() -> SmallRun:
    run = SmallRun()
    run.go_on()
    return run


def test_the_signals_are_those_of_the_maps_and_follow_from_the_seed(run: SmallRun) -> None:
    first, again, other = (measured(run, run.method.student, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first.keys() == {term.signal for term in fitted_map().terms}


def test_a_student_that_is_its_teacher_agrees_with_it(run: SmallRun) -> None:
    values = measured(run, run.distillands.teacher)
    assert values["bank_cutmix.agree_by_class"] == 1.0
    assert 0 <= values["bank.as_made"] <= 1


def test_images_are_patched_with_a_box_of_their_neighbour() -> None:
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 12, 12, 1)
    mixture = signals.patched(images, torch.Generator().manual_seed(0))
    assert mixture.shape == images.shape
    assert mixture.dtype == torch.uint8
    for index, image in enumerate(mixture):
        assert set(image.unique().tolist()) <= {index, (index - 1) % 6}
    assert any(len(image.unique()) == 2 for image in mixture)
