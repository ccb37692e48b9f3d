"""What a run is estimated to cost, against formulas and against what a real run takes."""

import json
import subprocess
import sys

import pytest
import torch

from nayer_core.contract.config import DistillConfig
from nayer_core.contract.normalization import Normalization
from nayer_core.contract.spec import ResolvedSpec, TextEncoderSpec
from nayer_core.label_embeddings.text_encoders import embed, embedding_dim
from nayer_core.methods.nayer.ablations import build_noisy_layer
from nayer_core.methods.nayer.estimate import estimate_run
from nayer_core.methods.parts.student_training import POOL_SIZE
from nayer_core.running.estimate import Estimate

SIZE = (3, 32, 32)
SMALL = {
    "epochs": 1,
    "warmup_epochs": 1,
    "rounds_per_epoch": 1,
    "warmup_rounds_per_epoch": 1,
    "generator_steps": 2,
    "student_steps": 2,
    "synthesis_batch_size": 100,
    "student_batch_size": 100,
    "generator": "table8",
    "precision": "fp32",
}


def a_spec(*, classes: int = 10, whiten: bool = True, **config: object) -> ResolvedSpec:
    return ResolvedSpec(
        labels=tuple(map(str, range(classes))),
        input_size=SIZE,
        normalization=Normalization(mean=(0.5,) * 3, std=(0.25,) * 3),
        teacher_architecture="resnet20",
        teacher_accuracy=None,
        student_architecture="wrn_16_1",
        preset="quick",
        config=DistillConfig.model_validate({**SMALL, **config}),
        text_encoder=TextEncoderSpec(whiten=whiten),
        seed=0,
    )


def grown(by: str, part: str, factor: int, **config: object) -> float:
    """How much more a part takes where one number of the configuration is larger."""
    small = a_spec(**config)
    large = a_spec(**{**config, by: factor * getattr(small.config, by)})
    return estimate_run(large, 512).memory[part] / estimate_run(small, 512).memory[part]


@pytest.mark.parametrize(
    ("by", "part"),
    [
        ("synthesis_batch_size", "synthesis_step"),
        ("student_batch_size", "student_step"),
        ("noise_dim", "noisy_layer"),
        ("synthesis_batch_size", "noisy_layer"),
        ("rounds_per_epoch", "memory_bank"),
    ],
)
def test_each_part_grows_with_what_it_is_made_of(by: str, part: str) -> None:
    config = {"warmup_epochs": 0} if part == "memory_bank" else {}
    assert grown(by, part, 8, **config) == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"noisy_layer": "one_to_one"},
        {"noisy_layer": "none"},
        {"noisy_layer_architecture": "A4"},
        {"generator_input": "one_hot"},
        {"generator_input": "concat"},
    ],
)
def test_the_noisy_layer_is_the_one_that_would_be_built(values: dict[str, object]) -> None:
    spec = a_spec(**values)
    code_dim = 10 if values.get("generator_input") == "one_hot" else 384
    layer = build_noisy_layer(torch.Size((10, code_dim)), spec.config)
    numbers = sum(tensor.numel() for tensor in layer.state_dict().values())
    assert estimate_run(spec, 384).memory["noisy_layer"] == 5 * 4 * numbers


@pytest.mark.parametrize("encoder", ["one_hot", "gaussian", "sbert"])
def test_the_size_of_the_embeddings_is_known_before_they_are_made(encoder: str) -> None:
    labels = ["cat", "dog", "bird"]
    label_embeddings = embed(encoder, "{label}", labels).label_embeddings
    assert embedding_dim(encoder, len(labels)) == label_embeddings.shape[1]
    assert embedding_dim("auto", 3) >= embedding_dim("sbert", 3)


def test_one_hot_codes_of_many_classes_count() -> None:
    assert estimate_run(a_spec(classes=10_000, generator_input="one_hot"), 512).memory["label_codes"] > 4e8


def test_of_the_two_kinds_of_step_one_is_taken_at_a_time() -> None:
    memory = {"networks": 1, "synthesis_step": 10, "student_step": 20}
    assert Estimate(0, memory).memory_bytes == 21


def test_the_procedural_images_of_a_teacher_without_batch_norm_count() -> None:
    own, none = (a_spec(procedural_share=share) for share in (0.5, 0.0))
    with_batch_norm = [estimate_run(spec, 512).memory["memory_bank"] for spec in (own, none)]
    assert with_batch_norm[0] == with_batch_norm[1]
    own, none = (spec.model_copy(update={"teacher_architecture": "lenet5"}) for spec in (own, none))
    without = [estimate_run(spec, 512).memory["memory_bank"] for spec in (own, none)]
    assert without[0] - without[1] == POOL_SIZE * 3 * 32 * 32


def test_images_that_are_kept_of_more_steps_cost_no_more_multiplications() -> None:
    one, three = (estimate_run(a_spec(images_of_last_steps=steps), 512) for steps in (1, 2))
    assert one.macs == three.macs
    assert one.memory["synthesis_step"] < three.memory["synthesis_step"]


MEASURE = '''
import json, sys
import torch
from benchmarks import runs
from nayer_core.contract.spec import ResolvedSpec
from nayer_core.hardware.allocator import keep_freed_memory
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

spec, dim = ResolvedSpec.model_validate_json(sys.argv[1]), int(sys.argv[2])
def peak_bytes():
    """The peak of this program alone; getrusage's includes that of the process which started it."""
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])

keep_freed_memory()
torch.nn.Conv2d(3, 8, 3)(torch.randn(2, 3, 32, 32)).sum().backward()  # what the libraries themselves take
before = peak_bytes()
shape = {"num_classes": spec.num_classes, "input_size": spec.input_size}
teacher, student = [build(name, **shape).to(memory_format=torch.channels_last)
                    for name in (spec.teacher_architecture, spec.student_architecture)]
prepared = runs.prepare(freeze(teacher), student, torch.randn(spec.num_classes, dim), spec.input_size,
                        spec.config, normalization=([0.5] * 3, [0.25] * 3), seed=0)
prepared.run.go_on()
print(json.dumps(peak_bytes() - before))
'''


@pytest.mark.parametrize(
    ("config", "dim"),
    [({"synthesis_batch_size": 400}, 512), ({"noise_dim": 2000}, 4096), ({"student_batch_size": 1500}, 512)],
    ids=["synthesis", "noisy layer", "student"],
)
def test_a_real_run_takes_about_what_is_estimated(config: dict[str, object], dim: int) -> None:
    spec = a_spec(**config)
    command = [sys.executable, "-c", MEASURE, spec.model_dump_json(), str(dim)]
    measured = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    # A kernel that has huge pages to spare gives more than one that has not.
    assert 0.4 < measured / estimate_run(spec, dim).memory_bytes < 1.4
