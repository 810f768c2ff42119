"""recover and align hand back the model that they were given where training makes it worse, and say what happened."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reports.run.page import write_page
from tests.helpers.tiny_task import TinyTask
from toolkit import run
from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.hooks.tensors import tensor_bytes
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.align.apply import apply_align
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.context import StageContext
from toolkit.stages.recorded import StartPoint, TrainingDetail
from toolkit.stages.recover.apply import apply_recover
from toolkit.stages.recover.settings import Recover
from toolkit.stages.rounds import RoundStore
from toolkit.tasks.cards import make_task
from toolkit.zoo.settings import ZooModel

RUINOUS: dict[str, Any] = {
    "learning_rate": 1.0,
    "max_steps": 6,
    "validate_every": 3,
    "batch_size": 8,
    "warmup_steps": 0,
}
STAGES = {
    "recover": (apply_recover, Recover(**RUINOUS)),
    "recover with sgd": (apply_recover, Recover(**RUINOUS, optimizer="sgd")),
    "align adapters": (apply_align, Align(**RUINOUS)),
    "align all weights": (apply_align, Align(**RUINOUS, trainable="full")),
    "align without average": (apply_align, Align(**RUINOUS, ema_decay=0.0, patience=1)),
}


class NanLosses(TinyTask):
    """Its loss is no number, whatever the model computes."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return super().loss(outputs, targets) * float("nan")


def cut_model(task: TinyTask) -> nn.Module:
    model = task.load_baseline().requires_grad_(True)
    find_blocks(model, task.example_inputs(1))
    drop_block(model, "blocks.1")
    with torch.no_grad():  # a merge of adapters that hold nothing would turn it into 0.0
        model.blocks[0].attn.q.weight[0, 0] = -0.0
    return model


def description(model: nn.Module) -> list[tuple[str, type, bool, bytes]]:
    """Everything about the model's tensors, to the bit, and its modules' classes."""
    modules = [(name, type(module), module.training, b"") for name, module in model.named_modules()]
    tensors = (*model.named_parameters(), *model.named_buffers())
    return modules + [(name, type(part), part.requires_grad, tensor_bytes(part)) for name, part in tensors]


@pytest.fixture
def told(tiny_context: StageContext) -> tuple[StageContext, Callable[[], str]]:
    stream = io.StringIO()
    return replace(tiny_context, console=Console(stream)), stream.getvalue


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("task", [TinyTask, NanLosses], ids=["rate of 1", "losses that are nan"])
def test_the_model_comes_back_to_the_bit(
    stage: str, task: type[TinyTask], told: tuple[StageContext, Callable[[], str]]
) -> None:
    apply, config = STAGES[stage]
    context, printed = told
    model = cut_model(TinyTask())
    before = description(model)
    after, detail = apply(model, task(), config, context)
    assert description(after) == before
    assert detail.kept_step == 0 and detail.kept_as_it_came()
    assert "kept the model as it came: " in printed()
    broken = detail.stopped == "broken"
    assert broken == (task is NanLosses)
    assert ("training loss became nan" in printed()) == broken


@pytest.mark.parametrize("stage", ["recover", "align all weights"])
def test_the_last_weights_are_kept_where_they_are_asked_for_and_called_worse(
    stage: str, tiny_task: TinyTask, told: tuple[StageContext, Callable[[], str]]
) -> None:
    apply, config = STAGES[stage]
    context, printed = told
    model = cut_model(tiny_task)
    before = description(model)
    _, detail = apply(model, tiny_task, config.model_copy(update={"select": "last"}), context)
    assert detail.kept_step == 6 and not detail.kept_as_it_came()
    assert description(model) != before
    assert "kept the last weights, as select: last says: accuracy 0." in printed()
    assert "as the model came: the training made it worse" in printed()
    with pytest.raises(StageError, match="the training loss became nan; lower learning_rate"):
        apply(cut_model(tiny_task), NanLosses(), config.model_copy(update={"select": "last"}), context)


@pytest.mark.parametrize("stage", ["recover", "align adapters"])
def test_a_stopped_stage_still_knows_the_model_that_it_was_given(
    stage: str, tiny_task: TinyTask, tiny_context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop is in the validation at the end, after the checkpoint of step 50."""
    apply, config = STAGES[stage]
    config = config.model_copy(update={"max_steps": 52, "validate_every": 26})
    context = replace(tiny_context, rounds=RoundStore(tmp_path))

    class Stop(BaseException):
        pass

    evaluated = iter([False, False, True])

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if next(evaluated):
            raise Stop
        return TinyTask.evaluate(tiny_task, *args, **kwargs)

    model = cut_model(tiny_task)
    before = description(model)
    with monkeypatch.context() as patch:
        patch.setattr(tiny_task, "evaluate", stopping)
        with pytest.raises(Stop):
            apply(model, tiny_task, config, context)
    assert list(tmp_path.rglob("align.safetensors"))
    again, detail = apply(cut_model(tiny_task), tiny_task, config, context)
    assert description(again) == before
    _, whole = apply(cut_model(tiny_task), tiny_task, config, tiny_context)
    assert detail == whole and detail.kept_step == 0


@pytest.fixture(scope="module")
def ruined(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose last two stages would have ruined the model; `run` does not call them stages that change nothing."""
    out = tmp_path_factory.mktemp("ruined") / "run"
    stages = (BlockDrop(num_blocks=1, criterion="random", align=Align(**RUINOUS)), Recover(**RUINOUS), Align(**RUINOUS))
    measure = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)
    recipe = Recipe(name="r", task="tiny", seed=0, device="cpu", stages=stages, measure=measure)
    record = run(recipe, task=tiny_task, out=out)
    quality = [step.measurement.quality_on("test") for step in record.steps]
    assert quality[1] == quality[2] == quality[3]
    assert [step.detail["kept_step"] for step in record.steps[2:]] == [0, 0]
    assert record.steps[1].detail["rounds"][0]["align"]["kept_step"] == 0
    return out


def test_the_page_says_it(ruined: Path) -> None:
    page = write_page(ruined).read_text()
    assert page.count("The stage kept the model as it came: accuracy 0.") >= 2


def test_what_few_examples_make_of_a_difference() -> None:
    def words(after: float, **start: Any) -> str:
        curve = ({"step": 5, "loss": 1.0, "validation": after},)
        return TrainingDetail.model_validate(
            {
                "steps": 5,
                "stopped": "max_steps",
                "kept_step": 5 if after > 0.9 else 0,
                "curve": curve,
                "metric": "accuracy",
                "start": {"validation": 0.9, **start},
            }
        ).outcome()

    assert words(0.95, num_examples=40, margin=0.1) == (
        "kept the weights of step 5: accuracy 0.9500 on validation, 0.9000 as the model came; the 95 % interval of one "
        "such figure on 40 examples is ±0.1000, so that the difference may be chance"
    )
    assert words(0.95, num_examples=4000, margin=0.01).endswith("0.9000 as the model came (4000 examples)")
    assert words(0.85, num_examples=16).endswith("; 16 examples are few, so that a small difference may be chance")
    assert "chance" not in words(0.85, num_examples=1000)
    assert StartPoint(validation=0.5, num_examples=3, margin=0.0).noise_words(0.0) == " (3 examples)"


def test_an_older_record_says_nothing_that_it_does_not_know() -> None:
    assert TrainingDetail(steps=5, stopped="max_steps", kept_step=5, curve=()).outcome() is None


def test_made_up_inputs_are_only_distilled_and_the_stage_says_so(tmp_path: Path) -> None:
    arguments = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 4}
    task = make_task("zoo", ZooModel(name="timm/vit_tiny_patch16_224", arguments=arguments, examples=4))
    dense, stream = task.load_baseline(), io.StringIO()
    context = StageContext(dense, 1, lambda _: 1, torch.device("cpu"), 0, Console(stream))
    model = task.load_baseline().requires_grad_(True)
    find_blocks(model, task.example_inputs(1))
    drop_block(model, "blocks.1")
    _, detail = apply_recover(model, task, Recover(**RUINOUS | {"learning_rate": 1e-4}), context)
    assert detail.teacher_only
    assert "have no labels, so that the training only distils the unmodified model" in stream.getvalue()
    assert "agreement" in stream.getvalue()


@pytest.mark.parametrize("settings", [Recover, Align])
def test_the_default_leaves_no_trace_in_what_is_hashed(settings: type[Recover] | type[Align]) -> None:
    assert "select" not in settings().model_dump(mode="json")
    assert settings.model_validate({"select": "last"}).model_dump(mode="json")["select"] == "last"
    assert "keeps the last weights whatever validation says" in settings.model_validate({"select": "last"}).in_words()
    assert "keeps" not in settings().in_words()
