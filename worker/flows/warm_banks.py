"""Warm banks: taken from an earlier job on the same teacher, and saved for later ones.

Both happen only if the job requests it (`reuse_bank`). Neither can fail a job: if a bank is missing or
damaged, the run does its own warm-up.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import FileCorrupt, FileMissing
from jobs.values.files import StoredFile
from nayer_core.contract.banks import bank_key
from nayer_core.contract.events import WarningEvent
from worker.claims.held_job import HeldJob
from worker.claims.workbench import Workbench

logger = logging.getLogger(__name__)

BANK = "bank.safetensors"


class WarmBank:
    """The bank that a job may take, or save.

    Args:
        job: the job whose run begins with the bank, or produces one.
        bench: the folder and the tools of the job.
        inputs: folder of its canonical files.
        files: the same files in the store.
    """

    def __init__(self, job: HeldJob, bench: Workbench, inputs: Path, files: Mapping[str, StoredFile]):
        self._job = job
        self._bench = bench
        self._folder = inputs
        spec = json.loads((inputs / "spec.json").read_bytes())
        self._key = None
        if spec.get("reuse_bank"):
            self._key = bank_key(
                spec,
                teacher_sha256=files["teacher.safetensors"].sha256,
                embeddings_sha256=files["lte.safetensors"].sha256,
            )

    def arguments(self) -> list[str]:
        """Fetch the bank for a new run and return the core's arguments for it; [] without a bank."""
        if self._key is None:
            return []
        job, key = self._job, self._key
        bank = job.find_bank(key)
        if bank is None:
            return []
        try:
            path = self._bench.fetch(bank.file, self._folder / BANK)
        except (FileMissing, FileCorrupt) as error:
            logger.error("the bank of job %s cannot be used: %s", bank.job_id, error.message)
            job.drop_bank(key, bank)
            message = f"The bank of job {bank.job_id} is damaged. The run does its own warm-up."
            job.log_events([WarningEvent(code="bank_unusable", message=message)])
            return []
        job.set_bank(bank)
        return ["--bank", str(path)]

    def save(self, path: Path) -> None:
        """Save the bank that the core has written to `path`, if any, for later jobs."""
        if self._key is not None and path.is_file():
            self._job.save_bank(self._key, self._bench.store(path, "banks"))
