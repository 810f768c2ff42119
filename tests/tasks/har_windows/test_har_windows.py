"""har-windows on made-up recordings in the layout of the real ones: windows, splits, the network, baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.made_up_hapt import made_up_recordings
from toolkit.base.errors import UserError
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.measure.macs import count_macs
from toolkit.tasks.cards import TASKS, make_task
from toolkit.tasks.hapt import TEST_USERS, TRAIN_USERS, VALIDATION_USERS, HaptRecording
from toolkit.tasks.har_windows.task import USERS, HarWindowsTask
from toolkit.tasks.har_windows.windows import ACTIVITIES, windows_of
from toolkit.tasks.task import HasStrata, Split, TellsCorrect
from toolkit.train import main as train

SPLITS: tuple[Split, ...] = ("score", "calibration", "holdout", "validation", "test")
NAMES = ("har-windows", "har-windows-seed1", "har-windows-seed2")
CONFIG = Path(__file__).parents[3] / "recipes" / "train" / "har_windows.yaml"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[HaptRecording, ...]:
    return made_up_recordings(tmp_path_factory.mktemp("hapt"))


@pytest.fixture(scope="module")
def task(recordings: tuple[HaptRecording, ...]) -> HarWindowsTask:
    return HarWindowsTask(0, lambda: recordings)


def test_windows_lie_inside_one_activity_and_overlap_by_half(recordings: tuple[HaptRecording, ...]) -> None:
    """Every sample of a made-up segment is its class, counted from 1."""
    windows = windows_of(recordings)
    assert windows.signals.shape[1:] == (6, 128) and set(windows.labels.tolist()) == set(range(6))
    assert (windows.signals == windows.labels[:, None, None] + 1).all()
    activities = sum(int((recording.labels < 6).sum()) for recording in recordings)
    assert len(windows) == activities * 8  # 600 samples: 0, 64, ..., 448 to 576


def test_windows_begin_where_they_should() -> None:
    signal = np.arange(400, dtype=np.float32)[:, None] + np.zeros((1, 6), dtype=np.float32)
    bounds, labels = np.array([[10, 138], [138, 265], [270, 400]]), np.array([3, 1, 5])
    windows = windows_of([HaptRecording(1, 1, signal, bounds, labels)])
    assert windows.labels.tolist() == [3, 5]  # the second segment is one sample too short
    assert windows.signals[:, 0, 0].tolist() == [10, 270] and windows.signals[:, 5, -1].tolist() == [137, 397]


def test_no_user_is_in_two_splits() -> None:
    assert [set(USERS[split]) for split in ("validation", "test")] == [set(VALIDATION_USERS), set(TEST_USERS)]
    users = [user for split in SPLITS for user in USERS[split]]
    assert sorted(users) == list(range(1, 31)) and set(users[:17]) == set(TRAIN_USERS)


def test_splits_are_fixed_and_a_limit_is_a_beginning(
    task: HarWindowsTask, recordings: tuple[HaptRecording, ...]
) -> None:
    assert [task.num_examples(split) for split in SPLITS[:3]] == [512, 512, 512]
    whole = list(task.batches("validation", 50))
    assert sum(len(batch.targets) for batch in whole) == task.num_examples("validation")
    assert torch.equal(task.strata("validation").members, torch.cat([batch.targets for batch in whole]))
    assert task.strata("validation").names == ACTIVITIES
    (first,) = task.batches("validation", 50, limit=20)
    assert torch.equal(first.inputs[0], whole[0].inputs[0][:20]) and len(set(first.targets.tolist())) > 3
    again = next(HarWindowsTask(0, lambda: recordings).batches("validation", 50))
    assert torch.equal(again.inputs[0], whole[0].inputs[0])
    assert isinstance(task, TellsCorrect) and isinstance(task, HasStrata)


def test_training_windows_are_scaled_and_shuffled(task: HarWindowsTask) -> None:
    batches, share = task.train_batches(64, 0), task.train_batches(8, 0, share=1e-9)
    inputs = torch.cat([next(batches).inputs[0] for _ in range(40)])
    assert abs(float(inputs.mean())) < 0.05 and float(inputs.std()) == pytest.approx(1.0, abs=0.05)
    assert {len(next(share).targets) for _ in range(3)} == {1}
    first, again, other = (next(task.train_batches(16, seed)).targets for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_cards_are_true(seed: int) -> None:
    card, task = TASKS[NAMES[seed]], make_task(NAMES[seed])
    assert isinstance(task, HarWindowsTask)
    assert (task.name, task.metric, task.baseline.seed) == (card.name, card.metric, seed)
    model, inputs = task.build_model().eval(), task.example_inputs(2)
    blocks = find_blocks(model, inputs)
    assert card.num_blocks == len(blocks) == 2
    assert {group.kind for group in find_groups(model, inputs, blocks, ()).groups} == set(card.kinds or ())
    by_hand = 64 * 32 * 5 * (6 + 2 * 32) + 32 * 64 * 5 * (32 + 2 * 64) + 64 * 6
    assert count_macs(model, task.example_inputs(1)).total == by_hand


def test_a_missing_baseline_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_BASELINES", str(tmp_path))
    command = rf"python -m toolkit.train recipes/train/har_windows.yaml --out {tmp_path}/har-windows-seed"
    with pytest.raises(UserError, match=rf"no trained baseline there .*: {command}0; or set TOOLKIT_BASELINES"):
        make_task("har-windows").load_baseline()
    with pytest.raises(UserError, match=rf"{command}2 with seed: 2 in a copy of that file"):
        make_task("har-windows-seed2").load_baseline()


def test_a_baseline_is_trained_and_read_for_its_own_task_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: HarWindowsTask
) -> None:
    monkeypatch.setenv("TOOLKIT_BASELINES", str(tmp_path))
    monkeypatch.setattr("toolkit.train.make_task", lambda name: task)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.read_text().replace("max_steps: 1500", "max_steps: 1"))
    assert "max_steps: 1\n" in config.read_text()
    assert train([str(config), "--out", str(tmp_path / "har-windows-seed0")]) == 0
    assert not task.load_baseline().training
    (tmp_path / "har-windows-seed0").rename(tmp_path / "har-windows-seed1")
    was = "was trained for task 'har-windows' with seed 0, but"
    with pytest.raises(UserError, match=f"{was} 'har-windows-seed1' needs seed 1"):
        make_task("har-windows-seed1").load_baseline()
    (tmp_path / "har-windows-seed1").rename(tmp_path / "tad-hapt-seed0")
    with pytest.raises(UserError, match=f"{was} 'tad-hapt' needs seed 0"):
        make_task("tad-hapt").load_baseline()


def test_without_the_data_the_error_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOOLKIT_DATA", raising=False)
    with pytest.raises(UserError, match=r"TOOLKIT_DATA is not set; .*UCI dataset 341"):
        make_task("har-windows").num_examples("test")
