"""What every stage answers: words, faults, time, axis and a typed detail, asked of all that the recipes can name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from reports.run.closing import slower_steps
from tests.helpers.example_records import combined_record
from toolkit.apply import main
from toolkit.recipe.estimate import estimate_s
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Heads, Keep
from toolkit.stages.contract import StageSettings
from toolkit.stages.detail import StageDetail
from toolkit.stages.recover.settings import Recover
from toolkit.stages.registry import STAGES
from toolkit.stages.reinitialise.settings import Reinitialise
from toolkit.stages.settings import STAGE_SETTINGS, Stage
from toolkit.tasks.cards import TASKS

FOLDER = Path(__file__).parents[2] / "toolkit" / "stages"
CARD = TASKS["tad-watch"]


def recipe(*stages: Stage) -> Recipe:
    return Recipe(name="x", task="tad-watch", seed=0, device="cpu", stages=stages, measure=Measure())


def test_stages_folders_settings_and_functions_are_the_same() -> None:
    folders = {path.parent.name for path in FOLDER.glob("*/settings.py")}
    assert folders == set(STAGE_SETTINGS) == set(STAGES)


@pytest.mark.parametrize("name", STAGE_SETTINGS)
def test_every_stage_answers_for_itself(name: str) -> None:
    settings = STAGE_SETTINGS[name]
    assert settings.in_words is not StageSettings.in_words, "it has no words of its own"
    assert settings.detail is not StageDetail, "its detail has no type"
    assert settings.axis in (None, "depth", "width", "dynamic")
    assert (settings.axis is None) or settings.if_slower, "what should its user try where it makes a model slower?"


def test_a_floor_on_quality_alone_is_checked_and_estimated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "floor.yaml"
    file.write_text(
        "version: 1\nname: floor\ntask: tad-watch\nseed: 0\ndevice: cpu\n"
        "stages:\n  - {type: block_drop, max_quality_drop: 0.01}\nmeasure: {}\n"
    )
    assert main([str(file), "--check"]) == 0
    assert "Estimated run time: about" in capsys.readouterr().out


def test_a_floor_is_estimated_like_dropping_all_blocks_but_one() -> None:
    floor, all_but_one = BlockDrop(max_quality_drop=0.01), BlockDrop(num_blocks=11)
    assert estimate_s(recipe(floor), CARD) == estimate_s(recipe(all_but_one), CARD)


def test_alignment_within_a_drop_takes_its_time() -> None:
    align = Align(max_steps=100, validate_every=50)
    without, with_it = (estimate_s(recipe(BlockDrop(num_blocks=2, align=one)), CARD) for one in (None, align))
    assert without is not None and CARD.costs is not None
    assert with_it == pytest.approx(without + 2 * CARD.costs.training_s(100, 50))


def test_planned_widths_are_told() -> None:
    words = ChannelPrune(widths={"blocks.0.mlp.fc1": 64, "blocks.0.attn": Heads(heads=2, head_dim=8)}).in_words()
    assert "blocks.0.mlp.fc1 to 64, blocks.0.attn to 2 heads of 8" in words
    assert "100 %" not in words and "rounded" not in words


def test_many_planned_widths_are_told_in_short() -> None:
    words = ChannelPrune(widths={f"blocks.{index}.mlp.fc1": 64 for index in range(12)}).in_words()
    assert words.count("mlp.fc1") == 4 and "and 8 more" in words


def test_a_control_is_told() -> None:
    assert Reinitialise().in_words() == (
        "draws new random weights for what is left, as an untrained model has them (a control)"
    )


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (
            BlockDrop(max_quality_drop=0.02),
            "until a round takes the validation metric more than 0.02 below the dense one",
        ),
        (
            BlockDrop(macs_ratio=0.5, max_quality_drop=0.02),
            "until 50 % of the dense MACs (multiply-adds) are left or a",
        ),
        (BlockDrop(num_blocks=2, align=Align()), "after every round it aligns outputs and every block with the dense"),
        (BlockDrop(num_blocks=2, racing="successive_halving"), "in a race on growing parts of the data"),
        (BlockDrop(num_blocks=2, schedule="one_shot"), "all chosen from the first scores"),
        (BlockDrop(blocks=("blocks.3",)), "removes the blocks blocks.3; the layer before each cut is repaired"),
        (ChannelPrune(keep=Keep(), allow_no_change=True), "keeps every channel"),
        (Recover(patience=2), "stopping after 2 validations without improvement"),
    ],
)
def test_settings_are_told(stage: StageSettings, words: str) -> None:
    assert words in stage.in_words()


def test_the_family_follows_from_the_axes() -> None:
    drop, prune = BlockDrop(num_blocks=1), ChannelPrune(keep=Keep(mlp=0.5))
    families = [recipe(*stages).family for stages in ((), (drop,), (prune,), (prune, drop), (Recover(),))]
    assert families == ["none", "depth", "width", "combined", "none"]


def test_only_stages_that_cut_can_make_a_model_slower() -> None:
    """The same record, with every later step twice as slow as the one before."""
    record = combined_record()
    steps = []
    for number, step in enumerate(record.steps):
        latency = tuple(
            one.model_copy(update={"samples_s": tuple(2**number * sample for sample in one.dense_samples_s)})
            for one in step.measurement.latency
        )
        measurement = step.measurement.model_copy(update={"latency": latency})
        steps.append(step.model_copy(update={"measurement": measurement}))
    lines = slower_steps(record.model_copy(update={"steps": tuple(steps)}))
    assert {line.split()[3] for line in lines} == {"block_drop", "channel_prune"}
    assert all(any(stage.if_slower in line for stage in (BlockDrop, ChannelPrune)) for line in lines)


def test_a_detail_lacking_a_key_is_no_detail() -> None:
    with pytest.raises(ValidationError, match="rounds"):
        BlockDrop.detail.model_validate({"criterion": "loss", "higher_is_better": False, "blocks": ["a"]})


def test_a_round_that_drops_several_blocks_tells_of_all_of_them() -> None:
    made = [{"layer": f"blocks.{i}.fc2", "calibration_error": {"before": 0.2, "after": 0.1}} for i in (1, 2)]
    one = {"scores": {"blocks.2": 0.1}, "dropped": "blocks.2", "all_dropped": ["blocks.2", "blocks.3"]}
    one |= {"repair": made[0], "repairs": [made[0], None, made[1]]}
    known = {"criterion": "loss", "higher_is_better": False, "blocks": ["blocks.2", "blocks.3"]}
    detail = BlockDrop.detail.model_validate({**known, "rounds": [one]})
    scores = detail.block_scores()
    assert scores is not None and scores.gone == ("blocks.2", "blocks.3")
    assert [label for label, _ in detail.repair_errors()] == ["round 1: blocks.1.fc2", "round 1: blocks.2.fc2"]


def test_a_record_of_before_tells_of_the_one_block_of_each_round() -> None:
    made = {"layer": "blocks.1.fc2", "calibration_error": {"before": 0.2, "after": 0.1}}
    known = {"criterion": "loss", "higher_is_better": False, "blocks": ["blocks.2"]}
    rounds = [{"scores": {"blocks.2": 0.1}, "dropped": "blocks.2", "repair": made}]
    detail = BlockDrop.detail.model_validate({**known, "rounds": rounds})
    scores = detail.block_scores()
    assert scores is not None and scores.gone == ("blocks.2",)
    assert [label for label, _ in detail.repair_errors()] == ["round 1: blocks.1.fc2"]
