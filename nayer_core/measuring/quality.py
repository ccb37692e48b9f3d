"""Quality of images and student without labels: the paper's metrics and a score card.

Here are the diversity score, the inception score with the teacher as the classifier, agreement overall and by
class, and calibration. All are measured on synthetic images, and none is an accuracy. `synthesis` counts
convergence (steps until L_CE < 0.1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nayer_core.hardware.precision import Arithmetic
from nayer_core.images.augmentation import Augmentation

BATCH_SIZE = 250
CALIBRATION_BINS = 10

# A generator has collapsed where its images of a class hardly differ from the bank's (0.2 is a
# cosine of 0.98), or miss classes. Images of different classes differ in any case: over all pairs
# the distance was above 1 in every row of benchmarks/results/ablations.md.
LEAST_CLASS_DIVERSITY = 0.2
LEAST_CLASS_COVERAGE = 0.5


@dataclass(frozen=True)
class Answers:
    """The outputs of a network for a set of images.

    Args:
        logits: (N, num_classes) float32, CPU.
        features: (N, D) float32, CPU: the inputs of its last Linear, each scaled to length 1.
    """

    logits: Tensor
    features: Tensor


@torch.no_grad()
def answers(network: nn.Module, images: Tensor, augment: Augmentation, arithmetic: Arithmetic) -> Answers:
    """Run a network in eval mode on images.

    Args:
        network: its last Linear counts as the head; it returns to its mode afterwards.
        images: (N, H, W, C) uint8, anywhere.
        augment: supplies the normalisation.
        arithmetic: number format and device.
    """
    was_training = network.training
    network.eval()
    head_inputs: list[Tensor] = []
    heads = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    hooks = [
        head.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0])) for head in heads[-1:]
    ]
    logits: list[Tensor] = []
    for batch in images.split(BATCH_SIZE):
        with arithmetic.autocast():
            logits.append(network(augment.normalize(batch.to(arithmetic.device))).float().cpu())
    for hook in hooks:
        hook.remove()
    network.train(was_training)
    features = (
        torch.cat([part.flatten(1).float().cpu() for part in head_inputs])
        if head_inputs
        else torch.cat(logits)
    )
    return Answers(torch.cat(logits), nn.functional.normalize(features, dim=1))


def diversity_score(new: Tensor, old: Tensor) -> float:
    """Mean L2 distance between features of new images and of old ones (Table 12).

    Args:
        new: (N, D) features of length 1.
        old: (M, D) features of length 1.

    Returns:
        In [0, 2]; near 0 if the new images resemble the old ones.
    """
    return torch.cdist(new, old).mean().item()


def class_diversity_score(new: Tensor, new_labels: Tensor, old: Tensor, old_labels: Tensor) -> float | None:
    """Mean L2 distance between features of new images and of old ones made for the same class.

    Args:
        new: (N, D) features of length 1.
        new_labels: (N,) the classes they were made for.
        old: (M, D) features of length 1.
        old_labels: (M,) likewise.

    Returns:
        In [0, 2]; near 0 if a generator repeats itself. None if the two sets share no class.
    """
    same = new_labels[:, None] == old_labels[None, :]
    return torch.cdist(new, old)[same].mean().item() if same.any() else None


def inception_score(logits: Tensor) -> float:
    """Exponential of the mean divergence of the teacher's outputs from their average.

    Args:
        logits: (N, num_classes) of the teacher.

    Returns:
        In [1, num_classes]; highest if outputs are confident and classes equally frequent.
    """
    log_probs = logits.log_softmax(dim=1)
    average = log_probs.exp().mean(dim=0).clamp_min(1e-12).log()
    return (log_probs.exp() * (log_probs - average)).sum(dim=1).mean().exp().item()


def class_coverage(logits: Tensor, labels: Tensor) -> float:
    """Share of the requested classes that the teacher predicts at least once.

    Args:
        logits: (N, num_classes) of the teacher.
        labels: (N,) the classes the images were made for.
    """
    classes = labels.cpu().unique()
    return torch.isin(classes, logits.argmax(dim=1)).double().mean().item()


def agreement_by_class(student: Tensor, teacher: Tensor) -> dict[int, float]:
    """Agreement on the images that the teacher assigns to each class; absent classes are left out.

    Args:
        student: (N, num_classes) logits.
        teacher: (N, num_classes) logits.
    """
    by_student, by_teacher = student.argmax(dim=1), teacher.argmax(dim=1)
    agreed = (by_student == by_teacher).double()
    return {
        index: agreed[by_teacher == index].mean().item() for index in sorted(by_teacher.unique().tolist())
    }


def calibration_error(student: Tensor, teacher: Tensor) -> float:
    """Expected calibration error of the student, with the teacher's class as the truth.

    Ten bins of equal width over the student's confidence.

    Args:
        student: (N, num_classes) logits.
        teacher: (N, num_classes) logits.

    Returns:
        In [0, 1]; 0 if a student with confidence 80 % agrees with its teacher in 80 % of cases.
    """
    confidence, predictions = student.softmax(dim=1).max(dim=1)
    agreed = (predictions == teacher.argmax(dim=1)).float()
    bins = (confidence * CALIBRATION_BINS).long().clamp_max(CALIBRATION_BINS - 1)
    error = 0.0
    for index in bins.unique():
        in_bin = bins == index
        gap = (agreed[in_bin].mean() - confidence[in_bin].mean()).abs().item()
        error += gap * in_bin.double().mean().item()
    return error
