"""The service over HTTP, from Python: what `nayer submit` and the examples use.

ClientError            carries a stable code, a message and a hint
  ApiError             the service answered with a problem document (RFC 9457)
  ServiceUnreachableError   nothing answered at this address
  DownloadCorruptError      the bytes do not hash to what the service announced
"""

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

from cli.download import Download
from cli.errors import ApiError, DownloadCorruptError, ServiceUnreachableError, raise_for_problem
from cli.sse import read_data
from cli.upload import OnBytes, open_parts

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # the service beats every live stream more often than this
BUSY_TRIES = 4  # for 429 and 503, at the pace that Retry-After asks for
LONGEST_PAUSE_SECONDS = 10.0


class RemoteJob(BaseModel):
    """A job as the service tells it; fields beyond these are kept and dumped again."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str
    status: str
    is_terminal: bool
    phase: str | None = None
    progress: dict[str, Any] = {}
    error: dict[str, Any] | None = None
    teacher: dict[str, Any] = {}
    created_at: datetime
    finished_at: datetime | None = None

    @property
    def succeeded(self) -> bool:
        """Whether there is a student (or, of a dry run, a report)."""
        return self.status == "succeeded"


class JobEvent(BaseModel):
    """One entry of a job's log; `seq` counts from 1.

    `type` is status, phase, progress, metrics, warning, bank, checkpoint, artifact or error, and says
    what `data` holds.
    """

    model_config = ConfigDict(frozen=True)

    seq: int
    type: str
    data: dict[str, Any]
    created_at: datetime


class Client:
    """One service, at one address.

    Args:
        url: where the service answers, e.g. `http://127.0.0.1:8000`.
        api_key: sent as a bearer token where the service asks for one.
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
        """Ask for a student; the files are streamed, never held in memory.

        Args:
            teacher: a state dict (.pt, .pth, .th) or safetensors file.
            spec: the document of `POST /jobs`.
            evaluation: .npz with `images` uint8 (N, H, W, C) and `labels` int64 (N,).
            embeddings: safetensors with one vector a class, for the text encoder `file`.
            idempotency_key: the same key with the same request answers the same job.
            dry_run: inspect only; the job ends with a report.
            on_bytes: called with (bytes sent, bytes in all) as the upload goes on.

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
        """Where the job stands now."""
        return RemoteJob.model_validate(self._get(f"/jobs/{job_id}"))

    def jobs(self, status: str | None = None, limit: int = 20, after: str | None = None) -> list[RemoteJob]:
        """One page of jobs, newest first."""
        wanted = {"status": status, "limit": limit, "after": after}
        params = {name: value for name, value in wanted.items() if value is not None}
        return [RemoteJob.model_validate(body) for body in self._get("/jobs", params)["data"]]

    def cancel(self, job_id: str) -> RemoteJob:
        """Ask the job to stop; a finished job stays as it is."""
        answer = self._answer(lambda: self._http.post(f"/jobs/{job_id}/cancel"))
        return RemoteJob.model_validate(answer.json())

    def pause(self, job_id: str) -> RemoteJob:
        """Ask the job to rest, its state kept; a queued one rests at once."""
        return RemoteJob.model_validate(self._answer(lambda: self._http.post(f"/jobs/{job_id}/pause")).json())

    def resume(self, job_id: str) -> RemoteJob:
        """Let a paused job go on from where it was."""
        return RemoteJob.model_validate(
            self._answer(lambda: self._http.post(f"/jobs/{job_id}/resume")).json()
        )

    def stream(self, job_id: str, after: int = 0) -> Iterator[JobEvent]:
        """The job's events from `after` on, live, until the service closes the stream.

        Raises:
            ApiError: the job is not known, or the service is busy.
            ServiceUnreachableError: the connection could not be made, or broke off.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            with self._http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as response:
                raise_for_problem(response)
                for event in read_data(response.iter_lines()):
                    yield JobEvent.model_validate(event)
        except httpx.TransportError as error:
            raise ServiceUnreachableError(self.url, _reason(error)) from error

    def log(self, job_id: str, after: int = 0) -> list[JobEvent]:
        """The job's next events after `after`, as they stand now."""
        page = self._get(f"/jobs/{job_id}/events", {"after": after})["data"]
        return [JobEvent.model_validate(entry) for entry in page]

    def metrics(self, job_id: str) -> dict[str, list[dict[str, Any]]]:
        """The job's series by name: points of `step`, `epoch` and `value`, in order."""
        series: dict[str, list[dict[str, Any]]] = self._get(f"/jobs/{job_id}/metrics")["series"]
        return series

    def architectures(self, query: str = "") -> list[dict[str, str]]:
        """What a teacher or a student may be: `name`, `family` and `notes` of each.

        Args:
            query: words that each must hold in one of the three; all are listed where it is empty.
        """
        found: list[dict[str, str]] = self._get("/architectures", {"q": query} if query else None)["data"]
        return found

    def presets(self) -> list[dict[str, Any]]:
        """The named configurations: `name`, `summary` and `config` of each."""
        found: list[dict[str, Any]] = self._get("/presets")["data"]
        return found

    def version(self) -> dict[str, Any]:
        """The build that answers."""
        body: dict[str, Any] = self._get("/version")
        return body

    def download(self, job_id: str, name: str, path: Path, on_bytes: OnBytes | None = None) -> str:
        """Fetch an artifact to `path`, whole and verified or not at all; returns its sha256.

        Raises:
            ApiError: there is no such artifact (yet).
            DownloadCorruptError: what arrived is not what the service announced.
            ServiceUnreachableError: the connection broke off again and again.
        """
        listed = {body["name"]: body for body in self._get(f"/jobs/{job_id}/artifacts")["data"]}
        if name not in listed:
            there = ", ".join(sorted(listed)) or "none yet"
            raise ApiError(404, "artifact_not_found", f"The job has no {name}; there is: {there}.")
        expected, size = str(listed[name]["sha256"]), int(listed[name]["bytes"])
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with part.open("wb") as out:
                found = Download(self._http, f"/jobs/{job_id}/artifacts/{name}", size, on_bytes).write_to(out)
                out.flush()
                os.fsync(out.fileno())
            if found != expected:
                raise DownloadCorruptError(
                    "download_corrupt",
                    f"{name} has sha256 {found}, the service announced {expected}.",
                    "Download it again; if it stays so, the stored file is damaged.",
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return expected

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
        asked = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        asked = 0.5 * 2**attempt
    return min(asked, LONGEST_PAUSE_SECONDS)


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
