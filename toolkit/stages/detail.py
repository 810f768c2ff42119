"""What stages leave in the record, as types, and the views of it that reports draw. Nothing here imports torch.

A detail is plain JSON and enough to redo the step without choosing again. Keys that a class here does not know are
kept: records may come from an older or a newer version.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Recorded(BaseModel):
    """Base of details and their parts."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Change(Recorded):
    """A figure before and after something was done."""

    before: float
    after: float


class RepairDamping(Recorded):
    """How strongly a fit was pulled towards the old weights: `share` of the energy of a layer's inputs.

    of: whose energy: every input's "own", or the "mean" or the "largest" of all inputs.
    """

    share: float
    of: str


class RepairErrors(Recorded):
    """Relative squared errors of a layer's output, before and after its least-squares repair; 0 is no error.

    damping: the one that was chosen by the held-out error; None where the weights stayed, and in older records.
    stayed: whether no fit helped, so that the weights are the old ones.
    """

    layer: str
    calibration_error: Change | None = None
    holdout_error: Change | None = None
    damping: RepairDamping | None = None
    stayed: bool = False


class CurvePoint(Recorded):
    """A moment of a training: `loss` is the mean since the point before, `validation` the task's metric."""

    step: int
    loss: float | None = None
    validation: float | None = None


class TrainingDetail(Recorded):
    """How a training went. `stopped` is "max_steps" or "patience"; the weights of `kept_step` were kept."""

    steps: int
    stopped: str
    kept_step: int | None = None
    curve: tuple[CurvePoint, ...]


class Round(Recorded):
    """One round of choosing what to remove. `scores`: of every candidate that was left, removed alone.

    `all_dropped`: what went, several where all are chosen at once.
    """

    scores: dict[str, float | None]
    dropped: str
    all_dropped: tuple[str, ...] = ()

    @property
    def gone(self) -> tuple[str, ...]:
        """All that went in this round; `dropped` is the first of them."""
        return self.all_dropped or (self.dropped,)


class BlockScores(Recorded):
    """How blocks were chosen, round by round. `criterion_words` says what a score is."""

    criterion_words: str
    higher_is_better: bool
    blocks: tuple[str, ...]
    rounds: tuple[Round, ...]

    @property
    def gone(self) -> tuple[str, ...]:
        """All that went, in this order."""
        return tuple(block for turn in self.rounds for block in turn.gone)


class GroupWidth(Recorded):
    """Channels that are cut together: widths of the unmodified model, before the stage, as asked for, and kept."""

    name: str
    kind: str
    original: int
    kept: int
    before: int | None = None
    asked: float | None = None


class CutGroup(GroupWidth):
    """`indices`: the channels that were kept, numbered as before the stage, at the layer that the stage counts them at.

    channel_prune counts them at the group's last reader, torch_pruning at the outputs of the layer that it names.
    """

    indices: tuple[int, ...] = ()


class Target(Recorded):
    """A share of the unmodified model's that was asked for, and what came of it; None where it cannot be counted."""

    asked: float | None = None
    achieved: float | None


class KeptChannels(Recorded):
    """Which channels were kept. `kind_words` says in words what each kind of channel is."""

    importance: str
    groups: tuple[GroupWidth, ...]
    kind_words: dict[str, str]


class StageDetail(Recorded):
    """Base of what a stage leaves in the record. Reports ask it for views; a stage answers those that it has."""

    def block_scores(self) -> BlockScores | None:
        """Returns how blocks were chosen, if the stage chose any."""
        return None

    def kept_channels(self) -> KeptChannels | None:
        """Returns which channels were kept, if the stage cut any."""
        return None

    def repair_errors(self) -> list[tuple[str, RepairErrors]]:
        """Returns (label, errors) of the repairs in the order in which they were made."""
        return []

    def training(self) -> TrainingDetail | None:
        """Returns how the training of the stage went, if the stage trains as a whole."""
        return None

    def has_view(self) -> bool:
        """Returns whether reports can draw something of this detail."""
        views = (self.block_scores(), self.kept_channels(), self.training())
        return bool(self.repair_errors()) or any(view is not None for view in views)


DetailClass = type[StageDetail]
