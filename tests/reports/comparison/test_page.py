"""`python -m reports`: fronts over several runs, the CSV, and what it refuses."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from reports.__main__ import main
from tests.helpers.example_records import combined_record, depth_record, measurement, save, save_three
from tests.helpers.html_reading import Page
from toolkit.record.run import RunRecord


def refuse(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    """The message of a call that must end with exit code 2 and write nothing to stdout."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    return captured.err


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written for a depth-only, a width-only and a combined run."""
    folder = tmp_path_factory.mktemp("compared")
    runs = save_three(folder)
    assert main([*map(str, runs), "--out", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def rows(compared: Path) -> list[dict[str, str]]:
    with open(compared / "points.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_holds_every_measured_model(rows: list[dict[str, str]]) -> None:
    assert [(row["run"], row["step"], row["is_result"]) for row in rows] == [
        ("dense", "0", "0"),
        ("depth_only", "1", "0"),
        ("depth_only", "2", "1"),
        ("width_only", "1", "0"),
        ("width_only", "2", "1"),
        ("depth_then_width", "1", "0"),
        ("depth_then_width", "2", "0"),
        ("depth_then_width", "3", "1"),
    ]
    assert [row["family"] for row in rows[1:7:2]] == ["depth", "width", "combined"]


def test_csv_numbers_survive_the_round_trip(rows: list[dict[str, str]]) -> None:
    dense, result = combined_record().baseline.measurement, combined_record().steps[-1].measurement
    last = rows[-1]
    assert float(last["macs_ratio"]) == result.macs.total / dense.macs.total
    assert float(last["params_ratio"]) == result.num_params / dense.num_params
    assert float(last["latency_ratio_cpu_batch1"]) == result.latency[0].ratio
    assert float(last["latency_ratio_cpu_batch16"]) == result.latency[1].ratio
    assert float(last["quality"]) == 0.639
    assert last["metric"] == "mAP (test, 24 examples)"
    assert [row["macs_ratio_front"] for row in rows if row["is_result"] == "1"] == ["all", "all", "all"]
    assert rows[0]["macs_ratio_front"] == ""  # depth_only costs less than dense and is better


def test_figures_and_page(rows: list[dict[str, str]], compared: Path) -> None:
    out = compared
    stems = {f"front-{cost}" for cost in ("macs_ratio", "params_ratio")}
    stems |= {f"front-latency_ratio_cpu_batch{size}" for size in (1, 16)}
    assert {path.stem for path in out.glob("*.svg")} == stems == {path.stem for path in out.glob("*.png")}
    page = Page(out / "index.html")
    assert all(row["run"] in page.text for row in rows)
    assert "multiply-adds" in page.text
    assert all((out / value).is_file() for name, value in page.links if name == "href")
    assert "multiply-adds" in (out / "front-macs_ratio.svg").read_text()


def test_validation_split_on_request(run_folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([*map(str, run_folders), "--split", "validation", "--out", str(out)]) == 0
    assert "mAP (validation, 16 examples)" in (out / "points.csv").read_text()
    assert main([str(run_folders[0]), "--out", str(out)]) == 0  # an earlier comparison may be replaced


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [save(depth_record(), tmp_path / parent / "run<script>") for parent in ("a", "b")]
    assert main([*map(str, folders), "--out", str(tmp_path / "out")]) == 0
    page = Page(tmp_path / "out" / "index.html")
    assert all(str(folder) in page.text for folder in folders)
    assert "<script" not in page.source


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (combined_record(threads=4), "threads: 2 against 4"),
        (combined_record(processor="other"), "processor: "),
        (combined_record(task="vit"), "task: tad-watch against vit"),
        (combined_record(device="cuda"), "device: cpu against cuda"),
    ],
)
def test_unlike_runs(
    other: RunRecord, difference: str, run_folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = save(other, tmp_path / "odd")
    message = refuse(capsys, *run_folders, odd, "--out", tmp_path / "out")
    assert f"{run_folders[0]} and {odd} cannot be compared: {difference}" in message
    assert "Repeat the runs that differ" in message
    assert not (tmp_path / "out").exists()


def test_other_dense_model(run_folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = combined_record()
    smaller = full.baseline.model_copy(update={"measurement": measurement(0.9, 1.0, 0.70)})
    odd = save(full.model_copy(update={"steps": (smaller, *full.steps[1:])}), tmp_path / "odd")
    message = refuse(capsys, run_folders[0], odd, "--out", tmp_path / "out")
    assert "MACs (multiply-adds) of the dense model: 17234560 against 15511104" in message
    assert "quality of the dense model (test): 0.6520 against 0.7000" in message


def test_unfinished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = combined_record(finished=False)
    folder = save(full.model_copy(update={"steps": full.steps[:2]}), tmp_path / "half")
    message = refuse(capsys, folder, "--out", tmp_path / "out")
    assert f"{folder}: not finished (1 of 3 stages are done)" in message
    assert "--resume" in message


def test_unfinished_run_without_any_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(combined_record(finished=False, steps=()), tmp_path / "empty")
    assert "not finished (0 of 3" in refuse(capsys, folder, "--out", tmp_path / "out")


def test_damaged_or_missing_record(run_folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run.json: cannot be read" in refuse(capsys, tmp_path / "nowhere")
    text = (run_folders[0] / "run.json").read_text()
    (run_folders[0] / "run.json").write_text(text[: len(text) // 2])
    assert "damaged or not a run record" in refuse(capsys, run_folders[0])


def test_same_run_twice(run_folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "given more than once" in refuse(capsys, run_folders[0], run_folders[1] / ".." / "depth_only")


def test_foreign_output_folder_is_left_alone(run_folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not empty" in refuse(capsys, run_folders[0], "--out", run_folders[0])
    assert "cannot be used as the output folder" in refuse(capsys, run_folders[0], "--out", run_folders[0] / "run.json")
    assert [path.name for path in run_folders[0].iterdir()] == ["run.json"]


def test_command_line_without_torch(run_folders: list[Path], tmp_path: Path) -> None:
    code = "import sys, reports.__main__ as m; c = m.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(c)"
    call = [sys.executable, "-W", "error", "-c", code, str(run_folders[0]), "--out", str(tmp_path / "out")]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stderr) == (0, "")
    failed = subprocess.run(
        [sys.executable, "-m", "reports", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
