"""Makes the models that are compared: depth drops whole blocks, and width matches the multiply-adds of depth.

All weights are random, and only time is measured, for which it does not matter which blocks and channels go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.benchmarks.cuda.cells import BATCHES, SAME_MACS, TINY_BATCHES
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut
from toolkit.channels.find import find_groups
from toolkit.channels.groups import ChannelGroup
from toolkit.hooks.copies import copy_model
from toolkit.measure.counted import Macs
from toolkit.measure.macs import count_macs
from toolkit.stages.channel_prune.search import search_ratio
from toolkit.stages.channel_prune.settings import ChannelPrune, WidthKind
from toolkit.stages.channel_prune.widths import choose, even_scores
from toolkit.stages.context import StageContext
from toolkit.zoo.build import build_zoo_model
from toolkit.zoo.inputs import example_inputs

ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True)
class BenchModel:
    """Describes a model of a zoo with random weights.

    zoo: the name of the model in the zoo.
    batches: the batch sizes at which it is timed.
    arguments: arguments of the model.
    twin: arguments that differ in the twin, a model with the same layers and far smaller inputs, in which blocks and
        channels are found.
    size, twin_size: the side of the inputs of the model and of the twin; None if the arguments say it.
    kinds: the kinds of channels that width cuts.
    """

    zoo: str
    batches: tuple[int, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    twin: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    twin_size: int | None = None
    kinds: tuple[WidthKind, ...] = ("mlp", "heads")

    def build(self) -> nn.Module:
        """Returns the model with random weights on the CPU."""
        return build_zoo_model(self.zoo, self.arguments)

    def inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Returns made-up inputs on the CPU."""
        return example_inputs(self.zoo, self.arguments, batch_size, input_size=self.size)

    @property
    def has_attention(self) -> bool:
        """Returns whether the model has attention heads."""
        return "heads" in self.kinds


@dataclass(frozen=True)
class EqualPair:
    """Holds the three models of a pair on one device.

    macs: multiply-adds of one example: the dense model's, depth's and width's.
    num_blocks: the number of blocks of the dense model.
    dropped: the names of the blocks that depth drops.
    widths: the widths of width's groups, by name.
    """

    dense: nn.Module
    depth: nn.Module
    width: nn.Module
    macs: tuple[int, int, int]
    num_blocks: int
    dropped: tuple[str, ...]
    widths: dict[str, int]


class PairMaker:
    """Makes the pairs of one model, whose blocks and channels are found once for all pairs."""

    def __init__(self, model: BenchModel, device: torch.device, console: Console) -> None:
        self.model, self.device, self.console = model, device, console
        self.one_example = tuple(part.to(device) for part in model.inputs(1))
        self._made: dict[tuple[float, int], dict[str, int]] = {}  # (share, round_to) -> widths

    def pair(self, share: float, round_to: int) -> EqualPair:
        """Returns the pair nearest to a share of the dense multiply-adds.

        Raises:
            UserError: no width has depth's multiply-adds within `SAME_MACS`, its widths are those of a pair that was
                made before, or attention is not counted.
        """
        depth, dropped = self._depth(share)
        depth_macs = self._counted(depth)
        width, widths = self._width(depth_macs / self.dense_macs, round_to)
        for other, known in self._made.items():
            if other[0] == share and other[1] != round_to and known == widths:
                raise UserError(f"the widths are the same as in multiples of {other[1]}, which have cells of their own")
        self._made[share, round_to] = widths
        macs = self.dense_macs, depth_macs, self._counted(width)
        if abs(macs[2] - macs[1]) > SAME_MACS * macs[0]:
            raise UserError(
                f"{self.model.zoo}: no width in multiples of {round_to} has the multiply-adds of depth within "
                f"{SAME_MACS:g} of dense: {macs[2] / macs[0]:.3f} against {macs[1] / macs[0]:.3f}"
            )
        return EqualPair(self.dense, depth, width, macs, len(self._blocks), dropped, widths)

    @cached_property
    def dense(self) -> nn.Module:
        """Returns the dense model on the device."""
        dense = on_device(self.model.build(), self.device)
        find_blocks(dense, self.one_example)
        return dense

    @cached_property
    def dense_macs(self) -> int:
        """Returns the multiply-adds of one example of the dense model."""
        return self._counted(self.dense)

    @cached_property
    def _blocks(self) -> tuple[str, ...]:
        return tuple(find_blocks(self.dense, self.one_example))

    @cached_property
    def _groups(self) -> tuple[ChannelGroup, ...]:
        """Returns the groups that width may cut, which are found in the twin."""
        arguments = self.model.arguments | self.model.twin
        twin = build_zoo_model(self.model.zoo, arguments)
        inputs = example_inputs(self.model.zoo, arguments, 2, input_size=self.model.twin_size)
        kinds = {"attention" if kind == "heads" else kind for kind in self.model.kinds}
        groups = find_groups(twin, inputs, find_blocks(twin, inputs)).groups
        return tuple(group for group in groups if group.kind in kinds)

    def _depth(self, share: float) -> tuple[nn.Module, tuple[str, ...]]:
        """Returns the model whose share of multiply-adds is nearest, and the names of its dropped blocks."""
        candidates: dict[int, tuple[nn.Module, tuple[str, ...], float]] = {}

        def ratio(count: int) -> float:
            if count not in candidates:
                model, dropped = copy_model(self.dense), spread(self._blocks, count)
                for name in dropped:
                    drop_block(model, name)
                candidates[count] = model, dropped, self._counted(model) / self.dense_macs
            return candidates[count][2]

        first, last = 1, len(self._blocks) - 1
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (middle, last) if ratio(middle) > share else (first, middle)
        best = min((first, last), key=lambda count: abs(ratio(count) - share))
        return candidates[best][:2]

    def _width(self, ratio: float, round_to: int) -> tuple[nn.Module, dict[str, int]]:
        """Returns the model that `channel_prune` makes for this share of the multiply-adds, and its widths."""
        config = ChannelPrune(macs_ratio=ratio, macs_tolerance=SAME_MACS, round_to=round_to, importance="l1")
        context = StageContext(
            dense=self.dense,
            dense_macs=self.dense_macs,
            count_macs=self._counted,
            device=self.device,
            seed=0,
            console=self.console,
        )
        scores = even_scores(self._groups)
        plan = search_ratio(self.dense, self._groups, self.model.kinds, config, context, scores)
        model = copy_model(self.dense)
        cut(model, choose(plan, scores))
        return model, {entry.group.name: entry.kept for entry in plan if entry.kind in self.model.kinds}

    def _counted(self, model: nn.Module) -> int:
        macs = count_macs(model, self.one_example)
        check_attention(macs, self.model)
        return macs.total


def check_attention(macs: Macs, model: BenchModel) -> None:
    """Raises UserError where the model has attention whose multiply-adds are not counted."""
    products = macs.by_operator.get(ATTENTION, 0) + macs.by_operator.get("matmul", 0)
    if model.has_attention and not products:
        raise UserError(f"{model.zoo}: attention is not among the counted operators: {', '.join(macs.by_operator)}")


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Moves a model to a device with all tensors that its modules hold, buffers or not, and returns it.

    VideoMAE holds its positions as a plain tensor. If they stayed on the CPU, every call would copy them to the device,
    which takes time and cannot be recorded as a CUDA graph.
    """
    model.to(device)
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                setattr(module, name, value.to(device))
    return model


def spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Returns `count` of the names, evenly spread over them."""
    return tuple(names[int((place + 0.5) * len(names) / count)] for place in range(count))


def _videomae(width: int, heads: int) -> dict[str, Any]:
    return {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads, "num_hidden_layers": 12}


_CHUNK = {"image_size": 160, "num_frames": 16}

_SMALL_CHUNK = {"image_size": 32, "num_frames": 4}

MODELS: dict[str, BenchModel] = {
    "videomae_s": BenchModel("transformers/videomae", BATCHES["videomae_s"], _videomae(384, 6) | _CHUNK, _SMALL_CHUNK),
    "vit_b_16": BenchModel("timm/vit_base_patch16_224", BATCHES["vit_b_16"], twin={"img_size": 32}),
    "deit_s_16": BenchModel("timm/deit_small_patch16_224", BATCHES["deit_s_16"], twin={"img_size": 32}),
    "resnet50": BenchModel("timm/resnet50", BATCHES["resnet50"], twin_size=64, kinds=("conv",)),
    "videomae_b": BenchModel("transformers/videomae", BATCHES["videomae_b"], _videomae(768, 12) | _CHUNK, _SMALL_CHUNK),
}


_TINY = next(iter(TINY_BATCHES.values()))


def tiny(model: BenchModel) -> BenchModel:
    """Returns a model of the same kind that runs on a CPU in milliseconds, for rehearsals and tests."""
    if model.zoo.startswith("transformers/"):
        small = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 3}
        return replace(model, arguments=small | {"image_size": 32, "num_frames": 4}, twin={}, batches=_TINY)
    if model.has_attention:
        small = {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 32, "num_classes": 10}
        return replace(model, arguments=small, twin={}, batches=_TINY)
    return replace(model, zoo="timm/resnet18", size=32, twin_size=32, batches=_TINY)
