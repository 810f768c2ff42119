"""Models that are compiled, without values, routed, cached, hooked or of other number types: refused or run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit import (
    Align,
    BlockDrop,
    ChannelPrune,
    ClassificationTask,
    Keep,
    Measure,
    Recipe,
    load_model,
    preflight_of,
    run,
)
from toolkit.base.console import Console
from toolkit.base.errors import StageError, UserError
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.hooks.copies import copy_model
from toolkit.hooks.paths import find_paths

DROP = BlockDrop(num_blocks=1)
CUT = ChannelPrune(keep=Keep(mlp=0.5), round_to=1)
ALIGN = Align(trainable="full", max_steps=1, validate_every=1, batch_size=8)


class Block(nn.Module):
    """x + f(x) on [..., 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(x)))


class Net(nn.Module):
    """Three blocks and a head: [B, 8] -> [B, 4]."""

    def __init__(self, block: Callable[[], nn.Module] = Block) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(block() for _ in range(3)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def data(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 8, generator=generator), torch.randint(0, 4, (count,), generator=generator)


def task_of(build: Callable[[], nn.Module], trained: Any = None, **options: Any) -> ClassificationTask:
    torch.manual_seed(0)
    parts: dict[str, Any] = {"train": data(48), "validation": data(17), "test": data(16)}
    trained = build() if trained is None else trained
    return ClassificationTask(build, trained, name="own", **(parts | options))


def run_own(task: Any, out: Path, quiet: Console, *stages: Any) -> nn.Module:
    measure = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)
    recipe = Recipe(name="r", task=task.name, seed=0, device="cpu", stages=stages, measure=measure)
    run(recipe, task=task, out=out, console=quiet)
    return load_model(out, task.build_model())


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Net()


def with_one_compiled() -> nn.Module:
    net = Net()
    net.blocks[1] = torch.compile(net.blocks[1], backend="eager")  # type: ignore[assignment]
    return net


def compiled_in_place() -> nn.Module:
    net = Net()
    net.compile(backend="eager")
    return net


def exported() -> nn.Module:
    batch = torch.export.Dim("batch")
    return torch.export.export(Net().eval(), (torch.randn(3, 8),), dynamic_shapes=({0: batch},)).module()


def quantised() -> nn.Module:
    layer = nn.Linear(8, 4)
    layer.__class__ = type("Linear", (nn.Linear,), {"__module__": "torch.ao.nn.quantized.modules.linear"})
    return nn.Sequential(Block(), layer)


UNFIT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "torch.compile": (
        lambda: torch.compile(Net(), backend="eager"),
        r"what build_model builds is compiled .*_orig_mod",
    ),
    "one compiled block": (
        with_one_compiled,
        "module blocks.1 of .* is compiled by torch.compile",
    ),
    "the method compile": (compiled_in_place, r"is compiled by its method compile\(\)"),
    "torch.export": (exported, "is a graph of torch.export"),
    "quantised layers": (quantised, "module 1 of .* is quantised: give the model of floating-point weights"),
    "meta device": (on_meta, "module blocks.0.a of .* is on the meta device"),
    "lazy layers": (lambda: nn.Sequential(nn.LazyLinear(4)), "module 0 of .* has no weights before its first run"),
}


@pytest.mark.parametrize("kind", list(UNFIT))
def test_models_that_no_stage_can_change(kind: str) -> None:
    build, message = UNFIT[kind]
    with pytest.raises(UserError, match=message):
        task_of(build, Net().state_dict())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_scripted_model_of_a_task_of_ones_own() -> None:
    task = task_of(Net)
    task.load_baseline = lambda: torch.jit.script(Net())  # type: ignore[method-assign]
    with pytest.raises(UserError, match="what load_baseline of task 'own' gives is TorchScript"):
        preflight_of(task)


def test_a_saved_model_is_not_loaded_into_one_without_values(tmp_path: Path, quiet: Console) -> None:
    run_own(task_of(Net), tmp_path / "run", quiet, BlockDrop(blocks=("blocks.0",)))
    with pytest.raises(UserError, match="the model given to load_model is on the meta device"):
        load_model(tmp_path / "run", on_meta())


class Cached(Block):
    """Writes its result into a buffer, as key-value caches do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(64, 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.cache[: len(x)] = super().forward(x)
        return self.cache[: len(x)] * 1.0


def test_a_cache_that_passes_with_gradients_write_into(tmp_path: Path, quiet: Console) -> None:
    """The tracer crashed, without a traceback, on a buffer with a graph."""
    task = task_of(lambda: Net(Cached))
    run_own(task, tmp_path / "run", quiet, DROP)
    model = task.load_baseline()
    model(torch.ones(2, 8))
    assert all(block.cache.grad_fn is not None for block in model.blocks)
    find_blocks(model, (torch.ones(1, 8),))
    assert all(block.cache.grad_fn is None for block in model.blocks)
    answers = {answer.question: answer for answer in preflight_of(task).answers}
    assert answers["trains"].answer == "no"  # the second step goes through the graph of the first
    assert "detach what it keeps" in answers["trains"].change


class Experts(nn.Module):
    """Each row is given to one of three experts, whose hidden units no fixed inputs prove."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        chosen, out = self.gate(x).argmax(-1), x.clone()
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                out[rows] = x[rows] + expert(x[rows])
        return out


def mixed() -> nn.Module:
    net = Net()
    net.blocks.insert(1, Experts())
    return net


@pytest.mark.parametrize("seed", range(4))
def test_experts_are_neither_cut_nor_repaired(seed: int, tmp_path: Path, quiet: Console) -> None:
    """The layer to refit had other rows in the dense model."""
    task = task_of(mixed, seed=seed)
    cut = CUT.model_copy(update={"repair": "all_layers"})
    model = run_own(task, tmp_path / "run", quiet, BlockDrop(num_blocks=1), cut)
    assert all(expert[0].out_features == 16 for expert in model.blocks[1].experts) or not isinstance(
        model.blocks[1], Experts
    )
    verdicts = {part.name: part for part in preflight_of(task).channels}
    experts = [part for name, part in verdicts.items() if name.endswith(".0") and "experts" in name]
    assert experts and not any(part.can_go for part in experts)


def test_backward_hooks_hide_no_block() -> None:
    net = Net().eval()
    net.blocks[1].register_full_backward_hook(lambda *_: None)
    net.blocks[2].register_full_backward_pre_hook(lambda *_: None)
    task = task_of(lambda: copy.deepcopy(net))
    assert [part.name for part in preflight_of(task).blocks if part.can_go] == ["blocks.0", "blocks.1", "blocks.2"]
    assert len(net.blocks[1]._backward_hooks) == len(net.blocks[2]._backward_pre_hooks) == 1


class InferenceInside(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        with torch.inference_mode():
            return super().forward(x)


def test_inference_mode_in_the_forward_code_hides_no_block(tmp_path: Path, quiet: Console) -> None:
    model = run_own(task_of(InferenceInside), tmp_path / "run", quiet, DROP, ALIGN)
    assert sum(isinstance(block, Block) for block in model.blocks) == 2
    with torch.inference_mode():
        assert torch.is_inference_mode_enabled()  # the context works again


class InBfloat16(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x).float()


def test_autocast_in_the_forward_code(tmp_path: Path, quiet: Console) -> None:
    model = run_own(task_of(InBfloat16), tmp_path / "run", quiet, DROP, CUT)
    assert {block.a.out_features for block in model.blocks if isinstance(block, Block)} == {8}


class Skipping(Block):
    """Training leaves it out at random."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training and bool(torch.rand(()) < 0.5) else super().forward(x)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_that_training_skips_at_random_are_not_said_to_hide_layers(seed: int) -> None:
    torch.manual_seed(seed)
    net = Net(Skipping).eval()
    paths = find_paths(net, lambda size: (torch.ones(size, 8),))
    found = find_groups(net, paths.taken[0].inputs, (), (), paths.taken[1:])
    assert not any("does not call" in reason for reason in found.refused.values())


class Permuted(Net):
    """Holds whole numbers as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.arange(8).flip(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, self.order])


def test_whole_numbers_as_a_parameter_can_be_trained_around() -> None:
    answers = {answer.question: answer for answer in preflight_of(task_of(Permuted)).answers}
    assert answers["trains"].answer == "yes"


@pytest.mark.parametrize("importance", ["taylor", "l2"])
def test_whole_numbers_as_a_parameter_in_a_cut(importance: Any, tmp_path: Path, quiet: Console) -> None:
    cut = CUT.model_copy(update={"importance": importance})
    model = run_own(task_of(Permuted), tmp_path / "run", quiet, cut)
    assert model.get_submodule("blocks.0.a").weight.shape == (8, 8)
    assert model.get_parameter("order").tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


class Forgetful(Block):
    """Copies itself by hand."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Forgetful:
        new = Forgetful()
        new.load_state_dict(self.state_dict())
        return new


def test_copies_that_forget_what_is_frozen_or_hooked() -> None:
    net = Net(Forgetful)
    copy_model(net)
    net.blocks[1].b.requires_grad_(False)
    with pytest.raises(UserError, match=r"blocks.1.b \(Linear\) does not copy which of its parameters are frozen"):
        copy_model(net)
    net.requires_grad_(True)
    net.blocks[2].register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match=r"blocks.2 \(Forgetful\) does not copy its hooks"):
        copy_model(net)


def test_a_copy_by_hand_that_takes_one_width_alone_is_named() -> None:
    net = Net(Forgetful)
    net.blocks[1].a = nn.Linear(8, 12)
    with pytest.raises(UserError, match=r"blocks.0 \(Forgetful\) cannot be copied.*check __deepcopy__"):
        copy_model(net)


class Mapped(Block):
    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(super().forward)(x)


def test_a_model_that_cannot_be_followed_is_told_so(tmp_path: Path, quiet: Console) -> None:
    with pytest.raises(StageError, match="block_drop: the model cannot be followed while it runs with gradients"):
        run_own(task_of(lambda: Net(Mapped)), tmp_path / "run", quiet, DROP)


class Bag(nn.Module):
    """Sparse gradients, and rows that the forward pass scales down: ids [B, 5] -> [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.net = nn.Embedding(20, 8, sparse=True, max_norm=1.0), Net()

    def forward(self, ids: Tensor) -> Tensor:
        return self.net(self.embed(ids).mean(1))


def test_sparse_gradients_are_found_before_any_work_and_scaled_rows_counted() -> None:
    def ids(count: int) -> tuple[Tensor, Tensor]:
        return torch.randint(0, 20, (count, 5), generator=torch.Generator().manual_seed(count)), data(count)[1]

    preflight = preflight_of(task_of(Bag, train=ids(48), validation=ids(17), test=ids(16)))
    answers = {answer.question: answer for answer in preflight.answers}
    assert "sparse gradients" in answers["trains"].reason
    assert preflight.macs == 3 * 2 * 8 * 16 + 8 * 4


@pytest.mark.parametrize(("kind", "name"), [(torch.float64, "float64"), (torch.int64, "int64")])
def test_inputs_of_another_number_type(kind: torch.dtype, name: str) -> None:
    parts = {split: (data(count)[0].to(kind), data(count)[1]) for split, count in (("train", 48), ("test", 16))}
    with pytest.raises(UserError, match=f"inputs are {name} and the model's weights float32: give inputs.to"):
        task_of(Net, **parts)


def test_examples_that_are_no_numbers_are_named() -> None:
    inputs, labels = data(17)
    inputs[11, 3] = float("nan")
    task = task_of(Net, validation=(inputs, labels))
    with pytest.raises(StageError, match="split validation are not finite numbers: inputs near example 11 are NaN"):
        task.evaluate(task.load_baseline(), "validation")
    model = task.load_baseline()
    model.head.weight.data.fill_(F.relu(torch.tensor(float("inf"))))
    with pytest.raises(StageError, match=r"split test are not finite numbers: the model is broken \(example 0\)"):
        task.evaluate(model, "test")
