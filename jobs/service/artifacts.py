"""Finds the artifact of a job for a download."""

from datetime import datetime

from jobs.errors import ArtifactExpired, ArtifactNotFound, ArtifactNotReady
from jobs.values.files import Artifact
from jobs.values.jobs import Job


def find(job: Job, name: str, now: datetime, keep_seconds: float | None) -> Artifact:
    """Find an artifact by its name.

    Args:
        now: the database's time.
        keep_seconds: the setting `keep_artifacts_seconds`; it applies even before upkeep acts on it.

    Raises:
        ArtifactNotReady: the job has not ended, and may still produce it.
        ArtifactExpired: the job ended longer ago than artifacts are kept.
        ArtifactNotFound: the job has ended without it.
    """
    match = next((artifact for artifact in job.artifacts if artifact.name == name), None)
    expires_at = job.artifacts_expire_at(keep_seconds)
    if match is not None:
        if match.kept and (expires_at is None or now < expires_at):
            return match
        end = f"Job {job.id} ended at {job.finished_at:%Y-%m-%d %H:%M} UTC"
        raise ArtifactExpired(f"{end}; its {name} is no longer kept.", "Submit the job again.")
    if job.is_terminal:
        names = ", ".join(artifact.name for artifact in job.artifacts) or "none"
        raise ArtifactNotFound(
            f"Job {job.id} is {job.status} without an artifact {name[:64]!r}.", f"It has: {names}."
        )
    raise ArtifactNotReady(
        f"Job {job.id} is {job.status} and has no artifact {name[:64]!r} yet.", "Wait until it has succeeded."
    )
