"""Defines the settings of the stage `torch_pruning`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from toolkit.base.settings import Positive, Ratio
from toolkit.base.words import setting
from toolkit.stages.contract import Axis, Earlier, StageFault, StageSettings, useless_macs_ratio
from toolkit.stages.detail import DetailClass
from toolkit.stages.torch_pruning.detail import TorchPruningDetail
from toolkit.tasks.contract import TaskCard, TaskCosts


class TorchPruning(StageSettings):
    """Cuts channels as torch-pruning does (DepGraph, Fang et al., CVPR 2023), without repair of weights (a control).

    Its tracer finds which channels depend on each other, its importance ranks them, and its pruner cuts them, residual
    streams included. The common pruning ratio is searched that reaches `macs_ratio`. The result must pass the same
    proof as every cut: what torch-pruning gets wrong is refused.

    macs_ratio: share of the unmodified model's multiply-adds to reach, above 0 and at most 1.
    macs_tolerance: largest miss of `macs_ratio`, as an absolute difference; 0.02 by default. A larger miss is an error.
    importance: how channels are ranked: L1 or L2 norm of all weights of a group (`group_l1`, `group_l2`, the default),
        first-order Taylor expansion of the loss on calibration data (`group_taylor`; Molchanov et al., CVPR 2019),
        BatchNorm scale (`bn_scale`; Liu et al., ICCV 2017; only groups with a BatchNorm are cut), or `random`.
    global_pruning: whether the worst channels of all groups are cut instead of the same share of every group; false by
        default.
    round_to: widths are rounded down to a multiple of this number; 8 by default, lower where the target is missed. A
        group that would lose all its channels is not cut.
    batch_norm: `reestimate` (the default) estimates running statistics again on calibration data after the cut; `keep`
        does not.
    exclude: patterns for names of layers whose outputs are not cut: a name, a shell pattern, or a regular expression
        after `re:`; empty by default. A model that torch-pruning cannot cut may need it, such as one that pads its
        shortcuts.
    allow_no_change: whether a stage that changes nothing is accepted; false (the default) makes it an error.
    """

    axis: ClassVar[Axis | None] = "width"
    detail: ClassVar[DetailClass] = TorchPruningDetail
    if_slower: ClassVar[str] = (
        "a larger round_to, or channel_prune, which leaves residual streams alone, may serve better"
    )

    type: Literal["torch_pruning"] = "torch_pruning"
    macs_ratio: Ratio
    macs_tolerance: Ratio = 0.02
    importance: Literal["group_l1", "group_l2", "group_taylor", "bn_scale", "random"] = "group_l2"
    global_pruning: bool = False
    round_to: Positive = 8
    batch_norm: Literal["reestimate", "keep"] = "reestimate"
    exclude: Annotated[tuple[str, ...], Field(strict=False)] = ()
    allow_no_change: bool = False

    @property
    def target_macs_ratio(self) -> float | None:
        """Returns `macs_ratio`."""
        return self.macs_ratio

    def in_words(self) -> str:
        """Returns the target and the ranking in one phrase."""
        ranked = "the worst channels of all groups" if self.global_pruning else "the same share of every group"
        how = f"importance: {self.importance}; widths are rounded down to a multiple of {self.round_to}"
        target = f"down to {setting(self.macs_ratio)} of the dense MACs (multiply-adds)"
        return f"makes layers narrower with torch-pruning's own pruner (a control): {ranked}, {target} ({how})"

    def faults(self, card: TaskCard | None, earlier: Earlier) -> Iterator[StageFault]:
        """Yields a fault if the target is already reached when the stage begins."""
        if not self.allow_no_change:
            yield from useless_macs_ratio(self.macs_ratio, earlier)

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        """Returns the seconds that the task gives for one cut."""
        return costs.prune_s
