"""Which channels can be cut together, from torch-pruning's dependency graph. The only importer of torch_pruning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.observe import tensors_in

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch_pruning as tp


@dataclass(frozen=True)
class ChannelGroup:
    """Linear layers that share one width: `producers` write the channels, `consumers` read them.

    In attention the channels are heads x head dimensions, head after head, and `owner` has the attribute num_heads.
    """

    name: str
    kind: str  # "mlp" or "attention"
    width: int
    num_heads: int  # 1 for "mlp"
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    owner: str

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads


class ChannelGraph:
    """The dependency graph of one model; prunes the model it was traced from.

    Guards against known traps of torch-pruning 1.6.1: it traces with gradients, so frozen parameters are thawed for
    the length of a trace, and it is given no mutable default.
    """

    def __init__(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
        self.model = model
        with _thawed(model), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._graph = tp.DependencyGraph().build_dependency(
                model,
                example_inputs=example_inputs,
                unwrapped_parameters=None,
                output_transform=tensors_in,
                verbose=False,
            )
        self._names = {module: name for name, module in model.named_modules()}

    def groups(self, protected: Sequence[str] = ()) -> list[ChannelGroup]:
        """MLP hidden units and attention widths, in module order; layers under `protected` names are left out."""
        found: dict[frozenset[str], ChannelGroup] = {}
        for name, module in self.model.named_modules():
            is_traced = module in self._graph.module2node  # a fused kernel hides the layers it stands for
            if isinstance(module, nn.Linear) and is_traced and not _under(name, protected):
                group = self._describe(module, protected)
                if group is not None:
                    found.setdefault(frozenset(group.producers + group.consumers), group)
        return list(found.values())

    def _describe(self, root: nn.Linear, protected: Sequence[str]) -> ChannelGroup | None:
        group = self._graph.get_pruning_group(root, tp.prune_linear_out_channels, idxs=[0])
        found: dict[bool, dict[str, None]] = {True: {}, False: {}}  # is it an output? -> names in order
        for dependency, _ in group:
            module = dependency.target.module
            if isinstance(module, (nn.Parameter, tp.ops._OutputOp)):
                return None
            name = self._names.get(module)
            if name is None:  # an operator of the trace: reshape, activation, attention
                continue
            if not isinstance(module, nn.Linear) or _under(name, protected):
                return None
            is_output = self._graph.is_out_channel_pruning_fn(dependency.handler)
            found[bool(is_output)][name] = None
        producers, consumers = tuple(found[True]), tuple(found[False])
        if not consumers or set(producers) & set(consumers):
            return None
        owner = self._names[root].rpartition(".")[0]
        num_heads = getattr(self.model.get_submodule(owner), "num_heads", None)
        width = root.out_features
        siblings = {name.rpartition(".")[0] for name in producers + consumers} == {owner}
        if len(producers) == 3 and siblings and isinstance(num_heads, int) and width % num_heads == 0:
            return ChannelGroup(owner, "attention", width, num_heads, producers, consumers, owner)
        reads_all = all(linear_inputs(self.model, name) == width for name in consumers)
        if len(producers) == 1 and len(consumers) == 1 and reads_all:
            return ChannelGroup(producers[0], "mlp", width, 1, producers, consumers, owner)
        return None

    def keep(self, group: ChannelGroup, channels: Sequence[int], num_heads: int) -> None:
        """Make the group's layers physically narrower; `channels` are the indices that stay."""
        gone = sorted(set(range(group.width)) - set(channels))
        if not gone:
            return
        root = self.model.get_submodule(group.producers[0])
        self._graph.get_pruning_group(root, tp.prune_linear_out_channels, idxs=gone).prune()
        if group.kind == "attention":
            owner = self.model.get_submodule(group.owner)
            _patch(owner, "num_heads", group.num_heads, num_heads)
            _patch(owner, "head_dim", group.head_dim, len(channels) // num_heads)


def linear_inputs(model: nn.Module, name: str) -> int:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer.in_features


def _patch(owner: nn.Module, attribute: str, old: int, new: int) -> None:
    """Forward code reads these; an attribute that is not there is not needed."""
    if getattr(owner, attribute, None) == old:
        setattr(owner, attribute, new)


def _under(name: str, protected: Sequence[str]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in protected)


@contextmanager
def _thawed(model: nn.Module) -> Iterator[None]:
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
