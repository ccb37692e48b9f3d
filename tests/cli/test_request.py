"""From options to the document of POST /jobs."""

import json
from pathlib import Path

import pytest

from cli.errors import RequestError
from cli.request import (
    build_spec,
    encoder_fields,
    merge,
    missing_fields,
    network_fields,
    notice_fields,
    training_fields,
)
from nayer_core.contract.spec import JobSpec
from tests.support.receiver import SECRET


def test_settings_are_json_where_they_can_be() -> None:
    settings = ["epochs=3", "flip=false", "generator=table8", "student_lr=1e-2"]
    assert training_fields(None, settings)["config"] == {
        "epochs": 3,
        "flip": False,
        "generator": "table8",
        "student_lr": 0.01,
    }


def test_merge_changes_only_the_fields_that_have_a_value() -> None:
    document = {"seed": 1, "teacher": {"accuracy": 0.9, "input_size": [3, 32, 32]}}
    changes = {"seed": None, "teacher": {"accuracy": None, "architecture": "resnet20"}, "config": {}}
    assert merge(document, changes) == {
        "seed": 1,
        "teacher": {"accuracy": 0.9, "input_size": [3, 32, 32], "architecture": "resnet20"},
    }


def test_options_make_a_document_that_the_contract_accepts() -> None:
    document = build_spec(
        None,
        {"labels": ["cat", "dog"]},
        network_fields("wrn_16_1", "resnet20", "3,32,32", ("0.5,0.5,0.5", "0.25,0.25,0.25"), 0.9, "raw"),
        training_fields("quick", ["epochs=3"], 7, "halve", True, 60),
        encoder_fields(None, Path("vectors.safetensors")),
        notice_fields(["team=vision"], None),
    )
    spec = JobSpec.model_validate_json(json.dumps(document))
    assert spec.labels == ("cat", "dog")
    assert spec.student.architecture == "wrn_16_1"
    assert (spec.teacher.architecture, spec.teacher.accuracy) == ("resnet20", 0.9)
    assert spec.teacher.input_size == (3, 32, 32)
    assert (spec.teacher.normalization.mean[0], spec.teacher.normalization.std[0]) == (0.5, 0.25)
    assert spec.teacher.weights == "raw"
    assert spec.text_encoder.name == "file"
    assert spec.reuse_bank
    assert spec.on_out_of_memory == "halve"
    assert (spec.seed, spec.max_runtime_seconds, spec.metadata) == (7, 60, {"team": "vision"})
    assert spec.resolved_config()[1].epochs == 3


def test_a_normalization_may_be_given_by_name() -> None:
    fields = network_fields("wrn_16_1", None, "3,32,32", "imagenet")
    document = build_spec(None, {"labels": ["cat", "dog"]}, fields)
    assert missing_fields(document) == []
    assert JobSpec.model_validate(document).teacher.normalization.mean == (0.485, 0.456, 0.406)


def test_options_win_over_the_specification_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"labels": ["a", "b"], "student": {"architecture": "wrn_40_1"}, "seed": 3}')
    document = build_spec(path, network_fields("wrn_16_1", None, None, (None, None)))
    assert document == {"labels": ["a", "b"], "student": {"architecture": "wrn_16_1"}, "seed": 3}


def test_a_specification_that_is_no_json_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text("[1]")
    with pytest.raises(RequestError, match="spec_unreadable"):
        build_spec(path)


def test_a_specification_is_read_in_every_unicode_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path = tmp_path / encoding
        path.write_text('{"labels": ["Kühe"]}', encoding=encoding)
        assert build_spec(path) == {"labels": ["Kühe"]}
    path = tmp_path / "cp1252"
    path.write_text('{"labels":\n["Kühe"]}', encoding="cp1252")
    with pytest.raises(RequestError, match="no text in UTF-8: line 2 has the byte 0xfc"):
        build_spec(path)


def test_missing_fields_are_those_without_a_default() -> None:
    required = ["/labels", "/student/architecture", "/teacher/input_size"]
    required += ["/teacher/normalization/mean", "/teacher/normalization/std"]
    assert missing_fields({}) == required
    assert missing_fields({"teacher": {}, "student": {"architecture": None}}) == required
    normalization = {"mean": [0.5], "std": [0.5]}
    document = {"labels": [], "teacher": {"input_size": [1, 8, 8], "normalization": normalization}}
    assert missing_fields(document) == ["/student/architecture"]
    assert missing_fields(document | {"student": "wrn_16_1"}) == [], "the service refuses other values"


def test_the_secret_is_added_where_there_is_a_web_hook(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"webhook": {"url": "https://example.com/a", "events": ["job.failed"]}}')
    other = notice_fields(None, "https://example.com/b")
    webhook = {"url": "https://example.com/a", "events": ["job.failed"], "secret": SECRET}
    assert build_spec(path, webhook_secret=SECRET) == {"webhook": webhook}
    assert build_spec(path, other, webhook_secret=SECRET) == {
        "webhook": {**webhook, "url": "https://example.com/b"}
    }
    assert build_spec(None, other) == {"webhook": {"url": "https://example.com/b"}}
    assert build_spec(None, webhook_secret=SECRET) == {}, "a secret alone makes no web hook"
