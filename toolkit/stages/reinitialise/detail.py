"""Defines what the stage `reinitialise` writes into the record. Nothing here imports torch."""

from __future__ import annotations

from toolkit.stages.detail import StageDetail


class ReinitialiseDetail(StageDetail):
    """Holds the number of tensors that were drawn anew."""

    reinitialised: int
