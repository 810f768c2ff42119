"""A task of seconds: the real detector family, tiny, on made-up signals whose level names the class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.measure.results import Quality, Segment, Timeline
from toolkit.tasks.divergence import bernoulli_divergence, softmax_divergence
from toolkit.tasks.tad.model import Block
from toolkit.tasks.task import AlignmentOptions, Batch, Split

SEEDS: dict[str, int] = {"score": 1, "calibration": 2, "holdout": 3, "validation": 4, "test": 5}
TOKENS, CHANNELS, DIM, CLASSES = 12, 5, 16, 3
EXAMPLES = 96
POOL = 10  # batches that all training data counts as where a share of it is asked for
_TRAINED: dict[tuple[type, int], dict[str, Tensor]] = {}  # weights by task and steps: they are always the same


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
    evaluation_batch = 32
    examples = EXAMPLES  # of every fixed split

    def __init__(self, train_steps: int = 60) -> None:
        kind = (type(self), train_steps)
        if kind not in _TRAINED:
            _TRAINED[kind] = self._train(train_steps)
        self._weights = _TRAINED[kind]

    def build_model(self) -> nn.Module:
        return TinyNet()

    def load_baseline(self) -> nn.Module:
        model = self.build_model()
        model.load_state_dict(self._weights)
        return model.eval()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        return (torch.linspace(-2, 2, batch_size * TOKENS * CHANNELS).reshape(batch_size, TOKENS, CHANNELS),)

    def num_examples(self, split: Split) -> int:
        return self.examples

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        end = self.examples if limit is None else min(limit, self.examples)
        whole = self._batch(self.examples, SEEDS[split] * 100)
        for first in range(0, end, batch_size):
            part = slice(first, min(first + batch_size, end))
            yield Batch((whole.inputs[0][part],), whole.targets[part])

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        index = 0
        while True:
            index = index + 1 if share == 1.0 else index % max(1, round(share * POOL)) + 1
            yield self._batch(batch_size, (seed + 7) * 100_000 + index)

    def _batch(self, batch_size: int, seed: int) -> Batch:
        signals = torch.randn(batch_size, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(seed))
        smooth = signals.cumsum(1) / 2
        return Batch((signals,), (smooth[..., 0] > 0).long() + (smooth[..., 1] > 0.5).long())

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        divergence = softmax_divergence if options.class_loss == "softmax" else bernoulli_divergence
        return {"class": divergence(student, teacher, options.temperature).mean()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        batches = self.batches(split, self.evaluation_batch, limit=limit)
        hits = torch.cat([(model(*b.inputs).argmax(-1) == b.targets).double() for b in batches])
        return Quality(metric=self.metric, split=split, value=float(hits.mean()), num_examples=len(hits))

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
