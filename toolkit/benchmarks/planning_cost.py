"""python -m toolkit.benchmarks.planning_cost --out FILE: measures the effort of planning on HAPT against naive scoring.

Planning starts without tables: it scores every single change after its repair on the planner's examples, and then
plans. Naive scoring computes the task's metric of every single change on all recordings of the training users. Both are
counted in block passes (one window through one block) and in seconds, in one run. The budget limits multiply-adds, so
no device is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.base.files import write_atomically
from toolkit.hooks.passes import Meter, metered
from toolkit.planning.budget import Budget, Limit
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.model_profile import ModelProfile
from toolkit.planning.profile.space import Space
from toolkit.planning.session import Planner
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.hapt import TRAIN_USERS
from toolkit.tasks.tad.hapt.task import HaptStreams, HaptTask, excerpt
from toolkit.tasks.tad.streams import Stream
from toolkit.tasks.task import Split


class WholeTraining(HaptStreams):
    """Holds the HAPT streams with all recordings of the training users as the scoring split."""

    def fixed(self, split: Split) -> tuple[Stream, ...]:
        """Returns the streams of a split, which are the same at every call."""
        if split != "score":
            return super().fixed(split)
        recordings = self.of_users(TRAIN_USERS)
        return tuple(excerpt(recording, 0, len(recording.signal), recording.name) for recording in recordings)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the effort of planning against naive scoring, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.benchmarks.planning_cost", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write")
    args = parser.parse_args(argv)
    return exit_code(lambda: _measure(args.out, Console()))


def _measure(out: Path, console: Console) -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        timing = TimingSettings(torch.device("cpu"), (), 2)
        session = Planner(ModelProfile(HaptTask(0, HaptStreams()), timing, Path(folder), console))
        started = time.perf_counter()
        planned = session.plan(Budget(limits=(Limit(resource="macs", value=0.5),)), "combined")
        planning = {
            "seconds": time.perf_counter() - started,
            "block passes": float(session.profile.engine.models.meter.blocks),
        }
        naive = _naive(session, console)
    result = {
        "single changes": session.profile.num_single_changes - 1,
        "plans scored": planned.note.evaluations,
        "planning": planning,
        "naive": naive,
        "share": {key: planning[key] / naive[key] for key in planning},
    }
    write_atomically(out, json.dumps(result, indent=1) + "\n")
    console.line(json.dumps(result))


def _naive(session: Planner, console: Console) -> dict[str, float]:
    task = HaptTask(0, WholeTraining())
    meter = Meter()
    started = time.perf_counter()
    with console.progress(
        "scoring every change on all training recordings", session.profile.num_single_changes - 1
    ) as bar:
        for dropped, model in _changed(session):
            with metered(meter, model, [block for block in session.profile.space.blocks if block != dropped]):
                evaluate(task, model, "score")
            bar.advance()
    return {"seconds": time.perf_counter() - started, "block passes": float(meter.blocks)}


def _changed(session: Planner) -> Iterator[tuple[str, nn.Module]]:
    """Yields the model of every single change, with the name of the block that it drops or an empty text."""
    space: Space = session.profile.space
    for block in space.blocks:
        for rank in (None, *space.bypasses.get(block, ())):
            yield block, session.profile.profiler.built({block: rank}, {})
    for group, widths in space.widths.items():
        for width in widths[1:]:
            yield "", session.profile.profiler.built({}, {group: width})
    for stream in space.streams.values():
        if stream:
            yield "", session.profile.profiler.built({}, stream)


if __name__ == "__main__":
    sys.exit(main())
