"""What the stage `reinitialise` leaves in the record. Nothing here imports torch."""

from __future__ import annotations

from toolkit.stages.detail import StageDetail


class ReinitialiseDetail(StageDetail):
    """`reinitialised`: the number of tensors that were drawn anew."""

    reinitialised: int
