"""What ended jobs leave behind is kept for as long as the operator says, and no longer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from jobs.errors import ArtifactExpired, JobNotFound
from jobs.files.store import Storage
from jobs.service import for_upkeep
from jobs.service.job_service import JobService
from jobs.settings import DAY, Settings
from jobs.states import JobStatus
from jobs.values import Artifact, Claim, Job, StoredFile
from tests.support.jobs import a_checkpoint, claimed, running, submitted

pytestmark = pytest.mark.usefixtures("empty")

HOUR = 3600
With = Callable[..., JobService]


@pytest.fixture
def keeping(settings: Settings, service: JobService) -> With:
    """The service with other times to keep things."""

    def changed(**seconds: float | None) -> JobService:
        times = {f"keep_{kind}_seconds": value for kind, value in seconds.items()}
        return JobService(service.database, service.doorbell, settings.model_copy(update=times))

    return changed


def put(storage: Storage, key: str) -> StoredFile:
    return storage.put_stream([key.encode()], key)


def keys(storage: Storage) -> list[str]:
    return sorted(entry.key.partition("/")[0] for entry in storage.list())


def a_run(service: JobService, storage: Storage) -> Claim:
    """A job that runs, with a file of every kind in the store."""
    job = submitted(service, teacher=put(storage, "uploads/teacher"))
    inputs = {"teacher.safetensors": put(storage, "inputs/teacher")}
    service.validated(claimed(service, "inspect", job), {}, {}, inputs)
    claim = claimed(service, "distill", job)
    service.checkpointed(claim, a_checkpoint(state=put(storage, "checkpoints/state")))
    return claim


def succeeded(service: JobService, storage: Storage) -> Job:
    student = Artifact.of("student.safetensors", put(storage, "artifacts/student"))
    return service.succeed(a_run(service, storage), [student], {})


def let_pass(url: str, seconds: float) -> None:
    """Let ended jobs have ended, embeddings been made and banks been used `seconds` earlier."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE job DISABLE TRIGGER job_step")  # it guards finished_at
        connection.execute("UPDATE job SET finished_at = finished_at - make_interval(secs => %s)", [seconds])
        connection.execute(
            "UPDATE embedding SET created_at = created_at - make_interval(secs => %s)", [seconds]
        )
        connection.execute("UPDATE bank SET used_at = used_at - make_interval(secs => %s)", [seconds])
        connection.execute("ALTER TABLE job ENABLE TRIGGER job_step")


def sweep(service: JobService, storage: Storage) -> None:
    report = for_upkeep.sweep(service, storage, grace_seconds=-1)
    assert report.missing == []


def test_by_default_only_what_can_be_downloaded_outlives_its_job(
    service: JobService, storage: Storage, database_url: str
) -> None:
    job = succeeded(service, storage)
    sweep(service, storage)
    assert keys(storage) == ["artifacts"]
    let_pass(database_url, 1000 * DAY)
    sweep(service, storage)
    assert keys(storage) == ["artifacts"]
    assert service.artifact(job.id, "student.safetensors").kept


def test_what_a_running_job_needs_is_never_let_go(
    storage: Storage, keeping: With, service: JobService
) -> None:
    claim = a_run(service, storage)
    sweep(keeping(artifacts=1e-6, jobs=1e-6), storage)
    assert keys(storage) == ["checkpoints", "inputs"]
    assert service.get(claim.job.id).status is JobStatus.RUNNING


@pytest.mark.parametrize(
    ("kind", "folder"), [("inputs", "inputs"), ("checkpoints", "checkpoints"), ("artifacts", "artifacts")]
)
def test_each_kind_has_a_time_of_its_own(
    service: JobService, storage: Storage, keeping: With, database_url: str, kind: str, folder: str
) -> None:
    succeeded(service, storage)
    kept = keeping(**{"artifacts": None, kind: HOUR})
    sweep(kept, storage)
    assert keys(storage) == sorted({"artifacts", folder})
    let_pass(database_url, HOUR + 1)
    sweep(kept, storage)
    assert folder not in keys(storage)


def test_what_a_client_sent_can_be_kept_when_it_was_refused(
    service: JobService, storage: Storage, keeping: With, database_url: str
) -> None:
    job = submitted(service, teacher=put(storage, "uploads/odd"))
    service.fail(claimed(service, "inspect", job), "unsafe_checkpoint", "m", "h")
    kept = keeping(uploads=HOUR)
    sweep(kept, storage)
    assert keys(storage) == ["uploads"]
    let_pass(database_url, HOUR + 1)
    sweep(kept, storage)
    assert keys(storage) == []
    assert service.get(job.id).teacher.sha256 == job.teacher.sha256


def test_an_artifact_expires_at_its_time_whether_upkeep_came_or_not(
    service: JobService, storage: Storage, keeping: With, database_url: str
) -> None:
    job = succeeded(service, storage)
    kept = keeping(artifacts=HOUR)
    assert kept.artifact(job.id, "student.safetensors").kept
    let_pass(database_url, HOUR + 1)
    with pytest.raises(ArtifactExpired, match="no longer kept"):
        kept.artifact(job.id, "student.safetensors")
    assert service.artifact(job.id, "student.safetensors").kept, "a longer time helps until then"

    before = service.get(job.id)
    assert for_upkeep.retain(kept) == 3, "inputs, checkpoints and artifacts, of one job each"
    with pytest.raises(ArtifactExpired):
        service.artifact(job.id, "student.safetensors")
    after = service.get(job.id)
    assert after.version > before.version
    assert [(a.name, a.sha256, a.kept) for a in after.artifacts] == [
        (a.name, a.sha256, False) for a in before.artifacts
    ]


def test_a_file_stays_as_long_as_another_job_names_it(
    service: JobService, storage: Storage, keeping: With, database_url: str
) -> None:
    shared = Artifact.of("student.safetensors", put(storage, "artifacts/shared"))
    old = service.succeed(running(service), [shared], {})
    let_pass(database_url, HOUR + 1)
    young = service.succeed(running(service), [shared], {})
    kept = keeping(artifacts=HOUR)
    for_upkeep.sweep(kept, storage, grace_seconds=-1)
    assert keys(storage) == ["artifacts"]
    assert kept.artifact(young.id, shared.name).key == shared.key
    with pytest.raises(ArtifactExpired):
        kept.artifact(old.id, shared.name)
    let_pass(database_url, HOUR + 1)
    for_upkeep.sweep(kept, storage, grace_seconds=-1)
    assert keys(storage) == []


def test_whole_jobs_go_with_all_that_hangs_from_them(
    service: JobService, storage: Storage, keeping: With, database_url: str
) -> None:
    old = succeeded(service, storage)
    let_pass(database_url, DAY + 1)
    claim = running(service)
    kept = keeping(jobs=DAY)
    for_upkeep.sweep(kept, storage, grace_seconds=-1)
    with pytest.raises(JobNotFound):
        service.get(old.id)
    assert service.get(claim.job.id).status is JobStatus.RUNNING
    assert keys(storage) == []


def test_embeddings_are_forgotten(
    service: JobService, storage: Storage, keeping: With, database_url: str
) -> None:
    service.save_embedding("k", put(storage, "embeddings/k"))
    sweep(service, storage)
    assert service.find_embedding("k") is not None
    let_pass(database_url, 31 * DAY)
    sweep(service, storage)
    assert (service.find_embedding("k"), keys(storage)) == (None, [])


def test_many_upkeeps_share_the_work_in_batches(
    service: JobService, keeping: With, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(for_upkeep, "BATCH", 3)
    jobs = [service.cancel(submitted(service).id) for _ in range(20)]
    with ThreadPoolExecutor(4) as pool:
        counts: list[int] = list(pool.map(lambda _: for_upkeep.retain(keeping()), range(4)))
    assert sum(counts) == len(jobs)
    assert for_upkeep.retain(service) == 0


def test_banks_are_forgotten_after_their_last_use(
    service: JobService, storage: Storage, database_url: str
) -> None:
    claim = a_run(service, storage)
    service.save_bank(claim, "k", put(storage, "banks/k"))
    let_pass(database_url, 5 * DAY)
    assert service.use_bank("k") is not None
    let_pass(database_url, 5 * DAY)
    sweep(service, storage)
    assert service.use_bank("k") is not None
    let_pass(database_url, 8 * DAY)
    sweep(service, storage)
    assert service.use_bank("k") is None
    assert "banks" not in keys(storage)
