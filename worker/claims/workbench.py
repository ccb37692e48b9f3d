"""The folder and the tools for the work on a job: the object store, and the core's program."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from jobs.errors import FileCorrupt
from jobs.files.store import Storage
from jobs.settings import Settings
from jobs.values.files import StoredFile
from worker.claims.held_job import HeldJob

_READS_OF_ONE_FILE = 3


class Workbench:
    """The folder and the tools of one claim.

    Args:
        job: the job; its patience limits the wait during an outage of the store.
        folder: private; removed when the work ends.
        storage: the object store of the job's files.
        settings: limits, and what the operator allows.
        program: the command that precedes the core's arguments; its first word is an absolute path.
    """

    def __init__(
        self, job: HeldJob, folder: Path, storage: Storage, settings: Settings, program: Sequence[str]
    ):
        self.folder = folder
        self.storage = storage
        self.settings = settings
        self.program = program
        self._job = job

    def new_folder(self, name: str) -> Path:
        """Make an empty folder inside the private one."""
        path = self.folder / name
        path.mkdir()
        return path

    def fetch(self, file: StoredFile, path: Path) -> Path:
        """Copy a file of the store to `path`, and return that.

        Its hash is checked. A copy that does not match may have been damaged on the way, so it is fetched
        again.

        Raises:
            FileMissing: the store does not have it.
            FileCorrupt: no copy matched: the file is damaged in the store.
        """
        patience = self._job.patience()
        for reads_left in reversed(range(_READS_OF_ONE_FILE)):
            try:
                self._job.repeat(lambda: self.storage.get_to_file(file, path), patience)
                break
            except FileCorrupt as error:
                if reads_left == 0:
                    raise
                patience.wait(error.message)
        return path

    def store(self, path: Path, kind: Literal["inputs", "artifacts", "embeddings", "banks"]) -> StoredFile:
        """Put a file into the store."""
        return self._job.repeat(lambda: self.storage.publish(path, kind))

    def store_present(
        self, folder: Path, names: Iterable[str], kind: Literal["inputs", "artifacts"]
    ) -> dict[str, StoredFile]:
        """Put those of the named files into the store that exist in a folder."""
        return {name: self.store(folder / name, kind) for name in names if (folder / name).is_file()}
