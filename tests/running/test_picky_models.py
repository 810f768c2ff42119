"""Runs of models that take real inputs alone, do not repeat themselves, or raise errors of classes of their own."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.own_net import CUT, DROP, Block, Net, data, run_own, task_of
from toolkit import TorchPruning
from toolkit.base.console import Console
from toolkit.base.errors import StageError, UserError
from toolkit.blocks.find import look_for_blocks
from toolkit.channels.find import find_groups
from toolkit.checkpoint.trial import check_saving
from toolkit.hooks.paths import find_paths
from toolkit.hooks.repeats import why_not_repeatable


class RefusalError(Exception):
    """What a checker of shapes and values raises; it is below no error of Python's own."""


class Covariances(Net):
    """Takes positive definite matrices alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.linalg.cholesky(x)[:, -1])


class Spectrum(Net):
    """Takes complex numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.view_as_real(x).flatten(1))


class Held(Net):
    """Takes rows that sum to 1, and raises `error` for others."""

    error: type[Exception] = RefusalError

    def forward(self, x: Tensor) -> Tensor:
        if not bool((x.sum(-1) - 1).abs().max() < 1e-3):
            raise self.error("rows must sum to 1")
        return super().forward(x)


class HeldByFile(Held):
    error = OSError


def matrices(rows: Tensor) -> Tensor:
    return rows[:, None] * rows[:, :, None] + torch.eye(8)


def made(make: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    parts = {"train": data(48), "validation": data(17), "test": data(16)}
    return {name: (make(rows), labels) for name, (rows, labels) in parts.items()}


REAL_INPUTS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "positive definite matrices": (Covariances, matrices),
    "complex numbers": (Spectrum, lambda rows: torch.view_as_complex(rows.reshape(-1, 4, 2).contiguous())),
    "probabilities, an error of its own": (Held, lambda rows: rows.softmax(-1)),
    "probabilities, an error of the system": (HeldByFile, lambda rows: rows.softmax(-1)),
}


@pytest.mark.parametrize("situation", REAL_INPUTS)
def test_inputs_that_nobody_makes_up(situation: str, tmp_path: Path, quiet: Console) -> None:
    build, make = REAL_INPUTS[situation]
    task = task_of(build, **made(make))
    model = run_own(task, tmp_path / "run", quiet, DROP, CUT)
    assert {block.a.out_features for block in model.blocks if isinstance(block, Block)} == {8}
    check_saving(task.load_baseline(), task.build_model(), task.example_inputs(1))


class Drawing(Block):
    draw: Callable[[], float] = staticmethod(random.random)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.draw())


class DrawingByNumpy(Drawing):
    draw = staticmethod(lambda: float(np.random.rand()))  # models draw so


class Fresh(Drawing):
    """Draws from a generator that nobody has seeded."""

    draw = staticmethod(lambda: float(np.random.default_rng().random()))


class Carrying(Block):
    """Adds what it was given in the call before, as recurrent state that is never reset does."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x, self.last = x if self.last is None or len(self.last) != len(x) else x + self.last, x.detach()
        return super().forward(x)


class Averaging(Block):
    """Moves its mean in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return super().forward(x - self.mean)


UNLIKE: dict[str, tuple[type[Block], str]] = {
    "numbers of the module random": (Drawing, "draws random numbers"),
    "numbers of numpy": (DrawingByNumpy, "draws random numbers"),
    "numbers without a seed": (Fresh, "draws random numbers"),
    "the call before, in an attribute": (Carrying, "keeps something from pass to pass"),
    "a mean of all calls, in a buffer": (Averaging, "keeps something from pass to pass"),
}


@pytest.mark.parametrize("situation", UNLIKE)
def test_the_module_that_does_not_repeat_itself_is_named(situation: str, tmp_path: Path, quiet: Console) -> None:
    """Not the layer inside it, nor those behind it, which only read other numbers."""
    block, words = UNLIKE[situation]

    def build() -> nn.Module:
        net = Net()
        net.blocks[1] = block()
        return net

    with pytest.raises(UserError, match=re.escape(f"blocks.1 ({block.__name__}) {words}")):
        run_own(task_of(build), tmp_path / "run", quiet, DROP)
    assert not list(tmp_path.rglob("*.*"))
    net = build().eval()
    paths = find_paths(net, lambda size: (torch.ones(size, 8),))
    random_state, numpy_state = random.getstate(), np.random.get_state()[2]
    assert why_not_repeatable(net, paths.taken[0]) is not None
    assert random.getstate() == random_state and np.random.get_state()[2] == numpy_state


class Remembering(nn.Linear):
    """Keeps words in its state."""

    def get_extra_state(self) -> Any:
        return {"words": ["one"]}

    def set_extra_state(self, state: Any) -> None:
        pass


class Eighths(nn.Linear):
    """Keeps a number of a type that no file of weights has a name for."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("bits", torch.zeros(2, dtype=torch.bits8))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (Remembering, r"state that is not a tensor \(head\._extra_state\)"),
        (Eighths, r"head\.bits: tensors of type torch.bits8 cannot be saved .*, so nothing was begun"),
    ],
)
def test_what_could_not_be_saved_is_told_before_the_first_step(
    head: type[nn.Linear], words: str, tmp_path: Path
) -> None:
    said = io.StringIO()

    def build() -> nn.Module:
        net = Net()
        net.head = head(8, 4)
        return net

    with pytest.raises(UserError, match=words):
        run_own(task_of(build), tmp_path / "run", Console(said), DROP)
    assert "baseline" not in said.getvalue()
    assert not list(tmp_path.rglob("*.*"))


class Narrow(Block):
    """Takes 16 hidden units alone."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.a(x))
        if hidden.shape[-1] != 16:
            raise RefusalError("expected [*, 16]")
        return x + self.b(hidden)


class Handing(Block):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x.mean(-1)


class Wanting(Net):
    """Its second block returns something that its input does not hold, without which the model refuses to run."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks[1] = Handing()

    def forward(self, x: Tensor) -> Tensor:
        x, mean = self.blocks[1](self.blocks[0](x))
        if mean is None:
            raise RefusalError("expected a mean of each row")
        return self.head(self.blocks[2](x) + mean[:, None])


class Targeted(Net):
    """Wants its targets in training mode."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        if self.training and targets is None:
            raise RefusalError("expected targets")
        return super().forward(x)


INPUTS = (torch.linspace(-1, 1, 8)[None],)


def test_an_error_of_its_own_is_the_reason_against_a_cut() -> None:
    net = Net(Narrow).eval()
    refused = find_groups(net, INPUTS, (), ()).refused
    assert all("it cannot be cut" in refused[f"blocks.{at}.a"] for at in range(3))
    assert all("expected [*, 16]" in refused[f"blocks.{at}.a"] for at in range(3))


def test_an_error_of_its_own_is_the_reason_against_a_drop() -> None:
    found = look_for_blocks(Wanting().eval(), INPUTS)
    assert set(found.names) == {"blocks.0", "blocks.2"}
    assert "expected a mean of each row" in found.refused["blocks.1"]


def test_an_error_of_its_own_in_training_mode_is_said() -> None:
    paths = find_paths(Targeted().eval(), lambda size: (torch.ones(size, 8),))
    assert len(paths.taken) == 1
    assert paths.refused == ("in training mode the model does not run (expected targets)",)


def test_an_error_of_its_own_ends_torch_prunings_work_in_a_sentence(tmp_path: Path, quiet: Console) -> None:
    with pytest.raises(StageError, match=r"has cut it: expected \[\*, 16\]"):
        run_own(task_of(lambda: Net(Narrow)), tmp_path / "run", quiet, TorchPruning(macs_ratio=0.8))
