"""The smoke recipe on the real task: killed and resumed, loaded in another process; slow: as if it was never killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.records import without_times
from tests.helpers.slow import cases
from toolkit import load_model, load_record
from toolkit.apply import main
from toolkit.measure.macs import count_macs
from toolkit.tasks.cards import make_task

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"
SHORT = {
    "keep:\n      mlp: 0.5": "widths: {blocks.0.mlp.fc1: 128, blocks.5.mlp.fc1: 128}",  # each layer is repaired
    "threads: 2": "threads: 1",  # the second one would wait for other tests, and spin while it does
}
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # as in this process: sums in one order


@pytest.fixture(scope="module", params=cases(("short", "as it stands"), in_suite=()))
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "as it stands":
        return str(SMOKE)
    text = SMOKE.read_text()
    for old, new in SHORT.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path_factory.mktemp("recipe") / "short.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def finished(recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed in the middle of its second stage, then resumed."""
    out = tmp_path_factory.mktemp("smoke") / "killed"
    command = [sys.executable, "-m", "toolkit.apply", recipe, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ONE_THREAD, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("channel_prune"):  # in the middle of the second stage
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert [step.stage for step in load_record(out).steps] == ["baseline", "block_drop"]
    assert not (out / "model").exists()
    assert main([recipe, "--out", str(out), "--resume"]) == 0
    return out


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_record(recipe: str, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole"
    assert main([recipe, "--out", str(out)]) == 0
    assert without_times(load_record(finished)) == without_times(load_record(out))


def test_the_model_computes_the_same_in_a_new_process(finished: Path, tmp_path: Path) -> None:
    code = (
        "import sys, numpy, toolkit; from toolkit.measure.macs import count_macs\n"
        "task = toolkit.make_task('tad-watch')\n"
        "model = toolkit.load_model(sys.argv[1]); inputs = task.example_inputs(2)\n"
        "numpy.savez(sys.argv[2], *[part.detach().numpy() for part in model(*inputs)])\n"
        "print(count_macs(model, task.example_inputs(1)).total)"
    )
    outputs = tmp_path / "outputs.npz"
    command = [sys.executable, "-c", code, str(finished), str(outputs)]
    done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, cwd=ROOT, check=True)
    task = make_task("tad-watch")
    model = load_model(finished / "stages" / "03-recover")
    with torch.no_grad():
        expected = model(*task.example_inputs(2))
    for found, part in zip(np.load(outputs).values(), expected, strict=True):
        np.testing.assert_allclose(found, part.numpy(), rtol=0, atol=1e-6)
    recorded = load_record(finished).steps[-1].measurement.macs.total
    assert int(done.stdout) == recorded == count_macs(model, task.example_inputs(1)).total


def test_what_a_run_leaves_behind(recipe: str, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {"run.json", "recipe.resolved.yaml", "preflight.json", "model", "stages", "report"}
    page = (finished / "report" / "index.html").read_text()
    assert "block_drop" in page and "channel_prune" in page and "average mAP" in page
    before = (finished / "run.json").read_bytes()
    assert main([recipe, "--out", str(finished)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (finished / "run.json").read_bytes() == before
