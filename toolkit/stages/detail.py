"""Defines what stages write into the record, and the views of it that reports draw. Nothing here imports torch.

A detail is plain JSON and enough to repeat the step without choosing again. Unknown keys are kept, because records may
come from an older or a newer version.
"""

from __future__ import annotations

from pydantic import Field

from toolkit.stages.recorded import Recorded, TrainingDetail


class Change(Recorded):
    """Holds a number before and after a change."""

    before: float
    after: float


class RepairDamping(Recorded):
    """Says how strongly a least-squares fit was pulled towards the old weights.

    share: damping as a share of the energy of a layer's inputs.
    of: the energy meant: each input's "own", or the "mean" or "largest" of all inputs.
    """

    share: float
    of: str


class RepairErrors(Recorded):
    """Holds the relative squared errors of a layer's output before and after its least-squares repair; 0 is no error.

    damping: damping with the lowest held-out error; None if the weights stayed, and in older records.
    stayed: whether every fit made an error larger, so that the old weights were kept.
    """

    layer: str
    calibration_error: Change | None = None
    holdout_error: Change | None = None
    damping: RepairDamping | None = None
    stayed: bool = False


class Round(Recorded):
    """Holds one round of choosing what to remove.

    scores: score of every remaining candidate, removed alone.
    all_dropped: everything that was removed; where it is empty, only the best candidate, `dropped`, was removed.
    """

    scores: dict[str, float | None]
    dropped: str
    all_dropped: tuple[str, ...] = ()

    @property
    def gone(self) -> tuple[str, ...]:
        """Returns everything that was removed in this round, `dropped` first."""
        return self.all_dropped or (self.dropped,)


class BlockScores(Recorded):
    """Holds how blocks were chosen, round by round; `criterion_words` says what a score is."""

    criterion_words: str
    higher_is_better: bool
    blocks: tuple[str, ...]
    rounds: tuple[Round, ...]

    @property
    def gone(self) -> tuple[str, ...]:
        """Returns all removed blocks in the order of their removal."""
        return tuple(block for turn in self.rounds for block in turn.gone)


class GroupWidth(Recorded):
    """Holds the width of a group: in the unmodified model, before the stage, asked for (unrounded), and kept."""

    name: str
    kind: str
    original: int
    kept: int
    before: int | None = None
    asked: float | None = None


class CutGroup(GroupWidth):
    """Holds a cut group with the channels that were kept.

    indices: kept channels, numbered as before the stage. channel_prune numbers them at the group's last reader,
        torch_pruning at the outputs of the layer that it names.
    """

    indices: tuple[int, ...] = ()


class Target(Recorded):
    """Holds the share of the unmodified model that was asked for, and the one that was reached, where it is known."""

    asked: float | None = None
    achieved: float | None


class KeptChannels(Recorded):
    """Holds which channels were kept; `kind_words` names each kind of channel."""

    importance: str
    groups: tuple[GroupWidth, ...]
    kind_words: dict[str, str]


class DynamicLayer(Recorded):
    """Holds what became of a convolution.

    steps: the temporal strides that it offers, or the one that it has.
    channels: the numbers of computed channels that it offers, or the one that it has.
    of: the number of output channels.
    rebuilt_by: the map that rebuilds the channels that are not computed.
    channel_errors, step_errors: squared error of the fitted maps on calibration data as a share of the variance of what
        they rebuild, by number of computed channels and by stride.
    macs: the multiply-adds of each option, "R x k", for one example, without the gate's.
    shares: the share of the calibration examples for which the gate takes each option, the same keys; empty without a
        gate.
    """

    name: str
    steps: tuple[int, ...]
    channels: tuple[int, ...]
    of: int
    rebuilt_by: str
    channel_errors: dict[str, float] = Field(default_factory=dict)
    step_errors: dict[str, float] = Field(default_factory=dict)
    macs: dict[str, int] = Field(default_factory=dict)
    shares: dict[str, float] = Field(default_factory=dict)


class StageDetail(Recorded):
    """Is the base of what a stage writes into the record; reports ask it for views."""

    def block_scores(self) -> BlockScores | None:
        """Returns how blocks were chosen, if the stage chose any."""
        return None

    def kept_channels(self) -> KeptChannels | None:
        """Returns which channels were kept, if the stage cut any."""
        return None

    def repair_errors(self) -> list[tuple[str, RepairErrors]]:
        """Returns (label, errors) of the repairs in the order in which they were made."""
        return []

    def dynamic_layers(self) -> tuple[DynamicLayer, ...]:
        """Returns the layers that compute only a part of their output."""
        return ()

    def training(self) -> TrainingDetail | None:
        """Returns how the training of the stage went, if the stage trains as a whole."""
        return None

    def kept_as_it_came(self) -> bool:
        """Says whether the stage chose to return the very model that it was given."""
        training = self.training()
        return training is not None and training.kept_step == 0

    def has_view(self) -> bool:
        """Says whether reports can draw something of this detail."""
        views = (self.block_scores(), self.kept_channels(), self.training())
        return bool(self.repair_errors() or self.dynamic_layers()) or any(view is not None for view in views)


DetailClass = type[StageDetail]
