"""From streams to what the detector sees, and back: windows, targets, decoding, Gaussian soft-NMS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.tasks.tad.losses import Outputs, Targets
from toolkit.tasks.tad.metric import Detections, temporal_iou
from toolkit.tasks.tad.streams import Stream

Array = NDArray[np.float64]

MIN_SCORE = 1e-3

MAX_SEGMENTS = 2000

SOFT_NMS_SIGMA = 0.7

CANDIDATES_PER_CLASS = 200


def window_starts(num_samples: int, window: int) -> list[int]:
    """First samples of windows that overlap by half and cover the stream; one, padded, if the stream is shorter."""
    last = max(num_samples - window, 0)
    return sorted({*range(0, last + 1, window // 2), last})


def cut_window(signal: NDArray[np.float32], start: int, window: int) -> NDArray[np.float32]:
    """[samples, channels] -> [channels, window], zero-padded at the end."""
    part = signal[start : start + window]
    padded = np.zeros((window, signal.shape[1]), dtype=np.float32)
    padded[: len(part)] = part
    return padded.T


def make_targets(
    segments_s: Sequence[Array],
    labels: Sequence[NDArray[np.int64]],
    *,
    num_tokens: int,
    num_classes: int,
    token_s: float,
    centre_share: float,
) -> Targets:
    """Targets of a batch of windows whose segments are given relative to the window's start.

    Positive tokens are those in the central `centre_share` of a segment (at least the one nearest to its middle).
    """
    centres = (np.arange(num_tokens) + 0.5) * token_s
    classes = np.zeros((len(labels), num_tokens, num_classes), dtype=np.float32)
    distances = np.zeros((len(labels), num_tokens, 2), dtype=np.float32)
    length_s = num_tokens * token_s
    for row, (bounds, kinds) in enumerate(zip(segments_s, labels, strict=True)):
        for (raw_start, raw_end), label in zip(bounds, kinds, strict=True):
            start, end = max(raw_start, 0.0), min(raw_end, length_s)
            if end - start < token_s:
                continue
            middle, reach = (start + end) / 2, max((end - start) / 2 * centre_share, token_s / 2)
            inside = np.abs(centres - middle) <= reach
            classes[row, inside, label] = 1.0
            distances[row, inside] = np.stack([centres[inside] - start, end - centres[inside]], axis=1) / token_s
    return torch.from_numpy(classes), torch.from_numpy(np.maximum(distances, 1e-3))


def stitch(
    stream: Stream, starts: Sequence[int], outputs: Outputs, *, patch: int, sample_rate_hz: int
) -> tuple[Array, Array]:
    """Outputs of one stream's windows -> scores [tokens, classes] and segments [tokens, 2] in seconds.

    Each position takes its prediction from the window in which it is most central.
    """
    scores = outputs[0].sigmoid().double().numpy()
    distances = outputs[1].double().numpy()
    num_windows, num_tokens, _ = scores.shape
    centre = np.asarray(starts)[:, None] + (np.arange(num_tokens) + 0.5) * patch
    middle = np.asarray(starts) + num_tokens * patch / 2
    nearest = np.abs(centre[:, :, None] - middle).argmin(-1) == np.arange(num_windows)[:, None]
    use = nearest & (centre < len(stream.signal))
    token_s = patch / sample_rate_hz
    position = centre[use] / sample_rate_hz
    segments = np.stack([position - distances[use][:, 0] * token_s, position + distances[use][:, 1] * token_s], axis=1)
    return scores[use], np.clip(segments, 0.0, len(stream.signal) / sample_rate_hz)


def soft_nms(segments: Array, scores: Array, sigma: float = SOFT_NMS_SIGMA) -> tuple[Array, Array]:
    """Gaussian soft-NMS (Bodla et al., ICCV 2017, eq. 5): neighbours of a pick decay by exp(-tIoU^2 / sigma)."""
    overlap = temporal_iou(segments, segments)
    left = scores.copy()
    picked: list[int] = []
    final: list[float] = []
    for _ in range(len(scores)):
        best = int(np.argmax(left))
        if left[best] < MIN_SCORE:
            break
        picked.append(best)
        final.append(float(left[best]))
        left *= np.exp(-(overlap[best] ** 2) / sigma)
        left[picked] = -1.0
    return segments[picked], np.asarray(final)


def decode(scores: Array, segments: Array, classes: Sequence[str]) -> Detections:
    """Per-token scores [tokens, classes] and segments [tokens, 2] -> detections after soft-NMS of each class.

    The best CANDIDATES_PER_CLASS of each class enter soft-NMS (others take the best 2000 of all classes together);
    the best MAX_SEGMENTS leave it.
    """
    kept_segments, kept_scores, labels = [], [], []
    for column, label in enumerate(classes):
        order = np.argsort(-scores[:, column], kind="stable")[:CANDIDATES_PER_CLASS]
        order = order[scores[order, column] > MIN_SCORE]
        found, score = soft_nms(segments[order], scores[order, column])
        kept_segments.append(found)
        kept_scores.append(score)
        labels += [label] * len(score)
    all_scores = np.concatenate(kept_scores)
    best = np.argsort(-all_scores, kind="stable")[:MAX_SEGMENTS]
    return Detections(np.concatenate(kept_segments)[best], tuple(labels[i] for i in best), all_scores[best])


def as_batch(windows: Sequence[NDArray[np.float32]], mean: Tensor, deviation: Tensor) -> Tensor:
    """Windows [channels, samples] -> a normalised batch [B, channels, samples]; moments are [channels, 1]."""
    return (torch.from_numpy(np.stack(windows)) - mean) / deviation
