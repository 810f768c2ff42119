"""Tries whether a model runs without a block that returns more than a stand-in is sure to return."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toolkit.blocks.dropped import put_module
from toolkit.blocks.visits import Visit
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import tensors_in
from toolkit.hooks.untouched import untouched
from toolkit.stand_ins.nothing import NothingArguments
from toolkit.stand_ins.registry import make_stand_in


def fault_of_drop(
    model: nn.Module, name: str, visit: Visit, inputs: tuple[Tensor, ...], outputs: Sequence[Tensor]
) -> str | None:
    """Returns why a block cannot be dropped, or None if it can; the model is left unchanged.

    A block that returns nothing but its stream and its inputs can be dropped without a trial.

    outputs: output tensors of the model with the block.
    """
    assert visit.structure is not None
    if not visit.lost and visit.structure.keeps_its_type:
        return None
    block = model.get_submodule(name)
    put_module(model, name, make_stand_in(block, NothingArguments(structure=visit.structure)))
    try:
        with untouched(model), evaluating(model), without_fast_path(), torch.no_grad():
            outputs_without = tensors_in(model(*(part.clone() for part in inputs)))
    except Exception as error:  # the user's code may raise anything
        return f"{_what(visit)}, and the model does not run without it: {type(error).__name__}: {_short(error)}"
    finally:
        put_module(model, name, block)
    if len(outputs_without) != len(outputs):
        return (
            f"{_what(visit)}, and without it the model returns {len(outputs_without)} tensors instead of {len(outputs)}"
        )
    return None


def _what(visit: Visit) -> str:
    if not visit.lost:
        assert visit.structure is not None
        return f"it returns a {visit.structure.kind.replace('_', ' ')} of a type that a saved model cannot name"
    entries = ", ".join(f"entry {key}" if isinstance(key, int) else f"{key!r}" for key in visit.lost)
    return f"it returns more than its stream ({entries}) that none of its inputs can replace"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
