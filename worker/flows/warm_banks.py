"""Warm-ups: taken from an earlier job on the same teacher, and kept for later ones.

Both only where the job asks for it (`reuse_bank`), and neither is worth a job: what is missing or
damaged costs the warm-up that it would have saved.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import FileCorrupt, FileMissing
from jobs.values import StoredFile
from nayer_core.contract.banks import bank_key
from nayer_core.contract.events import WarningEvent
from worker.claims.attempt import Attempt

logger = logging.getLogger(__name__)

BANK = "bank.safetensors"


class Banks:
    """What a job may take and leave.

    Args:
        attempt: the claimed job.
        inputs: folder of its canonical files.
        stored: these files as they lie in the store.
    """

    def __init__(self, attempt: Attempt, inputs: Path, stored: Mapping[str, StoredFile]):
        self._attempt = attempt
        self._folder = inputs
        resolved = json.loads((inputs / "spec.json").read_bytes())
        self._key = None
        if resolved.get("reuse_bank"):
            self._key = bank_key(
                resolved,
                teacher_sha256=stored["teacher.safetensors"].sha256,
                lte_sha256=stored["lte.safetensors"].sha256,
            )

    def take(self) -> list[str]:
        """Fetch the bank for a run that begins; returns the arguments of the core that say so."""
        if self._key is None:
            return []
        attempt, key = self._attempt, self._key
        bank = attempt.write(lambda: attempt.service.use_bank(key))
        if bank is None:
            return []
        try:
            path = attempt.fetch(bank.file, self._folder / BANK)
        except (FileMissing, FileCorrupt) as error:
            logger.error("the bank of job %s cannot be used: %s", bank.job_id, error.message)
            attempt.write(lambda: attempt.service.drop_bank(key, bank))
            message = f"The bank of job {bank.job_id} is damaged. The run warms up itself."
            attempt.tell([WarningEvent(code="bank_unusable", message=message)])
            return []
        attempt.write(lambda: attempt.service.bank_taken(attempt.claim, bank))
        return ["--bank", str(path)]

    def keep(self, path: Path) -> None:
        """Keep the warm-up that the core has left at `path`, if any."""
        if self._key is None or not path.is_file():
            return
        attempt, key = self._attempt, self._key
        stored = attempt.store(path, "banks")
        attempt.write(lambda: attempt.service.save_bank(attempt.claim, key, stored))
