"""Curves are drawn of whatever series a job has."""

from pathlib import Path

import pytest

from examples.curves import Series, plot_curves


@pytest.mark.parametrize(
    "series", [{}, {"student_loss": [{"step": 1, "value": 2.0}, {"step": 5, "value": 1.0}]}]
)
def test_a_picture_is_written(series: Series, tmp_path: Path) -> None:
    plot_curves(series, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
