"""Class names from files of many forms.

One name a line and a JSON list are the usual forms. Objects of JSON and Python, numbered lines, lists of
YAML and tables with a column of indices are recognised too. Text that looks like another form is refused:
it would become wrong class names, and no later step could notice.
"""

import ast
import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.errors import RequestError
from cli.text_files import read_text
from nayer_core.contract.labels import listed

_HINT = (
    "Give one class name a line, or a JSON list of names, in the order of the teacher's outputs. Names that"
    " only look like something else are taken from a JSON list as they are."
)
_HEADINGS = {
    *("label", "labels", "class", "classes", "name", "names", "category", "categories", "target"),
    *("class_name", "class_names", "classname", "label_name", "label_names"),
}
_NUMBERED = re.compile(r"(\d+)(?:\s*[:.),;|=-]\s*|\s+)(\S.*)")
_NUMBERED_BEHIND = re.compile(r"(.*?\S)(?:\s*[:,;|=]\s*|\s+)(\d+)")
_SYNSET = re.compile(r"n\d{8}\s+(\S.*)")
_DASHED = re.compile(r"-\s+(\S.*)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\s*(?::[^=\n]*)?=\s*(?=[\[({])")
_HEADING_OF_YAML = re.compile(r"[A-Za-z_]\w*\s*:")
# No class name begins or ends so; a line of a program, of a table or of a markup language does.
_STRANGE = re.compile(
    r"[\[\]{}<>#\"'`].*|.*[\[{}<>\"'`:;,=]|---|.*[\x00-\x1f].*|[A-Za-z_]\w*\s*[:=]\s*[\[({].*"
)
_LEAST_DIFFERENT = 0.9  # share of the names
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Labels:
    """Class names, in the order of the teacher's outputs.

    Args:
        names: the class names.
        form: the form of the file; `None` for one name a line and for a JSON list.
    """

    names: list[str]
    form: str | None = None

    def __str__(self) -> str:
        ends = f"{self.names[0]!r} to {self.names[-1]!r}" if self.names else "none"
        return f"{len(self.names)} labels read from {self.form or 'lines'}: {ends}"


def read_labels(path: Path) -> Labels:
    """Read class names from a file.

    Raises:
        RequestError: `labels_unreadable`: it is no text, or has a form that is not known here.
    """
    try:
        text = read_text(path).strip()
        return _parse(text, is_table=path.suffix.lower() in (".csv", ".tsv"))
    except _UnreadableError as error:
        raise RequestError(
            "labels_unreadable", f"The labels in {path} cannot be read: {error}.", _HINT
        ) from error
    except (OSError, ValueError) as error:
        raise RequestError(
            "labels_unreadable",
            f"The labels in {path} cannot be read: {error}.",
            "Save the file as UTF-8 text.",
        ) from error


class _UnreadableError(Exception):
    """Why a text holds no class names; the message ends a sentence."""


def _parse(text: str, *, is_table: bool) -> Labels:
    lines = [line.strip() for line in _LINE_ENDS.split(text) if line.strip()]
    if not lines:
        raise _UnreadableError("the file is empty")
    if lines[0] == "---" and lines[1:]:
        lines = lines[1:]
    literal = _ASSIGNMENT.sub("", text, count=1) if _ASSIGNMENT.match(text) else text
    if literal[0] in "[{" or (literal[0] == "(" and literal[-1] == ")"):
        return _read_document(literal)
    for reader in (_read_quoted, _read_yaml, _read_numbered, _read_synsets, _read_one_line, _read_table):
        labels = reader(lines)
        if labels is not None:
            return labels
    return _read_plain(lines, is_table=is_table)


def _read_plain(lines: list[str], *, is_table: bool) -> Labels:
    """Take one name a line, after a look at what each line is."""
    form = None
    if lines[0].lower() in _HEADINGS:
        if not is_table:
            raise _UnreadableError(f"its first line, {lines[0]!r}, looks like the heading of a table")
        lines, form = lines[1:], "a column with a heading"
    for line in lines:
        if _STRANGE.fullmatch(line):
            raise _UnreadableError(f"the line {line[:60]!r} does not look like a class name")
    matches = [match for match in map(_NUMBERED.fullmatch, lines) if match]
    if len(matches) == len(lines) > 2 and _mostly_differ([match[2] for match in matches]):
        raise _UnreadableError(
            f"its lines begin with numbers that are neither 0 to {len(lines) - 1} nor 1 to {len(lines)}"
        )
    return Labels(lines, form)


def _read_document(text: str) -> Labels:
    """Read a list or an object of JSON, or a list, tuple or dict of Python."""
    try:
        document, language = json.loads(text, object_pairs_hook=_unique), "JSON"
    except (ValueError, RecursionError):
        document, language = _python(text), "Python"
    if isinstance(document, list | tuple):
        return Labels(_names(document), None if language == "JSON" else "a list of Python")
    if isinstance(document, dict):
        try:
            entries, field = listed(document)
        except ValueError as error:
            raise _UnreadableError(str(error)) from error
        return Labels(
            _names(entries), f"{field} of an object of {language}" if field else f"an object of {language}"
        )
    raise _UnreadableError("it holds neither a list nor an object")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of JSON, whose keys must differ."""
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise _UnreadableError("a key is there twice")
    return unique


def _python(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise _UnreadableError("it looks like JSON or Python, and is neither") from None


def _names(entries: Sequence[Any]) -> list[str]:
    for place, entry in enumerate(entries):
        if not isinstance(entry, str) or not entry.strip():
            raise _UnreadableError(f"entry {place} of the list, {entry!r:.60}, is not a class name")
    return [entry.strip() for entry in entries]


def _read_quoted(lines: list[str]) -> Labels | None:
    """Read the entries of a list without its brackets: quoted, with commas behind."""
    if not all(line[0] in "'\"" and line[-1] in ",'\"" for line in lines):
        return None
    separator = "\n" if all(line.endswith(",") for line in lines[:-1]) else ",\n"
    return Labels(_names(_python(f"[{separator.join(lines)}]")), "quoted names")


def _read_yaml(lines: list[str]) -> Labels | None:
    """Read a list of YAML, or a mapping from indices, with or without a key above."""
    entries = lines[1:] if _HEADING_OF_YAML.fullmatch(lines[0]) else lines
    matches = [_DASHED.fullmatch(line) for line in entries]
    if entries and all(matches):
        return Labels([_unquoted(match[1]) for match in matches if match], "a list of YAML")
    if entries is lines:
        return None
    mapping = _read_numbered(entries)
    if mapping is None:
        raise _UnreadableError(
            f"it looks like YAML, and {lines[0]!r:.60} is no list and no mapping from indices"
        )
    return Labels(mapping.names, "a mapping of YAML")


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if _STRANGE.fullmatch(text):
        raise _UnreadableError(f"{text[:60]!r} does not look like a class name")
    return text


def _read_numbered(lines: list[str]) -> Labels | None:
    """Read lines that begin with their numbers, 0 to K-1 or 1 to K, or end with them, 0 to K-1."""
    for pattern, number, name, starts in ((_NUMBERED, 1, 2, (0, 1)), (_NUMBERED_BEHIND, 2, 1, (0,))):
        matches = [match for match in map(pattern.fullmatch, lines) if match]
        by_number = {int(match[number]): match[name] for match in matches}
        for start in starts:
            if len(lines) > 1 and sorted(by_number) == list(range(start, start + len(lines))):
                names = [_unquoted(by_number[place]) for place in sorted(by_number)]
                if _mostly_differ(names):  # else they are names with numbers: 1 euro, 2 euro
                    return Labels(names, f"lines numbered from {start}")
    return None


def _mostly_differ(names: Sequence[str]) -> bool:
    """Whether nearly all names occur once; ImageNet's hold two cranes and two maillots."""
    return len(set(names)) > _LEAST_DIFFERENT * len(names)


def _read_synsets(lines: list[str]) -> Labels | None:
    """Read lines of a WordNet id and a name, as those of ImageNet."""
    matches = [match for match in map(_SYNSET.fullmatch, lines) if match]
    return (
        Labels([match[1] for match in matches], "lines with WordNet ids")
        if len(matches) == len(lines)
        else None
    )


def _read_one_line(lines: list[str]) -> Labels | None:
    """Read names with commas between: one line can be nothing else, for there are two classes at least."""
    names = [name.strip() for name in lines[0].split(",")]
    if len(lines) > 1 or len(names) < 2:
        return None
    return Labels([_unquoted(name) for name in names if name], "one line with commas")


def _read_table(lines: list[str]) -> Labels | None:
    """Read a table with a column of names and one of their indices, with or without headings."""
    for delimiter in ",;\t|":
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
        width = len(rows[0])
        if width < 2 or any(len(row) != width for row in rows):
            continue
        for body in (rows, rows[1:]):
            names = _columns(body)
            if names is not None:
                return Labels(names, "a table with a column of indices")
        raise _UnreadableError(
            f"it looks like a table of {width} columns, and not of names and their indices"
        )
    return None


def _columns(rows: list[list[str]]) -> list[str] | None:
    """Find the names in rows of two cells, one of them an index from 0 to K-1."""
    if len(rows) < 2 or len(rows[0]) != 2:
        return None
    for index, name in ((0, 1), (1, 0)):
        if all(re.fullmatch(r"\d{1,7}", row[index]) for row in rows):
            by_index = {int(row[index]): row[name] for row in rows}
            if set(by_index) == set(range(len(rows))):
                return [_unquoted(by_index[number]) for number in range(len(rows))]
    return None
