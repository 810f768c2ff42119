"""Models that no stage can change are refused: compiled, scripted, exported, quantised, or without values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.own_net import Block, Net, run_own, task_of
from toolkit import (
    BlockDrop,
    load_model,
    preflight_of,
)
from toolkit.base.console import Console
from toolkit.base.errors import UserError


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
