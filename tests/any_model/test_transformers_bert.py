"""Block dropping, unchanged, on transformers encoders: MiniLM with real weights, and a small BERT classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from tests.helpers.family_checks import assert_each_block_can_go, assert_reloads, run_drop, without
from tests.helpers.sentence_task import SentenceTask, build_minilm, embed
from toolkit import BlockDrop, ClassificationTask

BLOCKS = ["encoder.layer.0", "encoder.layer.1", "encoder.layer.2"]
BLOCKS += ["encoder.layer.3", "encoder.layer.4", "encoder.layer.5"]


@pytest.fixture(scope="module")
def sentences() -> SentenceTask:
    return SentenceTask()


def test_the_weights_are_real(sentences: SentenceTask) -> None:
    """Sentences of one meaning are close, others are not: random weights, or wrongly loaded ones, cannot do that."""
    lines = ["A man is playing a guitar.", "Someone plays the guitar.", "The parliament passed the budget."]
    vectors = embed(sentences.load_baseline(), sentences.encode(lines))
    near, far = torch.cosine_similarity(vectors[:1], vectors[1:]).tolist()
    assert near > 0.8 and far < 0.2


def test_blocks(sentences: SentenceTask) -> None:
    ids, mask = sentences.example_inputs(2)
    assert ids.dtype == mask.dtype == torch.int64
    assert_each_block_can_go(sentences.load_baseline(), (ids, mask), BLOCKS)


def test_reload(sentences: SentenceTask, tmp_path: Path) -> None:
    blocks = ["encoder.layer.0", "encoder.layer.3"]
    assert_reloads(sentences.load_baseline(), build_minilm, sentences.example_inputs(2), blocks, tmp_path / "saved")


@pytest.mark.slow
def test_embeddings_stay_close_without_the_block_of_least_mse(sentences: SentenceTask, tmp_path: Path) -> None:
    """The block is chosen on other sentences than the 16 that it is judged on."""
    record = run_drop(sentences, BlockDrop(num_blocks=1, criterion="block_mse", repair="none"), tmp_path / "run")
    dense, inputs = sentences.load_baseline(), sentences.example_inputs(1)
    cosine = {block: sentences.evaluate(without(dense, inputs, [block]), "test").value for block in BLOCKS}
    assert record.steps[-1].detail["dropped"] == ["encoder.layer.2"]
    quality = record.steps[-1].measurement.quality_on("test")
    assert quality is not None and quality.num_examples == 16
    assert quality.value == pytest.approx(cosine["encoder.layer.2"], abs=1e-6)
    assert quality.value == pytest.approx(0.944, abs=0.005)
    assert min(cosine, key=cosine.__getitem__) == "encoder.layer.5"
    assert quality.value > cosine["encoder.layer.5"] + 0.4


def test_a_classifier_of_token_ids_through_the_ready_task(tmp_path: Path) -> None:
    """The model's outputs are a transformers ModelOutput; every criterion and the racing run on it."""
    settings = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, num_labels=3
    )

    def build() -> nn.Module:
        return BertForSequenceClassification(settings)

    torch.manual_seed(0)
    data = []
    for count in (48, 16, 16):
        mask = (torch.arange(9) < torch.randint(3, 10, (count, 1))).long()
        data.append((torch.randint(50, (count, 9)) * mask, mask, torch.randint(3, (count,))))
    task = ClassificationTask(build, build(), train=data[0], validation=data[1], test=data[2], name="tokens")
    config = BlockDrop(num_blocks=2, criterion="loss", racing="successive_halving", verify_selection=True)
    detail = run_drop(task, config, tmp_path / "run").steps[-1].detail
    assert detail["blocks"] == [f"bert.encoder.layer.{index}" for index in range(4)]
    assert set(detail["rounds"][0]["rungs"][0]["scores"]) == set(detail["blocks"])
    assert set(detail["rounds"][0]["naive_scores"]) == set(detail["blocks"])
