"""Spliced streams: what is labelled is what was put there, and the splits share no subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.base.errors import UserError
from toolkit.tasks.tad.augment import Augment
from toolkit.tasks.tad.watch.data import load_recordings, read_recordings
from toolkit.tasks.tad.watch.splice import SpliceConfig, Splicer
from toolkit.tasks.tad.watch.task import FIXED, TEST_SUBJECTS, TRAIN_SUBJECTS, VALIDATION_SUBJECTS, WatchStreams

RATE = 50


def marked_splicer() -> Splicer:
    """Recordings whose six channels all hold the number of their exercise: 1, 2 actions; 0 background."""
    signals = [[np.full((30 * RATE, 6), float(value), dtype=np.float32)] for value in range(3)]
    return Splicer({"one": signals[1], "two": signals[2]}, {"rest": signals[0]}, SpliceConfig())


def test_segments_cover_exactly_their_exercise() -> None:
    stream = marked_splicer().stream("s", 120.0, np.random.default_rng(0))
    assert len(stream.signal) == 120 * RATE
    assert len(stream.labels) >= 3
    for (start, end), label in zip(stream.segments, stream.labels, strict=True):
        inside = stream.signal[int((start + 0.3) * RATE) : int((end - 0.3) * RATE), 0]
        assert (inside == label + 1).all()
    outside = np.ones(len(stream.signal), dtype=bool)
    for start, end in stream.segments:
        outside[int((start - 0.3) * RATE) if start > 0.3 else 0 : int((end + 0.3) * RATE)] = False
    edge = np.flatnonzero(stream.signal[:, 0] > 0.999)
    assert outside[edge].sum() <= RATE  # at most one action shorter than a second, cut off by an end of the stream


def test_joints_lie_inside_actions_and_background_too() -> None:
    stream = marked_splicer().stream("s", 600.0, np.random.default_rng(1))
    edges = stream.segments.ravel()
    at_edge = np.abs(stream.joints_s[:, None] - edges).min(1) < 0.02
    inside = (
        (stream.joints_s[:, None] > stream.segments[:, 0]) & (stream.joints_s[:, None] < stream.segments[:, 1])
    ).any(1)
    assert at_edge.sum() >= 20
    assert (inside & ~at_edge).sum() >= 20
    assert (~inside & ~at_edge).sum() >= 10


def test_streams_are_fixed_by_the_seed() -> None:
    splicer = marked_splicer()
    augment = Augment(speed=0.1, rotation_deg=10, scale=0.1, noise=0.1)
    first, again, other = (splicer.stream("s", 60.0, np.random.default_rng(s), augment) for s in (3, 3, 4))
    assert np.array_equal(first.signal, again.signal)
    assert np.array_equal(first.segments, again.segments)
    assert not np.array_equal(first.signal, other.signal)


def test_rotation_keeps_each_sensors_length() -> None:
    splicer = marked_splicer()
    plain = splicer.stream("s", 60.0, np.random.default_rng(5), Augment())
    turned = splicer.stream("s", 60.0, np.random.default_rng(5), Augment(rotation_deg=40))
    for sensor in (slice(0, 3), slice(3, 6)):
        lengths = [np.linalg.norm(signal[:, sensor], axis=1) for signal in (plain.signal, turned.signal)]
        np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-4, atol=1e-5)


def test_recordings_are_the_published_ones() -> None:
    recordings = load_recordings()
    assert len(recordings) == 140
    assert {recording.subject for recording in recordings} == set(range(1, 11))
    assert all(recording.signal.shape[1] == 6 and recording.signal.dtype == np.float32 for recording in recordings)


def test_a_changed_file_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    bomb = tmp_path / "watch_dataset.npy"
    np.save(bomb, np.array({"X": object}, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"SHA-256 is .* expected eb122f23"):
        read_recordings(bomb)
    with pytest.raises(UserError, match="cannot be read"):
        read_recordings(tmp_path / "missing.npy")


def test_subjects_of_the_splits_are_disjoint() -> None:
    assert len(TEST_SUBJECTS) >= 3 and len(VALIDATION_SUBJECTS) >= 2
    groups = [set(TRAIN_SUBJECTS), set(VALIDATION_SUBJECTS), set(TEST_SUBJECTS)]
    assert sum(len(group) for group in groups) == len(set.union(*groups)) == 10
    for split in ("score", "calibration", "holdout"):
        assert FIXED[split][0] == TRAIN_SUBJECTS


def test_fixed_splits_are_fixed_and_differ() -> None:
    source = WatchStreams()
    once, again = source.fixed("calibration"), WatchStreams().fixed("calibration")
    assert [stream.name for stream in once] == [stream.name for stream in again]
    assert all(np.array_equal(a.signal, b.signal) for a, b in zip(once, again, strict=True))
    assert not np.array_equal(once[0].signal, source.fixed("holdout")[0].signal)
