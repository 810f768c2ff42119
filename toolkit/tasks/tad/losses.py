"""Computes the losses of the anchor-free detector."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from toolkit.tasks.divergence import bernoulli_divergence, softmax_divergence
from toolkit.tasks.task import AlignmentOptions

Outputs = tuple[Tensor, Tensor]

Targets = tuple[Tensor, Tensor]


def sigmoid_focal(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Returns the elementwise sigmoid focal loss (Lin et al., ICCV 2017, eq. 5).

    target: values in [0, 1], of the shape of `logits`.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    miss = probability * (1 - target) + (1 - probability) * target
    weight = alpha * target + (1 - alpha) * (1 - target)
    return weight * miss**gamma * cross_entropy


def diou(predicted: Tensor, target: Tensor) -> Tensor:
    """Returns the 1-D distance IoU [N] of segments that share an anchor point, in (-1, 1].

    It is IoU - (distance of the centres)^2 / (length of the hull)^2 (Zheng et al., AAAI 2020, eq. 7).

    predicted, target: [N, 2], distances from the anchor to the start and to the end.
    """
    shared, union, hull = _overlap(predicted, target)
    centre = ((predicted[:, 1] - predicted[:, 0]) - (target[:, 1] - target[:, 0])) / 2
    return shared / union.clamp(min=1e-6) - (centre / hull.clamp(min=1e-6)) ** 2


def giou(predicted: Tensor, target: Tensor) -> Tensor:
    """Returns the 1-D generalised IoU [N] of segments that are given as for `diou`.

    It is IoU - (hull - union) / hull (Rezatofighi et al., CVPR 2019, algorithm 1), and equals the IoU while both
    segments hold the anchor point.
    """
    shared, union, hull = _overlap(predicted, target)
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def _overlap(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the lengths [N] of the intersection, of the union, and of the shortest segment that holds both."""
    shared = torch.minimum(predicted, target).sum(-1).clamp(min=0)
    return shared, predicted.sum(-1) + target.sum(-1) - shared, torch.maximum(predicted, target).sum(-1)


def detection_loss(outputs: Outputs, targets: Targets) -> Tensor:
    """Returns the focal loss of all tokens + (1 - DIoU) of positive tokens, both per positive token.

    targets: class targets [B, T, classes] in {0, 1}; distances [B, T, 2] in tokens, used where a class target is 1.
    """
    logits, distances = outputs
    classes, segments = targets
    positive = classes.amax(-1) > 0
    count = positive.sum().clamp(min=1)
    classification = sigmoid_focal(logits, classes).sum() / count
    localisation = (1 - diou(distances[positive], segments[positive])).sum() / count
    return classification + localisation


def prediction_alignment(student: Outputs, teacher: Outputs, options: AlignmentOptions) -> dict[str, Tensor]:
    """Returns `class`, a divergence of the class logits, and `segment`, 1 - overlap of the segments.

    The confidence of a token is the teacher's highest class probability. `segment` is weighted by the confidence, and
    both sums over tokens are divided by the sum of confidences. The softmax form of `class` is the plain mean over
    tokens, as in its paper.
    """
    confidence = teacher[0].sigmoid().amax(-1).flatten()
    count = confidence.sum().clamp(min=1.0)
    if options.class_loss == "softmax":
        classification = softmax_divergence(student[0], teacher[0], options.temperature).mean()
    else:
        classification = bernoulli_divergence(student[0], teacher[0], options.temperature).sum() / count
    overlap = (giou if options.segment_loss == "giou" else diou)(student[1].flatten(0, 1), teacher[1].flatten(0, 1))
    return {"class": classification, "segment": (confidence * (1 - overlap)).sum() / count}
