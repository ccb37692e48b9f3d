"""Which vectors should represent the classes: text embeddings, whitened or not, or vectors without meaning.

    python -m benchmarks.label_codes [BUDGET ...] [--codes NAME ...] [--seeds 0 1 2] [--kept-only]

BUDGET is `mnist-short`, `mnist-long`, `cifar10-short` or `cifar10-long`; the latter two need
../shared/data. Prints Markdown. Finished runs are kept in the results file, which
`benchmarks.ablations` shares, and not run again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import short_runs, tables
from benchmarks.ablations import MNIST_BUDGET
from benchmarks.trials import EVERYDAY, Trial

CODES = ("clip", "clip+white", "sbert", "sbert+white", "one_hot", "gaussian")
WITHOUT_CLIP = CODES[2:]  # the published CLIP vectors do not cover digits

HEADER = "| codes | accuracy % | each | in-class diversity | convergence steps |"
BUDGETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "mnist-short": ("mnist", MNIST_BUDGET),
    "mnist-long": ("mnist", {**MNIST_BUDGET, "epochs": 18}),
    "cifar10-short": ("cifar10", {**EVERYDAY, **short_runs.BASE}),
    "cifar10-long": ("cifar10", {**EVERYDAY, **short_runs.BASE, "epochs": 60, "warmup_epochs": 2}),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, a seed at a time, and print the tables."""
    parser = tables.parser(__doc__, "BUDGET", BUDGETS)
    parser.add_argument("--codes", nargs="+", choices=CODES, default=list(CODES))
    args = parser.parse_args(arguments)
    rows = {budget: codes_of(budget, args.codes) for budget in args.tables or BUDGETS}
    tables.fill_and_print(args, rows, trial, HEADER, cells)


def codes_of(budget: str, names: Sequence[str]) -> list[str]:
    """Keep those of the named codes that exist for a budget's classes."""
    codes_of_data = WITHOUT_CLIP if BUDGETS[budget][0] == "mnist" else CODES
    return [codes for codes in codes_of_data if codes in names]


def trial(budget: str, codes: str, seed: int) -> Trial:
    """The run behind one row of a table and one seed."""
    data, config = BUDGETS[budget]
    return Trial(data, codes, config, seed)


def cells(_codes: str, outcomes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mean and spread over the seeds, and each seed's accuracy."""
    accuracies = [100 * outcome["accuracy"] for outcome in outcomes]
    return [
        tables.spread(accuracies, 1),
        " ".join(f"{accuracy:.1f}" for accuracy in accuracies) or "-",
        tables.spread([outcome["class_diversity"] for outcome in outcomes], 3),
        tables.convergence(outcomes),
    ]


if __name__ == "__main__":
    main()
