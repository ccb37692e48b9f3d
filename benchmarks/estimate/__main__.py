"""Collect runs with the truth, and fit the map from label-free signals to the agreement on real images.

    python -m benchmarks.estimate collect [NAME ...]
    python -m benchmarks.estimate fit

`collect` skips what `results/estimate_runs.jsonl` has already, and teachers whose data is absent, with the
reason. It uses one thread: quick runs on 28 to 32 pixels, half a minute each on a free core.
"""

import argparse

import torch

from benchmarks.estimate.collect import RESULTS, collect, read
from benchmarks.estimate.fit import GUARD, LEAST_AS_MADE, teachers_of, write_map
from benchmarks.estimate.report import print_candidates, print_report


def main() -> None:
    """Do one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["collect", "fit"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs whose names begin so; all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.action == "collect":
        collect(RESULTS, args.names)
    else:
        fit()


def fit() -> None:
    """Print how well the map does, and write it."""
    every = read(RESULTS)
    rows = [row for row in every if row[GUARD[0]] >= LEAST_AS_MADE]
    print_report(rows, [row for row in every if row[GUARD[0]] < LEAST_AS_MADE])
    print_candidates(rows)
    provenance = {
        "students": len(rows),
        "teachers": len(teachers_of(rows)),
        "runs": RESULTS.name,
        "revisions": sorted({row["revision"] for row in rows}),
        "torch": torch.__version__,
    }
    write_map(rows, provenance)


if __name__ == "__main__":
    main()
