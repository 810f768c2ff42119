"""Computes the mean average precision of temporal detections.

For each class, predictions in order of falling score are matched greedily with the unmatched true segment of highest
temporal IoU, which gives the interpolated AP over all points (VOC). It is averaged over the classes that have true
segments, and then over the tIoU thresholds (THUMOS14: 0.3, 0.4, 0.5, 0.6, 0.7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.base.errors import UserError

THUMOS_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)

Array = NDArray[np.float64]

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Detections:
    """Holds the segments of one stream.

    segments: [N, 2], start and end in seconds.
    labels: [N], names of classes.
    scores: [N]; ones for ground truth.
    """

    segments: Array
    labels: tuple[str, ...]
    scores: Array

    def of_class(self, label: str) -> tuple[Array, Array]:
        """Returns the segments and scores of one class, highest score first."""
        is_of_class = np.asarray([name == label for name in self.labels], dtype=bool)
        order = np.argsort(-self.scores[is_of_class], kind="stable")
        return self.segments[is_of_class][order], self.scores[is_of_class][order]


@dataclass(frozen=True)
class MeanAveragePrecision:
    """Holds the average mAP, the mAP at each threshold, and the AP of each class, averaged over the thresholds."""

    average: float
    by_threshold: dict[float, float]
    by_class: dict[str, float]


@dataclass(frozen=True)
class _ClassMatches:
    """Holds all predictions of one class in order of falling score.

    hits: [thresholds, N], whether a prediction is matched with a true segment.
    stream: [N], index of the stream.
    num_truth: [streams], number of true segments.
    """

    hits: Flags
    stream: NDArray[np.int64]
    num_truth: NDArray[np.int64]

    def average_precisions(self, weights: NDArray[np.int64]) -> Array:
        """Returns the AP at each threshold, where stream s counts `weights[s]` times; NaN without ground truth."""
        total = int(self.num_truth @ weights)
        if total == 0:
            return np.full(len(self.hits), np.nan)
        weight = weights[self.stream]
        used = weight > 0
        averages: Array = np.asarray([interpolated_ap(row[used], total, weight[used]) for row in self.hits])
        return averages


def temporal_iou(first: Array, second: Array) -> Array:
    """Returns the tIoU of every pair of segments [N, 2] and [M, 2] (start, end): [N, M]; 0 where the union is empty."""
    start = np.maximum(first[:, None, 0], second[None, :, 0])
    end = np.minimum(first[:, None, 1], second[None, :, 1])
    shared = np.clip(end - start, 0.0, None)
    union = (first[:, 1] - first[:, 0])[:, None] + (second[:, 1] - second[:, 0])[None, :] - shared
    overlap: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def interpolated_ap(is_hit: Flags, num_truth: int, weight: NDArray[np.int64] | None = None) -> float:
    """Returns the area under the monotone precision envelope.

    is_hit: [N], whether each prediction is matched, in order of falling score.
    num_truth: the number of true segments.
    weight: [N], how often each prediction counts; None counts each once.
    """
    if num_truth == 0 or len(is_hit) == 0:
        return 0.0
    weight = np.ones(len(is_hit), dtype=np.int64) if weight is None else weight
    hits = np.cumsum(is_hit * weight)
    recall = np.concatenate([[0.0], hits / num_truth])
    precision = hits / np.cumsum(weight)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def _match(overlap: Array, threshold: float) -> Flags:
    """Returns which predictions (rows, highest score first) take a free true segment (column) greedily.

    Each takes the one of highest tIoU, if that reaches the threshold. Matches stay within a stream, so that matching
    stream by stream gives the same as matching in the order of all scores.
    """
    free = overlap.copy()
    hit = np.zeros(len(overlap), dtype=bool)
    if overlap.shape[1] == 0:
        return hit
    for row in range(len(overlap)):
        best = int(np.argmax(free[row]))
        if free[row, best] >= threshold:
            hit[row] = True
            free[:, best] = -1.0
    return hit


def _match_class(
    label: str, streams: Sequence[tuple[Detections, Detections]], thresholds: Sequence[float]
) -> _ClassMatches:
    scores, hits, origin, num_truth = [], [], [], []
    for index, (true, predicted) in enumerate(streams):
        truth, _ = true.of_class(label)
        segments, score = predicted.of_class(label)
        overlap = temporal_iou(segments, truth)
        num_truth.append(len(truth))
        scores.append(score)
        hits.append(np.stack([_match(overlap, threshold) for threshold in thresholds]))
        origin.append(np.full(len(score), index))
    falling = np.argsort(-np.concatenate(scores), kind="stable")
    return _ClassMatches(np.concatenate(hits, axis=1)[:, falling], np.concatenate(origin)[falling], np.array(num_truth))


def _match_all(
    truth: Mapping[str, Detections], predicted: Mapping[str, Detections], thresholds: Sequence[float]
) -> dict[str, _ClassMatches]:
    for name, detections in (*truth.items(), *predicted.items()):
        if not (np.isfinite(detections.segments).all() and np.isfinite(detections.scores).all()):
            raise UserError(f"stream {name!r}: a segment or score is not a finite number, so mAP is not defined")
    labels = sorted({label for true in truth.values() for label in true.labels})
    if not labels:
        raise UserError("mAP needs at least one true segment")
    empty = Detections(np.zeros((0, 2)), (), np.zeros(0))
    names = dict.fromkeys((*truth, *predicted))
    streams = [(truth.get(name, empty), predicted.get(name, empty)) for name in names]
    return {label: _match_class(label, streams, thresholds) for label in labels}


def mean_average_precision(
    truth: Mapping[str, Detections],
    predicted: Mapping[str, Detections],
    thresholds: Sequence[float] = THUMOS_THRESHOLDS,
) -> MeanAveragePrecision:
    """Returns the mAP of predictions against the ground truth, both by the name of the stream.

    Predictions for streams without ground truth count as misses.

    Raises:
        UserError: there is no ground truth, or a segment or score is not a finite number.
    """
    matches = _match_all(truth, predicted, thresholds)
    table = np.stack([m.average_precisions(np.ones(len(m.num_truth), dtype=np.int64)) for m in matches.values()])
    return MeanAveragePrecision(
        average=float(table.mean()),
        by_threshold={float(t): float(v) for t, v in zip(thresholds, table.mean(axis=0), strict=True)},
        by_class={label: float(value) for label, value in zip(matches, table.mean(axis=1), strict=True)},
    )


def bootstrap_interval(
    truth: Mapping[str, Detections],
    predicted: Mapping[str, Detections],
    thresholds: Sequence[float] = THUMOS_THRESHOLDS,
    *,
    draws: int = 400,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the 95 % interval of the average mAP, by percentiles over bootstrap samples of the streams of `truth`."""
    matches = _match_all(truth, {name: predicted[name] for name in truth if name in predicted}, thresholds)
    rng = np.random.default_rng(seed)
    averages = []
    for _ in range(draws):
        weights = np.bincount(rng.integers(len(truth), size=len(truth)), minlength=len(truth))
        table = np.stack([m.average_precisions(weights) for m in matches.values()])
        averages.append(float(np.nanmean(table)))
    low, high = np.percentile(averages, [2.5, 97.5])
    return float(low), float(high)
