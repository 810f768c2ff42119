"""The command line around a run. The run itself is a stand-in here; tests of the runner use the real one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import toolkit
from reports.run.closing import closing_table, show_closing
from toolkit.apply import main
from toolkit.base.console import Console
from toolkit.base.errors import RecordError, StageError
from toolkit.measure.counted import Macs
from toolkit.measure.results import Environment, Latency, Measurement, Quality
from toolkit.recipe.read import load_recipe
from toolkit.record.run import RunRecord, StepRecord

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"


def measurement(macs: int, params: int, batch_s: dict[int, float], metric: float) -> Measurement:
    latency = tuple(
        Latency(device="cpu", batch_size=size, threads=2, dtype="float32", samples_s=(time_s,), dense_samples_s=(0.1,))
        for size, time_s in batch_s.items()
    )
    quality = tuple(
        Quality(metric="average mAP", split=split, value=value, num_examples=9)
        for split, value in (("validation", 0.5), ("test", metric))
    )
    total = Macs(total=macs, normalisation=0, by_operator={"linear": macs}, uncounted={})
    return Measurement(macs=total, num_params=params, latency=latency, quality=quality)


def finished_record() -> RunRecord:
    recipe = load_recipe(SMOKE)
    recipe = recipe.model_copy(update={"stages": recipe.stages[:1]})
    environment = Environment(python="3", platform="x", processor="x", num_cores=2, gpu=None, packages={})
    steps = (
        StepRecord(
            stage="baseline", detail={}, seconds=1.0, measurement=measurement(2_000_000, 1500, {1: 0.1, 16: 0.1}, 0.7)
        ),
        StepRecord(
            stage="block_drop", detail={}, seconds=2.5, measurement=measurement(1_000_000, 999, {1: 0.05}, 0.65)
        ),
    )
    return RunRecord(recipe=recipe, recipe_sha256=recipe.sha256, environment=environment, finished=True, steps=steps)


def stand_in(monkeypatch: pytest.MonkeyPatch, result: RunRecord | BaseException) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def run(recipe: Any, **settings: Any) -> RunRecord:
        calls.append({"recipe": recipe, **settings})
        if isinstance(result, BaseException):
            raise result
        settings["out"].mkdir(parents=True)
        result.save(settings["out"])
        inputs = [{"dtype": "float32", "shape": [1, 6, 3840]}]
        (settings["out"] / "model").mkdir()
        (settings["out"] / "model" / "model.json").write_text(json.dumps({"fingerprint": {"inputs": inputs}}))
        return result

    monkeypatch.setitem(toolkit.__dict__, "run", run)
    return calls


def test_closing_table() -> None:
    columns, rows = closing_table(finished_record())
    assert columns == ["stage", "MACs", "params", "latency cpu batch 1", "latency cpu batch 16", "average mAP (test)"]
    assert rows == [
        ["0 baseline", "2.00 M (1.000)", "1.50 k", "1.000", "1.000", "0.700 (+0.000)"],
        ["1 block_drop", "1.00 M (0.500)", "999", "0.500", "-", "0.650 (-0.050)"],
    ]


def test_closing_words() -> None:
    stream = io.StringIO()
    show_closing(finished_record(), Console(stream))
    assert "smoke: 1 stage in 4 s" in stream.getvalue()
    assert "MACs are multiply-adds of one example: what fvcore calls “FLOPs”" in stream.getvalue()


def test_run_passes_settings_and_says_where_things_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = stand_in(monkeypatch, finished_record())
    out = tmp_path / "run"
    assert main([str(SMOKE), "--out", str(out), "--device", "cuda", "--resume"]) == 0
    assert (calls[0]["out"], calls[0]["resume"], calls[0]["recipe"].device) == (out, True, "cuda")
    printed = capsys.readouterr().out
    for place in (out / "run.json", out / "model", out / "report" / "index.html"):
        assert str(place) in printed
    assert f"toolkit.load_model({str(out)!r}) loads it; it takes float32 [1, 6, 3840], or more examples" in printed
    assert (out / "report" / "index.html").is_file()


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, RecordError("runs/smoke: there is a run already"))
    assert main([str(SMOKE)]) == 2
    assert calls[0]["out"] == Path("runs/smoke")


def test_failed_stage_names_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(monkeypatch, StageError("macs_ratio 0.1 cannot be reached", stage_index=1))
    assert main([str(SMOKE)]) == 2
    line = SMOKE.read_text().splitlines().index("  - type: channel_prune") + 1
    assert capsys.readouterr().err == f"{SMOKE}:{line}: stages.1: macs_ratio 0.1 cannot be reached\n"


def test_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(monkeypatch, KeyboardInterrupt())
    assert main([str(SMOKE), "--out", "a b", "--device", "cpu"]) == 130
    command = f"python -m toolkit.apply {SMOKE} --out 'a b' --device cpu --resume"
    assert capsys.readouterr().err == f"interrupted; continue with: {command}\n"


def test_what_is_unexpected_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        main([str(SMOKE)])


def test_check_runs_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = stand_in(monkeypatch, finished_record())
    assert main([str(SMOKE), "--check", "--device", "cuda"]) == 0
    assert calls == []
    assert "device: cuda\n" in capsys.readouterr().out


def test_wrong_arguments() -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(SMOKE), "--device", "tpu"])
    assert caught.value.code == 2
