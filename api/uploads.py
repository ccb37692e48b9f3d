"""Reads the body of `POST /jobs`: files are streamed into the store, the spec is read into memory.

Files have quarantine keys until `inspect` has read them. A refused request leaves no file.
"""

import codecs
import dataclasses
import hashlib
import json
import logging
import math
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import anyio
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from api.errors import spec_problem
from api.multipart import MultipartBody, Part, boundary_of
from api.problems import FieldError, Problem
from jobs.errors import ServiceUnavailable
from jobs.files.store import Storage
from jobs.settings import Settings
from jobs.values.files import StoredFile
from jobs.values.kinds import JobKind
from jobs.webhooks.addresses import private_literal
from nayer_core.contract.spec import JobSpec

OVERHEAD_BYTES = 64 * 1024  # boundaries and headers of the parts
MAX_ITEMS = 1000  # in one object or list of a spec; a configuration has a few dozen
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """All parts of one accepted body.

    Attributes:
        kind: which kind of job is requested.
        spec: the document of the request.
        files: stored files by the name of their part; all files that the kind requires are present.
    """

    kind: JobKind
    spec: JobSpec
    files: Mapping[str, StoredFile]

    def fingerprint(self) -> str:
        """SHA-256 of kind, spec and files; the order and encoding of the parts do not change it."""
        request = {
            "kind": self.kind.name,
            "spec": self.spec.model_dump(mode="json"),
            "files": {name: file.sha256 for name, file in self.files.items()},
        }
        if self.spec.webhook and self.spec.webhook.secret:  # a dump of the spec leaves it out
            request["webhook_secret"] = self.spec.webhook.secret.get_secret_value()
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def part_limits(kind: JobKind, settings: Settings) -> dict[str, int]:
    """The largest size of each part in bytes, by its name."""
    files = {name: part.max_bytes(settings) for name, part in kind.uploads.items()}
    return {"spec": settings.max_spec_bytes, **files}


def max_upload_bytes(kind: JobKind, settings: Settings) -> int:
    """The largest size of a whole body in bytes."""
    return sum(part_limits(kind, settings).values()) + OVERHEAD_BYTES


async def receive(request: Request, kind: JobKind, storage: Storage, settings: Settings) -> Upload:
    """Read a whole body and store its files.

    Raises:
        Problem: the body is refused; none of its files is kept.
        JobsError: the store does not answer; none of the files is kept.
    """
    _require_plain(request.headers.get("content-encoding"))
    body = MultipartBody(request.stream(), boundary_of(request.headers.get("content-type")))
    limits = part_limits(kind, settings)
    files: dict[str, StoredFile] = {}
    spec: JobSpec | None = None
    try:
        async for part in body.parts():
            if part.name not in limits:
                raise Problem("unknown_part", f"There is no part named '{part.name}'.")
            if part.name in files or (part.name == "spec" and spec is not None):
                raise Problem("duplicate_part", f"The part '{part.name}' was sent twice.")
            if part.name == "spec":
                document = b"".join([chunk async for chunk in _bounded(part, limits["spec"])])
                spec = await run_in_threadpool(parse_spec, document)
                _require_receiver(spec, settings)
            else:
                files[part.name] = await _store(part, storage, limits[part.name])
        return _complete(kind, spec, files)
    except BaseException:
        await discard(storage, files.values())
        raise


async def discard(storage: Storage, files: Iterable[StoredFile]) -> None:
    """Delete files that no job refers to, even while the request is being cancelled.

    The sweep of upkeep deletes the files that the store cannot delete now.
    """
    with anyio.CancelScope(shield=True):
        for file in files:
            try:
                await run_in_threadpool(storage.delete, file.key)
            except ServiceUnavailable as error:
                log.warning("%s is left to the sweep: %s", file.key, error)


def parse_spec(document: bytes) -> JobSpec:
    """Read the spec part.

    Raises:
        Problem: `invalid_json`, `invalid_spec` or the code of an unknown name.
    """
    _require_utf8(document)
    try:
        parsed = json.loads(
            document.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_number,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise Problem("invalid_json", f"Byte {error.start} of the spec is not UTF-8.") from error
    except json.JSONDecodeError as error:
        raise Problem(
            "invalid_json", f"Line {error.lineno}, column {error.colno} of the spec is not JSON."
        ) from error
    except RecursionError as error:
        raise Problem("invalid_json", "The spec is nested too deeply.") from error
    except ValueError as error:  # Python reads integers of at most 4,300 digits
        raise Problem("invalid_json", "The spec has an integer of more than 4,300 digits.") from error
    _require_storable(parsed)
    _require_few_items(parsed)
    try:
        return JobSpec.model_validate(parsed)
    except ValidationError as error:
        raise spec_problem(error) from error


def _require_utf8(document: bytes) -> None:
    """Refuse the two encodings that some editors write by default, each with a message of its own."""
    if document.startswith(codecs.BOM_UTF8):
        detail = "The spec begins with a byte order mark. Save it as UTF-8 without one."
        raise Problem("invalid_json", detail)
    if document.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in document[:4]:
        raise Problem("invalid_json", "The spec is in UTF-16. Save it as UTF-8 without a byte order mark.")


def _require_plain(encoding: str | None) -> None:
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        # RFC 7694: this header lists the encodings that the server accepts.
        raise Problem(
            "compressed_body",
            f"The body is compressed: its Content-Encoding is {encoding}.",
            headers={"Accept-Encoding": "identity"},
        )


def _require_receiver(spec: JobSpec, settings: Settings) -> None:
    # A host name is checked when the web hook is called, because its addresses may change until then.
    if spec.webhook is None or settings.webhook_private_addresses:
        return
    address = private_literal(spec.webhook.url.host or "")
    if address is not None:
        detail = f"the host of the web hook is {address}, which is not a public address"
        error = FieldError(pointer="/webhook/url", code="webhook_address_refused", detail=detail)
        raise Problem("webhook_address_refused", f"/webhook/url: {detail}", errors=[error])


async def _store(part: Part, storage: Storage, limit: int) -> StoredFile:
    stored = await storage.put_async(f"uploads/{uuid.uuid4()}", _bounded(part, limit), limit)
    if stored.bytes == 0:
        await discard(storage, [stored])
        raise Problem("empty_file", f"The part '{part.name}' has 0 bytes.")
    return dataclasses.replace(stored, filename=part.filename)


async def _bounded(part: Part, limit: int) -> AsyncIterator[bytes]:
    count = 0
    async for chunk in part.chunks:
        count += len(chunk)
        if count > limit:
            raise Problem("payload_too_large", f"The part '{part.name}' exceeds {limit:,} bytes.")
        yield chunk


def _complete(kind: JobKind, spec: JobSpec | None, files: Mapping[str, StoredFile]) -> Upload:
    for name, part in kind.uploads.items():
        if part.is_required and name not in files:
            raise Problem("missing_part", f"There is no part named '{name}'.")
    if spec is None:
        raise Problem("missing_part", "There is no part named 'spec'.")
    encoder = spec.text_encoder.name
    if encoder == "file" and "embeddings" not in files:
        raise Problem("missing_part", "text_encoder.name is 'file', but there is no part named 'embeddings'.")
    if encoder != "file" and "embeddings" in files:
        detail = f"the part 'embeddings' was sent, but the text encoder is '{encoder}'; name it 'file'"
        error = FieldError(pointer="/text_encoder/name", code="invalid_spec", detail=detail)
        raise Problem("invalid_spec", f"/text_encoder/name: {detail}", errors=[error])
    return Upload(kind, spec, files)


def _require_few_items(spec: Any) -> None:
    """Refuse objects and lists with more than `MAX_ITEMS` items: each item could cause an error of its own.

    Only `labels` may have more; the contract reports its first wrong items.
    """
    waiting = [spec]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, dict | list):
            continue
        if len(value) > MAX_ITEMS:
            detail = (
                f"An object or a list of the spec has {len(value):,} items; only labels may have so many."
            )
            raise Problem("invalid_spec", detail)
        if value is spec and isinstance(spec, dict):
            value = {name: item for name, item in spec.items() if name != "labels"}
        waiting += value.values() if isinstance(value, dict) else value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for name, value in pairs:
        if name in items:
            raise Problem("invalid_json", f"The key '{name}' occurs twice in one object of the spec.")
        items[name] = value
    return items


def _refuse_number(text: str) -> NoReturn:
    raise Problem("invalid_json", f"The spec contains {text}, which is not valid in JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Problem("invalid_json", f"The spec contains {text[:40]}, which is too large for a float64.")
    return number


def _require_storable(value: Any) -> None:
    # JSON allows NUL and unpaired surrogates, but PostgreSQL refuses them.
    if isinstance(value, str):
        if "\0" in value or not _is_unicode(value):
            raise Problem("invalid_json", "A string of the spec contains U+0000 or an unpaired surrogate.")
    elif isinstance(value, dict):
        for key, item in value.items():
            _require_storable(key)
            _require_storable(item)
    elif isinstance(value, list):
        for item in value:
            _require_storable(item)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
