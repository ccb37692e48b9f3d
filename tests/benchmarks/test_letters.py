"""Letters in fonts: what is rendered, and which fonts are held out."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from benchmarks import letters


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The fonts that come with matplotlib: letters, and pictures that are none."""
    monkeypatch.setattr(letters, "FONTS", Path(matplotlib.get_data_path()) / "fonts")
    monkeypatch.setattr(letters, "CACHE", tmp_path)
    letters.families.cache_clear()
    yield
    letters.families.cache_clear()


@pytest.mark.usefixtures("fonts")
def test_families_have_letters_and_are_on_one_side() -> None:
    assert "DejaVu Sans" in letters.families()
    assert "cmsy10" not in letters.families()  # symbols under the codes of letters
    training, held_out = (set(letters.fonts_of(split)) for split in ("training", "held_out"))
    assert training
    assert not training & held_out


@pytest.mark.usefixtures("fonts")
@pytest.mark.parametrize("side", [32, 96])
def test_letters_are_rendered_once_in_any_size(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "LEAST_FAMILIES", 1)
    monkeypatch.setattr(letters, "TRAINING_IMAGES", 52)
    first, second = letters.images_of("training", side), letters.images_of("training", side)
    assert first.images.shape == (52, side, side, 3)
    assert first.labels.bincount().tolist() == [2] * 26
    assert (first.images == second.images).all()
    deviation = np.asarray(first.images, dtype=np.float32).std(axis=(1, 2, 3))
    assert deviation.min() > 5  # grey levels: something is to be seen in every image


@pytest.mark.usefixtures("fonts")
def test_too_few_fonts_end_the_program_with_a_way_out() -> None:
    with pytest.raises(SystemExit, match="Install some"):
        letters.require_fonts()
