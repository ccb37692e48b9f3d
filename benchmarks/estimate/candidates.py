"""Numbers that may tell how well a student agrees with its teacher on real images, none of which needs one.

Each is named SET.WHAT. The sets are images that the run made, or changed versions of them; WHAT compares the
answers of the two networks on a set (`compare`), or a set with the teacher's BatchNorm.
"""

import statistics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.runs import PreparedRun
from nayer_core.hardware.precision import Arithmetic
from nayer_core.images.augmentation import Augmentation
from nayer_core.measuring.evaluation import share_equal
from nayer_core.measuring.quality import agreement_by_class, answers, inception_score
from nayer_core.measuring.signals import IMAGES, patched
from nayer_core.methods.nayer.synthesis import Synthesizer
from nayer_core.methods.parts.bn_regularization import channel_statistics
from nayer_core.running.method import result_of

CONFIDENT = 0.9  # probability of the teacher's class
NOISE = 0.1  # deviation, where images are in [0, 1]
EXACT = Arithmetic(torch.device("cpu"), torch.float32)
FEW = 20  # images on which an agreement is not taken

Images = tuple[Tensor, Tensor | None]  # (N, H, W, C) bytes or floats in [0, 1]; what they were made for


def measure(prepared: PreparedRun, seed: int = 101) -> dict[str, float]:
    """Compute every candidate for the student that a client would get now; the run does not change."""
    method, augment = prepared.method, prepared.distillands.augment
    teacher, student = prepared.distillands.teacher, method.student
    values: dict[str, float] = {}
    sets = _images_of(prepared, seed)
    for name, (images, labels) in sets.items():
        by_teacher, by_student = (logits(network, images, augment) for network in (teacher, student))
        comparison = compare(by_teacher, by_student, labels)
        in_training = logits(method.trainer.student, images, augment)  # the student before its averaging
        comparison["self"] = share_equal(in_training.argmax(dim=1), by_student.argmax(dim=1))
        values |= {f"{name}.{what}": value for what, value in comparison.items()}
    for name in ("fresh", "own", "newest", "bank"):
        values[f"{name}.distance"] = statistics_distance(teacher, sets[name][0], augment)
    return values


def logits(network: nn.Module, images: Tensor, augment: Augmentation) -> Tensor:
    """Answers of a network in eval mode, (N, K) float32."""
    return answers(network, images, augment, EXACT).logits


def compare(teacher: Tensor, student: Tensor, labels: Tensor | None) -> dict[str, float]:
    """Compare two networks' answers for the same images.

    Args:
        teacher: (N, K) logits.
        student: (N, K) logits.
        labels: (N,) the classes that the images were made for; None for changed images.
    """
    by_teacher, agreed = teacher.argmax(dim=1), (teacher.argmax(dim=1) == student.argmax(dim=1)).double()
    probabilities = teacher.softmax(dim=1)
    confidence, of_student = probabilities.amax(dim=1), student.softmax(dim=1)
    log_ratio = probabilities.clamp_min(1e-12).log() - student.log_softmax(dim=1)
    values = {
        "agree": agreed.mean().item(),
        "agree_weighted": ((agreed * confidence).sum() / confidence.sum()).item(),
        "agree_confident": _mean_of(agreed, confidence > CONFIDENT),
        "agree_by_class": statistics.mean(agreement_by_class(student, teacher).values()),
        "teacher_confidence": confidence.mean().item(),
        "student_confidence": of_student.amax(dim=1).mean().item(),
        "student_on_class": of_student.gather(1, by_teacher[:, None]).mean().item(),
        "divergence": (probabilities * log_ratio).sum(dim=1).mean().item(),
        "inception": inception_score(teacher) / teacher.shape[1],
        "cosine": F.cosine_similarity(_centred(teacher), _centred(student)).mean().item(),
    }
    if labels is not None:
        values["agree_as_made"] = _mean_of(agreed, by_teacher == labels)
        values["as_made"] = (by_teacher == labels).double().mean().item()
    return values


@torch.no_grad()
def statistics_distance(teacher: nn.Module, images: Tensor, augment: Augmentation) -> float:
    """How far images are from those that the teacher was trained on, by its BatchNorm layers.

    Args:
        teacher: in eval mode. Without BatchNorm, the means of the normalised images' channels are taken.
        images: (N, H, W, C) bytes or floats in [0, 1].
        augment: supplies the normalisation.

    Returns:
        Mean over layers of the root mean square over channels of |mean - running mean| / running deviation.
    """
    shifts: list[Tensor] = []

    def observe(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = channel_statistics(inputs[0])[0], layer.get_buffer("running_var")
        shift = mean - layer.get_buffer("running_mean")
        shifts.append((shift.square() / (variance + layer.eps)).mean().sqrt())

    layers = [layer for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(observe) for layer in layers]
    inputs = augment.normalize(images[:IMAGES])
    teacher(inputs)
    for hook in hooks:
        hook.remove()
    if not shifts:
        return inputs.mean(dim=(0, 2, 3)).square().mean().sqrt().item()
    return torch.stack(shifts).mean().item()


def _images_of(prepared: PreparedRun, seed: int) -> dict[str, Images]:
    """Every set: of a fresh generator, of the run's own, of the bank, and changed ones."""
    method, rng = prepared.method, torch.Generator().manual_seed(seed)
    fresh = Synthesizer(prepared.distillands, method.config, method.task, prepared.machine.unshared(seed))
    fresh.redraw_generator()
    plain = result_of(fresh.run_round(0, None))
    before = method.synthesizer.snapshot()
    own = result_of(method.synthesizer.run_round(method.position.rounds_done, None))
    method.synthesizer.restore(before)
    newest = [method.bank.read(segment) for segment in method.bank.segments[-3:]]
    sets: dict[str, Images] = {
        "fresh": (plain.images, plain.labels),
        "own": (own.images, own.labels),
        "newest": _some(torch.cat([i for i, _ in newest]), torch.cat([la for _, la in newest]), rng),
        "bank": _some(method.bank.images[: len(method.bank)], method.bank.labels[: len(method.bank)], rng),
    }
    for name in ("bank", "own"):
        sets[f"{name}_cutmix"] = patched(sets[name][0], rng), None
        sets[f"{name}_noisy"] = _noisy(sets[name][0], rng), None
    return sets


def _some(images: Tensor, labels: Tensor, rng: torch.Generator) -> Images:
    chosen = torch.randperm(len(images), generator=rng)[:IMAGES]
    return images[chosen], labels[chosen]


def _noisy(images: Tensor, rng: torch.Generator) -> Tensor:
    noise = torch.randn(images.shape, generator=rng)
    return (images.float() / 255 + NOISE * noise).clamp(0, 1)


def _mean_of(values: Tensor, chosen: Tensor) -> float:
    """Mean over the chosen images; over all where too few are."""
    return values[chosen].mean().item() if chosen.sum() >= FEW else values.mean().item()


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(dim=1, keepdim=True)
