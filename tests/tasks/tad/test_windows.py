"""Windows, targets and back to segments."""

from __future__ import annotations

import numpy as np
import torch

from toolkit.tasks.tad.metric import temporal_iou
from toolkit.tasks.tad.streams import Stream
from toolkit.tasks.tad.windows import cut_window, decode, make_targets, soft_nms, stitch, window_starts

TOKEN_S = 0.4


def make_stream(seconds: float, segments: list[tuple[float, float]], labels: list[int]) -> Stream:
    signal = np.zeros((round(seconds * 50), 6), dtype=np.float32)
    return Stream("s", signal, np.asarray(segments), np.asarray(labels), np.zeros(0))


def targets_of(segments: list[tuple[float, float]], labels: list[int], share: float = 0.5) -> tuple[torch.Tensor, ...]:
    return make_targets(
        [np.asarray(segments, dtype=float)],
        [np.asarray(labels)],
        num_tokens=192,
        num_classes=5,
        token_s=TOKEN_S,
        centre_share=share,
    )


def test_windows_cover_the_stream() -> None:
    assert window_starts(3840, 3840) == [0]
    assert window_starts(1000, 3840) == [0]
    assert window_starts(11520, 3840) == [0, 1920, 3840, 5760, 7680]
    assert window_starts(4000, 3840) == [0, 160]


def test_a_short_stream_is_padded() -> None:
    window = cut_window(np.ones((10, 6), dtype=np.float32), 0, 16)
    assert window.shape == (6, 16)
    assert window.sum() == 60


def test_targets_are_positive_in_the_middle_and_measure_the_distances() -> None:
    classes, distances = targets_of([(10.0, 20.0)], [3])
    positive = torch.nonzero(classes[0, :, 3]).flatten()
    centres = (positive + 0.5) * TOKEN_S
    assert centres.min() >= 12.5 and centres.max() <= 17.5 and len(positive) == 13
    assert torch.allclose(distances[0, positive].sum(-1), torch.tensor(25.0))
    assert classes.sum() == len(positive)


def test_segments_over_the_edge_are_clipped_and_those_outside_ignored() -> None:
    classes, distances = targets_of([(-5.0, 5.0), (80.0, 90.0)], [0, 1], share=1.0)
    assert classes[0, :, 0].sum() == 13  # centres 0.2 .. 5.0 s
    assert classes[0, :, 1].sum() == 0
    assert float(distances[0, 0, 0]) == 0.5


def test_perfect_outputs_decode_to_the_true_segments() -> None:
    segments, labels = [(10.0, 26.0), (40.0, 52.0), (100.0, 118.0), (140.0, 149.0)], [0, 2, 1, 0]
    stream = make_stream(153.6, segments, labels)
    starts = window_starts(len(stream.signal), 3840)
    logits, distances = [], []
    for start in starts:
        own = [(a - start / 50, b - start / 50) for a, b in segments]
        classes, lengths = targets_of(own, labels)
        logits.append(classes * 12 - 8)
        distances.append(lengths)
    scores, found = stitch(stream, starts, (torch.cat(logits), torch.cat(distances)), patch=20, sample_rate_hz=50)
    assert scores.shape == (384, 5)
    detections = decode(scores, found, ("a", "b", "c", "d", "e"))
    strong = detections.scores > 0.9
    assert strong.sum() == 4
    overlap = temporal_iou(np.asarray(segments), detections.segments[strong])
    assert (overlap.max(1) > 0.99).all()


def test_soft_nms_decays_neighbours_by_the_published_formula() -> None:
    segments = np.array([[0.0, 10.0], [0.0, 10.0], [5.0, 15.0], [20.0, 30.0]])
    kept, scores = soft_nms(segments, np.array([0.9, 0.8, 0.7, 0.6]), sigma=0.7)
    neighbour = np.exp(-((1 / 3) ** 2) / 0.7)
    np.testing.assert_allclose(scores, [0.9, 0.6, 0.7 * neighbour, 0.8 * np.exp(-1 / 0.7) * neighbour])
    assert kept.tolist() == [[0, 10], [20, 30], [5, 15], [0, 10]]
