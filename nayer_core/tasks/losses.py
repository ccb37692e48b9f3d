"""The terms of Eq. 5 and the distillation loss, as pure functions of logits.

They compute in float32, whatever the number format of the networks: a softmax in bfloat16 has three digits.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def label_cross_entropy(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Reward images that the teacher assigns to the class they were made for (L_CE of Eq. 5).

    Args:
        teacher_logits: (B, num_classes).
        labels: (B,) int64, the classes the images were made for.

    Returns:
        Scalar >= 0, the mean over the batch.
    """
    return F.cross_entropy(teacher_logits.float(), labels)


def adversarial_loss(student_logits: Tensor, teacher_logits: Tensor, *, bounded: bool = False) -> Tensor:
    """Reward images on which the student differs from the teacher.

    A negative divergence, counted only where both name the same class. On other images the student still has
    to learn the class from the teacher. The divergence of Eq. 5 is KL(teacher || student). It has no bound,
    and a generator can raise it without end by images on which the teacher's logits are enormous. The
    bounded one is four times the Jensen-Shannon divergence (Lin, 1991): equal to KL in second order where the
    two agree nearly, and at most 4 ln 2 = 2.77 where they do not.

    Args:
        student_logits: (B, num_classes).
        teacher_logits: (B, num_classes).
        bounded: which of the two.

    Returns:
        Scalar <= 0: the mean over all B images, in which masked images count as zero.
    """
    student_log_probs = student_logits.float().log_softmax(dim=1)
    teacher_log_probs = teacher_logits.float().log_softmax(dim=1)
    if bounded:
        mixture = torch.logaddexp(student_log_probs, teacher_log_probs) - math.log(2)  # (B, num_classes)
        sides = _divergence(teacher_log_probs, mixture) + _divergence(student_log_probs, mixture)
        divergence = 2 * sides  # (B,): 4 x the mean of both
    else:
        divergence = _divergence(teacher_log_probs, student_log_probs)  # (B,)
    agreement_mask = student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1)  # (B,)
    return -(agreement_mask * divergence).mean()  # (B,) -> scalar


def _divergence(log_probs: Tensor, other_log_probs: Tensor) -> Tensor:
    """KL(p || q) of each row: (B, num_classes) each -> (B,)."""
    return F.kl_div(other_log_probs, log_probs, reduction="none", log_target=True).sum(dim=1)


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Compare the student's softened outputs with the teacher's (line 14 of Algorithm 1).

    The factor temperature^2 keeps the gradient's size when the temperature rises. At high
    temperature the loss is the squared difference of centred logits over 2 * num_classes, so
    it shrinks as classes are added.

    Args:
        student_logits: (B, num_classes).
        teacher_logits: (B, num_classes), no gradient.
        temperature: > 0; divides the logits of both networks.

    Returns:
        Scalar >= 0, the mean over the batch.
    """
    student_log_probs = (student_logits.float() / temperature).log_softmax(dim=1)
    teacher_log_probs = (teacher_logits.float() / temperature).log_softmax(dim=1)
    return (
        F.kl_div(student_log_probs, teacher_log_probs, reduction="batchmean", log_target=True)
        * temperature**2
    )
