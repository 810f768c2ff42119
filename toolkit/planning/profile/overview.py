"""Describes what a model is made of: its residual blocks and its groups of channels, with the cost of each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from toolkit.base.settings import Data
from toolkit.blocks.drop import block_dropped
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.channels.groups import ChannelGroup
from toolkit.measure.macs import count_macs
from toolkit.measure.module_shares import module_seconds


class BlockOverview(Data):
    """Describes a residual block.

    macs: multiply-adds of one example that dropping the block saves.
    macs_share: `macs` as a share of the whole model's.
    latency_share: the time of the block as a share of the whole model's.
    """

    name: str
    macs: int
    macs_share: float
    num_params: int
    latency_share: float


class GroupOverview(Data):
    """Describes a group of channels that are cut together.

    units: the number of things that are cut: channels, or heads of attention.
    width: the number of channels.
    head_dim: channels of an attention head; None for other groups.
    layers: the layers that write or read the channels.
    num_params: the parameters of these layers.
    latency_share: the time of these layers as a share of the whole model's.
    """

    name: str
    kind: str
    units: int
    width: int
    head_dim: int | None
    head_dim_can_be_cut: bool
    layers: tuple[str, ...]
    num_params: int
    latency_share: float


class Overview(Data):
    """Describes a model.

    macs: multiply-adds of one example.
    not_cut: for each layer that keeps its width, the reason.
    """

    macs: int
    num_params: int
    batch_size: int
    blocks: tuple[BlockOverview, ...]
    groups: tuple[GroupOverview, ...]
    not_cut: dict[str, str]


def overview(model: nn.Module, inputs: tuple[Tensor, ...], protected: Sequence[str] = ()) -> Overview:
    """Returns the blocks and channel groups of a model, which is not changed. Takes seconds to a minute.

    inputs: example inputs of batch size 1.
    protected: names of layers whose width is kept.
    """
    blocks = find_blocks(model, inputs)
    structure = find_groups(model, inputs, blocks, protected)
    layers = {group.name: tuple(dict.fromkeys((*group.producers, *group.consumers))) for group in structure.groups}
    names = [*blocks, *dict.fromkeys(layer for of_group in layers.values() for layer in of_group)]
    shares = module_seconds(model, inputs, names)
    total = count_macs(model, inputs).total
    return Overview(
        macs=total,
        num_params=_num_params(model),
        batch_size=len(inputs[0]),
        blocks=tuple(_block(model, name, inputs, total, shares[name]) for name in blocks),
        groups=tuple(
            _group(model, group, layers[group.name], sum(shares[layer] for layer in layers[group.name]))
            for group in structure.groups
        ),
        not_cut=structure.refused,
    )


def _block(model: nn.Module, name: str, inputs: tuple[Tensor, ...], total: int, share: float) -> BlockOverview:
    num_params = _num_params(model.get_submodule(name))
    with block_dropped(model, name):
        saved = total - count_macs(model, inputs).total
    return BlockOverview(name=name, macs=saved, macs_share=saved / total, num_params=num_params, latency_share=share)


def _group(model: nn.Module, group: ChannelGroup, layers: tuple[str, ...], share: float) -> GroupOverview:
    is_attention = group.kind == "attention"
    return GroupOverview(
        name=group.name,
        kind=group.kind,
        units=group.num_units,
        width=group.width,
        head_dim=group.head_dim if is_attention else None,
        head_dim_can_be_cut=group.dims_are_free,
        layers=layers,
        num_params=sum(_num_params(model.get_submodule(layer)) for layer in layers),
        latency_share=share,
    )


def _num_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
