"""Defines what stages write into the record, and the views of it that reports draw. Nothing here imports torch.

A detail is plain JSON and enough to repeat the step without choosing again. Unknown keys are kept, because records may
come from an older or a newer version.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

FEW_EXAMPLES: Final = 100  # with fewer, and without an interval, a difference is called uncertain

TEACHER_ONLY: Final = (
    "the inputs are made up and have no labels, so that the training only distils the unmodified model: the figures "
    "say how well the model imitates it, not how good it is at its work"
)


class Recorded(BaseModel):
    """Is the base of details and their parts."""

    model_config = ConfigDict(frozen=True, extra="allow")


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
    stayed: whether no fit helped, so that the old weights were kept.
    """

    layer: str
    calibration_error: Change | None = None
    holdout_error: Change | None = None
    damping: RepairDamping | None = None
    stayed: bool = False


class CurvePoint(Recorded):
    """Holds one validation of a training: the mean training loss since the last one, and the task's metric."""

    step: int
    loss: float | None = None
    validation: float | None = None


class StartPoint(Recorded):
    """Holds the quality of the model on validation data before the first training step.

    margin: half of the 95 % interval of `validation`, or None if the task gives no interval.
    """

    validation: float
    num_examples: int
    margin: float | None = None

    def noise_words(self, difference: float) -> str:
        """Returns a phrase that says how certain a difference of this size is with this number of examples."""
        if self.margin is not None and abs(difference) < self.margin:
            return (
                f"; the 95 % interval of one such figure on {self.num_examples} examples is ±{self.margin:.4f}, "
                "so that the difference may be chance"
            )
        if self.margin is None and self.num_examples < FEW_EXAMPLES:
            return f"; {self.num_examples} examples are few, so that a small difference may be chance"
        return f" ({self.num_examples} examples)"


class TrainingDetail(Recorded):
    """Holds how a training went.

    stopped: "max_steps", "patience" or "broken".
    kept_step: step whose weights were kept; 0 is the model before the training.
    start: quality before the training; None in older records.
    select: which weights were to be kept, the "best" or the "last".
    metric: name of the validation metric.
    failure: what broke the training.
    teacher_only: whether the task has no labels, so that the training could only distil.
    """

    steps: int
    stopped: str
    kept_step: int | None = None
    curve: tuple[CurvePoint, ...]
    start: StartPoint | None = None
    select: str | None = None
    metric: str | None = None
    failure: str | None = None
    teacher_only: bool | None = None

    def outcome(self) -> str | None:
        """Returns in one sentence which weights were kept and why, or None for older records."""
        if self.start is None:
            return None
        validations = {point.step: point.validation for point in self.curve if point.validation is not None}
        words = self._as_it_came(validations) if self.kept_step == 0 else self._trained(validations)
        return f"{words}; {TEACHER_ONLY}" if self.teacher_only else words

    def _as_it_came(self, validations: dict[int, float]) -> str:
        assert self.start is not None
        came = f"{self.metric} {self.start.validation:.4f} on validation as it came"
        broken = f"after {self.steps} steps the training broke down ({self.failure})" if self.failure else ""
        if not validations:
            return f"kept the model as it came: {broken}; a lower learning_rate may help"
        best = max(validations.values())
        noise = self.start.noise_words(best - self.start.validation)
        trained = f"{best:.4f} at best in {self.steps} steps of training{noise}"
        return f"kept the model as it came: {came}, {trained}{f'; {broken}' if broken else ''}"

    def _trained(self, validations: dict[int, float]) -> str:
        assert self.start is not None
        value = validations.get(self.kept_step or 0, self.start.validation)
        difference = value - self.start.validation
        which = (
            "the last weights, as select: last says"
            if self.select == "last"
            else f"the weights of step {self.kept_step}"
        )
        verdict = ": the training made it worse" if difference < 0 else ""
        figures = f"{self.metric} {value:.4f} on validation, {self.start.validation:.4f} as the model came{verdict}"
        broken = f"; after {self.steps} steps the training broke down ({self.failure})" if self.failure else ""
        return f"kept {which}: {figures}{self.start.noise_words(difference)}{broken}"


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
        return bool(self.repair_errors()) or any(view is not None for view in views)


DetailClass = type[StageDetail]
