"""The command `inspect`: what it recognises, resolves, reports and refuses."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nayer_core.commands import inspection
from nayer_core.contract.errors import ErrorCode, NayerError, SpecError, TeacherError, UploadError
from nayer_core.contract.events import Phase, PhaseEvent, WarningEvent
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.networks.registry import build, state_shapes

DATA = Path(__file__).parents[4] / "shared" / "data"
NORMALIZATION = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def network(architecture, *, num_classes=4, input_size=(3, 32, 32), seed=0):
    torch.manual_seed(seed)
    return build(architecture, num_classes=num_classes, input_size=input_size)


@pytest.fixture
def inspect(tmp_path):
    """Run the command on a state dict; returns (report, events, folder)."""

    def run(state, *, classes=4, architecture="auto", size=(3, 32, 32), files=None, **spec):
        document = {
            "labels": [f"class {i}" for i in range(classes)],
            "teacher": {
                "architecture": architecture,
                "input_size": size,
                "normalization": {key: values[: size[0]] for key, values in NORMALIZATION.items()},
            },
            "student": {"architecture": "lenet5"},
            **spec,
        }
        (tmp_path / "spec.json").write_text(json.dumps(document))
        if isinstance(state, Path):
            teacher = state
        else:
            teacher = tmp_path / "teacher.pt"
            torch.save(state, teacher)
        args = argparse.Namespace(
            teacher=teacher,
            spec=tmp_path / "spec.json",
            evaluation=None,
            embeddings=None,
            out=tmp_path / "out",
            memory_bytes=None,
        )
        events = []
        report = inspection.run(argparse.Namespace(**{**vars(args), **(files or {})}), events.append)
        return report, events, tmp_path / "out"

    return run


@pytest.mark.parametrize(
    "architecture", ["resnet20", "resnet18", "vgg8_bn", "lenet5", "alexnet", "mobilenet_v2", "wrn_16_1"]
)
def test_every_own_family_is_recognised_and_comes_out_with_its_names(architecture, inspect):
    teacher = network(architecture)
    state = {f"module.{name}": value for name, value in teacher.state_dict().items()}
    report, _, out = inspect({"epoch": 1, "state_dict": state})
    assert report["architecture"] == architecture
    assert (report["format"], report["wrapped_in"], report["prefix_removed"]) == (
        "torch_zip",
        "state_dict",
        "module.",
    )
    assert report["parameters"] == sum(parameter.numel() for parameter in teacher.parameters())
    canonical = load_file(out / "teacher.safetensors")
    assert canonical.keys() == teacher.state_dict().keys()
    assert all(torch.equal(canonical[name], value) for name, value in teacher.state_dict().items())
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "spec.json", "teacher.safetensors"]


def test_the_resolved_spec_has_all_values(inspect):
    _, events, out = inspect(network("resnet20").state_dict(), preset="quick", config={"epochs": 3}, seed=7)
    spec = ResolvedSpec.model_validate_json((out / "spec.json").read_bytes())
    assert (spec.teacher_architecture, spec.student_architecture) == ("resnet20", "lenet5")
    assert (spec.preset, spec.config.epochs, spec.seed) == ("quick", 3, 7)
    assert spec.input_size == (3, 32, 32)
    assert spec.num_classes == 4
    assert events == [event for event in events if isinstance(event, PhaseEvent | WarningEvent)]
    assert events[0].phase is Phase.INSPECT


def test_what_was_made_of_the_file_is_in_report_events_and_resolved_spec(inspect):
    state = network("resnet20", num_classes=1).state_dict()
    averages = {f"module.{name}": value for name, value in state.items()}
    averages["n_averaged"] = torch.ones(())
    document = {"model": state, "model_ema": averages, "args": argparse.Namespace(lr=0.1)}
    report, events, out = inspect(document, classes=2)
    codes = ["objects_left_out", "averaged_weights", "tensors_left_out", "binary_head"]
    assert [warning["code"] for warning in report["warnings"]][:4] == codes
    assert [event.code for event in events if isinstance(event, WarningEvent)][:4] == codes
    assert (report["averaged_weights"], report["tensors_left_out"], report["binary_head"]) == (True, 1, True)
    spec = ResolvedSpec.model_validate_json((out / "spec.json").read_bytes())
    assert len(spec.teacher_notes) == 3, "what is beside the tensors does not change the teacher"
    assert "'class 0' where z is below 0" in spec.teacher_notes[-1]
    teacher = {"input_size": (3, 32, 32), "normalization": NORMALIZATION, "weights": "raw"}
    report, _, _ = inspect(document, classes=2, teacher=teacher)
    assert (report["averaged_weights"], report["wrapped_in"]) == (False, "model")


def test_the_report_estimates_the_cost_of_the_run(inspect):
    small, _, out = inspect(network("resnet20").state_dict(), preset="quick", config={"epochs": 3})
    large, _, _ = inspect(network("resnet20").state_dict(), preset="quick", config={"epochs": 30})
    assert json.loads((out / "report.json").read_text()) == large
    assert 0 < small["estimate"]["macs"] < large["estimate"]["macs"]
    assert 0 < small["estimate"]["memory_bytes"] < large["estimate"]["memory_bytes"]
    assert sum(small["estimate"]["memory"].values()) > small["estimate"]["memory_bytes"]
    assert small["student"] == {"architecture": "lenet5", "parameters": small["student"]["parameters"]}


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ({"synthesis_batch_size": 16_384}, "Lower config.noise_dim or config.synthesis_batch_size"),
        ({"synthesis_batch_size": 16_384, "noise_dim": 10}, "Lower config.synthesis_batch_size"),
        ({"student_batch_size": 16_384, "bank_capacity": 100}, "Lower config.student_batch_size"),
        ({"noise_dim": 65_536, "generator": "table9"}, "Lower config.noise_dim"),
        ({"bank_capacity": 10_000_000, "epochs": 100_000}, "Lower config.bank_capacity"),
        ({"images_of_last_steps": 10_000, "generator_steps": 10_000}, "Lower config.synthesis_batch_size"),
    ],
)
def test_a_run_that_needs_more_memory_than_it_may_have_is_refused(config, hint, inspect):
    state = network("lenet5").state_dict()
    with pytest.raises(SpecError) as raised:
        inspect(state, config=config, files={"memory_bytes": 1_000_000_000})
    assert raised.value.code == ErrorCode.RUN_TOO_LARGE
    assert "a run may have 1.00 GB here" in raised.value.message
    assert raised.value.hint.startswith(hint)
    inspect(state, config=config)  # where nobody sets a limit, the report tells what it would take
    inspect(state, files={"memory_bytes": 1_000_000_000})


def test_wide_embeddings_count(inspect, tmp_path):
    save_file({"lte": torch.randn(4, 8192)}, tmp_path / "lte.safetensors")
    files = {"embeddings": tmp_path / "lte.safetensors"}
    state, by_file = network("lenet5").state_dict(), {"name": "file"}
    wide, _, _ = inspect(state, text_encoder=by_file, files=files)
    narrow, _, _ = inspect(state, text_encoder={"name": "sbert"})
    wide, narrow = (report["estimate"]["memory"]["noisy_layer"] for report in (wide, narrow))
    assert wide / narrow == pytest.approx(8192 / 384, rel=0.01)
    with pytest.raises(SpecError) as raised:
        inspect(state, text_encoder=by_file, files={**files, "memory_bytes": 4_000_000_000})
    assert "for the noisy layer" in raised.value.message


def test_half_precision_becomes_float32(inspect):
    teacher = network("resnet20").half()
    _, _, out = inspect(teacher.state_dict())
    canonical = load_file(out / "teacher.safetensors")
    assert {tensor.dtype for tensor in canonical.values()} == {torch.float32, torch.int64}
    assert torch.equal(canonical["conv1.weight"], teacher.conv1.weight.float())


def test_batch_norm_counters_may_be_absent(inspect):
    state = network("resnet20").state_dict()
    without = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    _, _, out = inspect(without)
    assert load_file(out / "teacher.safetensors").keys() == state.keys()


def codes(report):
    return [warning["code"] for warning in report["warnings"]]


def test_warnings_do_not_stop_the_job(inspect):
    report, events, _ = inspect(network("lenet5").state_dict(), student={"architecture": "resnet18"})
    assert codes(report) == ["no_batch_norm", "student_larger_than_teacher"]
    assert [event.code for event in events if isinstance(event, WarningEvent)] == codes(report)
    assert report["batch_norm_layers"] == 0
    assert report["experimental"]
    priors = {prior["name"]: prior["weight"] for prior in report["image_priors"]}
    assert priors == {"input_statistics": 0.3}
    assert all("No BatchNorm" in prior["reason"] for prior in report["image_priors"])


@pytest.mark.parametrize(("side", "expected"), [(96, []), (128, ["image_size_unmeasured"])])
def test_images_larger_than_those_that_were_measured_lead_to_a_warning(side, expected, inspect):
    state = network("resnet20", input_size=(3, side, side)).state_dict()
    report, _, _ = inspect(state, size=(3, side, side), student={"architecture": "wrn_10_1"})
    assert codes(report) == expected


def test_a_constant_teacher_leads_to_a_warning(inspect):
    state = network("resnet20").state_dict()
    for name in ("linear.weight", "fc.weight"):
        if name in state:
            state[name] = torch.zeros_like(state[name])
    report, _, _ = inspect(state)
    assert codes(report) == ["constant_teacher"]


def test_the_plain_network_is_assumed_with_a_warning(inspect):
    state = network("torchvision/resnet18").state_dict()
    report, events, _ = inspect(state)
    assert report["architecture"] == "torchvision/resnet18"
    assert report["candidates"] == ["torchvision/resnet18", "timm/resnet18", "timm/resnetblur18"]
    (warning,) = (event for event in events if isinstance(event, WarningEvent))
    assert warning.code == "architecture_assumed"
    assert "torchvision/resnet18 is assumed" in warning.message
    assert "teacher.architecture: timm/resnetblur18" in warning.message
    named_report, events, _ = inspect(state, architecture="timm/resnetblur18")
    assert named_report["architecture"] == "timm/resnetblur18"
    assert codes(named_report) == []


def test_a_variance_may_be_below_zero_by_less_than_the_networks_epsilon(inspect):
    variances = network("resnet20").state_dict()["bn1.running_var"].clone()
    variances[3] = -1e-12
    report, _, _ = inspect(changed(**{"bn1.running_var": variances}))
    assert report["architecture"] == "resnet20"
    for lowest in (-2e-5, -1.0):
        variances[3] = lowest
        with pytest.raises(TeacherError) as raised:
            inspect(changed(**{"bn1.running_var": variances}))
        assert raised.value.code == ErrorCode.NON_FINITE_WEIGHTS
        assert f"bn1.running_var holds the negative variance {lowest:g}; with eps, 1e-05," in str(
            raised.value
        )


def test_weights_whose_products_overflow_are_refused(inspect):
    state = network("resnet20").state_dict()
    state = {name: value * 1e30 if name.endswith("conv1.weight") else value for name, value in state.items()}
    state = {name: value * 1e30 if name.endswith("bn1.weight") else value for name, value in state.items()}
    assert refusal(inspect, state, architecture="resnet20") == ErrorCode.NON_FINITE_WEIGHTS


def refusal(inspect, state, error=TeacherError, **options):
    with pytest.raises(error) as raised:
        inspect(state, **options)
    assert raised.value.hint
    return raised.value.code


def changed(architecture="resnet20", **changes):
    state = dict(network(architecture).state_dict())
    for name, value in changes.items():
        state.pop(name) if value is None else state.update({name: value})
    return state


def test_a_teacher_that_is_none_of_ours_is_refused(inspect):
    assert refusal(inspect, network("resnet20").state_dict(), classes=5) == ErrorCode.CLASS_COUNT_MISMATCH
    assert refusal(inspect, {"a": torch.ones(3)}) == ErrorCode.ARCHITECTURE_UNRECOGNISED
    first = next(iter(state_shapes("resnet20", num_classes=4, input_size=(3, 32, 32))))
    for state in (
        changed(**{first: None}),
        changed(**{"layer1.0.conv3.weight": torch.ones(2, 2)}),
        changed(**{first: torch.ones(2, 2)}),
        network("resnet32").state_dict(),
    ):
        code = refusal(inspect, state, architecture="resnet20")
        assert code == ErrorCode.ARCHITECTURE_MISMATCH


def test_a_network_that_cannot_take_the_images_is_refused(inspect):
    code = refusal(
        inspect,
        network("resnet20", input_size=(3, 8, 8)).state_dict(),
        NayerError,
        size=(3, 8, 8),
        student={"architecture": "torchvision/alexnet"},
    )
    assert code == ErrorCode.INPUT_SIZE_UNSUPPORTED


def test_gray_images_need_a_teacher_for_gray_images(inspect):
    gray = network("lenet5", input_size=(1, 28, 28)).state_dict()
    report, _, _ = inspect(gray, size=(1, 28, 28))
    assert report["input_size"] == [1, 28, 28]
    assert refusal(inspect, network("resnet20").state_dict(), size=(1, 28, 28)) in (
        ErrorCode.ARCHITECTURE_UNRECOGNISED,
        ErrorCode.ARCHITECTURE_MISMATCH,
    )


def test_images_and_embeddings_come_along(inspect, tmp_path):
    images = np.zeros((6, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "e.npz", images=images, labels=np.arange(6) % 4)
    save_file({"vectors": torch.eye(4)}, tmp_path / "lte")
    _, _, out = inspect(
        network("resnet20").state_dict(),
        files={"evaluation": tmp_path / "e.npz", "embeddings": tmp_path / "lte"},
        text_encoder={"name": "file"},
    )
    assert load_file(out / "evaluation.safetensors")["labels"].tolist() == [0, 1, 2, 3, 0, 1]
    assert torch.equal(load_file(out / "lte.safetensors")["lte"], torch.eye(4))


def test_embeddings_belong_to_the_encoder_file(inspect, tmp_path):
    state = network("resnet20").state_dict()
    code = refusal(inspect, state, UploadError, text_encoder={"name": "file"})
    assert code == ErrorCode.EMBEDDINGS_INVALID
    save_file({"vectors": torch.eye(4)}, tmp_path / "lte")
    report, _, out = inspect(state, files={"embeddings": tmp_path / "lte"})
    assert codes(report) == ["embeddings_unused"]
    assert not (out / "lte.safetensors").exists()


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"labels": ["a"]}, ErrorCode.INVALID_SPEC),
        ({"labels": {"0": "a", "2": "b"}}, ErrorCode.INVALID_SPEC),
        ({"student": {"architecture": "resnet21"}}, ErrorCode.UNKNOWN_ARCHITECTURE),
        ({"preset": "quickest"}, ErrorCode.UNKNOWN_PRESET),
        ({"config": {"epochs": 0}}, ErrorCode.INVALID_SPEC),
        ({"surprise": 1}, ErrorCode.INVALID_SPEC),
    ],
)
def test_a_spec_that_cannot_work_is_refused_before_any_file_is_read(part, code, inspect):
    assert refusal(inspect, {"a": 1}, SpecError, **part) == code


@pytest.mark.parametrize("name", ["cifar10_resnet20.pt", "cifar10_resnet20_legacy.th"])
def test_a_published_teacher_of_another_team_is_recognised(name, inspect):
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not on this machine")
    report, _, _ = inspect(DATA / name, classes=10)
    assert report["architecture"] == "resnet20"
    assert report["parameters"] == 269_722  # 0.27 M, as the paper of residual networks counts
    assert report["prefix_removed"] == "module."
