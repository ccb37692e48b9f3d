"""One run of the authors' procedure: the reference's configuration of `benchmarks.bench`, on CIFAR-10.

    python -m benchmarks.published [--seed 0] [--max-seconds N] [--teacher FILE]

Prints progress, and as the last line one JSON object. `seconds` are without measuring accuracy;
`accuracy` is the last epoch's, `best_accuracy` what the authors report. Needs ../shared/data.
"""

import argparse
import json

from benchmarks import cifar10, machine
from benchmarks.published import reference


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, default=float("inf"), help="give up after these")
    cifar10.CifarTeacher.add_arguments(parser)
    args = parser.parse_args()
    cifar10.require_data()
    print(machine.describe(), flush=True)
    outcome = reference.run(cifar10.CifarTeacher.of(args), args.seed, args.max_seconds)
    print(
        json.dumps(
            {
                "seconds": round(outcome.seconds, 1),
                "accuracy": outcome.accuracies[-1] if outcome.accuracies else None,
                "best_accuracy": outcome.best if outcome.accuracies else None,
                "complete": outcome.complete,
                "seed": args.seed,
                "teacher": args.teacher.name,
                "config": reference.CONFIG,
                "machine": machine.describe(),
            }
        )
    )


if __name__ == "__main__":
    main()
