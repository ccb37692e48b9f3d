"""Checkpoints of a run: fenced, written once, three of them kept, and dropped after the job's end."""

from pathlib import Path

import pytest

from jobs.errors import LeaseLost
from jobs.files.store import Storage
from jobs.values.claims import StageResult
from jobs.values.files import Checkpoint, StoredFile
from tests.support.jobs import a_checkpoint, a_file, claimed, running
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")


def put_checkpoint_file(storage: Storage, name: str) -> StoredFile:
    return storage.put_stream([name.encode()], f"checkpoints/{name}")


def keys(storage: Storage) -> set[str]:
    return {entry.key.removeprefix("checkpoints/") for entry in storage.list("checkpoints")}


def checkpoint_events(service: Services, job_id: str) -> list[dict[str, object]]:
    return [event.data for event in service.clients.events(job_id) if event.type == "checkpoint"]


def test_the_next_claim_finds_the_newest_first(service: Services) -> None:
    claim = running(service)
    assert service.workers.checkpoints(claim) == []
    first, second = a_checkpoint(step=100), a_checkpoint(step=200, epoch=2)
    for checkpoint in (first, second):
        service.workers.add_checkpoint(claim, checkpoint)
    job = service.workers.release(claim, counts_attempt=False, reason="drained")

    again = claimed(service, "distill", job)
    checkpoints = service.workers.checkpoints(again)
    assert [(c.fence, c.epoch, c.step) for c in checkpoints] == [(claim.fence, 2, 200), (claim.fence, 1, 100)]
    assert [c.files for c in checkpoints] == [second.files, first.files]
    service.workers.add_checkpoint(again, a_checkpoint(step=150))  # it went on from the older one
    assert [(c.fence, c.step) for c in service.workers.checkpoints(again)] == [
        (again.fence, 150),
        (claim.fence, 200),
        (claim.fence, 100),
    ]


def test_a_repeated_checkpoint_is_reported_once(service: Services) -> None:
    claim = running(service)
    checkpoint = a_checkpoint(step=100)
    for _ in range(2):
        service.workers.add_checkpoint(claim, checkpoint)
    assert [c.files for c in service.workers.checkpoints(claim)] == [checkpoint.files]
    for _ in range(2):
        service.workers.log_resume(claim, checkpoint)
    assert checkpoint_events(service, claim.job.id) == [
        {"epoch": 1, "step": 100},
        {"epoch": 1, "step": 100, "resumed": True},
    ]


@pytest.mark.parametrize("step", [200, 150, 100, 0])
def test_a_run_that_went_back_drops_its_later_checkpoints(service: Services, step: int) -> None:
    before = running(service)
    service.workers.add_checkpoint(before, a_checkpoint(step=900))
    job = service.workers.release(before, counts_attempt=False, reason="drained")
    claim = claimed(service, "distill", job)
    for ahead in (100, 200, 300):
        service.workers.add_checkpoint(claim, a_checkpoint(step=ahead))
    checkpoint = a_checkpoint(step=step)
    for _ in range(2):
        service.workers.add_checkpoint(claim, checkpoint)
    newest, *older = service.workers.checkpoints(claim)
    assert (newest.step, newest.files) == (step, checkpoint.files)
    assert [c.step for c in older if c.fence == claim.fence] == [s for s in (200, 100) if s < step][:2]
    assert len(checkpoint_events(service, job.id)) == 5


def test_a_worker_that_lost_the_job_changes_no_checkpoint(service: Services) -> None:
    lost_claim = running(service)
    service.workers.add_checkpoint(lost_claim, a_checkpoint(step=100))
    job = service.workers.release(lost_claim, counts_attempt=True, reason="it crashed")
    holder = claimed(service, "distill", job)
    before = service.workers.checkpoints(holder)
    for write in (
        lambda: service.workers.add_checkpoint(lost_claim, a_checkpoint(step=900)),
        lambda: service.workers.log_resume(lost_claim, before[0]),
        lambda: service.workers.checkpoints(lost_claim),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert service.workers.checkpoints(holder) == before
    assert len(checkpoint_events(service, job.id)) == 1


def test_three_checkpoints_are_kept_and_share_their_files(service: Services, storage: Storage) -> None:
    claim = running(service)
    banks = [put_checkpoint_file(storage, f"bank-{n}") for n in range(5)]
    for n in range(5):
        # The bank forgets its oldest segment at every step.
        files = {f"bank-{m}": banks[m] for m in range(n, 5)}
        service.workers.add_checkpoint(
            claim, Checkpoint(0, 1, n, {**files, f"state-{n}": put_checkpoint_file(storage, f"state-{n}")})
        )

    report = service.upkeep.sweep(storage, grace_seconds=-1)
    assert {key.removeprefix("checkpoints/") for key in report.removed_keys} == {
        *(f"state-{n}" for n in range(2)),
        *(f"bank-{n}" for n in range(2)),
    }
    assert [key for key in report.missing_keys if key.startswith("checkpoints/")] == []
    checkpoints = service.workers.checkpoints(claim)
    assert [checkpoint.step for checkpoint in checkpoints] == [4, 3, 2]
    for checkpoint in checkpoints:
        assert all(storage.exists(file.key) for file in checkpoint.files.values())


def test_a_file_that_is_stored_again_replaces_a_damaged_one(service: Services) -> None:
    claim = running(service)
    damaged_file, whole_file = (
        StoredFile(f"checkpoints/{name}", "a" * 64, 7) for name in ("damaged", "whole")
    )
    service.workers.add_checkpoint(claim, a_checkpoint(step=1, bank=damaged_file))
    service.workers.add_checkpoint(claim, a_checkpoint(step=2, bank=whole_file))
    assert {c.files["bank"].key for c in service.workers.checkpoints(claim)} == {"checkpoints/whole"}


@pytest.mark.parametrize("end", ["succeed", "fail", "cancelled"])
def test_the_end_of_a_job_drops_its_checkpoints(service: Services, storage: Storage, end: str) -> None:
    claim = running(service)
    service.workers.add_checkpoint(claim, a_checkpoint(state=put_checkpoint_file(storage, "state")))
    service.upkeep.sweep(storage, grace_seconds=-1)
    assert keys(storage) == {"state"}
    if end == "succeed":
        service.workers.end_stage(claim, StageResult())
    elif end == "fail":
        service.workers.fail(claim, "c", "m", "h")
    else:
        service.workers.cancel(claim)
    service.upkeep.sweep(storage, grace_seconds=-1)
    assert keys(storage) == set()


def test_a_missing_body_is_reported(service: Services, storage: Storage, tmp_path: Path) -> None:
    service.workers.add_checkpoint(running(service), a_checkpoint(state=a_file("checkpoints/lost")))
    assert "checkpoints/lost" in service.upkeep.sweep(storage).missing_keys
