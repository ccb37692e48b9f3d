"""Class names in the forms of JSON that people have them in: lists, and objects with indices.

`{"0": "cat"}`, `{"cat": 0}`, `{"0": ["n02123045", "tabby"]}` as ImageNet's class index, and the `config.json`
of a network on the Hugging Face Hub, which has `id2label` or `label2id`.
"""

import re
from collections.abc import Mapping
from typing import Any

# Fields of a larger object that hold class names.
FIELDS = ("id2label", "label2id", "label_names", "names", "classes", "labels")


def listed(document: Mapping[Any, Any]) -> tuple[list[Any], str | None]:
    """Return the entries of an object in the order of their indices, and the field of it that held them.

    Raises:
        ValueError: the indices are not 0 to K-1; the message ends a sentence.
    """
    for field in FIELDS:
        inner = document.get(field)
        if isinstance(inner, list):
            return inner, field
        if isinstance(inner, Mapping):
            return by_index(inner), field
    return by_index(document), None


def by_index(entries: Mapping[Any, Any]) -> list[Any]:
    """Read {index: name}, {index: [id, name]} or {name: index}, whose indices are 0 to K-1.

    Raises:
        ValueError: they are not.
    """
    indices = {_index(key): value for key, value in entries.items()}
    if indices and set(indices) == set(range(len(entries))):
        values = [indices[index] for index in range(len(entries))]
        return [value[-1] if _is_pair(value) else value for value in values]
    if entries and all(type(value) is int for value in entries.values()):
        by_value = {value: key for key, value in entries.items()}
        if set(by_value) == set(range(len(entries))):
            return [by_value[index] for index in range(len(entries))]
    raise ValueError(f"the indices of its {len(entries)} entries are not 0 to {len(entries) - 1}")


def _index(key: Any) -> Any:
    return int(key) if isinstance(key, str) and re.fullmatch(r"[0-9]{1,7}", key) else key


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2
