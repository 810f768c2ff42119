"""Trains gates, maps and weights together: the mixture of options in training, and the loss that presses on cost.

    loss = task loss + efficiency_weight * mean over examples of mu * (sum of costs / sum of full costs)^2

The sums are over the dynamic layers, the cost of a layer is the mean over its options by their weights, and mu is 1 for
examples that the model gets right and 0 for others. Source: VA-RED^2 (Pan et al., ICLR 2021, arXiv 2102.07887).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.base.errors import StageError
from toolkit.hooks.held import attributes_kept
from toolkit.hooks.tensors import usable_in_training
from toolkit.repair.batch_norm import batch_norms
from toolkit.stages.va_red.settings import VaRed
from toolkit.stand_ins.decisions import controlled, gated_layers
from toolkit.stand_ins.dynamic_conv import DynamicConv
from toolkit.tasks.task import AlignmentOptions, Batch, Task, TellsCorrect

SMALL = 1e-6  # is added to every score, so that the weights sum to 1 even where all scores are 0


@dataclass
class Mixture:
    """Mixes the options of a layer by weights that a gate gives, and sums up what they cost.

    estimator, temperature: as in the settings of the stage.
    costs: for each layer its cost for each example, [B], with its gradient.
    full: for each layer the cost of computing everything, for one example.
    """

    estimator: str
    temperature: float
    costs: list[Tensor] = field(default_factory=list)
    full: list[int] = field(default_factory=list)

    def __call__(self, layer: DynamicConv, stream: Tensor) -> Tensor:
        """Returns the mean of the outputs of all options, each of which is a sub-sample of one full output."""
        assert layer.gate is not None
        step_scores, channel_scores = layer.gate(stream)
        steps, channels = self._weights(step_scores), self._weights(channel_scores)
        full = layer.convolve(stream, layer.arguments.width, 1)
        parts = [layer.sample(full, part) for part in range(len(layer.arguments.channels))]
        mixed = _weighted(parts, channels)
        output = _weighted([layer.sample_steps(mixed, step) for step in range(len(layer.arguments.steps))], steps)
        of_option = layer.option_macs(stream.shape)
        table = torch.tensor(
            [[float(of_option[step, part]) for part in range(channels.shape[1])] for step in range(steps.shape[1])],
            device=stream.device,
        )
        self.costs.append(torch.einsum("bs,bc,sc->b", steps.float(), channels.float(), table) + layer.gate.macs)
        self.full.append(of_option[0, 0])
        return output

    def _weights(self, scores: Tensor) -> Tensor:
        """Returns the weights of the options [B, options], which sum to 1."""
        if self.estimator == "gumbel":
            return F.gumbel_softmax((scores + SMALL).log(), tau=self.temperature, hard=True, dim=1)
        positive = scores + SMALL
        return positive / positive.sum(1, keepdim=True)

    def share(self) -> Tensor:
        """Returns for each example the cost of all layers as a share of computing everything: [B]."""
        return torch.stack(self.costs).sum(0) / sum(self.full)


def _weighted(parts: list[Tensor], weights: Tensor) -> Tensor:
    shape = (-1, *(1,) * (parts[0].dim() - 1))
    total = weights[:, 0].reshape(shape) * parts[0]
    for at, part in enumerate(parts[1:], 1):
        total = total + weights[:, at].reshape(shape) * part
    return total


def _hold_norms(model: nn.Module) -> None:
    """Puts every BatchNorm outside of gates into eval mode: mixed outputs have other statistics than chosen ones."""
    of_gates = {id(part) for layer in gated_layers(model).values() if layer.gate for part in layer.gate.modules()}
    for norm in batch_norms(model).values():
        if id(norm) not in of_gates:
            norm.eval()


def policy_loss(task: Task, config: VaRed, dense: nn.Module) -> Callable[[nn.Module, Batch], Tensor]:
    """Returns the loss of a model on a batch; every call runs the model with mixed options.

    Raises:
        StageError: only right examples are to be pressed, and the task cannot tell which these are.
    """
    if config.correct_only and not isinstance(task, TellsCorrect):
        raise StageError(
            f"task {task.name!r} has no method `correct`, which tells the examples that the model gets right; set "
            "correct_only: false, or give the task this method"
        )

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        mixture = Mixture(config.estimator, config.temperature)
        _hold_norms(model)
        with controlled(gated_layers(model), lambda _: mixture):
            outputs = model(*batch.inputs)
        total = task.loss(outputs, batch.targets)
        pressed = mixture.share().square()
        if config.correct_only:
            assert isinstance(task, TellsCorrect)
            with torch.no_grad():
                right = task.correct(outputs, batch.targets).to(pressed)
            pressed = pressed * right
        total = total + config.efficiency_weight * pressed.mean()
        if config.alignment_weight:
            with torch.no_grad(), attributes_kept(dense):
                teacher = usable_in_training(dense(*batch.inputs))
            terms = task.alignment(outputs, teacher, batch.targets, AlignmentOptions())
            total = total + config.alignment_weight * torch.stack(list(terms.values())).sum()
        return total

    return loss
