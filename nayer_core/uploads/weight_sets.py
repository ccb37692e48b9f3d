"""The sets of named tensors in a pickle, and which of them is the teacher's."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from nayer_core.contract.errors import ErrorCode
from nayer_core.contract.spec import TeacherWeights
from nayer_core.networks.fitting import is_averaged
from nayer_core.uploads.client_file import ClientFile, subscripts
from nayer_core.uploads.pickle_names import is_of_tensors
from nayer_core.uploads.pickled_values import PickledDict, PickledObject, PickledTensor
from nayer_core.uploads.refusals import refuse

# Keys under which training code saves weights, likeliest first.
_WEIGHTS_KEYS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "net_state_dict"),
    *("model_state", "module", "teacher", "student"),
)
_DEEPEST = 4  # wrappers around wrappers
_MOST_PLACES = 5  # that a message names
_MOST_MISSING = 0.05  # of the raw set's tensors, in an averaged set: a criterion is not averaged

Value = PickledTensor | PickledObject


@dataclass(frozen=True)
class WeightSet:
    """A dict of named tensors.

    Attributes:
        keys: lead to it, outermost first.
        entries: name -> tensor, or object that makes a tensor of another kind.
    """

    keys: tuple[str, ...]
    entries: Mapping[str, Value]


@dataclass(frozen=True)
class Choice:
    """The set that is the teacher, and what else there is.

    Attributes:
        weights: the set.
        averaged: whether it holds averages of the weights over the training.
        other: keys of the set with or without averages that was not taken; None if there is none.
        incomplete: whether the other set was left because it lacks tensors.
    """

    weights: WeightSet
    averaged: bool = False
    other: tuple[str, ...] | None = None
    incomplete: bool = False


def walk(root: object) -> Iterator[tuple[tuple[str, ...], PickledDict | PickledObject]]:
    """Yield every dict and object that keys lead to, once each, with these keys; no optimiser's."""
    waiting: list[tuple[tuple[str, ...], PickledDict | PickledObject]] = (
        [((), root)] if isinstance(root, PickledDict | PickledObject) else []
    )
    visited: set[int] = set()
    for keys, value in waiting:  # which grows
        if id(value) in visited:
            continue
        visited.add(id(value))
        yield keys, value
        if isinstance(value, PickledDict) and len(keys) < _DEEPEST:
            waiting += [
                ((*keys, key), entry)
                for key, entry in value.entries.items()
                if isinstance(entry, PickledDict | PickledObject) and not key.startswith("optim")
            ]


def find_sets(root: object) -> list[WeightSet]:
    """Return the sets of named tensors; those with a matrix or a convolution, if there are any."""
    sets = []
    for keys, value in walk(root):
        if isinstance(value, PickledDict) and not value.has_other_keys:
            entries = {name: entry for name, entry in value.entries.items() if _is_tensor(entry)}
            if entries:
                sets.append(WeightSet(keys, entries))
    return [it for it in sets if _has_layer(it)] or sets


def choose_set(
    root: PickledDict, sets: list[WeightSet], weights: TeacherWeights, *, needs_trust: bool = False
) -> Choice:
    """Choose the teacher's set; of a trained and an averaged one the averaged, unless `weights` is `raw`.

    Args:
        root: the whole content of the file.
        sets: at least one.
        weights: what the client wants.
        needs_trust: whether the file holds objects too, for a hint.

    Raises:
        TeacherError: `not_a_checkpoint` if several sets may be meant.
    """
    averaged = [it for it in sets if _is_averaged(it, sets, root)]
    raw = [it for it in sets if it not in averaged]
    if not averaged or not raw:
        return Choice(_only(sets, needs_trust), averaged=not raw)
    trained, mean = _only(raw, needs_trust), _only(averaged, needs_trust)
    if _lacks_tensors(mean, trained):
        return Choice(trained, other=mean.keys, incomplete=True)
    if weights == "raw":
        return Choice(trained, other=mean.keys)
    return Choice(mean, averaged=True, other=trained.keys)


def _is_averaged(candidate: WeightSet, sets: Iterable[WeightSet], root: PickledDict) -> bool:
    keys = candidate.keys
    if "message_hub" in root.entries and "ema_state_dict" in root.entries:
        return keys == ("state_dict",)  # mmengine exchanges the two sets when it saves
    if is_averaged(keys):
        return True
    # A teacher beside its student is the average of it: DINO, mean teacher.
    return keys[-1:] == ("teacher",) and any(it.keys == (*keys[:-1], "student") for it in sets)


def _only(sets: list[WeightSet], needs_trust: bool) -> WeightSet:
    for key in _WEIGHTS_KEYS:
        for candidate in sets:
            if candidate.keys[-1:] == (key,):
                return candidate
    if len(sets) == 1:
        return sets[0]
    places = ", ".join(_place(it.keys) for it in sets[:_MOST_PLACES])
    keys = max(sets, key=lambda it: len(it.entries)).keys
    source = ClientFile(keys=keys, needs_trust=needs_trust)
    line = source.edited("sd = {k: v for k, v in sd.items() if isinstance(v, torch.Tensor)}")
    raise refuse(
        ErrorCode.NOT_A_CHECKPOINT,
        f"The file holds {len(sets)} sets of tensors: {places}.",
        f"Only one is wanted. {source.introduction} {line}" if line else "Upload one of them alone.",
    )


def _place(keys: tuple[str, ...]) -> str:
    return f"at {subscripts(keys)[:80]}" if keys else "at the top"


def _lacks_tensors(mean: WeightSet, trained: WeightSet) -> bool:
    """Whether an averaged set is no whole network, as where parameters alone were averaged."""
    kinds, expected = (Counter(map(_kind, it.entries.items())) for it in (mean, trained))
    absent = expected - kinds
    return (
        any(word == "running_var" for word, _ in absent)
        or absent.total() > _MOST_MISSING * len(trained.entries) + 1
    )


def _kind(item: tuple[str, Value]) -> tuple[str, tuple[int, ...]]:
    name, value = item
    return name.rpartition(".")[2], value.size if isinstance(value, PickledTensor) else ()


def _is_tensor(value: object) -> bool:
    """Whether `value` is a tensor, of any kind, or made of one by unknown code."""
    return isinstance(value, PickledTensor) or (
        isinstance(value, PickledObject)
        and (is_of_tensors(value.name) or any(isinstance(it, PickledTensor) for it in value.arguments))
    )


def _has_layer(candidate: WeightSet) -> bool:
    return any(isinstance(it, PickledObject) or len(it.size) > 1 for it in candidate.entries.values())
