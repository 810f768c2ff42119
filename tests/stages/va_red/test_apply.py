"""The stage va_red: constant options, policies, what is refused, and what a saved model holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.helpers.conv_nets import CHANNELS, ConvNet, clips, conv_net, conv_task
from tests.helpers.damages import edit
from toolkit.base.console import Console
from toolkit.base.errors import CheckpointError, ExportError, StageError
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model
from toolkit.exporting.export import export_model
from toolkit.exporting.report import ExportSettings
from toolkit.hooks.copies import copy_model
from toolkit.measure.input_macs import macs_of_inputs
from toolkit.measure.macs import count_macs
from toolkit.stages.context import StageContext
from toolkit.stages.va_red.apply import apply_va_red
from toolkit.stages.va_red.detail import VaRedDetail
from toolkit.stages.va_red.options import offers
from toolkit.stages.va_red.policy import policy_loss
from toolkit.stages.va_red.settings import VaRed
from toolkit.stand_ins.decisions import choices_noted, dynamic_layers, gated_layers, without_gates
from toolkit.stand_ins.dynamic_conv import DynamicConv
from toolkit.tasks.classification import ClassificationTask

FEW = {"max_steps": 3, "validate_every": 3, "warmup_steps": 0, "hidden": 4, "correct_only": False}


def context_of(task: ClassificationTask, model: nn.Module) -> StageContext:
    def counted(model: nn.Module) -> int:
        return count_macs(model, task.example_inputs(1)).total

    return StageContext(
        dense=copy_model(model),
        dense_macs=counted(model),
        count_macs=counted,
        device=torch.device("cpu"),
        seed=0,
        console=Console(),
    )


def applied(dims: int = 1, **settings: Any) -> tuple[nn.Module, VaRedDetail, ClassificationTask]:
    task = conv_task(dims)
    model = task.load_baseline()
    torch.manual_seed(0)
    model, detail = apply_va_red(model, task, VaRed.model_validate(settings), context_of(task, model))
    return model, detail, task


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("ratio", [0.7, 0.4])
def test_constant_options_reach_the_target_and_are_saved_and_loaded(dims: int, ratio: float, tmp_path: Path) -> None:
    model, detail, task = applied(dims, scope="constant", macs_ratio=ratio)
    dense = task.load_baseline()
    reached = count_macs(model, task.example_inputs(1)).total / count_macs(dense, task.example_inputs(1)).total
    assert 0.5 * ratio < reached <= ratio
    assert detail.macs_ratio.achieved == pytest.approx(reached)
    assert dynamic_layers(model) and not gated_layers(model)
    for layer in dynamic_layers(model).values():
        assert (len(layer.arguments.steps), len(layer.arguments.channels)) == (1, 1)
        assert len(layer.weight) == layer.arguments.channels[0]
    loaded = saved_and_loaded(model, dense, task, tmp_path)
    torch.testing.assert_close(loaded(*task.example_inputs(5)), model(*task.example_inputs(5)), rtol=0, atol=1e-6)


def saved_and_loaded(model: nn.Module, dense: nn.Module, task: ClassificationTask, folder: Path) -> nn.Module:
    inputs = task.example_inputs(1)
    save_model(folder / "model", model, dense, factory={"task": "clips"}, example_inputs=inputs, recipe_sha256=None)
    return load_model(folder / "model", task.build_model())


def test_layers_that_compute_everything_become_convolutions_again() -> None:
    model, _, _ = applied(scope="constant", macs_ratio=0.95)
    kinds = {type(model.get_submodule(name)) for name in ("stem", "blocks.0.conv1", "blocks.1.conv2")}
    assert nn.Conv1d in kinds


def test_a_target_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(StageError, match="at the least"):
        applied(scope="constant", macs_ratio=0.02)


@pytest.mark.parametrize("estimator", ["soft_modulation", "gumbel"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_policy_is_trained_saved_loaded_and_counted(dims: int, estimator: str, tmp_path: Path) -> None:
    model, detail, task = applied(dims, estimator=estimator, **FEW)
    layers = gated_layers(model)
    assert len(layers) == 5 and not model.training
    assert detail.training() is not None and detail.training().kept_step == 3  # type: ignore[union-attr]
    for layer in detail.layers:
        assert sum(layer.shares.values()) == pytest.approx(1.0) and layer.shares.keys() == layer.macs.keys()
    loaded = saved_and_loaded(model, task.load_baseline(), task, tmp_path)
    torch.testing.assert_close(loaded(*task.example_inputs(5)), model(*task.example_inputs(5)), rtol=0, atol=1e-6)
    batches = [batch.inputs for batch in task.batches("validation", 8)]
    spread = macs_of_inputs(model, batches)
    alone = [count_macs(model, (part[None],)).total for (inputs,) in batches for part in inputs]
    assert spread.num_examples == len(alone) == sum(spread.counts)
    assert spread.mean == pytest.approx(sum(alone) / len(alone))


def test_work_follows_the_input_where_the_gates_say_so() -> None:
    """Gates by hand: full for signals that change in time, every fourth step for those that do not."""
    model, _, _ = applied(**FEW)

    def choose(name: str, layer: DynamicConv, stream: torch.Tensor) -> torch.Tensor:
        moves = stream[:, :, 3:-3].diff(dim=2).abs().amax((1, 2)) > 1e-4
        steps = torch.where(moves, 0, len(layer.arguments.steps) - 1)
        return torch.stack([steps, torch.zeros_like(steps)], 1)

    inputs = clips(8)
    with torch.no_grad(), choices_noted(model, choose) as noted:
        model(inputs)
    layers = gated_layers(model)
    spent = [sum(costs) for costs in zip(*(noted[name].costs(layers[name]) for name in layers), strict=True)]
    assert max(spent[::2]) < min(spent[1::2])


def test_the_loss_presses_only_examples_that_are_right() -> None:
    model, _, task = applied(**FEW)
    batch = next(iter(task.batches("score", 8)))

    def pressure(share_right: float, **settings: object) -> float:
        """How much the cost adds to the loss of eight examples, of which a share is right."""
        told: Any = Told(task, share_right)
        losses = [
            policy_loss(told, VaRed.model_validate({**FEW, "efficiency_weight": weight, **settings}), model)
            for weight in (1.0, 0.0)
        ]
        with torch.no_grad():
            return float(losses[0](model, batch) - losses[1](model, batch))

    everything = pressure(0.0)
    assert everything > 0.1  # without `correct_only` it does not matter which are right
    assert pressure(1.0, correct_only=True) == pytest.approx(everything, rel=1e-4)
    assert pressure(0.0, correct_only=True) == pytest.approx(0.0, abs=1e-6)
    assert 0.0 < pressure(0.5, correct_only=True) < everything


class Told:
    """The task, in which the first examples of a batch count as right."""

    def __init__(self, task: ClassificationTask, share_right: float) -> None:
        self._task, self._share = task, share_right

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def correct(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(targets)) < self._share * len(targets)


def test_a_task_that_cannot_tell_right_from_wrong_is_refused() -> None:
    config = VaRed.model_validate({**FEW, "correct_only": True})
    with pytest.raises(StageError, match="correct_only: false"):
        policy_loss(WithoutCorrect(), config, conv_net())  # type: ignore[arg-type]


def test_norms_of_the_model_are_held_in_training_and_those_of_gates_learn() -> None:
    model, _, task = applied(**FEW)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    policy_loss(task, VaRed.model_validate(FEW), model)(model, next(iter(task.batches("score", 8))))
    moved = {name for name, value in model.named_buffers() if not torch.equal(before[name], value)}
    assert moved and all(".gate.norm." in name for name in moved)


def test_a_partial_count_is_an_error_in_words() -> None:
    task = conv_task()
    model = task.load_baseline()
    context = replace(context_of(task, model), dense_macs=None)
    with pytest.raises(StageError, match="needs a full count"):
        apply_va_red(model, task, VaRed(scope="constant", macs_ratio=0.5), context)


class WithoutCorrect:
    name = "without"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scope": "constant"}, "needs macs_ratio"),
        ({"macs_ratio": 0.5}, "for scope: constant"),
        ({"scope": "constant", "macs_ratio": 0.5, "max_steps": 7}, "max_steps"),
        ({"steps": [2, 4]}, "must have 1"),
        ({"channels": [0.5]}, "must have 1"),
        ({"steps": [1], "channels": [1.0]}, "nothing to choose"),
        ({"steps": [1, 4, 2]}, "must rise"),
        ({"steps": [1, 2, 2]}, "twice"),
        ({"temperature": 0.5}, "gumbel"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        VaRed.model_validate(settings)


def test_what_cannot_be_dynamic_is_said_with_its_reason() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose1d(CHANNELS, 8, 3)
            self.ring = nn.Conv1d(8, 8, 3, padding=1, padding_mode="circular")
            self.twice = nn.Conv1d(8, 8, 3, padding=1)
            self.unused = nn.Conv1d(8, 8, 3)
            self.single = nn.Conv2d(1, 1, 1)
            self.own = type("OwnConv", (nn.Conv1d,), {})(8, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.twice(self.twice(self.ring(self.up(x))))
            return self.own(self.single(x[:, None])[:, 0])

    offered, refused = offers(Odd().eval(), (clips(2),), VaRed.model_validate(FEW))
    assert offered == {}
    reasons = {
        "up": "transposed",
        "ring": "circular",
        "twice": "called 2 times",
        "unused": "not called",
        "single": "no option of it is cheaper",
        "own": "OwnConv",
    }
    assert refused.keys() == reasons.keys()
    assert all(words in refused[name] for name, words in reasons.items())


def test_shared_convolutions_stay_as_they_are() -> None:
    net = conv_net()
    net.blocks[1].conv2.weight = net.blocks[0].conv2.weight
    offered, refused = offers(net, (clips(2),), VaRed.model_validate(FEW))
    assert "shares its weights" in refused["blocks.0.conv2"] and "shares its weights" in refused["blocks.1.conv2"]
    net.blocks[1].conv1 = net.blocks[0].conv1
    assert "called 2 times" in offers(net, (clips(2),), VaRed.model_validate(FEW))[1]["blocks.0.conv1"]
    assert "stem" in offered


def test_include_and_exclude_choose_layers() -> None:
    _, detail, _ = applied(scope="constant", macs_ratio=0.8, include=["blocks.*"], exclude=["blocks.1"])
    assert [layer.name for layer in detail.layers] == ["blocks.0.conv1", "blocks.0.conv2"]


def test_a_second_stage_is_refused() -> None:
    model, _, task = applied(scope="constant", macs_ratio=0.5)
    with pytest.raises(StageError, match="dynamic layers already"):
        apply_va_red(model, task, VaRed.model_validate(FEW), context_of(task, task.load_baseline()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("stand_ins", "stem", "type"), "evil_conv"),
        (("stand_ins", "stem", "steps"), [1, 4000]),
        (("stand_ins", "stem", "channels"), [10**6]),
        (("stand_ins", "stem", "inputs"), 60000),
        (("stand_ins", "stem", "order"), [0, 0, 1, 2, 3, 4, 5, 6]),
        (("stand_ins", "stem", "gate"), {"hidden": 10**7}),
        (("stand_ins", "stem", "code"), "import os"),
    ],
)
def test_a_damaged_manifest_is_an_error_and_runs_nothing(
    path: tuple[str, ...], value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, task = applied(**FEW)
    saved_and_loaded(model, task.load_baseline(), task, tmp_path)

    def change(manifest: dict[str, Any]) -> None:
        part: Any = manifest
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value

    edit(change)(tmp_path / "model")
    monkeypatch.setattr(ConvNet, "forward", lambda *_: pytest.fail("it ran"))
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "model", task.build_model())


def test_constant_options_are_exported_and_gates_are_refused_with_the_nearest_export(tmp_path: Path) -> None:
    model, _, task = applied(scope="constant", macs_ratio=0.4)
    for kind, suffix in (("onnx", "onnx"), ("torch_export", "pt2")):
        settings = ExportSettings.model_validate({"format": kind})
        report = export_model(model, task.example_inputs, tmp_path / f"constant.{suffix}", settings)
        assert report.batch_size is None
    gated, _, _ = applied(**FEW)
    settings = ExportSettings(format="torch_export")
    with pytest.raises(ExportError, match=r"5 layers have gates .*--constant-options"):
        export_model(gated, task.example_inputs, tmp_path / "gated.pt2", settings)
    usual = settings.model_copy(update={"constant_options": True})
    export_model(gated, task.example_inputs, tmp_path / "gated.pt2", usual)
    with pytest.raises(ExportError, match="this one has none; leave it out"):
        export_model(model, task.example_inputs, tmp_path / "none.pt2", usual)
    assert gated_layers(gated) and not gated_layers(without_gates(gated))


def test_a_block_with_dynamic_layers_can_be_dropped() -> None:
    model, _, task = applied(scope="constant", macs_ratio=0.4)
    assert find_blocks(model, task.example_inputs(1)) == ["blocks.0", "blocks.1"]
    drop_block(model, "blocks.0")
    assert find_blocks(model, task.example_inputs(1)) == ["blocks.1"]


def test_channels_of_dynamic_layers_are_not_cut_and_it_is_said_why() -> None:
    model, _, task = applied(scope="constant", macs_ratio=0.4)
    structure = find_groups(model, task.example_inputs(1), find_blocks(model, task.example_inputs(1)))
    touched = {slot.module for group in structure.groups for slot in group.slots}
    assert not touched & dynamic_layers(model).keys()
    assert all("dynamic layer" in structure.refused[name] for name in dynamic_layers(model))
    assert not any("over_" in reason or "does not call" in reason for reason in structure.refused.values())
