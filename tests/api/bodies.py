"""Request bodies, valid and invalid, built byte by byte."""

import json
from collections.abc import Iterable
from typing import Any

BOUNDARY = "nayer-test-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
TEACHER = (
    b"\x80\x02not parsed by the API\r\n--nayer-test-boundar\r\n" * 40
)  # nearly a boundary, again and again


def spec(**changes: Any) -> dict[str, Any]:
    """A valid spec, with top-level fields changed."""
    document = {
        "labels": ["cat", "dog"],
        "teacher": {
            "input_size": [3, 32, 32],
            "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        },
        "student": {"architecture": "wrn_16_1"},
        "preset": "quick",
    }
    return document | changes


def part(name: str, content: bytes, filename: str | None = None, headers: str = "") -> bytes:
    """One part with its boundary before it."""
    label = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{label}\r\n{headers}\r\n'
    return head.encode() + content + b"\r\n"


def spec_part(document: Any = None) -> bytes:
    """The part `spec`."""
    return part("spec", json.dumps(spec() if document is None else document).encode())


def teacher_part(content: bytes = TEACHER, filename: str | None = "teacher.pt") -> bytes:
    """The part `teacher`."""
    return part("teacher", content, filename)


def body(*parts: bytes) -> bytes:
    """The parts and the closing boundary."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def single_bytes(content: bytes) -> Iterable[bytes]:
    """The content in chunks of one byte."""
    return (content[index : index + 1] for index in range(len(content)))


EVALUATION = part("evaluation", b"PK evaluation", "test.npz")
