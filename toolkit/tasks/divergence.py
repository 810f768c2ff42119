"""Computes divergences between the class logits of a student and a teacher, with a temperature."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def bernoulli_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns T^2 * KL(teacher || student) of two outcomes per class, elementwise: the form for a sigmoid head."""
    student, teacher = student / temperature, teacher / temperature
    probability = teacher.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(student, probability, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(teacher, probability, reduction="none")
    return temperature**2 * (cross_entropy - entropy)


def softmax_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns T^2 * KL(teacher || student) over the classes, the last dimension; zero where there is one class.

    Progressive Block Drop (CVPR 2025) uses this form, which is wrong for independent classes.
    """
    student, teacher = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
