"""Makes layers physically narrower; linear and convolution layers with the functions of torch_pruning.

The tracer of torch_pruning is not used: on torchvision's swin_t it takes more memory than a workstation has, it fails
on frozen parameters, and it does not see through fused attention. The stage `torch_pruning` uses it, as a control.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from toolkit.channels.groups import ChannelGroup, Patch, Role, Slot
from toolkit.channels.layers import channel_sizes, has_computed_weights, holders_of, is_conv, is_transposed_linear


@dataclass(frozen=True)
class CutPart:
    """Describes the cut of one dimension of one layer; `role` and `dim` are those of `Slot`.

    kept: indices that stay.
    gone: indices that are removed.
    is_multiplied: whether a removed output is multiplied with others before a layer reads it, as queries and keys are.
        Such an output has an effect even if no layer reads it directly.
    """

    module: str
    role: Role
    kept: tuple[int, ...]
    gone: tuple[int, ...]
    dim: int = 0
    is_multiplied: bool = False


@dataclass(frozen=True)
class KeptUnits:
    """Says what stays of a group.

    units: indices of the units that stay.
    inner: the channels that stay within each of these units; empty if all channels do.
    """

    group: ChannelGroup
    units: tuple[int, ...]
    inner: tuple[tuple[int, ...], ...] = ()

    @property
    def head_dim(self) -> int:
        """Returns the number of channels that stay in each unit."""
        return len(self.inner[0]) if self.inner else self.group.head_dim

    @property
    def changes(self) -> bool:
        """Says whether anything is removed."""
        return len(self.units) < self.group.num_units or self.head_dim < self.group.head_dim

    def kept(self, slot: Slot) -> list[int]:
        """Returns the indices that stay in the slot's dimension, in ascending order."""
        stays = (_part(slot.places[unit], inner, self.group) for unit, inner in self._stays())
        return sorted([*slot.shared, *(index for part in stays for index in part)])

    def gone(self, slot: Slot) -> list[int]:
        """Returns the indices that are removed from the slot's dimension, in ascending order."""
        kept = set(self.kept(slot))
        return sorted(index for places in slot.places for index in places if index not in kept)

    def parts(self) -> list[CutPart]:
        """Returns the cut of each slot of the group."""
        return [
            CutPart(slot.module, slot.role, tuple(self.kept(slot)), tuple(self.gone(slot)), slot.dim, bool(self.inner))
            for slot in self.group.slots
        ]

    def _stays(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        return zip(self.units, self.inner or ((),) * len(self.units), strict=True)


def _part(places: tuple[int, ...], inner: tuple[int, ...], group: ChannelGroup) -> Iterable[int]:
    """Returns the indices of the inner channels among a unit's indices in a slot.

    A slot that holds fewer indices per unit, such as one for each head, keeps all of them.
    """
    size = group.head_dim
    if not inner or len(places) % size:
        return places
    return (places[part * size + channel] for part in range(len(places) // size) for channel in inner)


def parts_of(choices: Iterable[KeptUnits]) -> list[CutPart]:
    """Returns the cut of each slot of all groups."""
    return [part for choice in choices for part in choice.parts()]


def cut(model: nn.Module, choices: Iterable[KeptUnits]) -> None:
    """Cuts all groups as chosen, in place; `proof.py` checks that the narrow model computes the right thing.

    Raises:
        ValueError: weights of a layer are computed from other parameters (nothing is cut then), or the cut does not fit
            tied tensors, grouped convolutions or attributes of the model.
    """
    shared = holders_of(model)
    gone: dict[tuple[str, str, int, str], set[int]] = defaultdict(set)
    choices = [choice for choice in choices if choice.changes]
    for choice in choices:
        for slot in choice.group.slots:
            gone[slot.module, slot.role, slot.dim, slot.tensor].update(choice.gone(slot))
    for name, role, _, _ in gone:
        if role != "tensor" and has_computed_weights(model.get_submodule(name)):
            raise ValueError(
                f"the weights of {name} are computed from other parameters, as by weight_norm or spectral_norm; "
                "only weights that are parameters themselves can be cut"
            )
    for (name, role, dim, tensor), indices in gone.items():
        module = model.get_submodule(name)
        if role == "tensor":
            _narrow_tensor(module, tensor, dim, indices)
        elif role == "through":
            _narrow_leaf(module, indices)
        else:
            _narrow_layer(module, role == "out", sorted(indices))
    _share_again(model, shared)
    for choice in choices:
        patch_attributes(model, choice)


def _share_again(model: nn.Module, shared: Mapping[int, Sequence[tuple[str, str]]]) -> None:
    """Makes tied tensors one tensor again, after each module that holds one has been cut on its own."""
    for places in shared.values():
        tensors = [getattr(model.get_submodule(name), leaf) for name, leaf in places]
        if len({tensor.shape for tensor in tensors}) > 1:
            names = " and ".join(f"{name}.{leaf}" for name, leaf in places[:3])
            raise ValueError(f"{names} are one tensor, which cannot be cut in one place alone")
        for name, leaf in places:
            module = model.get_submodule(name)
            table = module._parameters if leaf in module._parameters else module._buffers
            table[leaf] = tensors[0]


def patch_attributes(model: nn.Module, choice: KeptUnits) -> None:
    """Updates the attributes in which the forward code keeps numbers of units and widths.

    Raises:
        ValueError: a number would not be whole.
    """
    group = choice.group
    units, channels = Fraction(len(choice.units), group.num_units), Fraction(choice.head_dim, group.head_dim)
    shares = {"units": units, "channels": channels, "width": units * channels}
    for patch in group.patches:
        module, share = model.get_submodule(patch.module), shares[patch.follows]
        old = getattr(module, patch.attribute)
        if isinstance(old, int):
            new: Any = _whole(old * share, patch)
        else:
            new = type(old)(
                [_whole(size * share, patch) if place in patch.places else size for place, size in enumerate(old)]
            )
        setattr(module, patch.attribute, new)


def _whole(value: Fraction, patch: Patch) -> int:
    if value.denominator != 1:
        raise ValueError(f"{patch.module}.{patch.attribute} would be {float(value):g}, which is no whole number")
    return int(value)


def _torch_pruning() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch_pruning  # noqa: PLC0415  # takes seconds: it imports timm and torchvision where they are
    return torch_pruning


def _narrow_layer(module: nn.Module, outputs: bool, gone: list[int]) -> None:
    tp = _torch_pruning()
    flags = [(name, part.requires_grad) for name, part in module.named_parameters(recurse=False)]
    if isinstance(module, nn.Linear):
        (tp.prune_linear_out_channels if outputs else tp.prune_linear_in_channels)(module, gone)
    elif is_transposed_linear(module):
        for name in ("weight", "bias") if outputs else ("weight",):
            _narrow_tensor(module, name, -1 if outputs else 0, set(gone))
        for size, attribute in zip(module.get_parameter("weight").shape, ("nx", "nf"), strict=True):
            setattr(module, attribute, size)
    elif is_conv(module):
        (tp.prune_conv_out_channels if outputs else tp.prune_conv_in_channels)(module, gone)
    else:
        assert isinstance(module, nn.Embedding) and outputs
        tp.prune_embedding_out_channels(module, gone)
    for name, flag in flags:
        module.get_parameter(name).requires_grad_(flag)


def _narrow_leaf(module: nn.Module, gone: set[int]) -> None:
    """Cuts all that a norm, a scale or a grouped convolution holds once for each channel."""
    if isinstance(module, _ConvNd):
        _narrow_grouped(module, gone)
        return
    size = max(channel_sizes(module))
    new_size = size - len(gone)
    if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
        each = size // module.num_groups
        if len({channel // each for channel in gone}) * each != len(gone):
            raise ValueError("a norm in groups loses whole groups only")
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if size in tensor.shape:
            _narrow_tensor(module, name, tensor.shape.index(size), gone)
    for name, value in list(vars(module).items()):
        if name == "num_groups" and value > 1:
            setattr(module, name, value * new_size // size)
        elif type(value) is int and value == size:
            setattr(module, name, new_size)
        elif isinstance(value, tuple) and value == (size,):
            setattr(module, name, (new_size,))


def _narrow_grouped(module: _ConvNd, gone: set[int]) -> None:
    """Removes whole groups of a convolution, each with its inputs and outputs.

    A group may have more outputs than inputs, or fewer.
    """
    inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
    groups = {channel // inputs for channel in gone}
    if len(groups) * inputs != len(gone):
        raise ValueError("only whole groups of a grouped convolution can be removed")
    rows = {group * outputs + row for group in groups for row in range(outputs)}
    is_transposed = isinstance(module, _ConvTransposeNd)
    _narrow_tensor(module, "weight", 0, gone if is_transposed else rows)
    if module.bias is not None:
        _narrow_tensor(module, "bias", 0, rows)
    module.groups -= len(groups)
    module.in_channels, module.out_channels = inputs * module.groups, outputs * module.groups


def _narrow_tensor(module: nn.Module, name: str, dim: int, gone: set[int]) -> None:
    old: Tensor = getattr(module, name)
    kept = torch.tensor([index for index in range(old.shape[dim]) if index not in gone], device=old.device)
    new = old.detach().index_select(dim, kept)
    if isinstance(old, nn.Parameter):
        module._parameters[name] = nn.Parameter(new, requires_grad=old.requires_grad)
    else:
        module._buffers[name] = new
