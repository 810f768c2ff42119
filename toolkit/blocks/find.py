"""Shape-preserving residual blocks of any nn.Module: found by what they compute, not by class, and dropped by name."""

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

# find_blocks leaves a BlockEnd under this name on every block that it finds.
END_ATTRIBUTE = "residual_block_end"

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class BlockEnd:
    """How a block ends. structure: of its output. behind: what the stream passes last, `relu` or `nothing` known."""

    structure: OutputStructure
    behind: Literal["nothing", "relu"]


@dataclass(frozen=True)
class FoundBlocks:
    """The blocks that can be dropped, in execution order; and why others cannot, by name."""

    names: tuple[str, ...]
    refused: dict[str, str]


def find_blocks(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the residual blocks of `model` in execution order; empty when there is none.

    A block has a matrix or convolution, is called once and under one name, hands back a tensor of its stream's shape
    and type, and adds its work to that stream through a skip connection that no matrix product interrupts. The stream
    is the first floating-point tensor that comes in. A stack of blocks (a stage, an encoder) counts as its members. A
    stand-in is no block, and nothing in it is. What else a block returns must have come in with the same place and
    shape, or the model must run without it. The blocks are marked for `drop_block`; nothing else changes.
    """
    return list(look_for_blocks(model, example_inputs).names)


def look_for_blocks(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> FoundBlocks:
    """As `find_blocks`, with the reasons against what looks like a block and is none."""
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
        return "it stands in several places of the model under different names, so that it cannot go from one alone"
    return f"it is called {visit.calls} times in one pass, and dropping it would drop all of its calls"


def _why_unlike(model: nn.Module, visits: Mapping[str, Visit], blocks: set[str]) -> dict[str, str]:
    """The reasons against modules of the same class as a block that are none, inside of no block."""
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
            reasons[name] = "it does not add its work to what comes in"
    return reasons


def _without_stacks(model: nn.Module, names: list[str], shared: set[str]) -> list[str]:
    """Of nested candidates, keep the outermost ones that are not merely stacks of others."""
    kept = []
    for name in _outermost(names):
        inner = [other for other in names if other.startswith(f"{name}.")]
        kept += _without_stacks(model, inner, shared) if _is_stack(model, name, inner, shared) else [name]
    return kept


def _outermost(names: list[str]) -> list[str]:
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _is_stack(model: nn.Module, name: str, inner: list[str], shared: set[str]) -> bool:
    """True when members of containers, or shared ones, hold most parameters (an adapter list in a block does not).

    Members held as plain attributes make a stack when two are alike: unlike halves make one block, such as an
    attention half and an MLP half. A member of a container is not split into plain attributes.
    """
    members = _outermost([other for other in inner if other in shared or _in_container(model, other)])
    if members:
        held = sum(_num_parameters(model.get_submodule(member)) for member in members)
        return 2 * held > _num_parameters(model.get_submodule(name))
    attributes = [model.get_submodule(member) for member in _outermost(inner)]
    shapes = [[parameter.shape for parameter in attribute.parameters()] for attribute in attributes]
    return not _in_container(model, name) and any(shape in shapes[:index] for index, shape in enumerate(shapes))


def _in_container(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), _CONTAINERS)


def _num_parameters(module: nn.Module) -> int:
    """Those of stand-ins do not count: a stack stays one when its members are replaced."""
    of_stand_ins = parameters_of_stand_ins(module)
    return sum(parameter.numel() for parameter in module.parameters() if id(parameter) not in of_stand_ins)
