"""The service over HTTP: jobs, their events, and their artifacts."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel, ConfigDict

from nayer.downloads import Download
from nayer.errors import ApiError, DownloadCorruptError, ServiceUnreachableError, raise_for_problem
from nayer.event_stream import read_data
from nayer.uploads import OnBytes, open_parts

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # the service sends a beat on a live stream more often than this
BUSY_TRIES = 4  # for 429 and 503, at the pace that Retry-After asks for
LONGEST_PAUSE_SECONDS = 10.0


class RemoteJob(BaseModel):
    """A job as the service reports it; other fields of the answer are attributes too, and are dumped again.

    `docs/http-api.md` describes all fields.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str
    status: str
    is_terminal: bool
    phase: str | None = None
    progress: dict[str, Any] = {}
    quality: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    teacher: dict[str, Any] = {}
    created_at: datetime
    finished_at: datetime | None = None

    @property
    def succeeded(self) -> bool:
        """Whether there is a student; of a job of kind `validate`, a report."""
        return self.status == "succeeded"


class RemoteEvent(BaseModel):
    """One entry of a job's log; `seq` counts from 1.

    `type` is status, phase, progress, metrics, warning, bank, checkpoint, artifact or error, and decides
    which fields `data` has.
    """

    model_config = ConfigDict(frozen=True)

    seq: int
    type: str
    data: dict[str, Any]
    created_at: datetime


class Client:
    """A connection to one service; a context manager that closes it.

    A request that the service answers with 429 or 503 is repeated up to three times. Every method raises
    `ApiError` where the service refuses, and `ServiceUnreachableError` where nothing answers.

    Args:
        url: address of the service, e.g. `http://127.0.0.1:8000`.
        api_key: sent as a bearer token, where the service requires one.
    """

    def __init__(self, url: str = DEFAULT_URL, api_key: str | None = None):
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client cannot be used afterwards."""
        self._http.close()

    def submit(
        self,
        teacher: Path,
        spec: Mapping[str, Any],
        *,
        evaluation: Path | None = None,
        embeddings: Path | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        on_bytes: OnBytes | None = None,
    ) -> RemoteJob:
        """Submit a job; the files are streamed, never loaded into memory.

        Args:
            teacher: a state dict (.pt, .pth, .th) or safetensors file.
            spec: the document of `POST /jobs`.
            evaluation: .npz with `images` uint8 (N, H, W, C) and `labels` int64 (N,).
            embeddings: safetensors with one vector for each class, for the text encoder `file`.
            idempotency_key: a second request with the same key and content returns the job of the first.
                Default: a random one.
            dry_run: submit a job of kind `validate`, which ends after inspection with a report.
            on_bytes: called with (bytes sent, bytes in all) during the upload.

        Raises:
            ApiError: the request was refused.
            ServiceUnreachableError: nothing answers.
        """
        files = {"teacher": teacher, "evaluation": evaluation, "embeddings": embeddings}
        paths = {name: path for name, path in files.items() if path is not None}
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}

        def post() -> httpx.Response:
            with open_parts(paths, on_bytes) as parts:
                document = ("spec", (None, json.dumps(spec), "application/json"))
                target = "/jobs/validate" if dry_run else "/jobs"
                return self._http.post(target, files=[document, *parts], headers=headers)

        return RemoteJob.model_validate(self._answer(post).json())

    def job(self, job_id: str) -> RemoteJob:
        """Return the present state of a job."""
        return RemoteJob.model_validate(self._get(f"/jobs/{job_id}"))

    def jobs(self, status: str | None = None, limit: int = 20, after: str | None = None) -> list[RemoteJob]:
        """Return one page of jobs, newest first.

        Args:
            status: only jobs of this status.
            limit: at most so many, 1 to 100.
            after: id of the last job of the page before.
        """
        filters = {"status": status, "limit": limit, "after": after}
        params = {name: value for name, value in filters.items() if value is not None}
        return [RemoteJob.model_validate(body) for body in self._get("/jobs", params)["data"]]

    def cancel(self, job_id: str) -> RemoteJob:
        """Request that the job ends; a finished job does not change."""
        return self._post(f"/jobs/{job_id}/cancel")

    def pause(self, job_id: str) -> RemoteJob:
        """Request that the job is paused: a queued job at once, a running one once its state is saved."""
        return self._post(f"/jobs/{job_id}/pause")

    def resume(self, job_id: str) -> RemoteJob:
        """Queue a paused job again; it continues from its last state."""
        return self._post(f"/jobs/{job_id}/resume")

    def stream(self, job_id: str, after: int = 0) -> Iterator[RemoteEvent]:
        """Yield the events of a job behind number `after`, live, until the service closes the stream.

        `nayer.follow` resumes broken streams.

        Raises:
            ApiError: there is no such job, or the service is busy.
            ServiceUnreachableError: the connection could not be made, or broke.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            with self._http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as response:
                raise_for_problem(response)
                for event in read_data(response.iter_lines()):
                    yield RemoteEvent.model_validate(event)
        except httpx.TransportError as error:
            raise ServiceUnreachableError(self.url, _reason(error)) from error

    def log(self, job_id: str, after: int = 0) -> list[RemoteEvent]:
        """Return the next page of the events behind number `after` that exist now."""
        page = self._get(f"/jobs/{job_id}/events", {"after": after})["data"]
        return [RemoteEvent.model_validate(entry) for entry in page]

    def metrics(self, job_id: str) -> dict[str, list[dict[str, Any]]]:
        """Return the measured series of a job by name: points of `step`, `epoch` and `value`, in order."""
        series: dict[str, list[dict[str, Any]]] = self._get(f"/jobs/{job_id}/metrics")["series"]
        return series

    def architectures(self, query: str = "") -> list[dict[str, str]]:
        """Return the networks that a teacher or a student may be: `name`, `family` and `notes` of each.

        Args:
            query: words that must each occur in one of the three; empty selects all networks.
        """
        entries: list[dict[str, str]] = self._get("/architectures", {"q": query} if query else None)["data"]
        return entries

    def presets(self) -> list[dict[str, Any]]:
        """Return the named configurations: `name`, `summary` and `config` of each."""
        entries: list[dict[str, Any]] = self._get("/presets")["data"]
        return entries

    def version(self) -> dict[str, Any]:
        """Return the version of the service, and the revision that it was built from."""
        body: dict[str, Any] = self._get("/version")
        return body

    def download(self, job_id: str, name: str, path: Path, on_bytes: OnBytes | None = None) -> str:
        """Download an artifact to `path`, complete and verified or not at all; returns its SHA-256.

        Args:
            job_id: the job.
            name: of the artifact, e.g. `student.safetensors`.
            path: the file to write; an existing one is replaced at the end.
            on_bytes: called with (bytes received, bytes in all).

        Raises:
            ApiError: `artifact_not_found`: there is no such artifact, or not yet.
            DownloadCorruptError: the hash is not the one that the service announced.
            ServiceUnreachableError: the connection broke again and again.
        """
        artifacts = {entry["name"]: entry for entry in self._get(f"/jobs/{job_id}/artifacts")["data"]}
        if name not in artifacts:
            names = ", ".join(sorted(artifacts)) or "none yet"
            raise ApiError(404, "artifact_not_found", f"The job has no {name}; there is: {names}.")
        expected, size = str(artifacts[name]["sha256"]), int(artifacts[name]["bytes"])
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with part.open("wb") as out:
                source = f"/jobs/{job_id}/artifacts/{name}"
                digest = Download(self._http, source, size, on_bytes).write_to(out)
                out.flush()
                os.fsync(out.fileno())
            if digest != expected:
                raise DownloadCorruptError(
                    "download_corrupt",
                    f"{name} has sha256 {digest}, the service announced {expected}.",
                    "Download it again; if the hash differs again, the stored file is damaged.",
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return expected

    def _post(self, path: str) -> RemoteJob:
        return RemoteJob.model_validate(self._answer(lambda: self._http.post(path)).json())

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._answer(lambda: self._http.get(path, params=params)).json()

    def _answer(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        for attempt in range(1, BUSY_TRIES + 1):
            try:
                response = send()
            except httpx.TransportError as error:
                raise ServiceUnreachableError(self.url, _reason(error)) from error
            if response.status_code not in (429, 503) or attempt == BUSY_TRIES:
                break
            time.sleep(_pause_seconds(response, attempt))
        raise_for_problem(response)
        return response


def _pause_seconds(response: httpx.Response, attempt: int) -> float:
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        seconds = 0.5 * 2**attempt
    return min(seconds, LONGEST_PAUSE_SECONDS)


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
