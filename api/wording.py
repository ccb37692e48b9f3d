"""Turns pydantic's errors into messages about JSON values.

Pydantic's own messages name tuples, dictionaries and instances, which a client's language may not have.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel

from api.problems import KINDS, FieldError, shorten
from nayer_core.contract.catalog import MAX_NAME_CHARS
from nayer_core.contract.spec import JobSpec


@dataclass(frozen=True)
class _Wording:
    """Code and text for one kind of error.

    Args:
        code: of `FieldError`.
        detail: the text after the name of the field; the error has the values for the braces.
    """

    code: str
    detail: str


_LIST = _Wording("list_type", "must be a list")
_OBJECT = _Wording("object_type", "must be an object")
_STRING = _Wording("string_type", "must be a string")
_INTEGER = _Wording("integer_type", "must be an integer")
_NUMBER = _Wording("number_type", "must be a number")
_BOOLEAN = _Wording("boolean_type", "must be true or false")
_CHOICE = _Wording("unknown_choice", "must be {expected}")
_URL = _Wording("url_type", "must be a URL that begins with http:// or https://")
_OTHER = _Wording("invalid_value", "cannot be used")

# By the type of pydantic's error: all that a spec or a parameter can raise (tests/api/test_wording.py).
WORDINGS: Mapping[str, _Wording] = MappingProxyType(
    {
        "missing": _Wording("missing", "is missing"),
        "extra_forbidden": _Wording("unknown_field", "is not a field"),
        "tuple_type": _LIST,
        "dict_type": _OBJECT,
        "model_type": _OBJECT,
        "string_type": _STRING,
        "string_too_short": _Wording("string_too_short", "must have at least {min_length} character(s)"),
        "string_too_long": _Wording("string_too_long", "must have at most {max_length} characters"),
        "too_short": _Wording("too_short", "must have at least {min_length} item(s)"),
        "too_long": _Wording("too_long", "must have at most {max_length} items"),
        "int_type": _INTEGER,
        "int_parsing": _INTEGER,
        "int_from_float": _INTEGER,
        "int_parsing_size": _Wording("integer_too_large", "is an integer of too many digits"),
        "float_type": _NUMBER,
        "float_parsing": _NUMBER,
        "bool_type": _BOOLEAN,
        "bool_parsing": _BOOLEAN,
        "greater_than": _Wording("greater_than", "must be greater than {gt}"),
        "greater_than_equal": _Wording("greater_than_equal", "must be at least {ge}"),
        "less_than": _Wording("less_than", "must be less than {lt}"),
        "less_than_equal": _Wording("less_than_equal", "must be at most {le}"),
        "literal_error": _CHOICE,
        "enum": _CHOICE,
        "url_type": _URL,
        "url_parsing": _URL,
        "url_scheme": _URL,
        "url_too_long": _Wording("string_too_long", "must have at most {max_length} characters"),
    }
)


def field_error(item: Mapping[str, Any]) -> FieldError:
    """Convert one of pydantic's errors; its place becomes a JSON pointer (RFC 6901).

    Args:
        item: an entry of `ValidationError.errors()`.
    """
    location, kind = tuple(item["loc"]), str(item["type"])
    pointer = "".join(f"/{_escape(part)}" for part in location)
    if kind in KINDS or kind == "value_error":  # raised by the contract, in its own words
        return FieldError(
            pointer=pointer, code=kind, detail=shorten(item["msg"].removeprefix("Value error, "))
        )
    wording = WORDINGS.get(kind, _OTHER)
    detail = wording.detail.format(**item.get("ctx", {}))
    if kind == "extra_forbidden":
        detail += _suggestion(location)
    return FieldError(pointer=pointer, code=wording.code, detail=shorten(detail))


def _suggestion(location: Sequence[int | str]) -> str:
    """Suggest the field with the nearest name, or list all fields."""
    fields = _fields_at(location[:-1])
    name = str(location[-1])[:MAX_NAME_CHARS]  # comparing a longer one would take seconds
    nearest = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
    if nearest:
        return f"; the nearest is {nearest[0]!r}"
    return f"; the fields are {', '.join(fields)}" if fields else ""


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the object at this place of a spec."""
    model: type[BaseModel] = JobSpec
    for part in location:
        field = model.model_fields.get(str(part))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


def _escape(part: object) -> str:
    return shorten(str(part)).replace("~", "~0").replace("/", "~1")
