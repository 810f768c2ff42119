"""The task moving-digits: its protocol by hand, its network on still clips, and the weights that ship."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError, UserError
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.measure.macs import count_macs
from toolkit.tasks.cards import TASKS, make_task
from toolkit.tasks.moving_digits.clips import MOTIONS
from toolkit.tasks.moving_digits.task import BASELINE, MovingDigitsTask
from toolkit.tasks.task import AlignmentOptions, HasStrata, Split, TellsCorrect
from toolkit.tasks.training_record import TrainRecord

SIZES: dict[Split, int] = {"score": 8, "calibration": 8, "holdout": 8, "validation": 70, "test": 35}


@pytest.fixture(scope="module")
def task() -> MovingDigitsTask:
    return MovingDigitsTask(SIZES)


class Knowing(nn.Module):
    """Gives the logits of what `answers` [N, 2] says, a batch after another; `is_broken` makes the last digit NaN."""

    def __init__(self, answers: Tensor, *, is_broken: bool = False) -> None:
        super().__init__()
        self.scale, self.answers, self.is_broken, self.seen = nn.Parameter(torch.ones(1)), answers, is_broken, 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mine = self.answers[self.seen : self.seen + len(x)]
        self.seen += len(x)
        digit, motion = (nn.functional.one_hot(mine[:, k], size) * self.scale for k, size in enumerate((10, 8)))
        return (digit.log() - digit.log() if self.is_broken and self.seen == len(self.answers) else digit), motion


def targets_of(task: MovingDigitsTask, split: Split) -> Tensor:
    return torch.cat([batch.targets for batch in task.batches(split, 8)])


def test_the_card_is_true() -> None:
    card, task = TASKS["moving-digits"], make_task("moving-digits")
    assert (card.name, card.metric) == (task.name, task.metric)
    model, inputs = task.build_model().eval(), task.example_inputs(2)
    blocks = find_blocks(model, inputs)
    assert blocks == ["blocks.0", "blocks.1", "blocks.2"] and card.num_blocks == len(blocks)
    structure = find_groups(model, inputs, blocks, task.protected)
    assert set(structure.refused) == {"digit", "motion"}
    assert {group.kind for group in structure.groups} == set(card.kinds or ())
    assert {group.name for group in structure.groups} == {
        *("bottom.0.0", "bottom.2.0", "bottom.4.0", "bottom.6.0", "space.0", "time.1"),
        *(f"{block}.space.0" for block in blocks),
    }


def test_macs_agree_with_a_hand_count(task: MovingDigitsTask) -> None:
    frames, pixels = 16, (16 * 16, 8 * 8, 4 * 4)
    bottom = frames * 9 * (pixels[0] * 12 * (1 + 12) + pixels[1] * 16 * (12 + 16))
    top = frames * pixels[2] * 16 * 16 * (9 + 3 + 3 * (9 + 3))
    assert count_macs(task.build_model(), task.example_inputs(1)).total == bottom + top + 16 * (10 + 8)


def test_splits_are_fixed_and_a_limit_is_a_beginning(task: MovingDigitsTask) -> None:
    whole = list(task.batches("validation", 32))
    assert [batch.inputs[0].shape for batch in whole] == [(n, 1, 16, 32, 32) for n in (32, 32, 6)]
    assert whole[0].targets.dtype == torch.int64 and task.num_examples("validation") == 70
    (first,) = task.batches("validation", 32, limit=20)
    assert torch.equal(first.inputs[0], whole[0].inputs[0][:20]) and torch.equal(first.targets, whole[0].targets[:20])
    again = next(MovingDigitsTask(SIZES).batches("validation", 32))
    assert torch.equal(again.inputs[0], whole[0].inputs[0])
    assert [len(task.example_inputs(count)[0]) for count in (3, 20)] == [3, 20]
    assert torch.equal(task.example_inputs(20)[0][8:16], task.example_inputs(8)[0])


def test_training_clips_are_seeded_and_a_share_has_few_digits(task: MovingDigitsTask) -> None:
    first, again, other = (next(task.train_batches(8, seed)) for seed in (3, 3, 4))
    assert torch.equal(first.inputs[0], again.inputs[0]) and torch.equal(first.targets, again.targets)
    assert not torch.equal(first.inputs[0], other.inputs[0])
    one = task.train_batches(8, 0, share=1 / 1197)
    assert len({int(digit) for _ in range(3) for digit in next(one).targets[:, 0]}) == 1


def test_loss_and_alignment_are_sums_over_both_heads(task: MovingDigitsTask) -> None:
    torch.manual_seed(0)
    student, teacher = ((torch.randn(4, 10), torch.randn(4, 8)) for _ in range(2))
    targets = torch.tensor([[1, 2], [9, 0], [0, 7], [3, 3]])
    picked = [logits.log_softmax(1)[range(4), targets[:, k]] for k, logits in enumerate(student)]
    assert task.loss(student, targets).item() == pytest.approx(-float(sum(picked).mean()))  # type: ignore[union-attr]
    by_hand = sum(
        float((old.softmax(1) * (old.log_softmax(1) - new.log_softmax(1))).sum() / 4)
        for new, old in zip(student, teacher, strict=True)
    )
    found = task.alignment(student, teacher, targets, AlignmentOptions())
    assert set(found) == {"class"} and found["class"].item() == pytest.approx(by_hand, rel=1e-5)
    for form in ("softmax", "bernoulli"):
        options = AlignmentOptions(class_loss=form, temperature=2.0)  # type: ignore[arg-type]
        assert task.alignment(student, student, targets, options)["class"].item() == pytest.approx(0.0, abs=1e-5)
        assert task.alignment(student, teacher, targets, options)["class"].item() > 0.1


def test_a_clip_is_right_where_both_heads_are(task: MovingDigitsTask) -> None:
    targets = targets_of(task, "test")
    answers = targets.clone()
    answers[:7, 0] = (answers[:7, 0] + 1) % 10
    answers[5:10, 1] = (answers[5:10, 1] + 1) % 8
    model = Knowing(answers)
    assert task.correct(model(torch.zeros(35, 1)), targets).tolist() == [False] * 10 + [True] * 25
    model.seen = 0
    quality = task.evaluate(model, "test")
    assert (quality.metric, quality.value, quality.num_examples) == ("joint accuracy", 25 / 35, 35)
    assert quality.details["digit"] == pytest.approx(28 / 35) and quality.details["motion"] == pytest.approx(30 / 35)
    groups = task.strata("test")
    assert groups.names == MOTIONS and torch.equal(groups.members, targets[:, 1])
    right = (answers == targets).all(1)
    for number, name in enumerate(MOTIONS):
        assert quality.details[f"both, {name}"] == pytest.approx(float(right[groups.members == number].float().mean()))
    model.seen = 0
    assert task.evaluate(model, "test", limit=5).value == 0.0
    assert isinstance(task, TellsCorrect) and isinstance(task, HasStrata)


def test_outputs_that_are_not_finite_are_refused(task: MovingDigitsTask) -> None:
    with pytest.raises(StageError, match=r"on split test are not finite numbers: the model is broken \(example 0\)"):
        task.evaluate(Knowing(targets_of(task, "test"), is_broken=True), "test")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the trained weights of moving-digits are missing"):
        MovingDigitsTask(SIZES, tmp_path / "nowhere").load_baseline()


def watched(model: nn.Module, change: Callable[[Tensor], Tensor | None]) -> list[torch.utils.hooks.RemovableHandle]:
    """Lets `change` see, and replace, what every convolution gives."""
    convs = [module for module in model.modules() if isinstance(module, nn.Conv3d)]
    assert len(convs) == 12
    return [conv.register_forward_hook(lambda _, __, output: change(output)) for conv in convs]


def still(task: MovingDigitsTask) -> tuple[Tensor, Tensor]:
    (batch,) = task.batches("validation", 70)
    return batch.inputs[0], batch.targets[:, 1] == MOTIONS.index("still")


@torch.no_grad()
def test_on_a_still_clip_every_step_of_every_convolution_is_the_same(task: MovingDigitsTask) -> None:
    inputs, is_still = still(task)
    spread: list[float] = []
    model = task.build_model().eval()
    watched(model, lambda output: spread.append(float((output - output[:, :, :1]).abs().amax() / output.std())))
    model(inputs[is_still][:4])
    assert len(spread) == 12 and max(spread) < 1e-4
    model(inputs[~is_still][:4])
    assert min(spread[12:]) > 0.1


@torch.no_grad()
def test_every_fourth_step_is_enough_for_still_clips_alone(task: MovingDigitsTask) -> None:
    """What the task is made for: with the shipped network, every option that drops steps must be chosen by input."""
    torch.set_num_threads(1)
    inputs, is_still = still(task)
    model, targets = task.load_baseline(), targets_of(task, "validation")
    dense = task.correct(model(inputs), targets)
    watched(model, lambda output: output[:, :, ::4].repeat_interleave(4, 2))
    thinned = task.correct(model(inputs), targets)
    assert torch.equal(thinned[is_still], dense[is_still])
    assert float(dense[is_still].double().mean()) > 0.9 and float(dense[~is_still].double().mean()) > 0.9
    assert float(thinned[~is_still].double().mean()) < 0.2


def test_the_shipped_weights_are_small_and_their_record_says_how_they_came_to_be() -> None:
    record = TrainRecord.model_validate_json((BASELINE / "training.json").read_bytes())
    assert record.config.task == "moving-digits" and record.test is not None
    assert record.validation.num_examples == 1000 and record.test.num_examples == 2000
    assert (BASELINE / "weights.safetensors").stat().st_size < 100_000


@pytest.mark.slow
def test_the_shipped_weights_have_the_recorded_accuracy() -> None:
    record = TrainRecord.model_validate_json((BASELINE / "training.json").read_bytes())
    task = make_task("moving-digits")
    assert task.evaluate(task.load_baseline(), "validation").value == pytest.approx(record.validation.value, abs=5e-3)
