"""Defines the settings of the stage `va_red`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from toolkit.base.settings import Positive, Ratio, refuse_changed, refuse_twice
from toolkit.stages.contract import Axis, Earlier, StageFault, StageSettings, useless_macs_ratio
from toolkit.stages.detail import DetailClass
from toolkit.stages.va_red.detail import VaRedDetail
from toolkit.tasks.contract import TaskCard, TaskCosts

_OF_POLICY = [
    *("estimator", "temperature", "efficiency_weight", "correct_only", "pooling", "hidden", "max_steps"),
    *("validate_every", "batch_size", "learning_rate", "weight_decay", "warmup_steps", "alignment_weight"),
]


class VaRed(StageSettings):
    """Makes convolutions compute only some time steps and channels and rebuild the rest, after VA-RED^2 (ICLR 2021).

    scope: `input` (the default) gives each layer a gate that chooses an option for each input, and trains gates, maps
        and weights together; `constant` chooses one option per layer for `macs_ratio`, without training.
    macs_ratio: share of the unmodified model's multiply-adds that constant options may take at the most; null by
        default, required for `scope: constant` and refused for `scope: input`.
    steps: temporal strides that layers with a time axis offer; [1, 2, 4] by default. Every R-th step is computed.
    channels: shares of the output channels that layers offer to compute; [1.0, 0.5, 0.25] by default.
    channel_choice: which channels are computed: `explained` (the default) takes those that explain the others best, by
        greedy least squares; `first` takes the first ones, as the paper does.
    channel_map: what rebuilds the other channels: `pointwise`, a 1 x 1 convolution of all computed channels;
        `depthwise`, a scaled copy of one of them; `auto` (the default) takes pointwise maps where these cost at most
        half of what they save.
    include, exclude: patterns for names of convolutions that may become dynamic or not: a name, a shell pattern, or a
        regular expression after `re:`; all may by default.
    estimator: how the choice is trained: `soft_modulation` (the default, as in the paper) mixes the options by their
        scores; `gumbel` draws one option with Gumbel noise and passes the gradient straight through.
    temperature: of the Gumbel softmax; 1.0 by default.
    efficiency_weight: weight of the squared share of the multiply-adds that the dynamic layers take; 0.8 by default.
    correct_only: whether only examples that the model gets right are pressed to be cheap; true by default.
    pooling: what a gate reads of its layer's input: `average`, the mean of each channel (the paper);
        `average_and_change` (the default) adds the mean absolute change between neighbouring time steps.
    hidden: width of a gate's hidden layer; 16 by default.
    max_steps: number of training steps; 300 by default.
    validate_every: steps between validations; 50 by default. The weights of the last step are kept.
    batch_size: examples per step; 16 by default.
    learning_rate: highest learning rate, reached after warm-up; 5e-4 by default.
    weight_decay: weight decay of AdamW; 0.05 by default.
    warmup_steps: steps of linear warm-up before the cosine decay of the learning rate; 20 by default.
    alignment_weight: weight of the distance between the predictions of the model and of the unmodified one; 0 by
        default, as in the paper.
    batch_norm: `reestimate` (the default) estimates running statistics again on calibration data, with the options
        that the layers take; `keep` leaves them.
    allow_no_change: whether a stage that changes nothing is accepted; false (the default) makes it an error.
    """

    axis: ClassVar[Axis | None] = "dynamic"
    detail: ClassVar[DetailClass] = VaRedDetail
    if_slower: ClassVar[str] = "fewer options, or options of time alone (channels: [1.0]), may serve better"

    type: Literal["va_red"] = "va_red"
    scope: Literal["input", "constant"] = "input"
    macs_ratio: Ratio | None = None
    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, strict=False)] = (1, 2, 4)
    channels: Annotated[tuple[Ratio, ...], Field(min_length=1, strict=False)] = (1.0, 0.5, 0.25)
    channel_choice: Literal["explained", "first"] = "explained"
    channel_map: Literal["auto", "pointwise", "depthwise"] = "auto"
    include: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("*",)
    exclude: Annotated[tuple[str, ...], Field(strict=False)] = ()
    estimator: Literal["soft_modulation", "gumbel"] = "soft_modulation"
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    efficiency_weight: Annotated[float, Field(ge=0.0)] = 0.8
    correct_only: bool = True
    pooling: Literal["average", "average_and_change"] = "average_and_change"
    hidden: Annotated[int, Field(ge=1, le=4096)] = 16
    max_steps: Positive = 300
    validate_every: Positive = 50
    batch_size: Positive = 16
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    alignment_weight: Annotated[float, Field(ge=0.0)] = 0.0
    batch_norm: Literal["reestimate", "keep"] = "reestimate"
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _target_of_scope(self) -> VaRed:
        if self.scope == "constant":
            if self.macs_ratio is None:
                raise ValueError("scope: constant needs macs_ratio, the share of multiply-adds to reach")
            refuse_changed(self, _OF_POLICY, "only with scope: input, which trains a policy")
        elif self.macs_ratio is not None:
            raise ValueError(
                "macs_ratio is for scope: constant; with scope: input, efficiency_weight presses down multiply-adds"
            )
        return self

    @model_validator(mode="after")
    def _options(self) -> VaRed:
        for name, values in (("steps", self.steps), ("channels", self.channels)):
            refuse_twice(name, values)
        if 1 not in self.steps or 1.0 not in self.channels:
            raise ValueError(
                "steps must have 1 and channels 1.0 among them: a layer must be able to compute everything"
            )
        if len(self.steps) == 1 and len(self.channels) == 1:
            raise ValueError("steps [1] and channels [1.0] leave nothing to choose")
        if list(self.steps) != sorted(self.steps) or list(self.channels) != sorted(self.channels, reverse=True):
            raise ValueError("steps must rise and channels fall, from everything to the least")
        if self.temperature != 1.0 and self.estimator != "gumbel":
            raise ValueError("temperature: only with estimator: gumbel")
        return self

    @property
    def target_macs_ratio(self) -> float | None:
        """Returns the share of the unmodified multiply-adds to reach, or None with gates."""
        return self.macs_ratio

    @property
    def trains(self) -> bool:
        """Returns whether a policy is trained."""
        return self.scope == "input"

    def in_words(self) -> str:
        """Returns the options and how they are chosen in one phrase."""
        steps = ", ".join(map(str, self.steps))
        channels = ", ".join(f"{ratio:g}" for ratio in self.channels)
        options = f"convolutions compute every {steps} time steps and {channels} of their channels"
        if self.scope == "constant":
            return f"{options}, one option per layer for at most {self.macs_ratio:g} of the multiply-adds"
        return (
            f"{options}, chosen for each input by gates that are trained for {self.max_steps} steps "
            f"({self.estimator}, efficiency × {self.efficiency_weight:g})"
        )

    def faults(self, card: TaskCard | None, earlier: Earlier) -> Iterator[StageFault]:
        """Yields a fault if the share of multiply-adds is already reached when the stage begins."""
        if not self.allow_no_change:
            yield from useless_macs_ratio(self.macs_ratio, earlier)

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        """Returns the seconds of the fits, and of the table of options or the training."""
        if self.scope == "constant":
            return 3 * costs.prune_s
        return costs.prune_s + 2 * costs.training_s(self.max_steps, self.validate_every)
