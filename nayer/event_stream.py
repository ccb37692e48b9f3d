"""Server-sent events, in the subset that the service sends (WHATWG HTML, section 9.2)."""

import json
from collections.abc import Iterable, Iterator
from typing import Any


def read_data(lines: Iterable[str]) -> Iterator[Any]:
    """Read the data of each event from the lines of a stream; a comment (a beat) yields nothing.

    The data contain the name and the number of the event too. An event that the end of the stream cuts
    off is dropped, as the standard asks: it comes again when the stream is resumed.
    """
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield json.loads("\n".join(data))
            data = []
