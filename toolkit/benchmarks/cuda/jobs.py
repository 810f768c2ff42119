"""Cells that are commands of their own, which can be stopped in time: tests, recipes, plans."""

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

_KEPT_OUTPUT = 2000  # characters, the last ones

Found = dict[str, object]


@dataclass(frozen=True)
class Job:
    """A command line of Python, and what is read when it is done.

    needs: files that must be there, or the command makes no sense.
    read: gives fields of `JobResult`.
    """

    words: tuple[str, ...]
    needs: tuple[Path, ...] = ()
    read: Callable[[], Found] = dict


def run_job(job: Job, timeout_s: float) -> JobResult:
    """Runs a job in the current folder.

    Raises:
        UserError: a file that the job needs is not there.
        subprocess.TimeoutExpired: it was stopped.
    """
    if missing := [str(path) for path in job.needs if not path.exists()]:
        raise UserError(f"{', '.join(missing)}: not here; run the benchmark in the folder of the source code")
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
    return Job(("-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", str(GPU_TESTS)), (GPU_TESTS,))


def recipe_job(recipe: Path, device: str, out: Path) -> Job:
    """A run that is begun, or gone on with; its closing table is kept."""
    words = ("-m", "toolkit.apply", str(recipe), "--device", device, "--out", str(out))
    again = ("--resume",) if (out / RUN_FILE).exists() else ()

    def read() -> Found:
        if not (out / RUN_FILE).exists():
            return {}
        columns, rows = closing_table(load_record(out))
        return {"columns": columns, "rows": rows}

    return Job((*words, *again), (recipe,), read)


def plan_job(given: Sequence[str], device: str, batch_size: int, out: Path) -> Job:
    """A plan for half of the latency; its record is kept."""
    words = ("-m", "toolkit.benchmarks.cuda.planned", *given, "--device", device, "--batch-size", str(batch_size))

    def read() -> Found:
        return {"plan": load_plan_record(out)} if (out / PLAN_FILE).exists() else {}

    return Job((*words, "--out", str(out)), (), read)
