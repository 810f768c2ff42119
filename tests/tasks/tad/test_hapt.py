"""tad-hapt on made-up recordings in the layout of the real ones: splits, windows, baselines."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.made_up_hapt import SAMPLES, made_up_recordings
from toolkit.base.errors import UserError
from toolkit.measure.macs import count_macs
from toolkit.tasks.cards import TASKS, make_task
from toolkit.tasks.hapt import CLASSES, HaptRecording, load_recordings
from toolkit.tasks.tad.augment import Augment
from toolkit.tasks.tad.hapt.task import (
    CENTRE_SHARE,
    CONFIG,
    TEST_USERS,
    TRAIN_USERS,
    VALIDATION_USERS,
    WINDOW,
    HaptStreams,
    HaptTask,
    excerpt,
    visible,
)
from toolkit.tasks.tad.streams import Stream
from toolkit.train import main as train

RATE = 50
HAPT_NAMES = ("tad-hapt", "tad-hapt-seed1", "tad-hapt-seed2")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[HaptRecording, ...]:
    return made_up_recordings(tmp_path_factory.mktemp("hapt"))


@pytest.fixture(scope="module")
def source(recordings: tuple[HaptRecording, ...]) -> HaptStreams:
    return HaptStreams(Augment(), lambda: recordings)


def assert_labels_fit_the_signal(stream: Stream, tolerance: int = 0) -> None:
    """Inside a segment every sample is its class; just before and after it (in the stream) no sample is."""
    assert len(stream.labels) > 0
    for (start_s, end_s), label in zip(stream.segments, stream.labels, strict=True):
        start, end = start_s * RATE, end_s * RATE
        if tolerance == 0:
            assert start == pytest.approx(round(start)) and end == pytest.approx(round(end))
        first, last = round(start), round(end)
        assert (np.abs(stream.signal[first + tolerance : last - tolerance] - (label + 1)) < 1e-4).all()
        around = [i for i in (first - 1 - tolerance, last + tolerance) if 0 <= i < len(stream.signal)]
        assert (np.abs(stream.signal[around] - (label + 1)) > 1e-4).all()


def test_bounds_are_right_to_the_sample(recordings: tuple[HaptRecording, ...]) -> None:
    assert len(recordings) == 60
    first = recordings[0]
    assert (first.name, first.experiment, first.user) == ("exp01_user01", 1, 1)
    assert first.bounds[:2].tolist() == [[51, 651], [711, 1311]]  # user 1 starts at sample 52, counted from 1
    assert first.labels[:2].tolist() == [1, 2]
    for recording in recordings:
        assert_labels_fit_the_signal(excerpt(recording, 0, SAMPLES, recording.name))


def test_fixed_windows_hold_what_their_segments_say(source: HaptStreams) -> None:
    for split, count in (("score", 48), ("calibration", 48), ("holdout", 16)):
        streams = source.fixed(split)
        assert len(streams) == count
        assert len({stream.name for stream in streams}) == count
        for stream in streams:
            assert stream.signal.shape == (WINDOW, 6) and len(stream.joints_s) == 0
            assert stream.segments.min() >= 0 and stream.segments.max() <= WINDOW / RATE
            assert_labels_fit_the_signal(stream)


def test_no_recording_is_in_two_splits(source: HaptStreams) -> None:
    assert TEST_USERS == (2, 4, 9, 10, 12, 13, 18, 20, 24)
    assert len(TRAIN_USERS) == 17 and len(VALIDATION_USERS) == 4
    assert sorted(TRAIN_USERS + VALIDATION_USERS + TEST_USERS) == list(range(1, 31))
    names = {
        split: {stream.name.split("@")[0] for stream in source.fixed(split)}
        for split in ("score", "calibration", "holdout", "validation", "test")
    }
    assert {split: len(own) for split, own in names.items()} == {
        "score": 12,
        "calibration": 12,
        "holdout": 4,
        "validation": 8,
        "test": 18,
    }
    assert len(set.union(*names.values())) == sum(len(own) for own in names.values())
    users = {split: {int(name[-2:]) for name in own} for split, own in names.items()}
    assert users["validation"] == set(VALIDATION_USERS) and users["test"] == set(TEST_USERS)
    assert users["score"] | users["calibration"] | users["holdout"] <= set(TRAIN_USERS)


def test_validation_and_test_are_whole_recordings(source: HaptStreams) -> None:
    assert {len(stream.signal) for split in ("validation", "test") for stream in source.fixed(split)} == {SAMPLES}


def test_windows_of_a_recording_do_not_overlap_and_are_fixed(source: HaptStreams) -> None:
    again = HaptStreams(Augment(), source._load)
    once = source.fixed("score")
    assert [stream.name for stream in once] == [stream.name for stream in again.fixed("score")]
    begins: dict[str, list[int]] = {}
    for stream in once:
        recording, begin = stream.name.split("@")
        begins.setdefault(recording, []).append(int(begin))
    for own in begins.values():
        assert len(own) == 4 and min(np.diff(own)) >= WINDOW and own[-1] + WINDOW <= SAMPLES


def test_a_recording_too_short_for_its_windows_is_left_out_of_the_fixed_splits(
    recordings: tuple[HaptRecording, ...],
) -> None:
    short = tuple(replace(r, signal=r.signal[:6000]) if r.user == 1 else r for r in recordings)
    source = HaptStreams(Augment(), lambda: short)
    names = {s.name for split in ("score", "calibration", "holdout") for s in source.fixed(split)}
    assert len(names) == 112
    assert not any("user01" in name for name in names)


def test_what_is_left_of_a_segment_at_the_edge() -> None:
    bounds = np.asarray([[0, 600], [600, 800], [1000, 1040]])
    recording = HaptRecording(1, 1, np.zeros((2000, 6), dtype=np.float32), bounds, np.asarray([0, 6, 3]))

    def kept(begin: float, end: float) -> list[list[float]]:
        return visible(recording, begin, end)[0].tolist()

    assert kept(550, 2000) == [[0, 50], [50, 250], [450, 490]]  # a second of the activity; an activity under a second
    assert kept(551, 2000)[0] == [49, 249]
    assert kept(700, 2000) == [[0, 100], [300, 340]]  # half of the transition
    assert kept(701, 2000) == [[299, 339]]
    assert kept(0, 700) == [[0, 600], [600, 700]]
    assert kept(0, 699) == [[0, 600]]
    assert kept(800, 1000) == []


def test_training_streams_are_resampled_with_their_segments(recordings: tuple[HaptRecording, ...]) -> None:
    plain, fast = (HaptStreams(Augment(speed=speed), lambda: recordings) for speed in (0.0, 0.2))
    rng, lengths = np.random.default_rng(0), set()
    for _ in range(40):
        assert_labels_fit_the_signal(plain.train(76.8, rng))
        stream = fast.train(76.8, rng)
        assert stream.signal.shape == (WINDOW, 6) and stream.segments.max() <= WINDOW / RATE + 1e-9
        assert_labels_fit_the_signal(stream, tolerance=2)
        lengths |= {round(length, 3) for length in np.diff(stream.segments, axis=1)[1:-1, 0]}
    assert min(lengths) < 3.0 * 0.9 and max(lengths) > 12.0 * 1.1


def test_training_streams_are_of_training_users_and_fixed_by_the_seed(recordings: tuple[HaptRecording, ...]) -> None:
    marked = tuple(replace(r, signal=np.full_like(r.signal, r.user)) for r in recordings)
    source = HaptStreams(Augment(), lambda: marked)
    rng = np.random.default_rng(0)
    assert {int(source.train(10.0, rng).signal[0, 0]) for _ in range(600)} == set(TRAIN_USERS)
    real = HaptStreams(load=lambda: recordings)
    first, again, other = (real.train(76.8, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.signal, again.signal) and np.array_equal(first.segments, again.segments)
    assert not np.array_equal(first.signal, other.signal)


def test_moments_are_of_the_training_users(recordings: tuple[HaptRecording, ...]) -> None:
    marked = tuple(
        replace(r, signal=np.full_like(r.signal, 1.0 if r.user in TRAIN_USERS else 99.0)) for r in recordings
    )
    source = HaptStreams(Augment(), lambda: marked)
    assert source.mean.tolist() == [[1.0]] * 6 and source.deviation.tolist() == [[0.0]] * 6


def test_a_stream_longer_than_its_recording_is_as_long_as_that(source: HaptStreams) -> None:
    assert len(source.train(1000.0, np.random.default_rng(0)).signal) == SAMPLES - 1


def test_the_task_makes_batches_and_is_evaluated(source: HaptStreams) -> None:
    task = HaptTask(0, source)
    batch = next(task.train_batches(2, 0))
    assert batch.inputs[0].shape == (2, 6, WINDOW)
    assert batch.targets[0].shape == (2, CONFIG.num_tokens, 12) and batch.targets[0].sum() > 0
    torch.manual_seed(0)
    quality = task.evaluate(task.build_model(), "holdout")
    assert quality.num_examples == 16 and 0.0 <= quality.value < 0.2
    assert {f"AP {name}" for name in CLASSES} <= set(quality.details)


@pytest.mark.skipif(not os.environ.get("TOOLKIT_DATA"), reason="needs the real recordings (TOOLKIT_DATA)")
def test_the_real_recordings() -> None:
    found = load_recordings()
    assert (len(found), sum(len(r.labels) for r in found)) == (61, 1214)
    assert {r.user for r in found} == set(range(1, 31))
    for recording in found:
        assert (recording.bounds[1:, 0] >= recording.bounds[:-1, 1]).all()  # in order, no overlaps
        assert recording.bounds.min() >= 0 and recording.bounds.max() <= len(recording.signal)
    longest = max(int(np.diff(r.bounds, axis=1).max()) for r in found if r.user in TRAIN_USERS)
    farthest = longest / 2 + longest / 2 * CENTRE_SHARE  # samples from an outermost positive token to a boundary
    assert farthest <= (CONFIG.reach - 1) * CONFIG.patch
    source = HaptStreams()
    for split in ("score", "calibration", "holdout"):
        streams = source.fixed(split)
        assert len(streams) == (16 if split == "holdout" else 48)
        assert {int(label) for stream in streams for label in stream.labels} == set(range(12))


def test_macs_of_the_dense_detector_agree_with_a_hand_count() -> None:
    task = make_task("tad-hapt")
    counted = count_macs(task.build_model(), task.example_inputs(1)).total
    # embedding and blocks as in tad-watch; head 192*(2*3*64*64 + 3*64*12 + 3*64*2 + 64*160)
    assert counted == 2_949_120 + 12 * 14_155_776 + 192 * (24_576 + 2_304 + 384 + 10_240)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_cards_are_true(seed: int) -> None:
    card, task = TASKS[HAPT_NAMES[seed]], make_task(HAPT_NAMES[seed])
    assert (task.name, task.baseline.seed) == (card.name, seed)
    assert card.num_blocks == CONFIG.num_blocks == len(task.build_model().blocks)
    assert card.metric == task.metric
    assert task.baseline.folder.name == f"tad-hapt-seed{seed}"


def test_without_the_data_the_error_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = r"UCI dataset 341 \(DOI 10.24432/C54G7M.*python -m toolkit.tasks.tad.hapt.convert"
    for value in (None, ""):
        monkeypatch.setenv("TOOLKIT_DATA", value or "")
        if value is None:
            monkeypatch.delenv("TOOLKIT_DATA")
        with pytest.raises(UserError, match=f"TOOLKIT_DATA is not set; .*{source}"):
            load_recordings()
    monkeypatch.setenv("TOOLKIT_DATA", str(tmp_path))
    with pytest.raises(UserError, match=rf"TOOLKIT_DATA=.* has no hapt/hapt_raw_f32.npz; .*{source}"):
        make_task("tad-hapt").streams("score")


def test_training_without_the_data_ends_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TOOLKIT_DATA", raising=False)
    config = Path(__file__).parents[3] / "recipes" / "train" / "tad_hapt.yaml"
    assert train([str(config), "--out", str(tmp_path / "out")]) == 2
    assert "TOOLKIT_DATA is not set" in capsys.readouterr().err


def test_a_missing_baseline_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_BASELINES", str(tmp_path))
    command = rf"python -m toolkit.train recipes/train/tad_hapt.yaml --out {tmp_path}/tad-hapt-seed"
    with pytest.raises(UserError, match=rf"no trained baseline there .*: {command}0; or set TOOLKIT_BASELINES"):
        make_task("tad-hapt").load_baseline()
    with pytest.raises(UserError, match=rf"{command}2 with seed: 2 in a copy of that file"):
        make_task("tad-hapt-seed2").load_baseline()
    monkeypatch.delenv("TOOLKIT_BASELINES")
    assert make_task("tad-hapt").baseline.folder == Path("runs/baselines/tad-hapt-seed0")


def test_a_baseline_of_another_seed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: HaptStreams
) -> None:
    monkeypatch.setenv("TOOLKIT_BASELINES", str(tmp_path))
    monkeypatch.setattr("toolkit.train.make_task", lambda name: HaptTask(0, source))
    text = (Path(__file__).parents[3] / "recipes" / "train" / "tad_hapt.yaml").read_text()
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("max_steps: 1200", "max_steps: 1").replace("batch_size: 16", "batch_size: 1"))
    assert "max_steps: 1\n" in config.read_text()
    assert train([str(config), "--out", str(tmp_path / "tad-hapt-seed0")]) == 0
    assert not make_task("tad-hapt").load_baseline().training
    (tmp_path / "tad-hapt-seed0").rename(tmp_path / "tad-hapt-seed1")
    with pytest.raises(UserError, match=r"trained for task 'tad-hapt' with seed 0, but 'tad-hapt-seed1' needs seed 1"):
        make_task("tad-hapt-seed1").load_baseline()
