"""The seam control keeps every joint and takes all else away."""

from __future__ import annotations

import numpy as np

from toolkit.benchmarks.seam_control import rotated, without_classes
from toolkit.tasks.tad.metric import Detections, mean_average_precision
from toolkit.tasks.tad.watch.splice import SpliceConfig, Splicer


def test_shuffled_streams_say_nothing_of_their_labels() -> None:
    signals = {name: [np.full((1500, 6), value, dtype=np.float32)] for name, value in (("one", 1.0), ("two", 2.0))}
    rest = {"rest": [np.zeros((1500, 6), dtype=np.float32)]}
    stream = Splicer(signals, rest, SpliceConfig(shuffled=True)).stream("s", 3000.0, np.random.default_rng(0))
    time_s = (np.arange(len(stream.signal)) + 0.5) / 50
    for label in (None, 0, 1):
        own = stream.segments if label is None else stream.segments[stream.labels == label]
        inside = ((time_s[:, None] > own[:, 0]) & (time_s[:, None] < own[:, 1])).any(1)
        chosen = stream.signal[~inside if label is None else inside, 0]
        shares = [(np.abs(chosen - value) < 0.01).mean() for value in (0.0, 1.0, 2.0)]
        assert all(0.2 < share < 0.45 for share in shares)


def test_chance_scores_other_streams_predictions() -> None:
    truth = {
        name: Detections(np.array([[10.0 * i, 10.0 * i + 9]]), (f"c{i % 2}",), np.ones(1))
        for i, name in enumerate("abcd")
    }
    assert mean_average_precision(truth, truth).average == 1.0
    assert mean_average_precision(truth, rotated(truth)).average == 0.0
    merged = without_classes(truth)
    assert {label for d in merged.values() for label in d.labels} == {"action"}
    assert mean_average_precision(merged, merged).average == 1.0
