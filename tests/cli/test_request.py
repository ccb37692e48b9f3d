"""From options to the document of POST /jobs."""

import json
from pathlib import Path

import pytest

from cli.errors import RequestError
from cli.request import merge, missing_fields, read_spec, settings
from cli.submit import build_spec
from nayer_core.contract.spec import JobSpec
from tests.support.receiver import SECRET


def test_settings_are_json_where_they_can_be() -> None:
    assert settings(["epochs=3", "flip=false", "generator=table8", "student_lr=1e-2"]) == {
        "epochs": 3,
        "flip": False,
        "generator": "table8",
        "student_lr": 0.01,
    }


def test_merge_lays_only_what_is_there_over_a_document() -> None:
    document = {"seed": 1, "teacher": {"accuracy": 0.9, "input_size": [3, 32, 32]}}
    changes = {"seed": None, "teacher": {"accuracy": None, "architecture": "resnet20"}, "config": {}}
    assert merge(document, changes) == {
        "seed": 1,
        "teacher": {"accuracy": 0.9, "input_size": [3, 32, 32], "architecture": "resnet20"},
    }


def test_options_make_a_document_that_the_contract_accepts() -> None:
    document = build_spec(
        {
            "labels": ["cat", "dog"],
            "student": "wrn_16_1",
            "input_size": "3,32,32",
            "mean": "0.5,0.5,0.5",
            "std": "0.25,0.25,0.25",
            "set_": ["epochs=3"],
            "seed": 7,
            "on_out_of_memory": "halve",
            "reuse_bank": True,
            "max_runtime": 60,
            "metadata": ["team=vision"],
            "embeddings": Path("vectors.safetensors"),
        }
    )
    spec = JobSpec.model_validate_json(json.dumps(document))
    assert spec.labels == ("cat", "dog")
    assert spec.text_encoder.name == "file"
    assert spec.reuse_bank
    assert spec.on_out_of_memory == "halve"
    assert (spec.seed, spec.max_runtime_seconds, spec.metadata) == (7, 60, {"team": "vision"})
    assert spec.resolved_config()[1].epochs == 3


def test_options_win_over_the_specification_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"labels": ["a", "b"], "student": {"architecture": "wrn_40_1"}, "seed": 3}')
    document = build_spec({"spec": path, "student": "wrn_16_1"})
    assert document == {"labels": ["a", "b"], "student": {"architecture": "wrn_16_1"}, "seed": 3}


def test_a_specification_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text("[1]")
    with pytest.raises(RequestError, match="spec_unreadable"):
        build_spec({"spec": path})


def test_a_specification_may_be_saved_by_any_editor(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path = tmp_path / encoding
        path.write_text('{"labels": ["Kühe"]}', encoding=encoding)
        assert read_spec(path) == {"labels": ["Kühe"]}
    path = tmp_path / "cp1252"
    path.write_text('{"labels":\n["Kühe"]}', encoding="cp1252")
    with pytest.raises(RequestError, match="no text in UTF-8: line 2 has the byte 0xfc"):
        read_spec(path)


def test_everything_without_a_default_that_is_missing_is_found() -> None:
    everything = ["/labels", "/student/architecture", "/teacher/input_size"]
    everything += ["/teacher/normalization/mean", "/teacher/normalization/std"]
    assert missing_fields({}) == everything
    assert missing_fields({"teacher": {}, "student": {"architecture": None}}) == everything
    normalization = {"mean": [0.5], "std": [0.5]}
    document = {"labels": [], "teacher": {"input_size": [1, 8, 8], "normalization": normalization}}
    assert missing_fields(document) == ["/student/architecture"]
    assert missing_fields(document | {"student": "wrn_16_1"}) == [], (
        "what is no object is judged by the service"
    )


def test_a_web_hook_is_signed_with_the_secret_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"webhook": {"url": "https://example.com/a", "events": ["job.failed"]}}')
    asked = {"spec": path, "webhook_secret": SECRET}
    failed = {"url": "https://example.com/a", "events": ["job.failed"], "secret": SECRET}
    assert build_spec(asked) == {"webhook": failed}
    assert build_spec({**asked, "webhook": "https://example.com/b"}) == {
        "webhook": {**failed, "url": "https://example.com/b"}
    }
    assert build_spec({"webhook": "https://example.com/b"}) == {"webhook": {"url": "https://example.com/b"}}
    assert build_spec({"webhook_secret": SECRET}) == {}, "a secret alone asks for nothing"
