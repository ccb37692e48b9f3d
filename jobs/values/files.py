"""Files in the store, and their roles in a job."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class StoredFile:
    """A complete file in the object store.

    Args:
        key: its place in the store.
        sha256: lower-case hexadecimal digest of its bytes.
        bytes: its length.
        filename: the client's name for it; a label for people, never part of a path.
    """

    key: str
    sha256: str
    bytes: int
    filename: str | None = None


@dataclass(frozen=True)
class Artifact:
    """A stored, downloadable file of a job.

    A worker leaves out `job_id`, `created_at` and `kept`; reading the row sets them. Once `kept` is
    False, the file is removed from the store: this happens some time after the end of the job.
    """

    name: str
    key: str
    sha256: str
    bytes: int
    media_type: str
    job_id: str = ""
    created_at: datetime | None = None
    kept: bool = True


@dataclass(frozen=True)
class Checkpoint:
    """A complete state of a run in the store.

    Args:
        fence: of the claim under which it was saved.
        step: generator and student updates together; `epoch` counts from 1, warm-up included.
        files: by the name the core program gave them.
    """

    fence: int
    epoch: int
    step: int
    files: Mapping[str, StoredFile]


@dataclass(frozen=True)
class Bank:
    """A stored warm-up.

    Args:
        file: its place in the store.
        job_id: the job that computed it.
    """

    file: StoredFile
    job_id: str
