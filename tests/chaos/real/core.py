"""A core program for the matrix: a chain of hashes for a training, and gates at which it waits.

The uploaded "teacher" is {"gates": folder, ...}. At a point called `step` the program looks for the
file `<gates>/step`: while it exists the program waits, after it created `<gates>/step.reached`. A file
`<gates>/step.killed` makes it die there, once; `.memory` makes it allocate more than its limit.
"""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STEPS = 12
CHECKPOINT_EVERY = 3
STEP_SECONDS = 0.04
RESOLVED = {
    "labels": ["cat", "dog"],
    "input_size": [3, 32, 32],
    "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "teacher_architecture": "resnet20",
    "teacher_accuracy": None,
    "student_architecture": "wrn_16_1",
    "preset": "quick",
    "config": {},
    "text_encoder": {"name": "auto", "prompt": "a photo of a {label}", "whiten": False},
    "seed": 0,
}

asked_to_stop: list[int] = []


def student_of(teacher: bytes) -> bytes:
    """The student of an undisturbed run on this teacher."""
    state = teacher
    for step in range(1, STEPS + 1):
        state = next_state(state, step)
    return state


def next_state(state: bytes, step: int) -> bytes:
    return json.dumps([step, hashlib.sha256(state).hexdigest()]).encode()


def emit(event: str, **values: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, "time": datetime.now(UTC).isoformat(), **values}) + "\n")
    sys.stdout.flush()


def point(gates: Path, name: str) -> None:
    """Reach a point: die or wait there, as the files say."""
    with contextlib.suppress(FileNotFoundError):
        (gates / f"{name}.killed").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    with contextlib.suppress(FileNotFoundError):
        (gates / f"{name}.memory").unlink()
        resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
        bytearray(1 << 30)
    if (gates / name).exists():
        (gates / f"{name}.reached").touch()
        while (gates / name).exists() and not asked_to_stop:
            time.sleep(0.01)


def inspect(options: dict[str, str]) -> None:
    out, teacher = Path(options["out"]), Path(options["teacher"])
    point(Path(json.loads(teacher.read_text())["gates"]), "inspect")
    shutil.copy(teacher, out / "teacher.safetensors")
    (out / "spec.json").write_text(json.dumps(RESOLVED))
    (out / "lte.safetensors").write_bytes(b"embeddings")
    result = {"architecture": "resnet20", "num_classes": 2, "warnings": []}
    emit("finished", command="inspect", result=result)


def distill(options: dict[str, str]) -> None:
    out = Path(options["out"])
    state = (Path(options["in"]) / "teacher.safetensors").read_bytes()
    gates = Path(json.loads(state)["gates"])
    step = 0
    if "resume" in options:
        state = (Path(options["resume"]) / "state.json").read_bytes()
        step = json.loads(state)[0]
    emit("phase", phase="distill")
    point(gates, "start")
    while step < STEPS:
        step, state = step + 1, next_state(state, step + 1)
        emit("metrics", epoch=1, step=step, values={"kl": 1 / step})
        time.sleep(STEP_SECONDS)
        point(gates, "step" if step == STEPS // 2 else f"step-{step}")
        if step % CHECKPOINT_EVERY == 0 or asked_to_stop:
            save(out, state, step)
            point(gates, "saved" if step == STEPS // 2 else f"saved-{step}")
        if asked_to_stop:
            emit("stopped", reason="asked to")
            sys.exit(3)
    point(gates, "finalise")
    (out / "student.safetensors").write_bytes(state)
    (out / "model_card.json").write_text("{}")
    emit("finished", command="distill", result={"metrics": {}})


def save(out: Path, state: bytes, step: int) -> None:
    path = out / "checkpoint" / "state.json"
    part = path.with_suffix(".part")
    part.write_bytes(state)
    part.replace(path)
    emit("checkpoint", epoch=1, step=step, files={"state.json": hashlib.sha256(state).hexdigest()})


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, _: asked_to_stop.append(number))
    command, rest = sys.argv[1], sys.argv[2:]
    options = {name.removeprefix("--"): value for name, value in zip(rest[::2], rest[1::2], strict=True)}
    {"inspect": inspect, "distill": distill}[command](options)


if __name__ == "__main__":
    main()
