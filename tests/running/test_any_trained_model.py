"""Whole runs of models that keep, share, compute or branch: what comes out is saved, loaded and trained on."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, weight_norm

from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.checkpoint.load import load_model
from toolkit.recipe.compose import compose
from toolkit.recipe.recipe import Measure
from toolkit.running.runner import run
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.recover.settings import Recover
from toolkit.tasks.classification import ClassificationTask

DEPTH: dict[str, Any] = {"depth": BlockDrop(num_blocks=1)}

WIDTH: dict[str, Any] = {"width": ChannelPrune(keep=Keep(mlp=0.5), round_to=1)}


class Block(nn.Module):
    """x + an MLP, which keeps its hidden units for a picture."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> None:
        super().__init__()
        self.a, self.b, self.seen = wrap(nn.Linear(8, 16)), wrap(nn.Linear(16, 8)), None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.relu(self.a(x))
        return x + self.b(self.seen)


def stack(wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> nn.Sequential:
    return nn.Sequential(Block(wrap), Block(wrap), Block(wrap), nn.Linear(8, 4))


class Collector(nn.Module):
    """Features taken by hooks that write into a table of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head, self.found = nn.Sequential(Block(), Block(), Block()), nn.Linear(16, 4), {}
        for place in (0, 2):
            self.blocks[place].register_forward_hook(
                lambda _, __, out, place=place, found=self.found: found.update({place: out})
            )

    def forward(self, x: Tensor) -> Tensor:
        self.blocks(x)
        return self.head(torch.cat([self.found[0], self.found[2]], -1))


class Cached(nn.Module):
    """In eval mode a product of weights is kept, as attention biases are in LeViT; `train` forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.cache = stack(), {}
        self.scale = nn.Parameter(torch.ones(8))

    def train(self, mode: bool = True) -> Cached:
        self.cache = {} if mode else self.cache
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.blocks(x * self.scale)
        if "scale" not in self.cache:
            self.cache["scale"] = self.scale * 1.0
        return self.blocks(x * self.cache["scale"])


def data(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 8, generator=generator), torch.randint(0, 4, (count,), generator=generator)


def task_of(build: Callable[[], nn.Module], **options: Any) -> ClassificationTask:
    torch.manual_seed(0)
    options = {"train": data(60), "validation": data(31), "test": data(32)} | options
    return ClassificationTask(build, build(), name="own", **options)


def run_own(task: ClassificationTask, out: Path, **stages: Any) -> tuple[nn.Module, str]:
    said = io.StringIO()
    recipe = compose(task="own", measure=Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0), **stages)
    run(recipe, task=task, out=out, console=Console(said))
    return load_model(out, task.build_model()), said.getvalue()


@pytest.fixture(autouse=True)
def _old_forms_are_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*weight_norm")
        yield


WRAPS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "the old weight_norm": weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "a pruning mask": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.parametrize("wrap", list(WRAPS))
def test_computed_weights_are_folded_and_said(wrap: str, tmp_path: Path) -> None:
    task = task_of(lambda: stack(WRAPS[wrap]))
    model, said = run_own(task, tmp_path / "run", **DEPTH, **WIDTH)
    assert "folded: 0.a.weight, 0.b.weight, 1.a.weight" in said
    assert (
        sum(
            isinstance(layer, nn.Linear) and layer.out_features == 8 and layer.in_features == 8
            for layer in model.modules()
        )
        == 4
    )
    assert all(isinstance(layer.weight, nn.Parameter) for layer in model.modules() if isinstance(layer, nn.Linear))


@pytest.mark.parametrize("build", [stack, Collector, Cached], ids=["kept results", "hooks", "a cache of eval mode"])
def test_what_a_model_keeps_is_in_nobodys_way(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    task = task_of(build)
    model, _ = run_own(task, tmp_path / "run", **DEPTH, **WIDTH, recover=Recover(max_steps=2, warmup_steps=1))
    if isinstance(model, Cached):
        assert model.cache == {}
    assert model(data(3)[0]).shape == (3, 4)
    dropped = [block for block in model.modules() if isinstance(block, Block)]
    assert len(dropped) == 2
    if isinstance(model, Collector):
        assert set(model.found) == {0, 2}


class Auxiliary(nn.Module):
    """A head that only training mode runs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head, self.aux = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        out = self.head(torch.relu(self.b(y)))
        return out + 0.3 * self.aux(y) if self.training else out


def test_a_model_with_an_auxiliary_head_can_be_trained_after_the_cut(tmp_path: Path) -> None:
    recover = Recover(max_steps=2, warmup_steps=1)
    model, _ = run_own(task_of(Auxiliary), tmp_path / "run", **WIDTH, recover=recover)
    assert model.a.out_features == model.aux.in_features == 8
    model.train()(data(3)[0]).sum().backward()


class Dropping(nn.Module):
    """Dropout that is on in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = stack()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.blocks(x), 0.5)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Counts(nn.Module):
    """Its outputs depend on how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = stack()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.blocks(x) + self.calls


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Dropping, r"in eval mode: the model draws random numbers"),
        (lambda: nn.Sequential(stack(), Noise()), r"in eval mode: 1 \(Noise\) draws random numbers"),
        (Counts, r"the model keeps something from pass to pass"),
    ],
)
def test_a_model_that_does_not_repeat_itself_is_told_so(
    build: Callable[[], nn.Module], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        run_own(task_of(build), tmp_path / "run", **DEPTH)
    assert not (tmp_path / "run").exists()


def test_what_could_not_be_saved_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = stack()
            self.blocks[0].extra = torch.nn.Parameter(torch.tensor([1], dtype=torch.int8), requires_grad=False)
            self.factor = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(x) * self.factor

    class Task(ClassificationTask):
        def load_baseline(self) -> nn.Module:
            model = super().load_baseline()
            model.factor = 3.0
            return model

    torch.manual_seed(0)
    with pytest.raises(UserError, match="the baseline is not the trained model"):
        Task(Empty, Empty(), name="own", train=data(60), validation=data(31), test=data(32))


def test_versions_of_weights_go_through_a_task_and_a_run(tmp_path: Path) -> None:
    class Versioned(nn.Linear):
        _version = 3

        def _load_from_state_dict(self, state: object, prefix: str, metadata: dict[str, int], *rest: object) -> None:
            if metadata.get("version") != 3:
                raise ValueError(f"version should be 3 instead of {metadata.get('version')}")
            super()._load_from_state_dict(state, prefix, metadata, *rest)  # type: ignore[arg-type]

    def build() -> nn.Module:
        return nn.Sequential(Block(), Block(), Versioned(8, 4))

    for trained in (build(), dict(build().state_dict())):
        task = ClassificationTask(build, trained, name="own", train=data(60), validation=data(31), test=data(32))
        model, _ = run_own(task, tmp_path / type(trained).__name__, **DEPTH)
        assert isinstance(model[2], Versioned)


def test_other_inputs_that_the_model_does_not_take_are_named(tmp_path: Path) -> None:
    task = task_of(stack, other_inputs=[(torch.randn(1, 9),)])
    with pytest.raises(
        UserError, match=r"on other_inputs\[0\] the model does not run .*the model must take all of other_inputs"
    ):
        run_own(task, tmp_path / "run", **DEPTH)
