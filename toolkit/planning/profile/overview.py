"""Describes what a model is made of: its residual blocks and its groups of channels, with the cost of each."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from toolkit.base.settings import Data
from toolkit.blocks.drop import block_dropped
from toolkit.blocks.find import look_for_blocks
from toolkit.channels.find import find_groups
from toolkit.channels.groups import ChannelGroup
from toolkit.hooks.copies import copy_model
from toolkit.hooks.folding import computed_tensors, fold_all
from toolkit.hooks.trial import try_model
from toolkit.measure.counted import Macs
from toolkit.measure.macs import count_macs
from toolkit.measure.module_shares import module_seconds


class BlockOverview(Data):
    """Describes a residual block that can be dropped.

    macs: the multiply-adds that dropping the block saves.
    macs_share: these as a share of the whole model's; None where the model's count is partial.
    latency_share: the time of the block as a share of the whole model's.
    """

    name: str
    macs: int
    macs_share: float | None
    num_params: int
    latency_share: float


class GroupOverview(Data):
    """Describes a group of channels that are cut together.

    kind: what the channels are: `mlp`, `attention`, `conv` or `embedding` (the width of a residual stream).
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
    """Describes what can be cut in a model.

    not_cut: why other layers keep their width.
    not_dropped: why other modules like the blocks are none.
    partial: operators that may be heavy and have no count.
    """

    macs: int
    num_params: int
    batch_size: int
    blocks: tuple[BlockOverview, ...]
    groups: tuple[GroupOverview, ...]
    not_cut: dict[str, str]
    not_dropped: dict[str, str] = Field(default_factory=dict)
    partial: dict[str, int] = Field(default_factory=dict)


def overview(model: nn.Module, inputs: tuple[Tensor, ...], protected: Sequence[str] = ()) -> Overview:
    """Returns what can be cut in `model`, which is left as it was; this takes seconds to a minute.

    inputs: example inputs of batch size 1.
    protected: patterns of layers that keep their outputs.

    Raises:
        UserError: the model does not run on the inputs, or gives no tensor.
    """
    try_model(model, inputs)
    if computed_tensors(model):
        model = copy_model(model)
        fold_all(model)  # as every run does
    found = look_for_blocks(model, inputs)
    blocks = found.names
    structure = find_groups(model, inputs, blocks, protected)
    layers = {group.name: tuple(dict.fromkeys((*group.producers, *group.consumers))) for group in structure.groups}
    names = [*blocks, *dict.fromkeys(layer for of_group in layers.values() for layer in of_group)]
    shares = module_seconds(model, inputs, names)
    total = count_macs(model, inputs)
    return Overview(
        macs=total.total,
        num_params=_num_params(model),
        batch_size=len(inputs[0]),
        blocks=tuple(_block(model, name, inputs, total, shares[name]) for name in blocks),
        groups=tuple(
            _group(model, group, layers[group.name], sum(shares[layer] for layer in layers[group.name]))
            for group in structure.groups
        ),
        not_cut=structure.refused,
        not_dropped=found.refused,
        partial=total.unknown,
    )


def _block(model: nn.Module, name: str, inputs: tuple[Tensor, ...], total: Macs, share: float) -> BlockOverview:
    num_params = _num_params(model.get_submodule(name))
    with block_dropped(model, name):
        left = count_macs(model, inputs)
    saved, is_full = total.total - left.total, left.ratio_to(total) is not None
    return BlockOverview(
        name=name,
        macs=saved,
        macs_share=saved / total.total if is_full else None,
        num_params=num_params,
        latency_share=share,
    )


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
