"""Teacher files as people have them: under any prefix, with more beside, and with other heads."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from safetensors.torch import save_file
from torch import Tensor, nn

from nayer_core.commands.teacher_reading import Teacher, read_teacher
from nayer_core.contract.errors import ErrorCode, TeacherError
from nayer_core.networks.parametrizations import resolve_parts
from nayer_core.networks.registry import build
from tests.support.client_files import TAKEN, network, under

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def read(
    document: Any, folder: Path, classes: int = 4, architecture: str = "auto", **options: Any
) -> Teacher:
    torch.save(document, folder / "teacher.pt")
    return read_teacher(
        folder / "teacher.pt",
        architecture,
        num_classes=classes,
        input_size=(3, 32, 32),
        scratch=folder,
        **options,
    )


def refusal(document: Any, folder: Path, **options: Any) -> TeacherError:
    with pytest.raises(TeacherError) as raised:
        read(document, folder, **options)
    return raised.value


def state_of(trained: nn.Module) -> dict[str, Tensor]:
    return dict(trained.state_dict())


@torch.no_grad()
def logits(trained: nn.Module) -> Tensor:
    answer: Tensor = trained.eval()(IMAGES)
    return answer


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of sparse tensors
@pytest.mark.parametrize("architecture", ["auto", "resnet20"])
@pytest.mark.parametrize("case", TAKEN)
def test_the_network_in_a_file_is_found_and_what_was_assumed_is_said(
    case: str, architecture: str, tmp_path: Path
) -> None:
    change, prefix, codes = TAKEN[case]
    expected = network()
    teacher = read(change(state_of(expected)), tmp_path, architecture=architecture)
    assert teacher.recognition.architecture == "resnet20"
    assert teacher.recognition.prefix == prefix
    assert tuple(warning.code for warning in teacher.warnings()) == codes
    assert all(len(warning.message) < 600 and warning.message.isascii() for warning in teacher.warnings())
    if case != "head without bias":
        assert torch.equal(logits(teacher.network), logits(expected))


def test_a_head_without_bias_has_a_bias_of_zeros(tmp_path: Path) -> None:
    expected = network()
    nn.init.zeros_(expected.linear.bias)
    state = state_of(expected)
    del state["linear.bias"]
    assert torch.equal(logits(read(state, tmp_path).network), logits(expected))


@pytest.mark.parametrize(
    ("trained", "averaged"),
    [
        ("state_dict", "state_dict_ema"),
        ("model.", "ema_model."),
        ("", "ema."),
        ("student", "teacher"),
        ("student.", "teacher."),
    ],
)
def test_raw_weights_are_taken_where_they_are_wanted(trained: str, averaged: str, tmp_path: Path) -> None:
    raw, mean = network(), network()
    nn.init.zeros_(mean.linear.weight)
    if averaged.endswith("."):
        document: Any = under(averaged, state_of(mean)) | under(trained, state_of(raw))
    else:
        document = {averaged: state_of(mean), trained: state_of(raw)}
    for weights, expected, is_averaged in (("auto", mean, True), ("raw", raw, False)):
        teacher = read(document, tmp_path, weights=weights)
        assert torch.equal(logits(teacher.network), logits(expected))
        assert teacher.is_averaged is is_averaged
    messages = [it.message for it in read(document, tmp_path).warnings() if it.code == "averaged_weights"]
    assert len(messages) == 1
    assert 'teacher.weights: "raw"' in messages[0]


def test_the_warning_gives_the_values_of_a_normaliser_to_the_spec(tmp_path: Path) -> None:
    document = {"mu": torch.ones(1, 3, 1, 1), **state_of(network())}
    (warning,) = read(document, tmp_path).warnings()
    assert "1 tensors are left out" in warning.message
    assert "Give the values of 'mu' as teacher.normalization" in warning.message


def test_a_tensor_of_an_odd_kind_is_an_error_if_the_network_needs_it(tmp_path: Path) -> None:
    state = state_of(network())
    for odd in (
        state["linear.bias"].to(torch.int8),
        torch.full((4,), float("nan")),
        state["linear.bias"].to_sparse(),
        torch.ones(1).expand(4),
    ):
        error = refusal({**state, "linear.bias": odd}, tmp_path)
        assert error.code in (ErrorCode.UNSUPPORTED_TENSOR, ErrorCode.NON_FINITE_WEIGHTS)
        assert "'linear.bias'" in error.message


def test_odd_tensors_of_safetensors_may_be_beside_the_network(tmp_path: Path) -> None:
    state = state_of(network()) | {
        "mask": torch.ones(3, dtype=torch.bool),
        "scale": torch.ones(2).to(torch.float8_e4m3fn),
        "small": torch.ones(2, dtype=torch.int8),
    }
    save_file(state, tmp_path / "teacher.safetensors")
    teacher = read_teacher(
        tmp_path / "teacher.safetensors", "auto", num_classes=4, input_size=(3, 32, 32), scratch=tmp_path
    )
    assert set(teacher.recognition.left_out) == {"mask", "scale", "small"}


@pytest.mark.parametrize(
    ("extra", "expected_text"),
    [
        ({"layer1.0.conv3.weight": torch.ones(16, 16, 3, 3)}, "layer1.0.conv3.weight"),
        ({"linear.0.weight": torch.ones(64, 64)}, "linear.0.weight"),
    ],
)
def test_a_layer_of_the_network_itself_is_never_left_out(
    extra: dict[str, Tensor], expected_text: str, tmp_path: Path
) -> None:
    error = refusal(state_of(network()) | extra, tmp_path)
    assert error.code == ErrorCode.ARCHITECTURE_UNRECOGNISED
    assert expected_text in error.message


def test_a_wrong_number_of_labels_is_told_for_changed_names_too(tmp_path: Path) -> None:
    state = state_of(network())
    for document in (
        under("backbone.", state),
        {name.replace("linear.", "linear.1."): tensor for name, tensor in state.items()},
    ):
        error = refusal(document, tmp_path, classes=7)
        assert error.code == ErrorCode.CLASS_COUNT_MISMATCH
        assert "has 4 classes, and there are 7 labels" in error.message


BINARY = (
    "resnet20",
    "torchvision/resnet18",
    "torchvision/mobilenet_v2",
    "timm/deit_tiny_distilled_patch16_224",
)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_teacher_with_one_output_has_two_classes(name: str, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = build(name, num_classes=1, input_size=(3, 32, 32)).eval()
    teacher = read(under(prefix, state_of(one)), tmp_path, classes=2, architecture=name)
    z = logits(one)
    torch.testing.assert_close(logits(teacher.network), torch.cat([torch.zeros_like(z), z], 1))
    assert teacher.recognition.is_binary
    message = next(it.message for it in teacher.warnings(["cat", "dog"]) if it.code == "binary_head")
    assert "'cat' where z is below 0, 'dog' where it is above" in message


def test_a_teacher_with_one_output_needs_two_labels(tmp_path: Path) -> None:
    error = refusal(state_of(network(1)), tmp_path, classes=3)
    assert error.code == ErrorCode.CLASS_COUNT_MISMATCH
    assert "one output" in error.message
    assert error.hint == "Give two labels, that of the negative class first."


def normalised(kind: str, trained: nn.Module) -> nn.Module:
    layers = [trained.linear] if kind.endswith("head") else [trained.conv1, trained.linear]
    for layer in layers:
        if kind.startswith("weight_norm of today"):
            nn.utils.parametrizations.weight_norm(layer)
        elif kind.startswith("weight_norm"):
            nn.utils.weight_norm(layer, dim=None if "whole" in kind else 0)
        elif kind.startswith("spectral_norm of today"):
            nn.utils.parametrizations.spectral_norm(layer)
        elif kind.startswith("spectral_norm"):
            nn.utils.spectral_norm(layer)
        else:
            nn.utils.prune.random_unstructured(layer, "weight", 0.5)
    return trained


KINDS = (
    *("weight_norm", "weight_norm, whole", "weight_norm of today", "weight_norm of today, head"),
    *("spectral_norm", "spectral_norm of today", "pruning"),
)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of weight_norm
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_weights_in_parts_are_put_together(kind: str, prefix: str, tmp_path: Path) -> None:
    expected = normalised(kind, network()).train()
    with torch.no_grad():
        expected(IMAGES)  # the power iteration of a spectral norm
    teacher = read(under(prefix, state_of(expected)), tmp_path)
    torch.testing.assert_close(logits(teacher.network), logits(expected), rtol=1e-5, atol=1e-5)
    assert teacher.recognition.left_out == ()
    assert [it.code for it in teacher.warnings()] == ["weights_computed"]


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("weight_norm of today", ".original1"),
        ("spectral_norm of today", "._u"),
        ("spectral_norm", ".weight_u"),
    ],
)
def test_a_weight_that_is_not_finite_is_refused_though_its_parts_are(
    kind: str, ending: str, tmp_path: Path
) -> None:
    state = dict(normalised(kind, network()).state_dict())
    for name in state:
        if name.endswith(ending):
            state[name] = torch.zeros_like(state[name])  # a norm of zero
    assert refusal(state, tmp_path).code == ErrorCode.NON_FINITE_WEIGHTS


@pytest.mark.parametrize(
    "parts",
    [
        {"a.weight_g": torch.ones(1, 5000), "a.weight_v": torch.ones(5000, 1)},
        {"a.weight_g": torch.ones(5000), "a.weight_v": torch.ones(5000, 1)},
        {"a.weight_orig": torch.ones(5000, 1), "a.weight_mask": torch.ones(1, 5000)},
        {"a.weight_orig": torch.ones(5, 3), "a.weight_u": torch.ones(()), "a.weight_v": torch.ones(3)},
        {"a.weight_orig": torch.ones(5), "a.weight_u": torch.ones(2), "a.weight_v": torch.ones(3)},
    ],
)
def test_parts_that_do_not_belong_together_stay_as_they_are(parts: dict[str, Tensor]) -> None:
    resolved, computed = resolve_parts(parts)
    assert (set(resolved), computed) == (set(parts), ())


def test_another_parametrization_is_not_guessed(tmp_path: Path) -> None:
    changed = network()
    nn.utils.parametrizations.orthogonal(changed.linear)
    assert refusal(state_of(changed), tmp_path).code == ErrorCode.ARCHITECTURE_UNRECOGNISED
