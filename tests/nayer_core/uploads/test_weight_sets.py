"""Which of the sets of tensors in a checkpoint is the teacher's."""

from typing import Any

import pytest

from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.contract.spec import TeacherWeights
from nayer_core.uploads.pickled_values import PickledDict, PickledStorage, PickledTensor
from nayer_core.uploads.weight_sets import Choice, choose_set, find_sets


def tensor(*size: int) -> PickledTensor:
    storage = PickledStorage("torch.FloatStorage", "0", 100, 0, 100)
    return PickledTensor(storage, 0, size, (1,) * len(size))


TENSORS = {"a.weight": tensor(2, 3), "a.running_var": tensor(2)}
PARAMETERS = {"a.weight": tensor(2, 3)}


def pickled(value: Any) -> Any:
    """Nested dicts as the reader gives them."""
    if not isinstance(value, dict):
        return value
    return PickledDict({key: pickled(entry) for key, entry in value.items() if isinstance(key, str)})


def choose(document: dict[str, Any], weights: TeacherWeights = "auto") -> Choice:
    root = pickled(document)
    return choose_set(root, find_sets(root), weights)


@pytest.mark.parametrize(
    ("document", "keys"),
    [
        (TENSORS, ()),
        ({**TENSORS, "epoch": 3}, ()),
        ({"state_dict": TENSORS, "best_prec1": 91.7}, ("state_dict",)),
        ({"loss": tensor(), "model": TENSORS}, ("model",)),
        ({"anything": TENSORS, "epoch": 3}, ("anything",)),
        ({"anything": TENSORS, "best_acc": tensor()}, ("anything",)),
        ({"anything": TENSORS, "norm": {"mean": tensor(3), "std": tensor(3)}}, ("anything",)),
        ({"checkpoint": {"net": TENSORS}, "args": {"lr": 0.1}}, ("checkpoint", "net")),
        ({"w": TENSORS, "optimizer": {"state": {"0": {"exp_avg": tensor(2, 3)}}}}, ("w",)),
        ({"params": TENSORS, "head": {"b": tensor(2, 2)}}, ("params",)),
    ],
)
def test_a_state_dict_is_found_in_what_wraps_it(document: dict[str, Any], keys: tuple[str, ...]) -> None:
    choice = choose(document)
    assert choice.weights.keys == keys
    assert set(choice.weights.entries) == set(TENSORS)
    assert choice.other is None


def test_several_sets_are_named() -> None:
    with pytest.raises(TeacherError) as raised:
        choose({"encoder": TENSORS, "decoder": TENSORS | {"b": tensor(1, 1)}})
    assert raised.value.code == ErrorCode.NOT_A_CHECKPOINT
    assert 'at ["encoder"], at ["decoder"]' in raised.value.message
    assert '["decoder"]' in raised.value.hint


def test_a_dict_that_contains_itself_is_one_set() -> None:
    root = pickled({"net": TENSORS})
    root.entries["again"] = root
    root.entries["model"] = root.entries["net"]
    assert [it.keys for it in find_sets(root)] == [("net",)]


AVERAGED = [
    ("state_dict", "state_dict_ema"),
    ("model", "model_ema"),
    ("model", "ema"),
    ("net", "ema_net"),
    ("model_state_dict", "swa_state_dict"),
    ("student", "teacher"),
    ("model", "averaged_model"),
]


@pytest.mark.parametrize(("trained", "averaged"), AVERAGED)
def test_the_averaged_set_is_taken_unless_the_raw_one_is_wanted(trained: str, averaged: str) -> None:
    document = {trained: TENSORS, averaged: {f"module.{name}": it for name, it in TENSORS.items()}}
    choice = choose(document)
    assert (choice.weights.keys, choice.averaged, choice.other) == ((averaged,), True, (trained,))
    raw = choose(document, "raw")
    assert (raw.weights.keys, raw.averaged, raw.other) == ((trained,), False, (averaged,))


def test_mmengine_exchanges_the_two_sets_when_it_saves() -> None:
    choice = choose({"message_hub": {}, "ema_state_dict": TENSORS, "state_dict": TENSORS | {}})
    assert (choice.weights.keys, choice.averaged) == (("state_dict",), True)


def test_averages_of_parameters_alone_are_no_teacher() -> None:
    choice = choose({"model": TENSORS, "shadow": PARAMETERS})
    assert (choice.weights.keys, choice.incomplete, choice.other) == (("model",), True, ("shadow",))


def test_an_averaged_set_alone_is_taken() -> None:
    for weights in ("auto", "raw"):
        choice = choose({"model_ema": TENSORS}, weights)
        assert (choice.weights.keys, choice.averaged, choice.other) == (("model_ema",), True, None)
