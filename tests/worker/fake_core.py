"""A core program that misbehaves on request, for faults that the real one cannot show.

The uploaded "teacher" is a JSON object that says what each command does: {"inspect": "killed",
"distill": "hang", "marker": "/path"}. With a marker the command misbehaves only the first time. A command
that makes steps leaves the file "sigterm_marker" when it is asked to stop.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
UNKNOWN = {"value": None, "low": None, "high": None, "basis": "unknown: nothing was measured"}


def emit(event: str, **values: Any) -> None:
    say(json.dumps({"event": event, "time": datetime.now(UTC).isoformat(), **values}))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def step(number: int) -> None:
    emit("metrics", epoch=1, step=number, values={"kl": 1.0 / number})


def finish(command: str, result: dict[str, Any]) -> None:
    emit("finished", command=command, result=result)


def save_state(out: Path, number: int) -> None:
    files = {f"state-{number}.json": b"step %d" % number, "bank-0.safetensors": b"never changes"}
    for name, body in files.items():
        (out / "checkpoint" / name).write_bytes(body)
    hashes = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    emit("checkpoint", epoch=1, step=number, files=hashes)


def misbehave(behaviour: str, out: Path, sigterm_marker: str | None) -> None:
    """Carry out a behaviour; return where the command continues after it."""
    if behaviour == "exit_1":
        sys.exit("a bug, with a traceback")
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "refuse":
        emit("failed", code="diverged", message="The loss is not a number.", hint="Lower the rate.")
        sys.exit(2)
    if behaviour == "disk_failed":
        emit("failed", code="disk_failed", message="The disk is full.", hint="Make room.", retryable=True)
        sys.exit(2)
    if behaviour == "diverge":
        (out / "partial_student.safetensors").write_bytes(b"half a student")
        (out / "metrics.jsonl").write_text('{"epoch": 1, "step": 1, "kl": 1.0}\n')
        emit("warning", code="rolled_back", message="Back to step 0, and on with smaller steps.")
        emit("failed", code="diverged", message="The loss is not a number.", hint="Lower the rate.")
        sys.exit(2)
    if behaviour == "silent_exit_0":
        sys.exit(0)
    if behaviour == "silent_exit_2":
        sys.exit(2)
    if behaviour == "unasked_exit_3":
        emit("stopped", reason="nobody asked")
        sys.exit(3)
    if behaviour == "save_and_crash":
        save_state(out, 7)
        sys.exit("a bug, later")
    if behaviour == "save_often":
        for number in range(1, 7):
            save_state(out, number)
            time.sleep(0.4)
    if behaviour == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if behaviour in ("steps", "stubborn"):
        make_steps(out, sigterm_marker, stubborn=behaviour == "stubborn")
    if behaviour == "garbage":
        say("Downloading: 100%\n{\n\0\0\n" + "x" * 3_000_000)
    if behaviour == "flood":
        for number in range(1, 3_001):
            step(number)
    if behaviour == "few_steps":
        for number in range(1, 31):
            step(number)
            time.sleep(0.1)


def make_steps(out: Path, sigterm_marker: str | None, *, stubborn: bool) -> None:
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    for number in range(1, 10**6):
        step(number)
        time.sleep(0.02)
        if signals and sigterm_marker is not None:
            Path(sigterm_marker).touch()
        if signals and not stubborn:
            save_state(out, number)
            emit("stopped", reason="asked to")
            sys.exit(3)


def inspect(options: dict[str, str]) -> None:
    out = Path(options["out"])
    shutil.copy(options["teacher"], out / "teacher.safetensors")
    behaviours = json.loads((out / "teacher.safetensors").read_text())
    (out / "spec.json").write_text(json.dumps(RESOLVED | {"reuse_bank": "bank" in behaviours}))
    if behaviours.get("inspect") != "no_embeddings":
        (out / "lte.safetensors").write_bytes(b"embeddings")
    limits = {"memory_bytes": options["memory-bytes"]}
    finish("inspect", {"architecture": "resnet20", "num_classes": 2, "warnings": [], "limits": limits})


def embed(options: dict[str, str]) -> None:
    emit("phase", phase="embed")
    emit("warning", code="text_encoder_fallback", message="MiniLM it is.")
    (Path(options["out"]) / "lte.safetensors").write_bytes(os.urandom(8))
    finish("embed", {"text_encoder": "sbert", "weights": "none", "dim": 4, "fallback_from": None})


def distill(options: dict[str, str]) -> None:
    out = Path(options["out"])
    states = sorted(Path(options["resume"]).glob("state-*")) if "resume" in options else []
    before = b"".join(b" from " + state.read_bytes() for state in states)
    (out / "student.safetensors").write_bytes(b"a student" + before)
    card = {"environment": dict(os.environ), "path": sys.path, "folder": str(Path.cwd()), "options": options}
    (out / "model_card.json").write_text(json.dumps(card))
    if "bank" in options:
        body = Path(options["bank"]).read_bytes()
        emit("bank", images=4, made_by=body.decode(), seed=0, sha256=hashlib.sha256(body).hexdigest())
    elif json.loads((Path(options["in"]) / "spec.json").read_text())["reuse_bank"]:
        (out / "bank.safetensors").write_text(options["name"])
    step(1)
    metrics = {
        "student_accuracy": {"value": 0.5, "measured_on": "nothing"},
        "student_accuracy_bounds": {"lower": 0.4, "upper": 0.6, "measured_on": "nothing"},
    }
    finish("distill", {"metrics": metrics, "quality": {"estimated_agreement": UNKNOWN}})


def main() -> None:
    command, rest = sys.argv[1], sys.argv[2:]
    options = {name.removeprefix("--"): value for name, value in zip(rest[::2], rest[1::2], strict=True)}
    if command == "embed":
        return embed(options)
    teacher = options.get("teacher") or str(Path(options["in"]) / "teacher.safetensors")
    behaviours = json.loads(Path(teacher).read_text())
    marker = behaviours.get("marker")
    if marker is None or not Path(f"{marker}.{command}").exists():
        if marker is not None:
            Path(f"{marker}.{command}").touch()
        emit("phase", phase=command)
        misbehave(behaviours.get(command, "well"), Path(options["out"]), behaviours.get("sigterm_marker"))
    if "resume" in options and behaviours.get("resume") == "refuse":
        emit("failed", code="checkpoint_invalid", message="It is of another kind.", hint="Start again.")
        sys.exit(2)
    return {"inspect": inspect, "distill": distill}[command](options)


if __name__ == "__main__":
    main()
