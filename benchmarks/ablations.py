"""The paper's ablations of the generator's input and of the noisy layer (Tables 4, 12, 15 and 17).

    python -m benchmarks.ablations [TABLE ...] [--seeds 0 1 2] [--results FILE] [--kept-only]

TABLE is `table4`, `table12`, `table15`, `table17` (MNIST digits, half a minute of one core for a
run) or `cifar10` (the five most telling rows on a published teacher; needs ../shared/data). Prints
Markdown. Finished runs are kept in the results file and not run again; tables share rows.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import tables
from benchmarks.trials import EVERYDAY, METRICS, Trial

# A round has 30 generator steps, as in Table 4. bn_weight is 1: in runs this short, 10 leaves the
# cross entropy above 0.1 to the end, and nothing would ever converge.
MNIST_BUDGET: Mapping[str, Any] = {
    **EVERYDAY,
    "epochs": 6,
    "warmup_epochs": 1,
    "warmup_rounds_per_epoch": 2,
    "generator_steps": 30,
    "student_steps": 40,
    "synthesis_batch_size": 50,
    "student_batch_size": 64,
    "generator_width": 32,
    "noise_dim": 256,
    "generator_lr": 0.01,
    "student_lr": 0.1,
    "bn_weight": 1.0,
    "crop_padding": 2,
    "flip": False,
}
CIFAR10_BUDGET: Mapping[str, Any] = {
    **EVERYDAY,
    "epochs": 8,
    "warmup_epochs": 1,
    "warmup_rounds_per_epoch": 2,
    "generator_steps": 20,
    "student_steps": 25,
    "synthesis_batch_size": 100,
    "student_batch_size": 128,
}
_BUDGETS = {"mnist": MNIST_BUDGET, "cifar10": CIFAR10_BUDGET}
_CODES = {"mnist": "sbert", "cifar10": "clip"}  # as the encoder gives them; the paper does not whiten

_ALONE: Mapping[str, Any] = {"noisy_layer": "none"}


def _sum(beta: float, noise: str = "normal") -> dict[str, Any]:
    return {**_ALONE, "generator_input": "sum", "input_noise_scale": beta, "input_noise": noise}


@dataclass(frozen=True)
class AblationRow:
    """One way to bring randomness to the generator.

    Attributes:
        config: what differs from the paper's method.
        paper: convergence time, diversity score and accuracy in %, as the paper gives them; None
            where it says "-".
    """

    config: Mapping[str, Any]
    paper: tuple[float | None, float | None, float]


ROWS: Mapping[str, AblationRow] = {
    "NL (K-to-1), A3": AblationRow({}, (9.53, 0.139, 93.48)),
    "OH alone": AblationRow({**_ALONE, "generator_input": "one_hot"}, (28.23, 0.013, 12.35)),
    "Z alone": AblationRow({**_ALONE, "generator_input": "noise"}, (None, 0.137, 90.14)),
    "LTE alone": AblationRow(_ALONE, (8.52, 0.016, 13.52)),
    "cat": AblationRow({**_ALONE, "generator_input": "concat"}, (10.47, 0.0132, 13.29)),
    "sum(0.1)": AblationRow(_sum(0.1), (10.17, 0.021, 18.92)),
    "sum(0.5)": AblationRow(_sum(0.5), (25.12, 0.036, 85.72)),
    "sum(1)": AblationRow(_sum(1.0), (None, 0.127, 90.15)),
    "sum(1.5)": AblationRow(_sum(1.5), (None, 0.129, 90.23)),
    "sum(2)": AblationRow(_sum(2.0), (None, 0.133, 90.15)),
    "sum(3)": AblationRow(_sum(3.0), (None, 0.135, 89.12)),
    "uni(1)": AblationRow(_sum(1.0, "uniform"), (None, 0.113, 87.75)),
    "uni(1.5)": AblationRow(_sum(1.5, "uniform"), (None, 0.128, 88.21)),
    "uni(2)": AblationRow(_sum(2.0, "uniform"), (None, 0.139, 87.15)),
    "NL without redraw": AblationRow({"noisy_layer_redraw": False}, (8.68, 0.016, 14.82)),
    "NL (1-to-1)": AblationRow({"noisy_layer": "one_to_one"}, (9.67, 0.138, 93.42)),
    "OH, NL": AblationRow({"generator_input": "one_hot"}, (None, None, 93.72)),
    "A1 (no BatchNorm)": AblationRow({"noisy_layer_architecture": "A1"}, (16.58, 0.131, 91.15)),
    "A2": AblationRow({"noisy_layer_architecture": "A2"}, (22.72, 0.137, 92.11)),
    "A4": AblationRow({"noisy_layer_architecture": "A4"}, (15.73, 0.141, 93.37)),
    "A5 (sigmoid)": AblationRow({"noisy_layer_architecture": "A5"}, (9.63, 0.137, 93.41)),
    "A6 (tanh)": AblationRow({"noisy_layer_architecture": "A6"}, (9.59, 0.135, 93.37)),
    "A7 (ReLU)": AblationRow({"noisy_layer_architecture": "A7"}, (9.61, 0.138, 93.42)),
    "A8 (dropout)": AblationRow({"noisy_layer_architecture": "A8"}, (12.72, 0.138, 93.42)),
}

_PAPERS = "NL (K-to-1), A3"
_NO_REDRAW, _NO_BATCH_NORM = "NL without redraw", "A1 (no BatchNorm)"
HEADER = (
    "| | seeds | accuracy % | diversity | in class | convergence steps | rounds converged "
    "| paper: accuracy % | diversity | convergence |"
)
TABLES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "table4": (
        "mnist",
        (
            *("OH alone", "Z alone", "LTE alone", "cat", "sum(0.1)", "sum(0.5)", "sum(1)"),
            *(_NO_REDRAW, "NL (1-to-1)", _PAPERS, _NO_BATCH_NORM),
        ),
    ),
    "table12": (
        "mnist",
        (_NO_BATCH_NORM, "A2", _PAPERS, "A4", "A5 (sigmoid)", "A6 (tanh)", "A7 (ReLU)", "A8 (dropout)"),
    ),
    "table15": ("mnist", (_PAPERS, "OH, NL")),
    "table17": (
        "mnist",
        (_NO_REDRAW, _PAPERS, "sum(1.5)", "sum(2)", "sum(3)", "uni(1)", "uni(1.5)", "uni(2)"),
    ),
    "cifar10": ("cifar10", (_PAPERS, _NO_REDRAW, "LTE alone", "Z alone", _NO_BATCH_NORM)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, a seed at a time, and print the tables."""
    args = tables.parser(__doc__, "TABLE", TABLES).parse_args(arguments)
    rows = {table: TABLES[table][1] for table in args.tables or TABLES}
    tables.fill_and_print(args, rows, trial, HEADER, cells)


def trial(table: str, name: str, seed: int) -> Trial:
    """The run behind one row of a table and one seed."""
    data, _ = TABLES[table]
    return Trial(data, _CODES[data], {**_BUDGETS[data], **ROWS[name].config}, seed)


def cells(name: str, outcomes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mean and spread over the seeds, beside the paper's figures."""
    values = {metric: [outcome[metric] for outcome in outcomes] for metric in METRICS}
    convergence, diversity, accuracy = ROWS[name].paper
    return [
        str(len(outcomes)),
        tables.spread([100 * value for value in values["accuracy"]], 1),
        tables.spread(values["diversity"], 3),
        tables.spread(values["class_diversity"], 3),
        tables.convergence(outcomes),
        f"{statistics.mean(values['converged']):.0%}" if outcomes else "-",
        f"{accuracy:g}",
        "-" if diversity is None else f"{diversity:g}",
        "-" if convergence is None else f"{convergence:g}",
    ]


if __name__ == "__main__":
    main()
