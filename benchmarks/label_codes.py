"""Which vectors should stand for the classes: text embeddings, whitened or not, or none of meaning.

    python -m benchmarks.label_codes [BUDGET ...] [--codes NAME ...] [--seeds 0 1 2] [--kept-only]

BUDGET is `mnist-short`, `mnist-long`, `cifar10-short` or `cifar10-long`; the latter two need
../shared/data. Prints Markdown. Finished runs are kept in the results file, which
`benchmarks.ablations` shares, and not run again.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cifar10, machine, short_runs
from benchmarks.ablations import MNIST_BUDGET, spread
from benchmarks.trials import EVERYDAY, RESULTS, KeptTrials, Trial

CODES = ("clip", "clip+white", "sbert", "sbert+white", "one_hot", "gaussian")
WITHOUT_CLIP = CODES[2:]  # the published CLIP vectors do not cover digits

BUDGETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "mnist-short": ("mnist", MNIST_BUDGET),
    "mnist-long": ("mnist", {**MNIST_BUDGET, "epochs": 18}),
    "cifar10-short": ("cifar10", {**EVERYDAY, **short_runs.BASE}),
    "cifar10-long": ("cifar10", {**EVERYDAY, **short_runs.BASE, "epochs": 60, "warmup_epochs": 2}),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, a seed at a time, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("budgets", nargs="*", metavar="BUDGET", choices=[[], *BUDGETS], help="all by default")
    parser.add_argument("--codes", nargs="+", choices=CODES, default=list(CODES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS, help="finished runs, one a line")
    parser.add_argument("--kept-only", action="store_true", help="print what is finished, run nothing")
    args = parser.parse_args(arguments)
    budgets = args.budgets or list(BUDGETS)
    if any(BUDGETS[budget][0] == "cifar10" for budget in budgets):
        cifar10.require_data()
    print(f"{machine.describe()}, seeds {args.seeds}")
    kept = KeptTrials(args.results)
    for budget in () if args.kept_only else budgets:
        for seed in args.seeds:
            for codes in codes_of(budget, args.codes):
                outcome = kept.outcome(trial(budget, codes, seed))
                print(f"{budget}  {codes}  seed {seed}  accuracy {outcome['accuracy']:.4f}", flush=True)
    for budget in budgets:
        print(f"\n## {budget}\n\n{as_markdown(budget, args.codes, args.seeds, kept)}")


def codes_of(budget: str, wanted: Sequence[str]) -> list[str]:
    """Those of the wanted codes that exist for a budget's classes."""
    known = WITHOUT_CLIP if BUDGETS[budget][0] == "mnist" else CODES
    return [codes for codes in known if codes in wanted]


def trial(budget: str, codes: str, seed: int) -> Trial:
    """The run behind one row of a table and one seed."""
    data, config = BUDGETS[budget]
    return Trial(data, codes, config, seed)


def as_markdown(budget: str, wanted: Sequence[str], seeds: Sequence[int], kept: KeptTrials) -> str:
    """A table of finished runs: mean and spread over the seeds."""
    lines = ["| codes | accuracy % | each | in-class diversity | convergence steps |", "|" + "---|" * 5]
    for codes in codes_of(budget, wanted):
        outcomes = [outcome for seed in seeds if (outcome := kept.find(trial(budget, codes, seed)))]
        accuracies = [100 * outcome["accuracy"] for outcome in outcomes]
        cells = [
            spread(accuracies, 1),
            " ".join(f"{accuracy:.1f}" for accuracy in accuracies) or "-",
            spread([outcome["class_diversity"] for outcome in outcomes], 3),
            spread([steps for outcome in outcomes if (steps := outcome["convergence_steps"]) is not None], 1),
        ]
        lines.append(f"| {codes} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
