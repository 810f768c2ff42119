"""Holds the gate of a dynamic convolution, after VA-RED^2 (Pan et al., ICLR 2021, arXiv 2102.07887)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.stand_ins.dynamic_arguments import GateArguments

START = 0.05  # the score of every option but the full one in a new gate, which has about 0.76


class Gate(nn.Module):
    """Scores the options of a layer by its input: pooling, linear layer, BatchNorm, tanh, linear layer, tanh, ReLU.

    The scores of a new gate hardly depend on the input, and are highest for the full computation.
    """

    def __init__(
        self, arguments: GateArguments, inputs: int, numbers: tuple[int, int], device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.pooling, self.numbers = arguments.pooling, numbers
        pooled = inputs * (2 if arguments.pooling == "average_and_change" else 1)
        self.hidden = nn.Linear(pooled, arguments.hidden, bias=False, device=device, dtype=dtype)
        self.norm = nn.BatchNorm1d(arguments.hidden, device=device, dtype=dtype)
        self.scores = nn.Linear(arguments.hidden, sum(numbers), device=device, dtype=dtype)
        with torch.no_grad():
            self.scores.weight.mul_(0.1)
            self.scores.bias.fill_(START)
            for first in (0, numbers[0]):
                self.scores.bias[first] = 1.0

    @property
    def macs(self) -> int:
        """Returns the multiply-adds for one example; pooling is not counted, as in every model."""
        return self.hidden.weight.numel() + self.scores.weight.numel()

    def forward(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scores, 0 or more, of the temporal strides and of the numbers of channels: [B, options] each."""
        pooled = stream.flatten(2).mean(2)
        if self.pooling == "average_and_change":
            change = stream.diff(dim=2) if stream.dim() != 4 and stream.shape[2] > 1 else torch.zeros_like(stream)
            pooled = torch.cat([pooled, change.abs().flatten(2).mean(2)], 1)
        hidden = torch.tanh(self.norm(self.hidden(pooled)))
        scores = torch.relu(torch.tanh(self.scores(hidden)))
        return scores[:, : self.numbers[0]], scores[:, self.numbers[0] :]
