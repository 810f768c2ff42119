"""Settings of the stage `reinitialise`. Nothing here imports torch."""

from __future__ import annotations

from typing import Literal

from toolkit.base.settings import Config


class Reinitialise(Config):
    """A control: the architecture that is left, with new random weights, as if it had been built so.

    What `recover` then makes of it, with `alignment_weight: 0`, is a plain smaller model trained from scratch. Only
    after block drops: for layers of other shapes the task does not say how their weights are drawn.
    """

    type: Literal["reinitialise"] = "reinitialise"
    allow_no_change: bool = False
