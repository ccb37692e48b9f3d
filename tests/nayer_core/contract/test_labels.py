"""Class names in a specification: lists, and objects as people have them."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from nayer_core.contract.spec import MAX_LABEL_ERRORS, MAX_LABELS, JobSpec


def spec(labels: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "labels": labels,
            "teacher": {"input_size": [3, 32, 32], "normalization": "none"},
            "student": {"architecture": "wrn_16_1"},
        }
    )


CONFIG = {"architectures": ["ResNetForImageClassification"], "hidden_sizes": [1], "num_channels": 3}


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog", "crane"],
        {"0": "cat", "1": "dog", "2": "crane"},
        {"2": "crane", "0": "cat", "1": "dog"},
        {"cat": 0, "dog": 1, "crane": 2},
        {"0": ["n02123045", "cat"], "1": ["n02084071", "dog"], "2": ["n02012849", "crane"]},
        {**CONFIG, "id2label": {"0": "cat", "1": "dog", "2": "crane"}},
        {**CONFIG, "label2id": {"dog": 1, "cat": 0, "crane": 2}},
        {"label_names": ["cat", "dog", "crane"], "architecture": "resnet18"},
    ],
)
def test_an_object_of_labels_becomes_a_list(labels: Any) -> None:
    assert spec(json.loads(json.dumps(labels))).labels == ("cat", "dog", "crane")


def test_labels_may_be_the_same_text() -> None:
    """ImageNet has two cranes and two maillots."""
    names = ["crane", "maillot", "crane", "maillot"]
    assert spec(names).labels == tuple(names)


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"0": "cat", "2": "dog"},
        {"1": "cat", "2": "dog"},
        {"cat": 1, "dog": 2},
        {"cat": 0, "dog": 0},
        {"0": "cat", "00": "dog"},
        {"a": "b", "c": "d"},
        {"0": True, "1": False},
        {"0": {"name": "cat"}, "1": {"name": "dog"}},
        CONFIG,
    ],
)
def test_an_object_without_an_index_for_each_label_is_refused(labels: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        spec(labels)
    assert all(error["loc"][0] == "labels" for error in raised.value.errors())


def test_a_large_object_of_wrong_labels_costs_little() -> None:
    with pytest.raises(ValidationError) as raised:
        spec({str(index): 1.5 for index in range(MAX_LABELS)})
    assert raised.value.error_count() == MAX_LABEL_ERRORS
