"""Defines the base of what stages write into the record, and how trainings are recorded. Nothing here imports torch.

Unknown keys are kept, because records may come from an older or a newer version.
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
