"""align: what is compared, what is trained, an exact merge that leaves a plain model, and going on after a kill."""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.helpers.details import as_json
from tests.helpers.tiny_task import DIM, TinyNet, TinyTask
from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.hooks.order import execution_order
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.running.runner import run
from toolkit.stages.align.adapters import Adapted, Adapter, find_targets, plan_adapters
from toolkit.stages.align.apply import align_model, apply_align
from toolkit.stages.align.loss import AlignLoss, run_with_features
from toolkit.stages.align.settings import ATTENTION_LAYERS, Align
from toolkit.stages.align.trainable import flags_kept, norm_parameters, outside_parameters
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Batch

QUICK: dict[str, Any] = {"max_steps": 6, "validate_every": 3, "batch_size": 8, "warmup_steps": 0, "learning_rate": 3e-3}
ATTENTION = tuple(f"attn.{leaf}" for leaf in ("q", "k", "v", "proj"))


def student_of(task: TinyTask, *dropped: str) -> nn.Module:
    model = task.load_baseline()
    find_blocks(model, task.example_inputs(1))
    for name in dropped:
        drop_block(model, name)
    return model


def structure(model: nn.Module) -> tuple[list[tuple[str, type]], list[tuple[str, torch.Size, bool]]]:
    modules = [(name, type(module)) for name, module in model.named_modules()]
    return modules, [(name, p.shape, p.requires_grad) for name, p in model.named_parameters()]


def some_batch(task: TinyTask) -> Batch:
    return next(task.train_batches(8, 5))


@torch.no_grad()
@pytest.mark.parametrize("feature_weight", [1.0, 0.5])
def test_blocks_are_matched_by_their_original_names(feature_weight: float, tiny_task: TinyTask) -> None:
    student, teacher, batch = student_of(tiny_task, "blocks.1"), tiny_task.load_baseline(), some_batch(tiny_task)
    left = ("blocks.0", "blocks.2", "blocks.3")
    config = Align(task_weight=0.0, class_weight=0.0, feature_weight=feature_weight)
    value = AlignLoss(tiny_task, teacher, left, config)(student, batch)
    goal, x, distances = {}, teacher.embed(*batch.inputs), []
    for index in range(4):
        x = goal[index] = teacher.blocks[index](x)
    x = student.embed(*batch.inputs)
    for index in (0, 2, 3):
        x = student.blocks[index](x)
        distances.append((x - goal[index]).square().mean())
    assert float(distances[0]) == 0.0 and float(distances[1]) > 0.0
    assert float(value) == pytest.approx(feature_weight * float(sum(distances)) / 3)


@torch.no_grad()
def test_the_loss_is_the_weighted_sum_of_its_terms(tiny_task: TinyTask) -> None:
    student, teacher, batch = student_of(tiny_task, "blocks.1"), tiny_task.load_baseline(), some_batch(tiny_task)
    left = ("blocks.0", "blocks.2")

    def value(task: float, feature: float, classes: float | None, **settings: Any) -> float:
        config = Align(task_weight=task, feature_weight=feature, class_weight=classes, **settings)
        return float(AlignLoss(tiny_task, teacher, left, config)(student, batch))

    parts = value(1, 0, 0), value(0, 1, 0), value(0, 0, 1)
    assert parts[0] == pytest.approx(float(tiny_task.loss(student(*batch.inputs), batch.targets)))
    assert value(2, 3, 4) == pytest.approx(2 * parts[0] + 3 * parts[1] + 4 * parts[2], rel=1e-5)
    assert value(1, 1, None) == pytest.approx(sum(parts), rel=1e-5)
    assert value(0, 0, 1, class_loss="softmax") != pytest.approx(parts[2], rel=0.1)
    assert value(0, 0, 1, temperature=1.0) != pytest.approx(parts[2], rel=0.01)


def test_a_weight_without_a_term_names_the_terms_there_are(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = Align(segment_weight=0.5, **QUICK)
    with pytest.raises(
        StageError, match=r"segment_weight is 0\.5, .* no alignment term 'segment'; it has: class; leave"
    ):
        as_json(apply_align)(student_of(tiny_task, "blocks.1"), tiny_task, config, tiny_context)


def test_nothing_to_learn_from_is_a_fault(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    with pytest.raises(ValidationError, match="all weights are 0"):
        Align(task_weight=0.0, feature_weight=0.0, class_weight=0.0, segment_weight=0.0)
    config = Align(task_weight=0.0, feature_weight=0.0, class_weight=0.0, **QUICK)  # the task has no segments
    with pytest.raises(StageError, match="no term of the loss has a weight above 0"):
        as_json(apply_align)(student_of(tiny_task, "blocks.1"), tiny_task, config, tiny_context)


def test_settings_of_adapters_go_with_adapters() -> None:
    with pytest.raises(ValidationError, match="lora_rank, train_head: only with trainable: lora"):
        Align(trainable="full", lora_rank=4, train_head=False)
    assert Align(trainable="full", train_head=True, targets=list(ATTENTION_LAYERS)).trainable == "full"


def test_parts_outside_the_blocks_are_told_by_what_they_act_on() -> None:
    class Net(TinyNet):
        """With a parameter of the model itself, one between two blocks, and one that acts before and after."""

        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.ones(12, DIM))
            self.middle = nn.Linear(DIM, DIM)
            self.tied = nn.Parameter(torch.ones(DIM))

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x) + self.position + self.tied
            for index, block in enumerate(self.blocks):
                x = self.middle(block(x)) if index == 1 else block(x)
            return self.head(self.norm(x) * self.tied)

    net = Net().eval()
    found = outside_parameters(net, [f"blocks.{i}" for i in range(4)], (torch.zeros(1, 12, 5),))
    assert found.embedding == {"embed.weight", "embed.bias", "position", "tied"}
    assert found.head == {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_norms_are_all_normalisation_layers() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3), nn.Sequential(nn.LayerNorm(3)))
    assert norm_parameters(net) == {f"{place}.{leaf}" for place in ("0", "2", "3.0") for leaf in ("weight", "bias")}


def changed_by(task: TinyTask, context: StageContext, **settings: Any) -> tuple[set[str], dict[str, Any]]:
    model = student_of(task, "blocks.1")
    before = copy.deepcopy(model.state_dict())
    model, detail = as_json(apply_align)(model, task, Align(**QUICK, **settings), context)
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}, detail


def test_what_is_trained_is_switched(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    lora = {f"blocks.{i}.{layer}.weight" for i in (0, 2, 3) for layer in ATTENTION}
    norms = {f"blocks.{i}.norm{j}.{leaf}" for i in (0, 2, 3) for j in (1, 2) for leaf in ("weight", "bias")}
    embedding, head = {"embed.weight", "embed.bias"}, {"head.weight", "head.bias", "norm.weight", "norm.bias"}
    off = dict.fromkeys(("train_norms", "train_embedding", "train_head"), False)
    assert changed_by(tiny_task, tiny_context, **off)[0] == lora
    assert changed_by(tiny_task, tiny_context, **off | {"train_norms": True})[0] == lora | norms | {
        "norm.weight",
        "norm.bias",
    }
    changed, detail = changed_by(tiny_task, tiny_context, targets=("q",), lora_rank=2)
    assert changed == {name for name in lora if ".q." in name} | norms | embedding | head
    assert [entry["layer"] for entry in detail["adapters"]] == [f"blocks.{i}.attn.q" for i in (0, 2, 3)]
    others = sum(dict(student_of(tiny_task).named_parameters())[n].numel() for n in norms | embedding | head)
    assert detail["num_trained_params"] == 3 * 2 * (DIM + DIM) + others


def test_full_trains_everything_that_is_left(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    model = student_of(tiny_task, "blocks.1")
    model.norm.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    model, detail = as_json(apply_align)(model, tiny_task, Align(trainable="full", **QUICK), tiny_context)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(before) - {"norm.weight", "norm.bias"}
    assert detail["adapters"] == []
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"norm.weight", "norm.bias"}  # as they came


def test_the_merge_is_exact(tiny_task: TinyTask) -> None:
    """alpha is not the rank, A and B are trained, one layer has lost channels, one block is gone."""
    torch.manual_seed(0)
    model = student_of(tiny_task, "blocks.2")
    with torch.no_grad():
        model.blocks[0].attn.proj = nn.Linear(8, DIM)
        for name in "qkv":
            setattr(model.blocks[0].attn, name, nn.Linear(DIM, 8))
    before, inputs = structure(model), tiny_task.example_inputs(4)
    layers = [f"blocks.{i}.{layer}" for i in (0, 1, 3) for layer in ATTENTION]
    with flags_kept(model):
        plan = plan_adapters(model, layers, None, 10.0)
        assert {a.layer: a.rank for a in plan if "blocks.0" in a.layer} == {
            f"blocks.0.attn.{name}": rank for name, rank in (("q", 4), ("k", 4), ("v", 4), ("proj", 2))
        }
        adapted = Adapted(model, plan)
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
        assert sum(len(group["params"]) for group in optimiser.param_groups) == 2 * len(layers)
        for _ in range(3):
            optimiser.zero_grad()
            model(*inputs).square().sum().backward()
            optimiser.step()
        with torch.no_grad():
            raw = model.blocks[1].attn.q
            expected = raw.base_layer.weight + 10.0 / 4 * raw.lora_B.default.weight @ raw.lora_A.default.weight
            plain, outputs = student_of(tiny_task, "blocks.2")(*inputs), model(*inputs)
        adapted.merge()
    with torch.no_grad():
        assert (outputs - plain).abs().max() > 0.1
        assert torch.allclose(model(*inputs), outputs, atol=1e-5)
        assert torch.allclose(model.blocks[1].attn.q.weight, expected, atol=1e-6)
    assert structure(model) == before
    assert not any("peft" in name for module in model.modules() for name in vars(module))


def test_default_alpha_is_the_rank_and_names_are_matched_whole() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.inner = nn.Linear(8, 8), nn.ModuleDict({"q": nn.Linear(16, 8)})

    net = Outer()
    assert plan_adapters(net, ["q", "inner.q"], None, None) == [Adapter("q", 2, 2.0), Adapter("inner.q", 4, 4.0)]
    adapted = Adapted(net, [Adapter("q", 3, 6.0)])
    assert isinstance(net.inner["q"], nn.Linear) and net.q.r == {"default": 3} and net.q.scaling == {"default": 2.0}
    adapted.merge()
    assert type(net.q) is nn.Linear


def test_targets_are_looked_for_inside_blocks(tiny_task: TinyTask) -> None:
    net = TinyNet().eval()
    net.proj, blocks = nn.Linear(4, 4), ["blocks.1", "blocks.3"]
    called = execution_order(net, tiny_task.example_inputs(1))
    found = find_targets(net, blocks, ATTENTION_LAYERS, ["proj", *called])
    assert found == [f"{block}.{layer}" for block in blocks for layer in ATTENTION]
    assert find_targets(net, ["blocks.1"], ["attn.[qk]"], called) == ["blocks.1.attn.q", "blocks.1.attn.k"]
    assert find_targets(net, ["blocks.1"], ["fc?"], called) == ["blocks.1.mlp.fc1", "blocks.1.mlp.fc2"]
    with pytest.raises(
        StageError, match=r"targets \(dense\) match no linear .* attn\.k, .* mlp\.fc1, mlp\.fc2; or use"
    ):
        find_targets(net, blocks, ["dense"], called)


def test_a_model_without_blocks_says_what_to_do(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    plain = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)).eval()
    context = replace(tiny_context, dense=plain)
    with pytest.raises(StageError, match=r"no residual block .* trainable: full with feature_weight: 0"):
        as_json(apply_align)(copy.deepcopy(plain), tiny_task, Align(**QUICK), context)
    as_json(apply_align)(copy.deepcopy(plain), tiny_task, Align(trainable="full", feature_weight=0.0, **QUICK), context)


def test_teachers(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    """Right after a cut the static teacher is far away; the dynamic one is the model itself, until it moves."""
    only_features = {"task_weight": 0.0, "class_weight": 0.0, **QUICK, "max_steps": 1, "validate_every": 1}
    losses = {}
    for teacher in ("static", "dynamic"):
        _, detail = as_json(apply_align)(
            student_of(tiny_task, "blocks.1"), tiny_task, Align(teacher=teacher, **only_features), tiny_context
        )
        losses[teacher] = detail["curve"][0]["loss"]
        assert detail["blocks"] == ["blocks.0", "blocks.2", "blocks.3"]
    assert losses["static"] > 0.01
    assert losses["dynamic"] == pytest.approx(0.0, abs=1e-10)


def test_alignment_brings_the_features_nearer(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    model, batch = student_of(tiny_task, "blocks.1"), some_batch(tiny_task)
    left = ("blocks.0", "blocks.2", "blocks.3")
    only = AlignLoss(tiny_task, tiny_context.dense, left, Align(task_weight=0.0, class_weight=0.0))
    before = structure(model)
    first = float(only(model, batch).detach())
    config = Align(**QUICK | {"max_steps": 40, "learning_rate": 1e-2, "select": "last"})
    detail = align_model(model, tiny_context.dense, tiny_task, config, tiny_context)
    assert float(only(model, batch).detach()) < 0.8 * first
    assert structure(model) == before and not model.training
    first, last = detail.curve[0].loss, detail.curve[-1].loss
    assert detail.steps == 40 and detail.kept_step == 40
    assert first is not None and last is not None and last < first


def test_channels_can_be_pruned_directly_afterwards(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    """Frozen or wrapped layers would break torch-pruning, or make it prune nothing."""
    model, _ = as_json(apply_align)(student_of(tiny_task, "blocks.1"), tiny_task, Align(**QUICK), tiny_context)
    pruned, _ = as_json(apply_channel_prune)(
        model, tiny_task, ChannelPrune(keep=Keep(mlp=0.5, heads=0.5)), tiny_context
    )
    for index in (0, 2, 3):
        block = pruned.blocks[index]
        assert (block.mlp.fc1.out_features, block.mlp.fc2.in_features) == (16, 16)
        assert (block.attn.num_heads, block.attn.q.out_features, block.attn.proj.in_features) == (1, 8, 8)
    again, detail = as_json(apply_align)(pruned, tiny_task, Align(**QUICK), tiny_context)
    assert {entry["rank"] for entry in detail["adapters"] if entry["layer"].endswith("proj")} == {2}
    assert again(*tiny_task.example_inputs(2)).shape == (2, 12, 3)


class KilledTask(TinyTask):
    """Its process ends when the n-th training batch is asked for."""

    def __init__(self, trained: TinyTask, killed_at: int) -> None:
        self._weights, self.killed_at = trained.load_baseline().state_dict(), killed_at

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        yield from itertools.islice(super().train_batches(batch_size, seed, share), self.killed_at - 1)
        raise KeyboardInterrupt


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_killed_and_resumed_gives_the_same_bits(
    trainable: str, tmp_path: Path, tiny_task: TinyTask, tiny_context: StageContext
) -> None:
    config = Align(trainable=trainable, **QUICK | {"max_steps": 75, "validate_every": 30, "batch_size": 2})
    path = tmp_path / "align.safetensors"
    whole = student_of(tiny_task, "blocks.1")
    expected = align_model(whole, tiny_context.dense, tiny_task, config, tiny_context)
    killed = KilledTask(tiny_task, 55)
    with pytest.raises(KeyboardInterrupt):
        align_model(
            student_of(tiny_task, "blocks.1"), tiny_context.dense, killed, config, tiny_context, checkpoint=path
        )
    assert path.exists()
    for _ in range(2):  # the second time it is finished already, and only merged
        torch.manual_seed(99)
        model = student_of(tiny_task, "blocks.1")
        assert align_model(model, tiny_context.dense, tiny_task, config, tiny_context, checkpoint=path) == expected
        assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_random_state_outside_is_left_alone(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    model = student_of(tiny_task, "blocks.1")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    as_json(apply_align)(model, tiny_task, Align(**QUICK), tiny_context)
    assert torch.equal(torch.rand(1), expected)


def test_a_share_of_the_data(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    seen: list[float] = []

    class Watched(TinyTask):
        def __init__(self) -> None:
            self._weights = tiny_task.load_baseline().state_dict()

        def loss(self, outputs: Any, targets: Any) -> Tensor:
            seen.append(float(targets.float().sum()))
            return super().loss(outputs, targets)

    class NoShare(TinyTask):
        def __init__(self) -> None:
            self._weights = tiny_task.load_baseline().state_dict()

        def train_batches(self, batch_size: int, seed: int) -> Iterator[Batch]:  # type: ignore[override]
            return super().train_batches(batch_size, seed)

    config = Align(data_share=0.2, **QUICK)
    detail = align_model(student_of(tiny_task, "blocks.1"), tiny_context.dense, Watched(), config, tiny_context)
    assert len(seen) == 6 and len(set(seen)) == 2 and detail.data_share == 0.2
    seen.clear()
    align_model(student_of(tiny_task, "blocks.1"), tiny_context.dense, Watched(), config, tiny_context, data_share=1.0)
    assert len(set(seen)) > 2
    with pytest.raises(StageError, match=r"data_share is 0\.2, but train_batches of task 'tiny' takes no `share`"):
        as_json(apply_align)(student_of(tiny_task, "blocks.1"), NoShare(), config, tiny_context)


def test_features_are_noted_without_traces(tiny_task: TinyTask) -> None:
    model = tiny_task.load_baseline()
    outputs, features = run_with_features(model, ["blocks.2"], tiny_task.example_inputs(2))
    rest = model.head(model.norm(model.blocks[3](features["blocks.2"])))
    assert features["blocks.2"].requires_grad and torch.equal(rest, outputs)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_run_with_an_align_stage_is_killed_and_resumed(tmp_path: Path, tiny_task: TinyTask, quiet: Console) -> None:
    """Through the runner: the aligned model is saved and loaded as a shrunk dense one, and the stage goes on inside."""
    aligning = Align(**QUICK | {"max_steps": 60, "validate_every": 30})
    recipe = Recipe(
        name="aligned",
        task="tiny",
        seed=1,
        device="cpu",
        stages=(BlockDrop(num_blocks=1, criterion="block_mse"), aligning, ChannelPrune(keep=Keep(mlp=0.5))),
        measure=Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("test",)),
    )
    whole = run(recipe, task=tiny_task, out=tmp_path / "whole", console=quiet)
    killed = KilledTask(tiny_task, 52)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, task=killed, out=tmp_path / "killed", console=quiet)
    resumed = run(recipe, task=tiny_task, out=tmp_path / "killed", resume=True, console=Console(log := io.StringIO()))
    assert "continuing after step 50" in log.getvalue()
    for one, other in zip(whole.steps, resumed.steps, strict=True):
        assert (one.detail, one.measurement.quality) == (other.detail, other.measurement.quality)
