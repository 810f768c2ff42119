"""torch_pruning: the target is met, what is left is proved and kept, what torch-pruning gets wrong is refused."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_pruning
from pydantic import ValidationError
from torch import Tensor, nn

from tests.helpers.nets import Bottlenecks, FusedAttentionNet
from tests.helpers.records import without_times
from tests.helpers.tiny_task import TinyTask
from toolkit import ClassificationTask, Measure, Recipe, Task, load_model, run
from toolkit.base.console import Console
from toolkit.base.errors import RecipeError, StageError
from toolkit.channels.proof import cut_error
from toolkit.exporting.export import export_model
from toolkit.exporting.report import ExportSettings
from toolkit.measure.macs import count_macs
from toolkit.recipe.read import load_recipe
from toolkit.record.run import load_record
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.context import StageContext
from toolkit.stages.recover.settings import Recover
from toolkit.stages.registry import STAGES
from toolkit.stages.torch_pruning.apply import apply_torch_pruning
from toolkit.stages.torch_pruning.peer import Peer
from toolkit.stages.torch_pruning.settings import TorchPruning

HALF = TorchPruning(macs_ratio=0.5, round_to=1, global_pruning=True)
EVEN = TorchPruning(macs_ratio=0.55, macs_tolerance=0.05, round_to=1)
IMAGES, TOKENS = (3, 12, 12), (6, 4)


class HiddenHeads(nn.Module):
    """[B, 6, 4] -> [B, 5]; nothing says that its attention has two heads, so that cut channels move between them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 12), nn.Linear(4, 12), nn.Linear(4, 12)
        self.proj, self.head = nn.Linear(12, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.head(self.proj(mixed).mean(1))


class TorchAttention(nn.Module):
    """[B, 6, 4] -> [B, 5] with torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attn, self.head = nn.Linear(4, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head((x + self.attn(x, x, x, need_weights=False)[0]).mean(1))


def task_of(make: Callable[[], nn.Module], shape: tuple[int, ...], protected: tuple[str, ...] = ()) -> Task:
    """Random data, and a model whose norms are not all alike."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = make()
    for name, value in trained.state_dict().items():
        if "bn" in name or "stem.1" in name:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    data = [(torch.randn(n, *shape, generator=generator), torch.arange(n) % 3) for n in (48, 16, 16)]
    names = {"train": data[0], "validation": data[1], "test": data[2]}
    return ClassificationTask(make, trained, **names, name="random", protected=protected)


def context_of(task: Task, quiet: Console) -> StageContext:
    dense = task.load_baseline()

    def macs(model: nn.Module) -> int:
        return count_macs(model, task.example_inputs(1)).total

    return StageContext(dense, macs(dense), macs, torch.device("cpu"), seed=0, console=quiet)


def fresh(context: StageContext) -> nn.Module:
    return copy.deepcopy(context.dense).requires_grad_(True)


@pytest.fixture(scope="module")
def bottlenecks() -> Task:
    return task_of(Bottlenecks, IMAGES)


NETS: dict[str, tuple[Callable[[], nn.Module], TorchPruning]] = {
    "all groups": (Bottlenecks, HALF),
    "every group": (Bottlenecks, EVEN),
    "taylor": (lambda: Bottlenecks(squeeze=True), HALF.model_copy(update={"importance": "group_taylor"})),
    "bn": (lambda: Bottlenecks(groups=4), HALF.model_copy(update={"importance": "bn_scale", "macs_tolerance": 0.05})),
    "random": (lambda: Bottlenecks(groups=24), HALF.model_copy(update={"importance": "random"})),
    "l1": (Bottlenecks, HALF.model_copy(update={"importance": "group_l1", "batch_norm": "keep"})),
}


@pytest.mark.parametrize("name", NETS)
def test_the_target_is_reached_and_told(name: str, quiet: Console) -> None:
    make, config = NETS[name]
    task = task_of(make, IMAGES)
    context = context_of(task, quiet)
    given = fresh(context)
    model, detail = apply_torch_pruning(given, task, config, context)
    assert abs(context.macs_ratio(model) - config.macs_ratio) <= config.macs_tolerance
    assert detail.macs_ratio.achieved == context.macs_ratio(model)
    assert detail.fixed == ("head",) and model.head.out_features == 5
    assert detail.batch_norms_reestimated == (0 if config.batch_norm == "keep" else 7)
    for group in detail.groups:
        layer = model.get_submodule(group.name)
        outputs = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        assert outputs == group.kept == len(group.indices) <= group.before == group.original
    assert any(group.kept < group.before for group in detail.groups)
    assert all(map(torch.equal, given.state_dict().values(), context.dense.state_dict().values())), "it was changed"
    kept = detail.kept_channels()
    assert kept is not None and {group.kind for group in kept.groups} <= kept.kind_words.keys()


def test_the_residual_stream_is_cut_by_the_indices_that_are_told(bottlenecks: Task, quiet: Console) -> None:
    context = context_of(bottlenecks, quiet)
    config = EVEN.model_copy(update={"batch_norm": "keep"})
    model, detail = apply_torch_pruning(fresh(context), bottlenecks, config, context)
    (stream,) = [group for group in detail.groups if group.name == "blocks.1.project"]
    assert stream.kept < 8 and model.head.in_features == stream.kept
    assert torch.equal(model.head.weight, context.dense.head.weight[:, list(stream.indices)])


def test_layers_of_a_bypass_are_told_too(bottlenecks: Task, quiet: Console) -> None:
    """They are not in the unmodified model."""
    context = context_of(bottlenecks, quiet)
    drop = BlockDrop(blocks=("blocks.1",), repair="bypass", rank=4)
    model, _ = apply_block_drop(fresh(context), bottlenecks, drop, context)
    config = TorchPruning(macs_ratio=0.3, round_to=1, macs_tolerance=0.1)
    _, detail = apply_torch_pruning(model, bottlenecks, config, context)
    (group,) = (one for one in detail.groups if one.name == "blocks.1.down")
    assert (group.original, group.before) == (4, 4)
    assert group.kept < 4


def test_a_wrong_index_is_seen_by_the_proof(bottlenecks: Task, quiet: Console) -> None:
    context = context_of(bottlenecks, quiet)
    cut = Peer(context.dense, bottlenecks.example_inputs(1), EVEN, 0, ("head",)).cut(0.3)
    inputs = bottlenecks.example_inputs(2)
    assert cut_error(context.dense, cut.model, cut.parts, inputs) < 1e-5
    (read,) = [part for part in cut.parts if part.module == "head"]
    with torch.no_grad():
        cut.model.head.weight[:, 0] = context.dense.head.weight[:, read.gone[0]]
    assert cut_error(context.dense, cut.model, cut.parts, inputs) > 1e-3


def grouped_net() -> nn.Module:
    """Without norms, so that what a group reads of the channels that are gone is not zero of itself."""
    convs = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def test_channels_within_groups_can_go(quiet: Console) -> None:
    task = task_of(grouped_net, IMAGES)
    context = context_of(task, quiet)
    model, _ = apply_torch_pruning(fresh(context), task, EVEN.model_copy(update={"macs_tolerance": 0.2}), context)
    assert (model[2].groups, model[2].weight.shape[1]) == (2, model[2].in_channels // 2) != (2, 4)


def test_heads_keep_their_channels(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    """Heads are found as everywhere and told to torch-pruning: it takes the same channels of each."""
    model, detail = apply_torch_pruning(fresh(tiny_context), tiny_task, HALF, tiny_context)
    assert detail.fixed == ("embed", "head")
    assert any(model.blocks[index].attn.q.out_features < 16 for index in range(4))
    assert all(model.blocks[index].attn.q.out_features % 2 == 0 for index in range(4))


REFUSED: dict[str, tuple[Callable[[], nn.Module], TorchPruning, str]] = {
    "it fails": (FusedAttentionNet, HALF, "^torch-pruning cannot cut this model: index 16 is out of bounds"),
    "it does not run": (HiddenHeads, HALF, "^the model does not run after torch-pruning has cut it: "),
    "it is wrong": (
        HiddenHeads,
        HALF.model_copy(update={"round_to": 2, "macs_tolerance": 0.1}),
        "does not compute what",
    ),
    "no proof": (
        TorchAttention,
        HALF,
        "^torch-pruning would cut attn, and for a MultiheadAttention there is no proof$",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_pruning_gets_wrong_is_refused(name: str, quiet: Console) -> None:
    make, config, message = REFUSED[name]
    task = task_of(make, TOKENS)
    context = context_of(task, quiet)
    with pytest.raises(StageError, match=message):
        apply_torch_pruning(fresh(context), task, config, context)


def test_a_target_that_rounding_misses_is_refused(bottlenecks: Task, quiet: Console) -> None:
    context = context_of(bottlenecks, quiet)
    config = TorchPruning(macs_ratio=0.5, round_to=16)
    message = r"0.5 was asked for and 0\.\d+ is the nearest .* lower round_to \(16\).* set global_pruning: true"
    with pytest.raises(StageError, match=message):
        apply_torch_pruning(fresh(context), bottlenecks, config, context)


def test_a_pattern_that_excludes_nothing_is_refused(bottlenecks: Task, quiet: Console) -> None:
    context = context_of(bottlenecks, quiet)
    config = HALF.model_copy(update={"exclude": ("*", "nosuchlayer")})
    with pytest.raises(StageError, match="exclude: 'nosuchlayer' matches no layer; the layers are: "):
        apply_torch_pruning(fresh(context), bottlenecks, config, context)


def test_a_model_that_is_small_enough_is_left_alone(bottlenecks: Task, quiet: Console) -> None:
    context = context_of(bottlenecks, quiet)
    small, _ = apply_torch_pruning(fresh(context), bottlenecks, HALF, context)
    again, detail = apply_torch_pruning(small, bottlenecks, TorchPruning(macs_ratio=0.6), context)
    assert again is small and detail.pruning_ratio is None and detail.kept_channels() is None


def test_what_is_protected_keeps_its_outputs(quiet: Console) -> None:
    task = task_of(Bottlenecks, IMAGES, protected=("blocks.0.expand", "stem.*"))
    context = context_of(task, quiet)
    model, detail = apply_torch_pruning(fresh(context), task, HALF.model_copy(update={"macs_ratio": 0.6}), context)
    assert detail.fixed == ("stem.0", "blocks.0.expand", "head")
    assert (model.blocks[0].expand.out_channels, model.stem[0].out_channels, model.head.in_features) == (24, 8, 8)


def test_one_run_leaves_nothing_behind_for_the_next(quiet: Console) -> None:
    """torch-pruning's default dictionaries are shared by all pruners, which write grouped layers into them."""
    task = task_of(lambda: Bottlenecks(groups=4), IMAGES)
    context = context_of(task, quiet)
    config, results = HALF.model_copy(update={"importance": "random"}), []
    with torch.random.fork_rng(devices=[]):
        for number in range(2):
            torch.manual_seed(number)  # what was drawn before does not matter: the seed of the run decides
            results.append(apply_torch_pruning(fresh(context), task, config, context))
    assert results[0][1] == results[1][1]
    assert all(map(torch.equal, results[0][0].state_dict().values(), results[1][0].state_dict().values()))
    parameters = inspect.signature(torch_pruning.pruner.BasePruner).parameters.values()
    shared = [each.default for each in parameters if isinstance(each.default, dict)]
    assert len(shared) == 4 and not any(shared)


@pytest.mark.parametrize("frozen", ["", "stem.0"])
def test_frozen_parameters_are_cut_and_stay_frozen(frozen: str, bottlenecks: Task, quiet: Console) -> None:
    context = context_of(bottlenecks, quiet)
    given = fresh(context)
    given.get_submodule(frozen).requires_grad_(False)
    flags = [parameter.requires_grad for parameter in given.parameters()]
    model, detail = apply_torch_pruning(given, bottlenecks, HALF, context)
    _, expected = apply_torch_pruning(fresh(context), bottlenecks, HALF, context)
    assert detail == expected
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


class Stop(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_it_is_saved_exported_and_resumed_like_every_other(
    bottlenecks: Task, quiet: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    further = HALF.model_copy(update={"macs_ratio": 0.3})
    stages = (
        BlockDrop(num_blocks=1, criterion="loss"),
        further,
        Recover(max_steps=2, validate_every=2, batch_size=8),
    )
    measure = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)
    recipe = Recipe(name="peer", task="random", seed=0, device="cpu", stages=stages, measure=measure)
    run(recipe, task=bottlenecks, out=tmp_path / "whole")

    def killed(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setitem(STAGES, "recover", killed)
        with pytest.raises(Stop):
            run(recipe, task=bottlenecks, out=tmp_path / "killed")
    record = run(recipe, task=bottlenecks, out=tmp_path / "killed", resume=True)
    assert without_times(record) == without_times(load_record(tmp_path / "whole"))
    assert record.recipe.family == "combined"
    cut = load_model(tmp_path / "whole" / "stages" / "02-torch_pruning", bottlenecks.build_model())
    assert bottlenecks.evaluate(cut, "test") == record.steps[2].measurement.quality_on("test")
    assert count_macs(cut, bottlenecks.example_inputs(1)) == record.steps[2].measurement.macs
    settings = ExportSettings(format="torch_export")
    export_model(cut, bottlenecks.example_inputs, tmp_path / "cut.pt2", settings)


def test_the_loaded_model_computes_what_the_cut_one_did(bottlenecks: Task, quiet: Console, tmp_path: Path) -> None:
    context = context_of(bottlenecks, quiet)
    torch.manual_seed(context.seed)
    model, _ = apply_torch_pruning(fresh(context), bottlenecks, HALF, context)
    measure = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)
    run(
        Recipe(name="peer", task="random", seed=0, device="cpu", stages=(HALF,), measure=measure),
        task=bottlenecks,
        out=tmp_path / "run",
    )
    loaded = load_model(tmp_path / "run", bottlenecks.build_model())
    inputs = bottlenecks.example_inputs(4)
    with torch.no_grad():
        assert torch.equal(loaded(*inputs), model(*inputs))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "macs_ratio"),
        ({"macs_ratio": 0.0}, "macs_ratio"),
        ({"macs_ratio": 0.5, "importance": "l1"}, "group_l1"),
        ({"macs_ratio": 0.5, "round_to": 0}, "round_to"),
        ({"macs_ratio": 0.5, "keep": {"mlp": 0.5}}, "keep"),
    ],
)
def test_settings_that_cannot_be(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TorchPruning(**keys)


def test_a_target_that_is_reached_already_is_a_fault_with_its_line(tmp_path: Path) -> None:
    text = "version: 1\nname: x\ntask: tad-watch\nseed: 0\ndevice: cpu\nstages:\n"
    text += "  - {type: torch_pruning, macs_ratio: 0.5}\n  - {type: torch_pruning, macs_ratio: 0.6}\nmeasure: {}\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r":8: stages\.1\.macs_ratio: 0\.6 would change nothing") as error:
        load_recipe(path)
    assert len(error.value.faults) == 1
    path.write_text(text.replace("0.6}", "0.6, allow_no_change: true}"))
    assert len(load_recipe(path).stages) == 2


def test_it_is_told() -> None:
    words = HALF.in_words()
    assert (
        "torch-pruning's own pruner (a control): the worst channels of all groups, down to 50 % of the dense" in words
    )
    assert "the same share of every group" in TorchPruning(macs_ratio=0.5).in_words()
