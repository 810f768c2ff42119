"""A task of seconds: the real detector family, tiny, on made-up signals whose level names the class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.record import Quality, Segment, Timeline
from toolkit.task import Batch, Split
from toolkit.tasks.tad.model import Block

SEEDS: dict[str, int] = {"score": 1, "calibration": 2, "holdout": 3, "validation": 4, "test": 5}
TOKENS, CHANNELS, DIM, CLASSES = 12, 5, 16, 3


class TinyNet(nn.Module):
    """[B, TOKENS, CHANNELS] -> logits [B, TOKENS, CLASSES]; blocks of two heads, 8 wide, with 32 hidden units."""

    def __init__(self, num_blocks: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(CHANNELS, DIM)
        self.blocks = nn.ModuleList(Block(DIM, 2, 32) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class TinyTask:
    """A fixed random teacher network labels random signals; the baseline is trained for a moment."""

    name = "tiny"
    metric = "accuracy"
    protected = ("embed", "head")

    def __init__(self, train_steps: int = 60) -> None:
        self._weights = self._train(train_steps)

    def build_model(self) -> nn.Module:
        return TinyNet()

    def load_baseline(self) -> nn.Module:
        model = self.build_model()
        model.load_state_dict(self._weights)
        return model.eval()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        return (torch.linspace(-2, 2, batch_size * TOKENS * CHANNELS).reshape(batch_size, TOKENS, CHANNELS),)

    def batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        yield from (self._batch(batch_size, SEEDS[split] * 100 + index) for index in range(3))

    def train_batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        index = 0
        while True:
            index += 1
            yield self._batch(batch_size, (seed + 7) * 100_000 + index)

    def _batch(self, batch_size: int, seed: int) -> Batch:
        signals = torch.randn(batch_size, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(seed))
        smooth = signals.cumsum(1) / 2
        return Batch((signals,), (smooth[..., 0] > 0).long() + (smooth[..., 1] > 0.5).long())

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def alignment(self, student: Any, teacher: Any) -> Tensor:
        return nn.functional.kl_div(
            student.log_softmax(-1).flatten(0, 1), teacher.softmax(-1).flatten(0, 1), reduction="batchmean"
        )

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split) -> Quality:
        hits = [(model(*b.inputs).argmax(-1) == b.targets).float().mean() for b in self.batches(split, 32)]
        value = float(torch.stack(hits).mean())
        return Quality(metric=self.metric, split=split, value=value, num_examples=96)

    def timeline(self, model: nn.Module) -> Timeline | None:
        shown = Segment(start_s=0.0, end_s=1.0, label="x")
        return Timeline(stream="tiny", duration_s=1.0, truth=(shown,), predicted=())

    def _train(self, steps: int) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build_model().train()
            optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
            batches = self.train_batches(32, 0)
            for _ in range(steps):
                batch = next(batches)
                optimiser.zero_grad()
                self.loss(model(*batch.inputs), batch.targets).backward()
                optimiser.step()
        return {name: value.detach().clone() for name, value in model.state_dict().items()}
