"""python -m toolkit.benchmarks.seam_control: tests whether the joints of spliced streams reveal the boundaries.

A detector is trained and validated on streams that have every joint of the real ones, but whose pieces come from random
exercises, whatever their label. Only the places of the joints are left to learn from. If joints revealed boundaries,
this detector would still find segments. The column `chance` scores the same predictions against the truth of other
streams.
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
    """Tests whether joints of spliced streams reveal boundaries, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.benchmarks.seam_control", description=__doc__)
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="training steps of each detector (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of data and weights (default: %(default)s)")
    args = parser.parse_args(argv)
    console = Console()
    rows = []
    for title, shuffled in (("real content", False), ("joints only", True)):
        task = DetectionTask(
            "seam-control", WatchStreams(shuffled=shuffled), CONFIG, centre_share=CENTRE_SHARE, baseline=None
        )
        model = _trained(task, args.steps, args.seed, console, title)
        truth, predicted = task.truth("validation"), task.predict(model, task.streams("validation"))
        for metric, view in (("5 classes", dict), ("any action", without_classes)):
            detections, chance = view(predicted), rotated(view(predicted))
            rows.append([f"{title}, {metric}", *(_score(view(truth), entry) for entry in (detections, chance))])
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


def _score(truth: Mapping[str, Detections], predicted: Mapping[str, Detections]) -> str:
    low, high = bootstrap_interval(truth, predicted)
    return f"{mean_average_precision(truth, predicted).average:.3f} ({low:.3f} to {high:.3f})"


def without_classes(streams: Mapping[str, Detections]) -> dict[str, Detections]:
    """Returns the detections with the label `action` for all segments; no segments are merged."""
    return {name: Detections(d.segments, ("action",) * len(d.labels), d.scores) for name, d in streams.items()}


def rotated(streams: Mapping[str, Detections]) -> dict[str, Detections]:
    """Returns, for each stream, the detections of the stream half the list away: other content, same statistics."""
    names = list(streams)
    return dict(zip(names, (streams[names[i]] for i in np.roll(np.arange(len(names)), len(names) // 2)), strict=True))


if __name__ == "__main__":
    sys.exit(main())
