"""Maps the `type` of a stage in a recipe to the function that applies the stage."""

from __future__ import annotations

from typing import Any

from toolkit.stages.align.apply import apply_align
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.context import Apply
from toolkit.stages.detail import StageDetail
from toolkit.stages.recover.apply import apply_recover
from toolkit.stages.reinitialise.apply import apply_reinitialise
from toolkit.stages.torch_pruning.apply import apply_torch_pruning
from toolkit.stages.va_red.apply import apply_va_red

STAGES: dict[str, Apply[Any, StageDetail]] = {
    "block_drop": apply_block_drop,
    "channel_prune": apply_channel_prune,
    "recover": apply_recover,
    "align": apply_align,
    "reinitialise": apply_reinitialise,
    "torch_pruning": apply_torch_pruning,
    "va_red": apply_va_red,
}
