"""A small run in the processes that torchrun has started, or in one: what the first of them saves.

python -m tests.support.sharing_run FILE TEACHER CHANGES [STATE STEPS]

With STATE the last of the processes wants to stop after STEPS steps; then all go on from what was saved.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from nayer_core.hardware.peers import Peers, joined
from nayer_core.running.checkpoint import CheckpointFolder
from tests.support.small_runs import CONFIG, SmallRun, after


def main(path: str, teacher: str, changes: str, state: str | None = None, steps: str = "0") -> None:
    torch.set_num_threads(1)
    config = CONFIG.model_copy(update=json.loads(changes))
    with joined(torch.device("cpu")) as peers:
        run = SmallRun(config, teacher=teacher, peers=peers)
        if state is not None:
            folder = Path(state) / os.environ["RANK"]
            stop_here(run, peers, folder, int(steps))
            peers.any(flag=False)  # waits until all have saved
            run = SmallRun(config, seed=7, teacher=teacher, peers=peers)
            run.run.resume(CheckpointFolder(folder.parent / "0"))
        assert run.go_on()
        if peers.is_first:
            bank = {"bank": run.method.bank.images, "labels": run.method.bank.labels}
            reported_values = [value for event in run.run.reported for value in event.values.values()]
            save_file({**run.weights(), **bank, "told": torch.tensor(reported_values)}, Path(path))


def stop_here(run: SmallRun, peers: Peers, folder: Path, steps: int) -> None:
    enough = after(steps)
    finished = run.go_on(
        checkpoints=CheckpointFolder(folder),
        should_stop=lambda: peers.any(enough() and not peers.is_first),
    )
    assert not finished


if __name__ == "__main__":
    main(*sys.argv[1:])
