"""Puts stand-ins in the places of blocks, and finds them again."""

from __future__ import annotations

from torch import nn

from toolkit.base.errors import StageError
from toolkit.stand_ins.contract import StandIn, StandInArguments
from toolkit.stand_ins.nothing import Nothing
from toolkit.stand_ins.registry import make_stand_in


def replace_block(model: nn.Module, name: str, arguments: StandInArguments, *, without_memory: bool = False) -> None:
    """Puts a new stand-in in the place of any submodule but the model itself.

    without_memory: as in `make_stand_in`.

    Raises:
        StageError: the model has no such submodule; or it is dropped already, lies in a dropped block or holds one.
    """
    if not name or name not in dict(model.named_modules()):
        raise StageError(f"the model has no submodule {name!r} to drop")
    for other in dropped_blocks(model):
        if name == other or name.startswith(f"{other}."):
            raise StageError(f"{name!r} cannot be dropped: {other!r} has already been dropped")
    inside = [f"{name}.{block}" for block in dropped_blocks(model.get_submodule(name))]
    if inside:
        raise StageError(f"{name!r} cannot be dropped: {inside[0]!r} inside of it has already been dropped")
    new = make_stand_in(model.get_submodule(name), arguments, without_memory=without_memory)
    take_over_hooks(model.get_submodule(name), new)
    put_module(model, name, new)


def take_over_hooks(block: nn.Module, stand_in: nn.Module) -> None:
    """Gives a stand-in the forward hooks of the block that it replaces, such as hooks that collect features."""
    for table in ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"):
        vars(stand_in)[table] = vars(block)[table]
    for table in ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
        vars(stand_in)[table] = vars(block)[table]


def dropped_blocks(model: nn.Module) -> list[str]:
    """Returns the names of the blocks that were dropped, in the order of the module tree."""
    return [name for name, module in stand_ins_of(model).items() if module.replaces == "block"]


def emptied_blocks(model: nn.Module) -> list[str]:
    """Returns the names of the dropped blocks whose stand-ins do no work."""
    return [name for name, module in stand_ins_of(model).items() if isinstance(module, Nothing)]


def stand_ins_of(model: nn.Module) -> dict[str, StandIn]:
    """Returns the stand-ins of a model by the names of the blocks and layers that they replace, in module order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, StandIn)}


def put_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replaces the submodule called `name` by `module`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
