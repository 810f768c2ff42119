"""Lists the stages that a recipe can name, with their settings. Nothing here imports torch.

Every ratio refers to the **unmodified** model, so its meaning does not depend on the position of a stage.
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.contract import StageSettings
from toolkit.stages.recover.settings import Recover
from toolkit.stages.reinitialise.settings import Reinitialise
from toolkit.stages.torch_pruning.settings import TorchPruning
from toolkit.stages.va_red.settings import VaRed

Stage = Annotated[
    BlockDrop | ChannelPrune | Recover | Align | Reinitialise | TorchPruning | VaRed, Field(discriminator="type")
]

STAGE_SETTINGS: dict[str, type[StageSettings]] = {
    stage.model_fields["type"].default: stage for stage in get_args(get_args(Stage)[0])
}
