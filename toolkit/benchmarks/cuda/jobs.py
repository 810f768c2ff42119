"""Runs the cells that are commands (tests, recipes, plans), which can be stopped when the time is over."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.run.closing import closing_table
from toolkit.base.errors import UserError
from toolkit.benchmarks.cuda.cells import JobResult
from toolkit.record.plan import PLAN_FILE, load_plan_record
from toolkit.record.run import RUN_FILE, load_record

GPU_TESTS = Path("tests") / "gpu"

_KEPT_OUTPUT = 2000  # number of characters, at the end of the output

Fields = dict[str, object]


@dataclass(frozen=True)
class Job:
    """Describes a command of Python, and how its result is read.

    words: the arguments of the Python interpreter.
    needs: files that must exist for the command to make sense.
    read: gives fields of `JobResult` when the command is done.
    """

    words: tuple[str, ...]
    needs: tuple[Path, ...] = ()
    read: Callable[[], Fields] = dict


def run_job(job: Job, timeout_s: float) -> JobResult:
    """Runs a job in the current folder and returns its result.

    Raises:
        UserError: a file that the job needs is missing.
        subprocess.TimeoutExpired: the job was stopped after `timeout_s` seconds.
    """
    if missing := [str(path) for path in job.needs if not path.exists()]:
        raise UserError(f"{', '.join(missing)}: missing; run the benchmark in the folder of the source code")
    done = subprocess.run(
        [sys.executable, *job.words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=None if timeout_s == float("inf") else timeout_s,
    )
    return JobResult.model_validate({"exit_code": done.returncode, "output": done.stdout[-_KEPT_OUTPUT:]} | job.read())


def gpu_tests_job() -> Job:
    """Returns the job that runs the tests for a GPU."""
    return Job(("-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", str(GPU_TESTS)), (GPU_TESTS,))


def recipe_job(recipe: Path, device: str, out: Path) -> Job:
    """Returns the job that starts or resumes a run, and keeps its closing table."""
    words = ("-m", "toolkit.apply", str(recipe), "--device", device, "--out", str(out))
    resume = ("--resume",) if (out / RUN_FILE).exists() else ()

    def read() -> Fields:
        if not (out / RUN_FILE).exists():
            return {}
        columns, rows = closing_table(load_record(out))
        return {"columns": columns, "rows": rows}

    return Job((*words, *resume), (recipe,), read)


def plan_job(given: Sequence[str], device: str, batch_size: int, out: Path) -> Job:
    """Returns the job that plans for half of the latency, and keeps the plan's record."""
    words = ("-m", "toolkit.benchmarks.cuda.planned", *given, "--device", device, "--batch-size", str(batch_size))

    def read() -> Fields:
        return {"plan": load_plan_record(out)} if (out / PLAN_FILE).exists() else {}

    return Job((*words, "--out", str(out)), (), read)
