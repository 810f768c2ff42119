"""Shape-preserving residual blocks of any nn.Module: found by what they compute, not by class, and dropped by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from toolkit.blocks.skip_path import has_skip_path, is_relu
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.untouched import untouched
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


def find_blocks(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the residual blocks of `model` in execution order; empty when there is none.

    A block has a matrix or convolution, is called once and under one name, hands back a tensor of its first tensor
    input's shape and type, and adds its work to that input through a skip connection that no matrix product
    interrupts. A stack of blocks (a stage, an encoder) counts as its members. A stand-in is no block, and nothing in it
    is. The blocks are marked for `drop_block`; nothing else changes. The model must not switch gradients off in its own
    forward.
    """
    visits = _watch(model, example_inputs)
    residual = {name: visit for name, visit in visits.items() if visit.is_residual()}
    shared = {name for name, visit in residual.items() if visit.calls > 1 or visit.many_names}
    chosen = set(_without_stacks(model, list(residual), shared)) - shared
    blocks = {name: visit.end() for name, visit in residual.items() if name in chosen}
    for module in model.modules():
        vars(module).pop(END_ATTRIBUTE, None)
    for name, end in blocks.items():
        setattr(model.get_submodule(name), END_ATTRIBUTE, end)
    return list(blocks)


@dataclass
class _Visit:
    """What went into a module's last call and came out: nodes of the autograd graph."""

    many_names: bool = False
    calls: int = 0
    entry: Node | None = None
    other_inputs: list[Node] = field(default_factory=list)
    shape: tuple[torch.Size, torch.dtype] | None = None
    exit: Node | None = None
    structure: OutputStructure | None = None  # None unless the first tensor has the input's shape and type

    def enter(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        self.calls += 1
        self.entry = self.exit = self.structure = None
        if tensors:
            self.entry, self.shape = tensors[0].grad_fn, (tensors[0].shape, tensors[0].dtype)
            self.other_inputs = [tensor.grad_fn for tensor in tensors[1:] if tensor.grad_fn is not None]

    def leave(self, output: Any) -> None:
        found = OutputStructure.of(output)
        if found and (found[1].shape, found[1].dtype) == self.shape:
            self.structure, self.exit = found[0], found[1].grad_fn

    def is_residual(self) -> bool:
        if self.entry is None or self.exit is None:
            return False
        return has_skip_path(self.exit, self.entry, self.other_inputs)

    def end(self) -> BlockEnd:
        assert self.structure is not None and self.exit is not None
        return BlockEnd(self.structure, "relu" if is_relu(self.exit) else "nothing")


def _watch(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> dict[str, _Visit]:
    """One forward pass with gradients; the visits of all modules that may be blocks, in execution order."""
    visits: dict[str, _Visit] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(untouched(model))
        stack.enter_context(evaluating(model))
        stack.enter_context(without_fast_path())
        stack.enter_context(_parameters_in_graph(model))
        for module, names in _possible_blocks(model).items():
            for handle in _watch_module(module, names, visits):
                stack.callback(handle.remove)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        model(*(_in_graph(tensor) for tensor in example_inputs))
    return visits


def _possible_blocks(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Submodules with a matrix or convolution that is not a stand-in's, and all the names that each goes by."""
    names: dict[nn.Module, list[str]] = {}
    of_stand_ins = _of_stand_ins(model)
    for name, module in model.named_modules(remove_duplicate=False):
        own = (parameter for parameter in module.parameters() if id(parameter) not in of_stand_ins)
        if name and any(parameter.ndim > 1 for parameter in own):
            names.setdefault(module, []).append(name)
    return names


def _watch_module(
    module: nn.Module, names: list[str], visits: dict[str, _Visit]
) -> tuple[RemovableHandle, RemovableHandle]:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        visits.setdefault(names[0], _Visit(many_names=len(names) > 1)).enter(args, kwargs)

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        visits[names[0]].leave(output)

    return module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)


def _in_graph(tensor: Tensor) -> Tensor:
    """A copy that has a node in the autograd graph and may be changed in place, if it is of a type that can."""
    copy = tensor.clone()
    return copy.requires_grad_().clone() if copy.is_floating_point() else copy


@contextlib.contextmanager
def _parameters_in_graph(model: nn.Module) -> Iterator[None]:
    """Frozen parameters take part too: token ids have no gradient, so the graph starts at the embedding's weights."""
    frozen = [part for part in model.parameters() if part.is_floating_point() and not part.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


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
    of_stand_ins = _of_stand_ins(module)
    return sum(parameter.numel() for parameter in module.parameters() if id(parameter) not in of_stand_ins)


def _of_stand_ins(module: nn.Module) -> set[int]:
    """The ids of the parameters that stand-ins hold."""
    held = (part for part in module.modules() if isinstance(part, StandIn))
    return {id(parameter) for part in held for parameter in part.parameters()}
