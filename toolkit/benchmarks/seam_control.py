"""python -m toolkit.benchmarks.seam_control: does a spliced stream give its boundaries away by its joints?

A detector is trained and validated on streams that have every joint of the real ones, but whose pieces come from random
exercises, whatever their label. All that is left to learn from is where the joints are. If joints gave boundaries away
it would still find segments. Chance is the same predictions scored against other streams' truth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from toolkit.base.console import Console
from toolkit.tasks.tad.detection import DetectionTask
from toolkit.tasks.tad.metric import Detections, bootstrap_interval, mean_average_precision
from toolkit.tasks.tad.watch.task import CENTRE_SHARE, CONFIG, WatchStreams
from toolkit.training.fit import FitConfig, Objective, fit

STEPS = 300


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m toolkit.benchmarks.seam_control", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of each detector")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    console = Console()
    rows = []
    for title, shuffled in (("real content", False), ("joints only", True)):
        task = DetectionTask(
            "seam-control", WatchStreams(shuffled=shuffled), CONFIG, centre_share=CENTRE_SHARE, baseline=None
        )
        model = _trained(task, args.steps, args.seed, console, title)
        truth, found = task.truth("validation"), task.predict(model, task.streams("validation"))
        for metric, view in (("5 classes", dict), ("any action", without_classes)):
            seen, chance = view(found), rotated(view(found))
            rows.append([f"{title}, {metric}", *(_score(view(truth), d) for d in (seen, chance))])
    console.table(
        f"average mAP on validation subjects after {args.steps} steps, seed {args.seed} (95 % bootstrap)",
        ["streams, labels", "mAP", "chance"],
        rows,
    )
    return 0


def _trained(task: DetectionTask, steps: int, seed: int, console: Console, title: str) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = task.build_model()
    fit(
        model,
        Objective(
            task.train_batches(16, seed),
            lambda trained, batch: task.loss(trained(*batch.inputs), batch.targets),
            lambda trained: task.evaluate(trained, "validation"),
        ),
        FitConfig(steps, 2e-3, 0.05, 50, 100, ema_decay=0.99),
        judge_start=False,
        console=console,
        title=title,
    )
    return model


def _score(truth: Mapping[str, Detections], found: Mapping[str, Detections]) -> str:
    low, high = bootstrap_interval(truth, found)
    return f"{mean_average_precision(truth, found).average:.3f} ({low:.3f} to {high:.3f})"


def without_classes(streams: Mapping[str, Detections]) -> dict[str, Detections]:
    """Every label becomes "action"; of predictions, each place keeps all its segments."""
    return {name: Detections(d.segments, ("action",) * len(d.labels), d.scores) for name, d in streams.items()}


def rotated(streams: Mapping[str, Detections]) -> dict[str, Detections]:
    """Each stream gets the detections of the stream half the list further on: other content, same statistics."""
    names = list(streams)
    return dict(zip(names, (streams[names[i]] for i in np.roll(np.arange(len(names)), len(names) // 2)), strict=True))


if __name__ == "__main__":
    sys.exit(main())
