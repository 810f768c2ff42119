"""The progressive loop: rounds with alignment, the floor, one-shot, and stopping at any moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.details import as_json
from tests.helpers.records import without_times
from tests.helpers.tiny_task import TinyTask
from toolkit import load_model, run
from toolkit.base.errors import RecordError, StageError
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.record.run import load_record
from toolkit.stages.align import apply as align
from toolkit.stages.align.adapters import Adapted
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop import apply as block_drop
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.context import StageContext

ALIGN = Align(
    max_steps=4, validate_every=2, batch_size=8, warmup_steps=1, ema_decay=0.5, lora_rank=2, select="last"
)  # so that every round ends with adapters to merge
DROP = BlockDrop(num_blocks=2, criterion="loss", align=ALIGN)


def recipe_of(*stages: Any) -> Recipe:
    measure = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)
    return Recipe(name="rounds", task="tiny", seed=0, device="cpu", stages=stages, measure=measure)


@pytest.fixture(scope="module")
def finished(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rounds") / "finished"
    run(recipe_of(DROP), task=tiny_task, out=out)
    return out


def test_each_round_scores_drops_aligns_and_measures(finished: Path, tiny_task: TinyTask) -> None:
    detail = load_record(finished).steps[1].detail
    assert len(detail["rounds"]) == 2
    for index, one in enumerate(detail["rounds"]):
        assert one["dropped"] == detail["dropped"][index]
        assert one["align"]["steps"] == 4
        assert set(one["align"]["blocks"]) == set(detail["blocks"]) - set(detail["dropped"][: index + 1])
        assert 0 < one["validation"] <= 1
    assert detail["rounds"][1]["macs_ratio"] == detail["macs_ratio"] < detail["rounds"][0]["macs_ratio"]
    model = load_model(finished, tiny_task.build_model())
    assert tiny_task.evaluate(model, "validation").value == detail["rounds"][1]["validation"]
    assert all("lora" not in name for name, _ in model.named_modules())
    assert sorted(path.name for path in (finished / "stages").iterdir()) == ["01-block_drop"]


class Stop(BaseException):
    """Stands for a kill: nothing may catch it."""


def stopping(real: Callable[..., Any], call: int) -> Callable[..., Any]:
    """`real`, but its `call`-th call is the end."""
    calls = 0

    def wrapped(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Stop
        return real(*args, **options)

    return wrapped


MOMENTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "scoring": lambda p: p.setattr(block_drop, "score_candidates", stopping(block_drop.score_candidates, 2)),
    "repair": lambda p: p.setattr(block_drop, "repaired_variants", stopping(block_drop.repaired_variants, 2)),
    "aligning": lambda p: p.setattr(align.AlignLoss, "__call__", stopping(align.AlignLoss.__call__, 7)),
    "merging": lambda p: p.setattr(Adapted, "merge", stopping(Adapted.merge, 2)),
    "measuring": lambda p: p.setattr(block_drop._Drop, "_measure", stopping(block_drop._Drop._measure, 2)),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_stopped_at_any_moment_and_resumed(
    moment: str, finished: Path, tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        with pytest.raises(Stop):
            run(recipe_of(DROP), task=tiny_task, out=out)
    rounds = out / "stages" / ".01-block_drop.rounds"
    assert (rounds / "round-01" / "round.json").exists()
    assert not (rounds / "round-02" / "round.json").exists()
    scored: list[int] = []
    real = block_drop.score_candidates
    monkeypatch.setattr(block_drop, "score_candidates", lambda *args: (scored.append(args[-1]), real(*args))[1])
    run(recipe_of(DROP), task=tiny_task, out=out, resume=True)
    assert without_times(load_record(out)) == without_times(load_record(finished))
    assert scored == ([2] if moment == "scoring" else [])  # what was scored is not scored again


def test_a_damaged_round_is_refused(tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        MOMENTS["measuring"](patch)
        with pytest.raises(Stop):
            run(recipe_of(DROP), task=tiny_task, out=out)
    (out / "stages" / ".01-block_drop.rounds" / "round-01" / "round.json").write_text('{"scores": ')
    with pytest.raises(RecordError, match=r"round-01/round\.json: damaged"):
        run(recipe_of(DROP), task=tiny_task, out=out, resume=True)


def test_the_round_that_breaks_the_floor_is_undone(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    free = BlockDrop(num_blocks=3, criterion="loss", repair="none")
    _, detail = as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, free, tiny_context)
    values = [one["validation"] for one in detail["rounds"]]
    dense = tiny_task.evaluate(tiny_context.dense, "validation").value
    assert values[0] > values[1]
    floor = dense - (values[0] + values[1]) / 2
    config = free.model_copy(update={"max_quality_drop": max(floor, 0.0)})
    model, stopped = as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert stopped["dropped"] == detail["dropped"][:1]
    assert stopped["undone"]["all_dropped"] == detail["dropped"][1:2]
    assert tiny_task.evaluate(model, "validation").value == values[0]


def test_a_floor_alone_is_a_target(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = BlockDrop(max_quality_drop=1.0, criterion="block_mse")
    _, detail = as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert len(detail["dropped"]) == 3
    assert detail["undone"] is None


def test_one_shot_takes_the_best_of_the_first_scores(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = BlockDrop(num_blocks=2, criterion="loss", repair="none", schedule="one_shot", align=ALIGN)
    _, detail = as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    (only,) = detail["rounds"]
    assert detail["dropped"] == sorted(only["scores"], key=only["scores"].get)[:2]
    assert only["align"]["steps"] == 8  # as many in all as two rounds would take


def test_a_dynamic_teacher_is_the_model_before_the_round(
    tiny_task: TinyTask, tiny_context: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers: list[nn.Module] = []
    real = block_drop.align_model

    def noting(model: nn.Module, teacher: nn.Module, *args: Any, **options: Any) -> Any:
        teachers.append(teacher)
        return real(model, teacher, *args, **options)

    monkeypatch.setattr(block_drop, "align_model", noting)
    for kind in ("static", "dynamic"):
        config = DROP.model_copy(update={"align": ALIGN.model_copy(update={"teacher": kind})})
        as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert teachers[0] is teachers[1] is tiny_context.dense
    inputs = tiny_task.example_inputs(1)
    with torch.no_grad():
        assert torch.equal(teachers[2](*inputs), tiny_context.dense(*inputs))
        assert not torch.equal(teachers[3](*inputs), tiny_context.dense(*inputs))


def test_the_first_half_of_the_rounds_sees_a_share_of_the_data(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = DROP.model_copy(update={"align": ALIGN.model_copy(update={"data_share": 0.25})})
    _, detail = as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert [one["align"]["data_share"] for one in detail["rounds"]] == [0.25, 1.0]


def test_more_blocks_than_there_are(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    with pytest.raises(StageError, match="num_blocks is 9, but the model has 4 blocks"):
        as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, BlockDrop(num_blocks=9), tiny_context)
