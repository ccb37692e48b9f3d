"""Files and rows of ended jobs are kept for the time that the operator sets, and no longer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from jobs.errors import ArtifactExpired, JobNotFound
from jobs.files.store import Storage
from jobs.kinds import DISTILL
from jobs.settings import DAY
from jobs.states import JobStatus
from jobs.values.claims import Claim, StageResult
from jobs.values.files import StoredFile
from jobs.values.jobs import Job
from tests.support.jobs import a_checkpoint, claimed, running, submitted
from tests.support.services import Services

pytestmark = pytest.mark.usefixtures("empty")

HOUR = 3600
With = Callable[..., Services]


@pytest.fixture
def keeping(service: Services) -> With:
    """The service with other retention times."""

    def keeping_for(**seconds: float | None) -> Services:
        return service.with_settings(**{f"keep_{kind}_seconds": value for kind, value in seconds.items()})

    return keeping_for


def put(storage: Storage, key: str) -> StoredFile:
    return storage.put_stream([key.encode()], key)


def keys(storage: Storage) -> list[str]:
    return sorted(entry.key.partition("/")[0] for entry in storage.list())


def a_run(service: Services, storage: Storage) -> Claim:
    """A job that runs, with a file of every kind in the store."""
    job = submitted(service, uploads={"teacher": put(storage, "uploads/teacher")})
    inputs = {"teacher.safetensors": put(storage, "inputs/teacher")}
    service.workers.end_stage(claimed(service, "inspect", job), StageResult(inputs=inputs))
    claim = claimed(service, "distill", job)
    service.workers.add_checkpoint(claim, a_checkpoint(state=put(storage, "checkpoints/state")))
    return claim


def a_finished_job(service: Services, storage: Storage) -> Job:
    student = DISTILL.artifact("student.safetensors", put(storage, "artifacts/student"))
    return service.workers.end_stage(a_run(service, storage), StageResult(artifacts=[student]))


def let_pass(url: str, seconds: float) -> None:
    """Move ends of jobs, creations of embeddings and uses of banks `seconds` into the past."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE job DISABLE TRIGGER job_step")  # it guards finished_at
        connection.execute("UPDATE job SET finished_at = finished_at - make_interval(secs => %s)", [seconds])
        connection.execute(
            "UPDATE embedding SET created_at = created_at - make_interval(secs => %s)", [seconds]
        )
        connection.execute("UPDATE bank SET used_at = used_at - make_interval(secs => %s)", [seconds])
        connection.execute("ALTER TABLE job ENABLE TRIGGER job_step")


def sweep(service: Services, storage: Storage) -> None:
    report = service.upkeep.sweep(storage, grace_seconds=-1)
    assert report.missing_keys == []


def test_by_default_only_artifacts_outlive_their_job(
    service: Services, storage: Storage, database_url: str
) -> None:
    job = a_finished_job(service, storage)
    sweep(service, storage)
    assert keys(storage) == ["artifacts"]
    let_pass(database_url, 1000 * DAY)
    sweep(service, storage)
    assert keys(storage) == ["artifacts"]
    assert service.clients.artifact(job.id, "student.safetensors").kept


def test_the_files_of_a_running_job_are_kept(storage: Storage, keeping: With, service: Services) -> None:
    claim = a_run(service, storage)
    sweep(keeping(artifacts=1e-6, jobs=1e-6), storage)
    assert keys(storage) == ["checkpoints", "inputs"]
    assert service.clients.get(claim.job.id).status is JobStatus.RUNNING


@pytest.mark.parametrize(
    ("kind", "folder"), [("inputs", "inputs"), ("checkpoints", "checkpoints"), ("artifacts", "artifacts")]
)
def test_each_kind_has_a_time_of_its_own(
    service: Services, storage: Storage, keeping: With, database_url: str, kind: str, folder: str
) -> None:
    a_finished_job(service, storage)
    limited_service = keeping(**{"artifacts": None, kind: HOUR})
    sweep(limited_service, storage)
    assert keys(storage) == sorted({"artifacts", folder})
    let_pass(database_url, HOUR + 1)
    sweep(limited_service, storage)
    assert folder not in keys(storage)


def test_refused_uploads_can_be_kept_for_a_time(
    service: Services, storage: Storage, keeping: With, database_url: str
) -> None:
    job = submitted(service, uploads={"teacher": put(storage, "uploads/odd")})
    service.workers.fail(claimed(service, "inspect", job), "unsafe_checkpoint", "m", "h")
    limited_service = keeping(uploads=HOUR)
    sweep(limited_service, storage)
    assert keys(storage) == ["uploads"]
    let_pass(database_url, HOUR + 1)
    sweep(limited_service, storage)
    assert keys(storage) == []
    assert service.clients.get(job.id).uploads["teacher"].sha256 == job.uploads["teacher"].sha256


def test_an_artifact_expires_at_its_time_even_without_upkeep(
    service: Services, storage: Storage, keeping: With, database_url: str
) -> None:
    job = a_finished_job(service, storage)
    limited_service = keeping(artifacts=HOUR)
    assert limited_service.clients.artifact(job.id, "student.safetensors").kept
    let_pass(database_url, HOUR + 1)
    with pytest.raises(ArtifactExpired, match="no longer kept"):
        limited_service.clients.artifact(job.id, "student.safetensors")
    assert service.clients.artifact(job.id, "student.safetensors").kept, "a longer time helps until then"

    before = service.clients.get(job.id)
    assert limited_service.upkeep.retain() == 3, "inputs, checkpoints and artifacts, of one job each"
    with pytest.raises(ArtifactExpired):
        service.clients.artifact(job.id, "student.safetensors")
    after = service.clients.get(job.id)
    assert after.version > before.version
    assert [(a.name, a.sha256, a.kept) for a in after.artifacts] == [
        (a.name, a.sha256, False) for a in before.artifacts
    ]


def test_a_file_stays_as_long_as_another_job_names_it(
    service: Services, storage: Storage, keeping: With, database_url: str
) -> None:
    artifact = DISTILL.artifact("student.safetensors", put(storage, "artifacts/shared"))
    old = service.workers.end_stage(running(service), StageResult(artifacts=[artifact]))
    let_pass(database_url, HOUR + 1)
    young = service.workers.end_stage(running(service), StageResult(artifacts=[artifact]))
    limited_service = keeping(artifacts=HOUR)
    limited_service.upkeep.sweep(storage, grace_seconds=-1)
    assert keys(storage) == ["artifacts"]
    assert limited_service.clients.artifact(young.id, artifact.name).key == artifact.key
    with pytest.raises(ArtifactExpired):
        limited_service.clients.artifact(old.id, artifact.name)
    let_pass(database_url, HOUR + 1)
    limited_service.upkeep.sweep(storage, grace_seconds=-1)
    assert keys(storage) == []


def test_old_jobs_are_deleted_with_their_rows_and_files(
    service: Services, storage: Storage, keeping: With, database_url: str
) -> None:
    old = a_finished_job(service, storage)
    let_pass(database_url, DAY + 1)
    claim = running(service)
    limited_service = keeping(jobs=DAY)
    limited_service.upkeep.sweep(storage, grace_seconds=-1)
    with pytest.raises(JobNotFound):
        service.clients.get(old.id)
    assert service.clients.get(claim.job.id).status is JobStatus.RUNNING
    assert keys(storage) == []


def test_embeddings_expire(service: Services, storage: Storage, keeping: With, database_url: str) -> None:
    service.workers.save_embedding("k", put(storage, "embeddings/k"))
    sweep(service, storage)
    assert service.workers.find_embedding("k") is not None
    let_pass(database_url, 31 * DAY)
    sweep(service, storage)
    assert (service.workers.find_embedding("k"), keys(storage)) == (None, [])


def test_many_upkeeps_share_the_work_in_batches(
    service: Services, keeping: With, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.service.for_upkeep.BATCH", 3)
    jobs = [service.clients.cancel(submitted(service).id) for _ in range(20)]
    with ThreadPoolExecutor(4) as pool:
        counts: list[int] = list(pool.map(lambda _: keeping().upkeep.retain(), range(4)))
    assert sum(counts) == len(jobs)
    assert service.upkeep.retain() == 0


def test_banks_expire_after_their_last_use(service: Services, storage: Storage, database_url: str) -> None:
    claim = a_run(service, storage)
    service.workers.save_bank(claim, "k", put(storage, "banks/k"))
    let_pass(database_url, 5 * DAY)
    assert service.workers.use_bank("k") is not None
    let_pass(database_url, 5 * DAY)
    sweep(service, storage)
    assert service.workers.use_bank("k") is not None
    let_pass(database_url, 8 * DAY)
    sweep(service, storage)
    assert service.workers.use_bank("k") is None
    assert "banks" not in keys(storage)
