"""The CUDA benchmark on a machine without CUDA: equal pairs, time that ends, what is kept, the page, the rehearsal."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch

from tests.gpu.test_stages import CASES, OF_CONVOLUTIONS
from tests.helpers.example_records import measurement
from tests.helpers.source import ROOT
from toolkit.base.console import Console
from toolkit.base.errors import RecordError, UserError
from toolkit.benchmarks.cuda import bench as bench_file
from toolkit.benchmarks.cuda.__main__ import main
from toolkit.benchmarks.cuda.bench import FULL, CudaBench, Deadline, Sizes, run_cells
from toolkit.benchmarks.cuda.cells import (
    BATCHES,
    SAME_MACS,
    TINY_BATCHES,
    CellPlan,
    CudaCell,
    JobResult,
    PairTimes,
    cell_file,
    cells_in_order,
    load_cells,
    save_cell,
)
from toolkit.benchmarks.cuda.jobs import Job, gpu_tests_job, recipe_job, run_job
from toolkit.benchmarks.cuda.page import answer, page_of
from toolkit.benchmarks.cuda.pairs import MODELS, BenchModel, PairMaker, check_attention, on_device, spread, tiny
from toolkit.measure.environment import describe_environment
from toolkit.measure.macs import count_macs
from toolkit.measure.results import Latency
from toolkit.stages.registry import STAGES

PLAN = cells_in_order()

RESULTS = ROOT / "reports" / "results" / "cuda"

CPU = torch.device("cpu")

DONE = JobResult(exit_code=0, output="")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def latency(ratio: float, **given: object) -> Latency:
    fields = {"device": "cuda", "batch_size": 1, "threads": 1, "dtype": "float32"} | given
    return Latency.model_validate(fields | {"samples_s": (ratio, ratio), "dense_samples_s": (1.0, 1.0)})


def made(name: str, seconds: float = 1.0, rehearsal: bool = False, **given: object) -> CudaCell:
    environment = describe_environment().model_copy(update={"gpu": "Some GPU"})
    fields = {"name": name, "seconds": seconds, "rehearsal": rehearsal, "environment": environment}
    return CudaCell.model_validate(fields | given)


def times(depth: float, width: float, **given: object) -> PairTimes:
    return PairTimes(
        macs=(1000, 760, 758),
        num_blocks=12,
        dropped=("a", "b"),
        widths={"c": 8},
        depth=latency(depth, **given),
        width=latency(width, **given),
        against=latency(width / depth),
    )


def test_cells_are_in_order_of_worth_and_every_name_is_one_of_its_own() -> None:
    assert len({cell.name for cell in PLAN}) == len(PLAN)
    parts = re.sub(r"(.)\1*", r"\1", "".join(cell.part for cell in PLAN))
    assert parts == "abcdeb"
    first = [cell.pair for cell in PLAN[1:11]]
    assert {(pair.model, pair.batch_size) for pair in first if pair} == {
        *(("videomae_s", size) for size in (1, 48)),
        *(("vit_b_16", size) for size in (1, 8, 64)),
    }
    assert {(p.runtime, p.precision, p.share, p.round_to) for p in first if p} == {
        ("eager", precision, 0.76, 8) for precision in ("float32", "bfloat16")
    }
    ways = {(cell.pair.runtime, cell.pair.precision) for cell in PLAN if cell.pair}
    assert {("eager", "tf32"), ("compile", "bfloat16"), ("cuda_graph", "float32")} <= ways
    assert {cell.pair.model for cell in PLAN if cell.pair} == set(MODELS) == set(BATCHES) == set(TINY_BATCHES)
    assert {name: model.batches for name, model in MODELS.items()} == dict(BATCHES)


@pytest.mark.parametrize("name", ["videomae_s", "resnet50"])
@pytest.mark.slow
def test_depth_and_width_have_equal_multiply_adds(name: str, quiet: Console) -> None:
    """Counted here once more, attention included, on the models that are timed."""
    model = tiny(MODELS[name])
    maker = PairMaker(model, CPU, quiet)
    for share in (0.76, 0.5):
        pair = maker.pair(share, 8)
        counted = [count_macs(one, maker.one_example).total for one in (pair.dense, pair.depth, pair.width)]
        assert tuple(counted) == pair.macs
        assert abs(counted[1] - counted[2]) <= SAME_MACS * counted[0]
        assert pair.macs[0] > pair.macs[1] and len(pair.dropped) < pair.num_blocks
        assert all(width % 8 == 0 for group, width in pair.widths.items() if "attention" not in group)
    shapes = [{tuple(part.shape) for part in one.parameters()} for one in (pair.dense, pair.width)]
    assert shapes[0] != shapes[1] and sum(p.numel() for p in pair.width.parameters()) < sum(
        p.numel() for p in pair.dense.parameters()
    )


def test_unequal_pairs_are_refused(quiet: Console) -> None:
    vit = BenchModel("timm/test_vit", (1,), {"img_size": 32}, kinds=("mlp",))
    maker = PairMaker(vit, CPU, quiet)
    with pytest.raises(UserError, match=r"no width in multiples of 4096 has the multiply-adds of depth within 0.01"):
        maker.pair(0.76, 4096)
    pair = maker.pair(0.76, 1)
    assert abs(pair.macs[1] - pair.macs[2]) <= SAME_MACS * pair.macs[0]
    maker._made = {(0.76, 3): pair.widths}  # as if they were those in multiples of 3
    with pytest.raises(UserError, match="the widths are the same as in multiples of 3, which have cells of their own"):
        maker.pair(0.76, 1)


def test_attention_must_be_among_what_is_counted() -> None:
    macs = measurement(1.0, 1.0, 0.5).macs
    check_attention(macs, MODELS["vit_b_16"])
    without = macs.model_copy(update={"by_operator": {"linear": 5}})
    with pytest.raises(UserError, match="attention is not among the counted operators: linear"):
        check_attention(without, MODELS["vit_b_16"])
    check_attention(without, MODELS["resnet50"])


def test_all_tensors_of_a_model_are_moved() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model[0].positions = torch.zeros(3)  # no parameter, no buffer
    moved = on_device(model, torch.device("meta"))
    assert {moved[0].weight.device.type, moved[0].positions.device.type} == {"meta"}


def test_blocks_are_spread_evenly() -> None:
    names = [str(number) for number in range(12)]
    assert spread(names, 3) == ("2", "6", "10") and spread(names, 12) == tuple(names)
    assert all(len(set(spread(names, count))) == count for count in range(1, 13))


def test_it_stops_in_time_and_says_what_was_not_reached(tmp_path: Path, quiet: Console) -> None:
    """Cells of a minute each in two and a half: two fit, and a third would not, though the time is not over."""
    clock, begun = Clock(), list[str]()
    plan = [CellPlan("b", name, "b_eager") for name in "vwxyz"]

    def do(cell: CellPlan, left: float) -> CudaCell:
        begun.append(cell.name)
        assert left == 150.0 - 60.0 * (len(begun) - 1)
        clock.now_s += 60.0
        return made(cell.name, 60.0, job=DONE)

    assert run_cells(plan, tmp_path, do, Deadline(150.0, clock), quiet) == ["x", "y", "z"]
    assert begun == ["v", "w"] and clock.now_s == 1120.0
    begun.clear()

    def goes_on(cell: CellPlan, left: float) -> CudaCell:
        begun.append(cell.name)
        return made(cell.name, job=DONE)

    assert run_cells(plan, tmp_path, goes_on, Deadline(59.0, clock), quiet) == ["x", "y", "z"], (
        "60 s were needed before"
    )
    assert run_cells(plan, tmp_path, goes_on, Deadline(None, clock), quiet) == [] and begun == ["x", "y", "z"]


def test_a_shorter_kind_is_still_begun_and_a_stopped_command_is_not_reached(tmp_path: Path, quiet: Console) -> None:
    clock = Clock()
    plan = [CellPlan("b", "long", "b"), CellPlan("b", "long2", "b"), CellPlan("c", "job", "c"), CellPlan("d", "d", "d")]

    def do(cell: CellPlan, left: float) -> CudaCell:
        clock.now_s += 50.0 if cell.kind == "b" else 1.0
        if cell.kind == "c":
            raise subprocess.TimeoutExpired("pytest", left)
        return made(cell.name, 50.0, job=DONE)

    assert run_cells(plan, tmp_path, do, Deadline(60.0, clock), quiet) == ["long2", "job"]
    assert set(load_cells(tmp_path)) == {"long", "d"}
    compiled = [CellPlan("b", "compiled", "b_compile")]
    assert run_cells(compiled, tmp_path, do, Deadline(80.0, clock), quiet) == ["compiled"], "the first may take longer"


def test_a_cell_that_cannot_be_measured_keeps_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UserError("timing on cuda: the device is out of memory at batch size 64;\n time smaller batches")

    made_up = CudaBench(tmp_path, tmp_path, Sizes(MODELS, {}, (), device="cpu"), Console(io.StringIO()))
    monkeypatch.setattr(made_up, "_content", refuse)
    cell = made_up.do(PLAN[1], 1.0)
    assert cell.reason.endswith("at batch size 64; time smaller batches") and not cell.rehearsal
    assert f"- {cell.name}: {cell.reason}" in page_of({cell.name: cell})


def test_damage_is_named(tmp_path: Path) -> None:
    save_cell(tmp_path, made("a_environment"))
    assert load_cells(tmp_path) == {"a_environment": made("a_environment")}
    cell_file(tmp_path, "a_environment").write_text("{}")
    with pytest.raises(RecordError, match="damaged or not a cell of the benchmark"):
        load_cells(tmp_path)


def test_without_a_cell_nothing_is_claimed() -> None:
    page = page_of({})
    assert "**Not measured.**" in page and "python -m toolkit.benchmarks.cuda --out" in page
    assert "times as fast" not in page and "| " not in page


def test_the_page_on_disk_is_that_of_its_cells() -> None:
    assert (RESULTS / "README.md").read_text(encoding="utf-8") == page_of(load_cells(RESULTS)), (
        "run: python -m toolkit.benchmarks.cuda --tables reports/results/cuda"
    )


def cells_of(*pairs: PairTimes, same: float = 1.01) -> dict[str, CudaCell]:
    cells = [made("a_environment", same=latency(same), clocks="name\nSome GPU")]
    cells += [made(plan.name, times=pair) for plan, pair in zip(PLAN[1:], pairs, strict=False)]
    return {cell.name: cell for cell in cells}


def test_the_answer_is_one_sentence_whichever_way_it_falls() -> None:
    faster = answer(cells_of(times(0.5, 0.75), times(0.5, 0.6), times(0.5, 0.45)))
    assert faster.startswith("**At equal multiply-adds depth is 1.20 times as fast as width on Some GPU** (median of 3")
    assert "0.90 to 1.50; 2 of them above 1" in faster
    assert "depth is 0.80 times as fast" in answer(cells_of(times(0.5, 0.4)))
    for ratio in (1.03, 0.97):
        refused = answer(cells_of(times(0.5, 0.75), same=ratio))
        assert refused.startswith("**No figure of this page is to be quoted: a model timed against itself took")
    without = {name: cell for name, cell in cells_of(times(0.5, 0.75)).items() if name != "a_environment"}
    assert "No figure of this page is to be quoted: a model was not timed against itself" in answer(without)
    rest = next(plan for plan in PLAN if plan.pair and plan.pair.precision == "tf32")
    assert "No pair of depth and width was reached" in answer({rest.name: made(rest.name, times=times(0.5, 0.7))})


def test_a_rehearsal_is_never_quoted() -> None:
    cells = {name: cell.model_copy(update={"rehearsal": True}) for name, cell in cells_of(times(0.5, 0.75)).items()}
    assert answer(cells).startswith("**A rehearsal on the CPU") and "as fast as width on" not in page_of(cells)


def test_the_page_holds_pairs_memory_jobs_and_what_is_missing() -> None:
    peaks = {"peak_bytes": 5 * 2**20, "dense_peak_bytes": 10 * 2**20}
    cells = cells_of(times(0.5, 0.625, **peaks))
    job = JobResult(exit_code=1, output="...\n1 failed, 20 passed in 9.0 s\n")
    cells |= {"c_gpu_tests": made("c_gpu_tests", 9.0, job=job)}
    page = page_of(cells)
    assert "| eager float32 | 1 | 0.760 (2 of 12 blocks) | 0.758 (of 8) | 1000.00 | 2.000 | 1.600 | 1.250" in page
    assert "| videomae_s, 0.76, eager float32 | 1 | 10 | 5 | 5 |" in page
    assert "### c_gpu_tests: exit code 1, 9 s\n\n`1 failed, 20 passed in 9.0 s`" in page
    missing = page.split("## Not reached")[1]
    assert missing.count("\n- ") == len(PLAN) - len(cells) and "- d_smoke" in missing


def test_commands_say_what_they_lack_and_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(path.exists() for path in (*gpu_tests_job().needs, *FULL.recipes.values()))
    with pytest.raises(subprocess.TimeoutExpired):
        run_job(Job(("-c", "import time; time.sleep(60)")), 0.2)
    done = run_job(Job(("-c", "import sys; print('x' * 5000); sys.exit(3)")), float("inf"))
    assert (done.exit_code, len(done.output)) == (3, 2000)
    (tmp_path / "run.json").touch()
    assert recipe_job(Path("r.yaml"), "cuda", tmp_path).words[-1] == "--resume"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="tests/gpu: missing; run the benchmark in the folder of the source code"):
        run_job(gpu_tests_job(), 1.0)


def test_without_cuda_it_says_what_can_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path)]) == 2
    assert "torch finds no CUDA device here; --rehearse runs every cell" in capsys.readouterr().err
    save_cell(tmp_path, made("a_environment"))
    assert main(["--out", str(tmp_path), "--rehearse"]) == 2
    assert "holds measured cells; choose another folder" in capsys.readouterr().err


def test_clocks_are_those_of_nvidia_smi_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bench_file.clocks() == ""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho name, clocks\n")
    program.chmod(0o755)
    assert bench_file.clocks() == "name, clocks"


def test_the_packages_to_bring_are_all_that_the_benchmark_needs() -> None:
    """All that pyproject.toml asks for, but torch itself and what only other formats and style checks need."""
    folder = ROOT / "toolkit" / "benchmarks"
    lines = (folder / "cuda" / "offline.txt").read_text().splitlines()
    brought = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["zoo"], "pytest"]
    names = {re.split(r"[<>=]", line)[0] for line in asked} - {"torch"}
    assert names <= set(brought)
    page = (folder / "README.md").read_text()
    assert [name for name in brought if name not in page] == [] and f"{len(brought)} packages" in page


def test_every_stage_has_a_case_among_the_tests_for_cuda() -> None:
    assert {stage.type for stages in CASES.values() for stage in stages} | {OF_CONVOLUTIONS.type} == set(STAGES)


@pytest.mark.slow
def test_the_rehearsal_is_killed_goes_on_and_does_every_cell(tmp_path: Path) -> None:
    """Under two minutes. What was kept when it was killed is left alone."""
    words = [sys.executable, "-m", "toolkit.benchmarks.cuda", "--out", str(tmp_path), "--rehearse"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(load_cells(tmp_path)) < 3 and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {name: cell_file(tmp_path, name).read_bytes() for name in load_cells(tmp_path)}
    assert 3 <= len(kept) < len(cells_in_order(TINY_BATCHES))
    subprocess.run(words, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    cells = load_cells(tmp_path)
    assert list(cells) == sorted(plan.name for plan in cells_in_order(TINY_BATCHES))
    assert all(cell_file(tmp_path, name).read_bytes() == content for name, content in kept.items())
    reasons = {name: cell.reason for name, cell in cells.items() if cell.reason}
    assert all("multiples64" in name for name in reasons), reasons
    assert {cell.job.exit_code for cell in cells.values() if cell.job} == {0}
    for cell in cells.values():
        if cell.times is not None:
            dense, depth, width = cell.times.macs
            assert abs(depth - width) <= SAME_MACS * dense
    page = (tmp_path / "README.md").read_text()
    assert "A rehearsal on the CPU" in page and "## Plans for half" in page and "Not reached" not in page
