"""Text files in the encodings of editors and shells."""

from pathlib import Path

_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",  # what `>` of Windows PowerShell writes
    b"\xfe\xff": "utf-16",
}


def read_text(path: Path) -> str:
    """Read a text in UTF-8, or in the Unicode encoding that its byte order mark names.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such text; the message names the place.
    """
    contents = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if contents.startswith(mark)), "utf-8")
    try:
        text = contents.decode(encoding)
    except UnicodeDecodeError as error:
        line = contents.count(b"\n", 0, error.start) + 1
        byte = contents[error.start : error.start + 1].hex()
        raise ValueError(f"it is no text in UTF-8: line {line} has the byte 0x{byte}") from None
    if "\0" in text:
        raise ValueError(
            "it is no text in UTF-8: it has zero bytes, as UTF-16 without a mark or a binary file"
        )
    return text
