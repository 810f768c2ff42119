"""Training targets and losses of the anchor-free detector."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Outputs = tuple[Tensor, Tensor]
Targets = tuple[Tensor, Tensor]


def sigmoid_focal(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Elementwise sigmoid focal loss (Lin et al., ICCV 2017, eq. 5); `target` in [0, 1], same shape as `logits`."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    miss = probability * (1 - target) + (1 - probability) * target
    weight = alpha * target + (1 - alpha) * (1 - target)
    return weight * miss**gamma * cross_entropy


def diou(predicted: Tensor, target: Tensor) -> Tensor:
    """1-D distance IoU of segments that share an anchor point, both [N, 2] (distance to start, to end); in (-1, 1].

    Zheng et al., AAAI 2020, eq. 7: IoU - (distance of the centres)^2 / (length of the hull)^2.
    """
    shared = torch.minimum(predicted, target).sum(-1).clamp(min=0)
    union = predicted.sum(-1) + target.sum(-1) - shared
    hull = torch.maximum(predicted, target).sum(-1)
    centre = ((predicted[:, 1] - predicted[:, 0]) - (target[:, 1] - target[:, 0])) / 2
    return shared / union.clamp(min=1e-6) - (centre / hull.clamp(min=1e-6)) ** 2


def detection_loss(outputs: Outputs, targets: Targets) -> Tensor:
    """Focal loss on every token + (1 - DIoU) on positive tokens, both per positive token.

    targets: class targets [B, T, classes] in {0, 1}; distances [B, T, 2] in tokens, used where a class target is 1.
    """
    logits, distances = outputs
    classes, segments = targets
    positive = classes.amax(-1) > 0
    count = positive.sum().clamp(min=1)
    classification = sigmoid_focal(logits, classes).sum() / count
    localisation = (1 - diou(distances[positive], segments[positive])).sum() / count
    return classification + localisation


def prediction_alignment(student: Outputs, teacher: Outputs, temperature: float = 1.0) -> Tensor:
    """Student against teacher: Bernoulli KL per class (right for a sigmoid head) + (1 - DIoU) weighted by confidence.

    Progressive Block Drop (CVPR 2025) takes a softmax KL, which is zero for one class and wrong for independent ones.
    """
    student_logits, teacher_logits = student[0] / temperature, teacher[0] / temperature
    probability = teacher_logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(student_logits, probability, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(teacher_logits, probability, reduction="none")
    confidence = teacher[0].sigmoid().amax(-1).flatten()
    count = confidence.sum().clamp(min=1.0)
    classification = temperature**2 * (cross_entropy - entropy).sum() / count
    overlap = diou(student[1].flatten(0, 1), teacher[1].flatten(0, 1))
    return classification + (confidence * (1 - overlap)).sum() / count
