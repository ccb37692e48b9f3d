"""Draw a job's series, as `GET /jobs/{id}/metrics` returns them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

Series = Mapping[str, Sequence[Mapping[str, Any]]]

PANELS = (
    ("synthesis, loss terms of Eq. 5 by round", ("ce", "bn", "adv")),
    ("student, distillation loss", ("student_loss",)),
)


def plot_curves(series: Series, path: Path) -> None:
    """Draw the synthesis terms and the student's loss over all updates.

    Args:
        series: name -> points of `step` and `value`.
        path: a .png to write.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (title, names) in zip(axes, PANELS, strict=True):
        for name in names:
            points = series.get(name, ())
            axis.plot([point["step"] for point in points], [point["value"] for point in points], label=name)
        axis.set(title=title, xlabel="updates of generator and student")
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
