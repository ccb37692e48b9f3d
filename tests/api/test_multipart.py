import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
from starlette.requests import ClientDisconnect

from api.multipart import MultipartBody, boundary_of, label
from api.problems import Problem
from tests.api.bodies import BOUNDARY, TEACHER, body, part, single_bytes, spec_part, teacher_part


async def feed(chunks: Iterable[bytes], disconnect: bool = False) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if disconnect:
        raise ClientDisconnect


def parts_of(chunks: Iterable[bytes], disconnect: bool = False) -> list[tuple[str, str | None, bytes]]:
    async def collect() -> list[tuple[str, str | None, bytes]]:
        multipart = MultipartBody(feed(chunks, disconnect), BOUNDARY.encode())
        return [
            (item.name, item.filename, b"".join([chunk async for chunk in item.chunks]))
            async for item in multipart.parts()
        ]

    return asyncio.run(collect())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 10**6])
def test_parts_do_not_depend_on_how_the_network_cuts_them(size: int) -> None:
    content = body(teacher_part(), spec_part(), part("empty", b""))
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    parts = parts_of(chunks)
    assert [(name, filename) for name, filename, _ in parts] == [
        ("teacher", "teacher.pt"),
        ("spec", None),
        ("empty", None),
    ]
    assert parts[0][2] == TEACHER
    assert parts[2][2] == b""


def test_bytes_after_the_last_boundary_are_ignored() -> None:
    assert parts_of([body(teacher_part()) + b"epilogue"])[0][2] == TEACHER


@pytest.mark.parametrize("disconnect", [False, True])
def test_every_truncation_before_the_last_boundary_is_refused(disconnect: bool) -> None:
    content = body(teacher_part(b"abc"), spec_part())
    end = len(content) - len("--\r\n")
    for length in range(end + 1):
        with pytest.raises(Problem) as refusal:
            parts_of([content[:length]], disconnect)
        assert refusal.value.code == "truncated_body", length


def test_a_client_that_stops_sending_is_refused() -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield teacher_part()
        await asyncio.sleep(3600)

    async def read_on() -> None:
        async for item in MultipartBody(silent(), BOUNDARY.encode(), window_seconds=0.05).parts():
            async for _ in item.chunks:
                pass

    with pytest.raises(Problem) as refusal:
        asyncio.run(read_on())
    assert refusal.value.code == "upload_stalled"


@pytest.mark.parametrize(("size", "is_enough"), [(400, True), (4, False)])
def test_a_body_may_be_slow_but_not_below_the_least_rate(size: int, is_enough: bool) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield teacher_part(b"x" * 10_000)[:-2]  # what came fast at first does not count for later
        for _ in range(60):
            await asyncio.sleep(0.02)
            yield b"x" * size
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    async def read_all() -> int:
        count = 0
        async for item in MultipartBody(slow(), BOUNDARY.encode(), window_seconds=0.4).parts():
            count += len(b"".join([chunk async for chunk in item.chunks]))
        return count

    if is_enough:
        assert asyncio.run(read_all()) == 10_000 + 60 * size
        return
    with pytest.raises(Problem) as refusal:
        asyncio.run(read_all())
    assert refusal.value.code == "upload_stalled"


@pytest.mark.parametrize(
    "content",
    [
        b"no boundary at all",
        b"--another-boundary\r\n\r\n",
        f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(),
        f'--{BOUNDARY}\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n--{BOUNDARY}--\r\n'.encode(),
        f"--{BOUNDARY}\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(),
        f"--{BOUNDARY}\r\nbad header: x\r\n\r\n".encode(),
        body(part("a", b"x", headers="Content-Transfer-Encoding: base64\r\n")),
        body(part("a", b"x", headers="X-Long: " + "a" * 10_000 + "\r\n")),
        body(part("a", b"x", headers="".join(f"X-{index}: a\r\n" for index in range(100)))),
    ],
)
def test_bodies_that_break_the_rfc_are_refused(content: bytes) -> None:
    with pytest.raises(Problem) as refusal:
        parts_of([content])
    assert refusal.value.code in ("malformed_body", "truncated_body")
    with pytest.raises(Problem):
        parts_of(single_bytes(content))


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=a",
        f"multipart/form-data; boundary={'a' * 71}",
    ],
)
def test_a_body_needs_the_right_type_and_a_boundary(content_type: str | None) -> None:
    with pytest.raises(Problem) as refusal:
        boundary_of(content_type)
    assert refusal.value.code == "unsupported_media_type"


def test_the_boundary_may_be_quoted() -> None:
    assert boundary_of('multipart/form-data; charset=utf-8; boundary="a b:c"') == b"a b:c"


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (b"teacher.pt", "teacher.pt"),
        (b"../../etc/passwd", "passwd"),
        (b"C:\\weights\\net.pth", "net.pth"),
        ("gewichte-ü.pt".encode(), "gewichte-ü.pt"),
        (b"a\x00b\r\n\x1b[31m.pt", "ab[31m.pt"),
        (b"\xff\xfe.pt", "\ufffd\ufffd.pt"),
        (b"x" * 1000, "x" * 200),
        (b"", None),
        (b"///", None),
    ],
)
def test_a_file_name_is_kept_as_a_label_only(filename: bytes, expected: str | None) -> None:
    assert label(filename) == expected
