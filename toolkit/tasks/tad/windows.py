"""Turns streams into the detector's windows and targets, and its outputs into detections (with Gaussian soft-NMS)."""

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
    """Returns the first samples of windows that overlap by half and cover a stream; one window if it is shorter."""
    last = max(num_samples - window, 0)
    return sorted({*range(0, last + 1, window // 2), last})


def cut_window(signal: NDArray[np.float32], start: int, window: int) -> NDArray[np.float32]:
    """Returns a window of a signal [samples, channels] as [channels, window], padded with zeros at the end."""
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
    """Returns the class targets [B, T, classes] and distances [B, T, 2] of a batch of windows.

    segments_s: for each window its segments [N, 2], in seconds after the start of the window.
    token_s: the duration of a token in seconds.
    centre_share: tokens in this central share of a segment are positive, at least the one nearest to its middle.
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
    """Joins the outputs of one stream's windows into scores [tokens, classes] and segments [tokens, 2] in seconds.

    Each token takes its prediction from the window in which it is most central.
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
    """Returns segments and scores after Gaussian soft-NMS (Bodla et al., ICCV 2017, eq. 5).

    The scores of a picked segment's neighbours are multiplied by exp(-tIoU^2 / sigma).
    """
    overlap = temporal_iou(segments, segments)
    remaining = scores.copy()
    picked: list[int] = []
    final: list[float] = []
    for _ in range(len(scores)):
        best = int(np.argmax(remaining))
        if remaining[best] < MIN_SCORE:
            break
        picked.append(best)
        final.append(float(remaining[best]))
        remaining *= np.exp(-(overlap[best] ** 2) / sigma)
        remaining[picked] = -1.0
    return segments[picked], np.asarray(final)


def decode(scores: Array, segments: Array, classes: Sequence[str]) -> Detections:
    """Returns the detections in scores [tokens, classes] and segments [tokens, 2], after soft-NMS of each class.

    The CANDIDATES_PER_CLASS segments of highest score in each class enter soft-NMS (other detectors take the best 2000
    of all classes together), and the MAX_SEGMENTS best ones of all classes are returned.
    """
    kept_segments, kept_scores, labels = [], [], []
    for column, label in enumerate(classes):
        order = np.argsort(-scores[:, column], kind="stable")[:CANDIDATES_PER_CLASS]
        order = order[scores[order, column] > MIN_SCORE]
        picked, score = soft_nms(segments[order], scores[order, column])
        kept_segments.append(picked)
        kept_scores.append(score)
        labels += [label] * len(score)
    all_scores = np.concatenate(kept_scores)
    best = np.argsort(-all_scores, kind="stable")[:MAX_SEGMENTS]
    return Detections(np.concatenate(kept_segments)[best], tuple(labels[i] for i in best), all_scores[best])


def as_batch(windows: Sequence[NDArray[np.float32]], mean: Tensor, deviation: Tensor) -> Tensor:
    """Returns windows [channels, samples] as a normalised batch [B, channels, samples].

    mean, deviation: [channels, 1].
    """
    return (torch.from_numpy(np.stack(windows)) - mean) / deviation
