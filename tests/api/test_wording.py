"""Mistakes in a spec are described in terms of JSON: every kind of mistake."""

import copy
import difflib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from api.problems import KINDS, MAX_ERRORS, Problem
from api.uploads import MAX_ITEMS, parse_spec
from api.wording import WORDINGS
from nayer_core.contract.catalog import MAX_NAME_CHARS
from nayer_core.contract.config import DistillConfig
from nayer_core.contract.spec import JobSpec
from tests.api.bodies import part, spec, spec_part, teacher_part
from tests.api.conftest import assert_problem

Post = Callable[..., httpx.Response]

# Every field of a spec, with a value that can work.
WHOLE: dict[str, Any] = {
    **spec(),
    "config": dict.fromkeys(DistillConfig.model_fields),
    "text_encoder": {"name": "auto", "prompt": "{label}", "whiten": True},
    "seed": 0,
    "reuse_bank": False,
    "on_out_of_memory": "fail",
    "max_runtime_seconds": 60,
    "metadata": {"team": "vision"},
    "webhook": {"url": "https://example.com", "events": ["job.failed"], "secret": "whsec_" + "a" * 32},
}
WHOLE["config"] = DistillConfig().model_dump(mode="json")
WHOLE["teacher"] = {**WHOLE["teacher"], "architecture": "auto", "accuracy": 0.5}
WRONG: list[Any] = [
    *(None, True, -1, 0, 1, 10**6, 10**12, 10**400, 0.5, -0.5, 1e300, "", "x", "7", "7.5", "true"),
    *("x" * 600, "x" * 5000, "ftp://a", "http://", "https://", "{", [], [1], ["x"] * 2, [1, 2], [1, 2, 3, 4]),
    *([["x"]], [{}], {}, {"x": 1}, {"x" * 300: "x"}, {str(n): "" for n in range(20)}, ["job.failed"] * 9),
]
# Words of Python or of its library, which no client needs to know.
FOREIGN = re.compile(r"tuple|dict|instance|inputs?\b|valid|none|pydantic|pars|float|int\b|bool\b|str\b", re.I)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of each value in a document."""
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from places(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def changed(path: tuple[str | int, ...], value: Any) -> Any:
    """The whole spec with another value at one place."""
    if not path:
        return value
    document = copy.deepcopy(WHOLE)
    holder: Any = document
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return document


def without(path: tuple[str | int, ...]) -> Any:
    document = copy.deepcopy(WHOLE)
    holder: Any = document
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    return document


def mistakes() -> Iterator[Any]:
    for path in places(WHOLE):
        for value in WRONG:
            yield changed(path, value)
        if path:
            yield without(path)
            if isinstance(path[-1], str):
                yield changed((*path[:-1], "surprise"), 1)


def raised(document: Any) -> list[Any]:
    try:
        JobSpec.model_validate(document)
    except ValidationError as error:
        return list(error.errors())
    return []


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    """A document for each kind of error that a spec can raise."""
    JobSpec.model_validate(WHOLE)
    documents: dict[str, Any] = {}
    for document in mistakes():
        for error in raised(document):
            documents.setdefault(error["type"], document)
    return documents


def test_every_kind_of_error_has_a_wording(examples: dict[str, Any]) -> None:
    own = {kind for kind in examples if kind in KINDS} | {"value_error"}
    assert set(examples) - own <= set(WORDINGS)
    # `enum` is raised by parameters alone.
    assert set(WORDINGS) - set(examples) == {"enum"}


def test_no_answer_contains_words_of_python() -> None:
    details: set[str] = set()
    for document in mistakes():
        try:
            parse_spec(json.dumps(document).encode())
        except Problem as problem:
            details |= {re.sub(r"'[^']*'", "''", error.detail) for error in problem.errors}
    assert len(details) > 40
    assert {detail for detail in details if FOREIGN.search(detail)} == set()


@pytest.mark.parametrize(
    ("changes", "pointer", "code", "detail"),
    [
        ({"labels": "cat"}, "/labels", "list_type", "must be a list"),
        ({"labels": [1, "b"]}, "/labels/0", "string_type", "must be a string"),
        ({"labels": ["a", " "]}, "/labels/1", "string_too_short", "must have at least 1 character(s)"),
        ({"teacher": "resnet20"}, "/teacher", "object_type", "must be an object"),
        ({"classes": ["a", "b"]}, "/classes", "unknown_field", "is not a field; the nearest is 'labels'"),
        ({"presets": 1}, "/presets", "unknown_field", "is not a field; the nearest is 'preset'"),
        ({"seed": "x"}, "/seed", "integer_type", "must be an integer"),
        ({"seed": 1.5}, "/seed", "integer_type", "must be an integer"),
        ({"reuse_bank": "maybe"}, "/reuse_bank", "boolean_type", "must be true or false"),
        ({"on_out_of_memory": "stop"}, "/on_out_of_memory", "unknown_choice", "must be 'fail' or 'halve'"),
        ({"config": {"epochs": 0}}, "/config/epochs", "greater_than_equal", "must be at least 1"),
        ({"config": {"flip": []}}, "/config/flip", "boolean_type", "must be true or false"),
    ],
)
def test_a_mistake_is_described_in_terms_of_json(
    changes: dict[str, Any], pointer: str, code: str, detail: str, post: Post
) -> None:
    problem = assert_problem(post(spec_part(spec(**changes)), teacher_part()), 422, "invalid_spec")
    assert {"pointer": pointer, "code": code, "detail": detail} in problem["errors"]  # type: ignore[operator]


def test_fields_of_a_nested_object_are_suggested() -> None:
    document = spec()
    document["teacher"]["normalisation"] = document["teacher"].pop("normalization")
    with pytest.raises(Problem) as refusal:
        parse_spec(json.dumps(document).encode())
    details = {error.pointer: error.detail for error in refusal.value.errors}
    assert details["/teacher/normalisation"] == "is not a field; the nearest is 'normalization'"
    assert details["/teacher/normalization"] == "is missing"


def test_all_fields_are_listed_where_no_name_is_near() -> None:
    with pytest.raises(Problem) as refusal:
        parse_spec(json.dumps(spec(student={"architecture": "wrn_16_1", "zzzz": 1})).encode())
    assert refusal.value.errors[0].detail == "is not a field; the fields are architecture"


def test_query_parameters_have_the_same_wording(client: httpx.Client) -> None:
    details = {
        query: client.get(f"/jobs?{query}").json()["errors"][0]["detail"]
        for query in ("limit=x", "limit=0", "limit=101", f"after={'x' * 300}", "status=done")
    }
    assert details["limit=x"] == "must be an integer"
    assert details["limit=0"] == "must be at least 1"
    assert details["limit=101"] == "must be at most 100"
    assert details[f"after={'x' * 300}"] == "must have at most 200 characters"
    assert details["status=done"].startswith("must be 'validating', 'queued'")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-8-sig", "byte order mark"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-16"),
    ],
)
def test_a_wrong_encoding_is_named(encoding: str, name: str, post: Post) -> None:
    document = json.dumps(spec()).encode(encoding)
    problem = assert_problem(post(teacher_part(), part("spec", document)), 400, "invalid_json")
    assert name in str(problem["detail"])
    assert "byte order mark" in str(problem["hint"])


@pytest.mark.parametrize(
    "document",
    [
        {"labels": [1] * 300_000},
        {"labels": [""] * 300_000},
        {"labels": ["x" * 201] * 15_000},
        {"labels": [["a"]] * 300_000},
        {"labels": [str(number) for number in range(300_000)]},
        {str(number): 1 for number in range(200_000)},
        {"config": {str(number): 1 for number in range(200_000)}},
        {"metadata": {str(number): 1 for number in range(200_000)}},
        {"webhook": {"url": "https://example.com", "events": ["x"] * 300_000}},
        {"teacher": {"input_size": [1] * 300_000}},
        {"student": {"architecture": "x" * 3_900_000}},
        {"config": {"x" * 3_900_000: 1}},
        {"x" * 3_900_000: 1},
    ],
    ids=range(13),
)
def test_a_spec_full_of_mistakes_costs_little(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few mistakes are collected, and no long name is compared with others: both took seconds."""
    compared: list[str] = []

    def get_close_matches(word: str, *_: object, **__: object) -> list[str]:
        compared.append(word)
        return []

    monkeypatch.setattr(difflib, "get_close_matches", get_close_matches)
    content = json.dumps({**spec(), **document}).encode()
    with pytest.raises(Problem) as refusal:
        parse_spec(content)
    cause = refusal.value.__cause__
    assert not isinstance(cause, ValidationError) or cause.error_count() <= MAX_ITEMS
    assert len(compared) <= MAX_ERRORS
    assert all(len(word) <= MAX_NAME_CHARS for word in compared)
    assert len(refusal.value.errors) <= MAX_ERRORS
    assert len(refusal.value.response("/jobs").body) < 60_000
