"""Cuts a copy of a model with torch-pruning's pruner through its public API, and notes the cut of every layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError, UserError
from toolkit.channels.cut import CutPart, KeptUnits, patch_attributes
from toolkit.channels.groups import ChannelGroup
from toolkit.channels.layers import mixes_channels
from toolkit.hooks.copies import copy_model
from toolkit.hooks.modes import all_trained, evaluating, without_fast_path
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.stages.torch_pruning.settings import TorchPruning

Inputs = tuple[Tensor, ...]

Side = Literal["out", "in"]


@dataclass(frozen=True)
class PeerGroup:
    """Holds channels that torch-pruning cuts together.

    name: layer whose outputs the group begins with.
    before: number of outputs of this layer before the cut.
    kept: its outputs that stay.
    """

    name: str
    before: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class PeerCut:
    """Holds a copy that torch-pruning has cut.

    parts: what was cut from each layer.
    """

    model: nn.Module
    parts: tuple[CutPart, ...]
    groups: tuple[PeerGroup, ...]


@dataclass(frozen=True)
class Peer:
    """Holds torch-pruning with everything that stays the same from one pruning ratio to the next.

    fixed: names of layers that keep their outputs.
    attentions: groups of attention heads, which torch-pruning does not find itself.
    gradients: gradients of the loss by parameter name, for importances that need them.
    """

    model: nn.Module
    inputs: Inputs
    config: TorchPruning
    seed: int
    fixed: Sequence[str]
    attentions: Sequence[ChannelGroup] = ()
    gradients: Mapping[str, Tensor] = field(default_factory=dict)

    def cut(self, pruning_ratio: float) -> PeerCut:
        """Returns a copy cut by this ratio; the model itself is left unchanged.

        Raises:
            StageError: torch-pruning fails on this model, or cuts a layer for which there is no proof.
        """
        model = all_trained(copy_model(self.model))  # torch-pruning silently skips frozen parameters
        flags = {name: parameter.requires_grad for name, parameter in self.model.named_parameters()}
        for name, parameter in model.named_parameters():
            if name in self.gradients:
                parameter.grad = self.gradients[name].clone()
        try:
            with warnings.catch_warnings(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")
                torch.manual_seed(self.seed)  # the same ranking at every ratio
                cut = self._cut_in_place(model, pruning_ratio)
        except UserError:
            raise
        except Exception as error:  # torch-pruning, or the user's code, may raise anything
            raise StageError(f"torch-pruning cannot cut this model: {_short(error)}") from error
        model.zero_grad(set_to_none=True)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])
        return cut

    def _cut_in_place(self, model: nn.Module, pruning_ratio: float) -> PeerCut:
        import torch_pruning as tp  # noqa: PLC0415  # takes seconds: it imports timm and torchvision where they are

        pruner = self._pruner(tp, model, pruning_ratio)
        groups = pruner.DG.get_all_groups(
            ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
        )
        ledger = _Ledger(model, pruner.DG)
        roots = {ledger.names[group[0].dep.target.module]: len(group[0].idxs) for group in groups}
        for group in pruner.step(interactive=True):
            ledger.note(group)
            group.prune()
        self._patch_heads(model, ledger)
        kept = [PeerGroup(name, size, ledger.kept(name, "out", size)) for name, size in roots.items()]
        return PeerCut(model, tuple(self._parts(ledger)), tuple(kept))

    def _pruner(self, tp: Any, model: nn.Module, pruning_ratio: float) -> Any:
        """Returns the pruner of torch-pruning for this ratio.

        Every dictionary is passed anew: all pruners share the defaults and write into them.
        """
        heads = {model.get_submodule(name): group.num_units for group in self.attentions for name in group.producers}
        whole_heads = any(not group.dims_are_free for group in self.attentions)
        return tp.pruner.BasePruner(
            model,
            self.inputs,
            importance=_importance(tp, self.config.importance),
            global_pruning=self.config.global_pruning,
            pruning_ratio=pruning_ratio,
            ignored_layers=[model.get_submodule(name) for name in self.fixed],
            round_to=self.config.round_to,
            in_channel_groups={},
            out_channel_groups={},
            channel_groups={},
            num_heads=heads,
            prune_num_heads=whole_heads,
            prune_head_dims=not whole_heads,
            head_pruning_ratio=pruning_ratio if whole_heads else 0.0,
        )

    def _patch_heads(self, model: nn.Module, ledger: _Ledger) -> None:
        """Updates the widths that attention modules store, which torch-pruning leaves to its users."""
        whole_heads = any(not group.dims_are_free for group in self.attentions)
        for group in self.attentions:
            num_left = len(ledger.kept(group.reader.module, "in", group.width))
            heads = num_left // group.head_dim if whole_heads else group.num_units
            inner = (tuple(range(num_left // heads)),) * heads if heads and not whole_heads else ()
            if num_left < group.width:
                patch_attributes(model, KeptUnits(group, tuple(range(heads)), inner))

    def _parts(self, ledger: _Ledger) -> Iterator[CutPart]:
        """Yields the cut of each layer; grouped convolutions and norms pass channels through."""
        multiplied = {name for group in self.attentions for name in group.producers}
        sizes = {name: size for (name, side), size in ledger.sizes.items() if side == "in"}
        passed = [name for name in sizes if not mixes_channels(self.model.get_submodule(name))]
        dims = _channel_dims(self.model, self.inputs, {name: sizes[name] for name in passed})
        for (name, side), kept in ledger.left.items():
            gone = tuple(sorted({*range(ledger.sizes[name, side])} - {*kept}))
            if not gone:
                continue
            if mixes_channels(self.model.get_submodule(name)):
                yield CutPart(name, side, tuple(kept), gone, is_multiplied=name in multiplied)
            elif side == "in":
                yield CutPart(name, "through", tuple(kept), gone, dim=dims[name])


class _Ledger:
    """Notes which outputs and inputs of every layer stay, numbered as before the first cut.

    The groups of one step are cut one after another, so that each numbers channels as the groups before left them.
    """

    def __init__(self, model: nn.Module, graph: Any) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self.graph = graph
        self.left: dict[tuple[str, Side], list[int]] = {}
        self.sizes: dict[tuple[str, Side], int] = {}

    def note(self, group: Any) -> None:
        """Notes a group that is about to be pruned."""
        for dependency, indices in group:
            module = dependency.target.module
            if module not in self.names:  # operations and single parameters follow the layers
                continue
            name = self.names[module]
            if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
                raise StageError(f"torch-pruning would cut {name}, and for a {type(module).__name__} there is no proof")
            if self.graph.is_out_channel_pruning_fn(dependency.handler):
                self._take(name, "out", self.graph.get_out_channels(module), indices)
            if self.graph.is_in_channel_pruning_fn(dependency.handler) and not isinstance(module, nn.Embedding):
                self._take(name, "in", self.graph.get_in_channels(module), indices)

    def kept(self, name: str, side: Side, size: int) -> tuple[int, ...]:
        """Returns the channels of a layer that stay, numbered as before the first cut."""
        return tuple(self.left.get((name, side), range(size)))

    def _take(self, name: str, side: Side, size: int, indices: Sequence[int]) -> None:
        self.sizes.setdefault((name, side), size)
        remaining = self.left.setdefault((name, side), list(range(size)))
        gone = set(indices)
        self.left[name, side] = [channel for place, channel in enumerate(remaining) if place not in gone]


def _importance(tp: Any, name: str) -> Any:
    """Returns the importance of torch-pruning with its own defaults."""
    if name in ("group_l1", "group_l2"):
        return tp.importance.GroupMagnitudeImportance(p=int(name[-1]))
    kinds = {"group_taylor": "GroupTaylorImportance", "bn_scale": "BNScaleImportance", "random": "RandomImportance"}
    return getattr(tp.importance, kinds[name])()


def _channel_dims(model: nn.Module, inputs: Inputs, sizes: Mapping[str, int]) -> dict[str, int]:
    """Returns, by name, the dimension of the channels in the inputs of norms and similar layers."""
    points = {name: ActivationPoint(name, "input") for name in sizes}
    with evaluating(model), without_fast_path():
        seen = capture(model, inputs, points.values()) if points else {}
    dims = {}
    for name, size in sizes.items():
        shape = seen[points[name]].shape
        fitting = [dim for dim in range(1, len(shape)) if shape[dim] == size] or [1]
        dims[name] = fitting[-1 if isinstance(model.get_submodule(name), nn.LayerNorm) else 0]
    return dims


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
