"""Finds the shape-preserving residual blocks of any nn.Module by what they compute, not by their class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from toolkit.blocks.skip_path import is_relu
from toolkit.blocks.trial import fault_of_drop
from toolkit.blocks.visits import Visit, parameters_of_stand_ins, watch
from toolkit.stand_ins.contract import StandIn
from toolkit.stand_ins.output import OutputStructure

# find_blocks stores a BlockEnd under this attribute of every block that it finds.
END_ATTRIBUTE = "residual_block_end"

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class BlockEnd:
    """Describes how a block ends.

    structure: structure of the output of the block.
    behind: the last operator that the stream passes, `relu`; `nothing` if it is another one or there is none.
    """

    structure: OutputStructure
    behind: Literal["nothing", "relu"]


@dataclass(frozen=True)
class FoundBlocks:
    """Holds the blocks that can be dropped, in execution order, and why similar modules cannot be, by name."""

    names: tuple[str, ...]
    refused: dict[str, str]


def find_blocks(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[str]:
    """Returns the names of the residual blocks of `model` in execution order.

    A block has a matrix or convolution, is called once and under one name, returns a tensor of the shape and type of
    its residual stream, and adds its work to the stream through a skip connection without a matrix product. The stream
    is the first floating-point tensor among the inputs. Of a stack of blocks, such as a stage or an encoder, the
    members are returned. Stand-ins and their parts are not blocks. Anything else that a block returns must be one of
    its inputs, in the same place and shape, or the model must run without it. Blocks are marked for `drop_block`;
    nothing else changes.
    """
    return list(look_for_blocks(model, example_inputs).names)


def look_for_blocks(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> FoundBlocks:
    """Finds blocks as `find_blocks` does, and the reasons against modules that look like blocks but are none."""
    visits, outputs = watch(model, example_inputs)
    residual = {name: visit for name, visit in visits.items() if visit.is_residual()}
    shared = {name for name, visit in residual.items() if visit.calls > 1 or visit.many_names}
    chosen = set(_without_stacks(model, list(residual), shared)) - shared
    faults = {
        name: fault_of_drop(model, name, visit, example_inputs, outputs)
        for name, visit in residual.items()
        if name in chosen
    }
    refused = {name: fault for name, fault in faults.items() if fault is not None}
    blocks = {name: visit for name, visit in residual.items() if name in chosen and name not in refused}
    refused |= {name: _why_shared(residual[name]) for name in _outermost(sorted(shared))}
    refused |= _why_unlike(model, visits, {*chosen, *shared})
    for module in model.modules():
        vars(module).pop(END_ATTRIBUTE, None)
    for name, visit in blocks.items():
        assert visit.structure is not None and visit.exit is not None
        end = BlockEnd(visit.structure, "relu" if is_relu(visit.exit) else "nothing")
        setattr(model.get_submodule(name), END_ATTRIBUTE, end)
    return FoundBlocks(tuple(blocks), refused)


def _why_shared(visit: Visit) -> str:
    if visit.many_names:
        return "it stands in several places under different names, so it cannot be dropped from one of them alone"
    return f"it is called {visit.calls} times in one pass, and dropping it would drop all of its calls"


def _why_unlike(model: nn.Module, visits: Mapping[str, Visit], blocks: set[str]) -> dict[str, str]:
    """Returns the reasons against modules of the same class as a block that are not blocks and lie in no block."""
    kinds = {type(model.get_submodule(name)) for name in blocks} - {nn.Linear, *_CONTAINERS}
    reasons = {}
    for name, module in model.named_modules():
        is_apart = not any(name.startswith(f"{block}.") or block.startswith(f"{name}.") for block in blocks)
        if type(module) not in kinds or isinstance(module, StandIn) or name in blocks or not is_apart or not name:
            continue
        visit = visits.get(name)
        if visit is None:
            reasons[name] = "it is not called for the example inputs"
        elif visit.structure is None:
            reasons[name] = f"it {visit.fault}"
        else:
            reasons[name] = "it does not add its work to the stream that comes in"
    return reasons


def _without_stacks(model: nn.Module, names: list[str], shared: set[str]) -> list[str]:
    """Returns, of nested candidates, the outermost ones that are not merely stacks of other candidates."""
    blocks = []
    for name in _outermost(names):
        inner = [other for other in names if other.startswith(f"{name}.")]
        blocks += _without_stacks(model, inner, shared) if _is_stack(model, name, inner, shared) else [name]
    return blocks


def _outermost(names: list[str]) -> list[str]:
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _is_stack(model: nn.Module, name: str, inner: list[str], shared: set[str]) -> bool:
    """Says whether members of containers, or shared members, hold most of the parameters.

    This keeps a block that holds a list of adapters whole. Members that are plain attributes make a stack if two have
    parameters of the same shapes: unlike halves, such as an attention and an MLP, make one block. A member of a
    container is not split into plain attributes.
    """
    members = _outermost([other for other in inner if other in shared or _in_container(model, other)])
    if members:
        num_in_members = sum(_num_parameters(model.get_submodule(member)) for member in members)
        return 2 * num_in_members > _num_parameters(model.get_submodule(name))
    attributes = [model.get_submodule(member) for member in _outermost(inner)]
    shapes = [[parameter.shape for parameter in attribute.parameters()] for attribute in attributes]
    return not _in_container(model, name) and any(shape in shapes[:index] for index, shape in enumerate(shapes))


def _in_container(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), _CONTAINERS)


def _num_parameters(module: nn.Module) -> int:
    """Returns the number of parameters without those of stand-ins.

    A stack thus stays a stack when its members are replaced.
    """
    of_stand_ins = parameters_of_stand_ins(module)
    return sum(parameter.numel() for parameter in module.parameters() if id(parameter) not in of_stand_ins)
