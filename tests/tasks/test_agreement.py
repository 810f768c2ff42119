"""The zoo task: disjoint fixed examples, agreement with the unmodified model, and every stage on it."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.helpers.damages import forbid_pickle
from toolkit import Align, BlockDrop, ChannelPrune, Keep, Measure, Recover, ZooModel, compose, load_model, run
from toolkit.base.console import Console
from toolkit.base.errors import RecordError, StageError, UserError
from toolkit.blocks.dropped import dropped_blocks
from toolkit.record.compare import differences
from toolkit.record.run import RunRecord
from toolkit.stages.settings import Stage
from toolkit.tasks.agreement.task import SEEDS, ZooTask, main_output
from toolkit.tasks.cards import make_task
from toolkit.tasks.task import AlignmentOptions
from toolkit.zoo.build import build_zoo_model

VIT = ZooModel(name="timm/test_vit", arguments={"img_size": 32, "num_classes": 10}, examples=6)
SMALL = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2}
QUICK = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("validation", "test"))


@pytest.fixture(scope="module")
def vit() -> ZooTask:
    return ZooTask(VIT)


def go(out: Path, *stages: Stage, model: ZooModel = VIT, folder: Path | None = None, resume: bool = False) -> RunRecord:
    recipe = compose(task="zoo", depth=BlockDrop(num_blocks=1), model=model, measure=QUICK)
    recipe = recipe.model_copy(update={"stages": stages})
    return run(recipe, folder=folder, out=out, resume=resume, console=Console(io.StringIO()))


def test_splits_are_fixed_and_disjoint(vit: ZooTask) -> None:
    rows: list[torch.Tensor] = [next(vit.train_batches(64, seed=0)).inputs[0]]
    for split in SEEDS:
        assert vit.num_examples(split) == 6
        whole = torch.cat([batch.inputs[0] for batch in vit.batches(split, 4)])
        again = torch.cat([batch.inputs[0] for batch in vit.batches(split, 6)])
        first = torch.cat([batch.inputs[0] for batch in vit.batches(split, 4, limit=3)])
        assert torch.equal(whole, again) and torch.equal(first, whole[:3])
        rows.append(whole)
    flat = torch.cat(rows[1:]).flatten(1)
    assert len(flat.unique(dim=0)) == 6 * len(SEEDS)
    train = rows[0].flatten(1).unique(dim=0)
    assert len(torch.cat([flat, train]).unique(dim=0)) == len(flat) + len(train)


def test_training_batches_are_fixed_by_the_seed(vit: ZooTask) -> None:
    def batches(seed: int, share: float = 1.0) -> list[torch.Tensor]:
        return [batch.inputs[0] for batch in islice(vit.train_batches(3, seed, share), 3)]

    assert all(torch.equal(*pair) for pair in zip(batches(1), batches(1), strict=True))
    assert not torch.equal(batches(1)[0], batches(2)[0])
    assert len(torch.cat(batches(1, share=1 / 256)).flatten(1).unique(dim=0)) == 1


def test_the_unmodified_model_agrees_with_itself(vit: ZooTask) -> None:
    model = vit.load_baseline()
    quality = vit.evaluate(model, "validation")
    assert quality.value == pytest.approx(1.0, abs=1e-6) and quality.num_examples == 6
    batch = next(vit.batches("test", 4))
    with torch.no_grad():
        outputs = model(*batch.inputs)
    assert float(vit.loss(outputs, batch.targets)) < 1e-12
    assert set(vit.alignment(outputs, outputs, batch.targets, AlignmentOptions())) == {"output"}
    assert float(vit.alignment(outputs, outputs, batch.targets, AlignmentOptions())["output"]) == 0.0


class Answer(nn.Module):
    """Gives what `change` makes of the unmodified model's output."""

    def __init__(self, dense: nn.Module, scale: float, shift: float) -> None:
        super().__init__()
        self.dense, self.scale, self.shift = dense, scale, shift

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self.dense(images)
        middle = outputs.mean(0, keepdim=True)
        result: torch.Tensor = middle + self.scale * (outputs - middle) + self.shift
        return result


@pytest.mark.parametrize(("scale", "shift", "expected"), [(1.0, 0.0, 1.0), (3.0, 0.0, 1.0), (-1.0, 0.0, -1.0)])
def test_agreement_is_of_the_differences_between_examples(
    vit: ZooTask, scale: float, shift: float, expected: float
) -> None:
    value = vit.evaluate(Answer(vit.load_baseline(), scale, shift), "test").value
    assert value == pytest.approx(expected, abs=1e-4)


def test_a_constant_or_a_shifted_output_does_not_look_good(vit: ZooTask) -> None:
    """Without taking out the mean, the first would have a cosine near 1 wherever outputs share most of their value."""
    dense = vit.load_baseline()
    assert abs(vit.evaluate(Answer(dense, 0.0, 0.0), "test").value) < 0.3
    assert vit.evaluate(Answer(dense, 1.0, 5.0), "test").value < 0.3


def test_broken_outputs_are_no_quality(vit: ZooTask) -> None:
    with pytest.raises(StageError, match="not finite"):
        vit.evaluate(Answer(vit.load_baseline(), float("nan"), 0.0), "test")
    with pytest.raises(StageError, match="no tensor of floating numbers"):
        main_output({"ids": torch.arange(3)})


@pytest.mark.parametrize("criterion", ["block_mse", "loss", "task_metric", "random"])
def test_every_criterion_drops_a_block_and_other_models_are_not_compared(criterion: str, tmp_path: Path) -> None:
    drop = BlockDrop.model_validate({"num_blocks": 1, "criterion": criterion})
    record = go(tmp_path / "run", drop)
    other = VIT.model_copy(update={"arguments": {**VIT.arguments, "num_classes": 11}})
    second = record.model_copy(update={"recipe": record.recipe.model_copy(update={"model": other})})
    assert [line.partition(":")[0] for line in differences(record, second)] == ["model"]
    detail, quality = record.steps[-1].detail, record.steps[-1].measurement.quality_on("test")
    assert detail["blocks"] == [f"blocks.{index}" for index in range(6)]
    assert quality is not None and quality.metric == "agreement" and 0 < quality.value < 1


def test_a_run_of_all_stages_loads_by_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    align = Align(max_steps=2, validate_every=2, batch_size=4)
    recover = Recover(max_steps=2, validate_every=2, batch_size=4)
    record = go(tmp_path / "run", BlockDrop(num_blocks=1), ChannelPrune(keep=Keep(mlp=0.5)), align, recover)
    assert record.finished and len(record.steps) == 5
    assert record.steps[-1].measurement.num_params < 0.8 * record.baseline.measurement.num_params
    forbid_pickle(monkeypatch)
    task = ZooTask(VIT)
    loaded, given = load_model(tmp_path / "run"), load_model(tmp_path / "run", task.build_model())
    inputs = task.example_inputs(3)
    with torch.no_grad():
        assert torch.equal(loaded(*inputs), given(*inputs))
    assert dropped_blocks(loaded) == record.steps[1].detail["dropped"]


def test_weights_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path starts from the recipe's folder; the record knows the weights, and other ones do not go on with it."""
    forbid_pickle(monkeypatch)
    model = VIT.model_copy(update={"weights": "mine.safetensors"})
    weights = build_zoo_model(VIT.name, VIT.arguments).state_dict()
    weights["head.bias"] = torch.linspace(0, 1, 10)
    save_file(weights, tmp_path / "mine.safetensors")
    record = go(tmp_path / "run", BlockDrop(num_blocks=1, criterion="random"), model=model, folder=tmp_path)
    assert len(record.baseline.detail["weights_sha256"]) == 64
    assert torch.equal(load_model(tmp_path / "run").get_parameter("head.bias"), weights["head.bias"])
    assert differences(record, record) == []
    (tmp_path / "run" / "run.json").write_text(record.model_copy(update={"finished": False}).model_dump_json())
    weights["head.bias"] += 1
    save_file(weights, tmp_path / "mine.safetensors")
    with pytest.raises(RecordError, match="begun with other weights"):
        go(tmp_path / "run", BlockDrop(num_blocks=1, criterion="random"), model=model, folder=tmp_path, resume=True)
    with pytest.raises(UserError, match=r"mine\.safetensors: cannot be read"):
        go(tmp_path / "elsewhere", BlockDrop(num_blocks=1), model=model)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"name": "transformers/bert", "input_size": 600, "arguments": SMALL},
            r"does not run on inputs of shape \(2, 600",
        ),
        (
            {"name": "transformers/bert", "input_size": 1, "arguments": SMALL | {"vocab_size": 1}},
            "gives equal outputs for all inputs",
        ),
        (
            {"name": "transformers/vit", "arguments": {"pretrained_path": 1}},
            "pretrained_path: is not an allowed argument",
        ),
        ({"name": "timm/test_vit", "weights": "/no/such.safetensors"}, "cannot be read"),
    ],
)
def test_models_that_no_task_can_be_made_of(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_task("zoo", ZooModel.model_validate(settings))


def test_the_model_goes_with_the_task_zoo_alone() -> None:
    with pytest.raises(UserError, match="'zoo' needs a model"):
        make_task("zoo")
    with pytest.raises(UserError, match="'tad-watch' has its own model"):
        make_task("tad-watch", VIT)
