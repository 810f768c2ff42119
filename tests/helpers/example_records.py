"""Run records built by hand, sized like the smartwatch detector: 12 blocks, 17 M MACs, 0.65 M parameters."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from toolkit.measure.counted import Macs
from toolkit.measure.results import Environment, Latency, Measurement, Quality, Segment, Timeline
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.record.run import RunRecord, StepRecord
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.recover.settings import Recover
from toolkit.stages.settings import Stage

BLOCKS = [f"blocks.{index}" for index in range(12)]
DENSE_MACS, DENSE_PARAMS, DENSE_MAP = 17_234_560, 651_284, 0.652
CLASSES = ("PEN", "ABD", "FEL", "IR", "ER")

DEPTH = BlockDrop(num_blocks=3, criterion="loss")
WIDTH = ChannelPrune(keep=Keep(mlp=0.25, heads=0.5))
RECOVER = Recover(max_steps=300)


def depth_record(name: str = "depth_only", **changes: Any) -> RunRecord:
    steps = (depth_step(0.775, 0.771, 0.641), recover_step(0.775, 0.772, 0.656))
    return record(name, (DEPTH, RECOVER), steps, **changes)


def width_record(name: str = "width_only", **changes: Any) -> RunRecord:
    steps = (width_step(0.61, 0.74, 0.633), recover_step(0.61, 0.735, 0.648))
    return record(name, (WIDTH, RECOVER), steps, **changes)


def combined_record(name: str = "depth_then_width", **changes: Any) -> RunRecord:
    steps = (
        depth_step(0.775, 0.771, 0.641),
        width_step(
            0.47, 0.58, 0.612, blocks=[block for block in BLOCKS if block not in ("blocks.7", "blocks.9", "blocks.4")]
        ),
        recover_step(0.47, 0.583, 0.639),
    )
    return record(name, (DEPTH, WIDTH, RECOVER), steps, **changes)


def record(name: str, stages: tuple[Stage, ...], later: tuple[StepRecord, ...], **changes: Any) -> RunRecord:
    """`later`: the steps after the baseline.

    `changes`: task, device, threads, processor, finished, or steps (replaces all, the baseline included).
    """
    recipe = Recipe(
        name=name,
        task=changes.pop("task", "tad-watch"),
        seed=0,
        device=changes.pop("device", "cpu"),
        stages=stages,
        measure=Measure(threads=changes.pop("threads", 2)),
    )
    environment = Environment(
        python="3.11.9",
        platform="Linux-6.1-x86_64",
        processor=changes.pop("processor", "Intel(R) Xeon(R) Processor @ 2.60GHz"),
        num_cores=2,
        gpu=None,
        packages={"torch": "2.15.0", "torch-pruning": "1.6.1", "fvcore": "0.1.5"},
    )
    baseline = StepRecord(stage="baseline", detail={}, seconds=14.2, measurement=measurement(1.0, 1.0, DENSE_MAP))
    return RunRecord(
        recipe=recipe,
        recipe_sha256=recipe.sha256,
        environment=environment,
        finished=changes.pop("finished", True),
        steps=changes.pop("steps", (baseline, *later)),
        **changes,
    )


def measurement(macs_ratio: float, latency_ratio: float, value: float) -> Measurement:
    """The quality of the validation split is a little higher than `value`, that of the test split."""
    total = round(DENSE_MACS * macs_ratio)
    return Measurement(
        macs=Macs(
            total=total,
            normalisation=round(240_000 * macs_ratio),
            by_operator={"linear": round(total * 0.86), "matmul": round(total * 0.09), "conv": round(total * 0.05)},
            uncounted={"aten::add": 24, "aten::gelu": 12, "aten::softmax": 12},
        ),
        num_params=round(DENSE_PARAMS * (0.04 + 0.96 * macs_ratio)),
        latency=(_latency(1, 0.0052, latency_ratio), _latency(16, 0.0613, latency_ratio**1.1)),
        quality=(_quality("validation", value + 0.012, 16), _quality("test", value, 24)),
        timeline=timeline(value),
    )


def timeline(value: float, stream: str = "subject 8, stream 3") -> Timeline:
    """Predictions are less precise, the lower `value` is."""
    streams, random_ = random.Random(2), random.Random(round(1000 * value))
    truth, predicted, start = [], [], 6.0
    while start < 165.0:
        label, end = streams.choice(CLASSES), start + streams.uniform(5.0, 13.0)
        truth.append(Segment(start_s=start, end_s=end, label=label))
        for score in (random_.uniform(0.55, 0.97), random_.uniform(0.02, 0.3)):
            slack = random_.gauss(0.0, 1.5 - value)
            predicted.append(Segment(start_s=start + slack, end_s=end + slack / 2, label=label, score=score))
        start = end + streams.uniform(4.0, 12.0)
    return Timeline(stream=stream, duration_s=180.0, truth=tuple(truth), predicted=tuple(predicted))


def depth_step(macs_ratio: float, latency_ratio: float, value: float) -> StepRecord:
    random_, rounds, left = random.Random(1), [], list(BLOCKS)
    for number, dropped in enumerate(("blocks.7", "blocks.9", "blocks.4")):
        scores = {block: 0.31 + 0.04 * number + random_.uniform(0.02, 0.11) for block in left}
        scores |= {"blocks.0": 2.71 + number, dropped: 0.311 + 0.041 * number}
        layer = f"blocks.{int(dropped.split('.')[1]) - 1}.mlp.fc2"
        rounds.append({"scores": scores, "dropped": dropped, "repair": repair(layer, 0.21 + 0.05 * number, 0.5)})
        left.remove(dropped)
    detail = {
        "criterion": "loss",
        "higher_is_better": False,
        "blocks": BLOCKS,
        "rounds": rounds,
        "dropped": [turn["dropped"] for turn in rounds],
        "remaining": left,
        "macs_ratio": macs_ratio,
    }
    return StepRecord(
        stage="block_drop", detail=detail, seconds=61.0, measurement=measurement(macs_ratio, latency_ratio, value)
    )


def width_step(macs_ratio: float, latency_ratio: float, value: float, blocks: list[str] = BLOCKS) -> StepRecord:
    mlp = [
        {"name": f"{block}.mlp.fc1", "kind": "mlp", "original": 256, "before": 256, "asked": 64.0, "kept": 64}
        for block in blocks
    ]
    heads = [
        {"name": f"{block}.attn", "kind": "heads", "original": 4, "before": 4, "asked": 1.5, "kept": 2}
        for block in blocks
    ]
    repairs = [repair(f"{block}.mlp.fc2", 0.08 + 0.011 * place, 0.3) for place, block in enumerate(blocks)]
    detail = {
        "importance": "activation",
        "round_to": 4,
        "groups": [{**group, "indices": list(range(int(str(group["kept"]))))} for group in [*mlp, *heads]],
        "macs_ratio": {"asked": None, "achieved": macs_ratio},
        "repairs": repairs,
    }
    return StepRecord(
        stage="channel_prune", detail=detail, seconds=22.5, measurement=measurement(macs_ratio, latency_ratio, value)
    )


def recover_step(macs_ratio: float, latency_ratio: float, value: float) -> StepRecord:
    curve = [
        {"step": step, "loss": 0.52 - 0.0008 * step + 0.01 * (step % 3), "validation": value - 0.03 + 0.00014 * step}
        for step in range(50, 301, 50)
    ]
    detail = {"steps": 300, "stopped": "max_steps", "kept_step": 300, "curve": curve}
    return StepRecord(
        stage="recover", detail=detail, seconds=151.0, measurement=measurement(macs_ratio, latency_ratio, value)
    )


def repair(layer: str, error: float, gain: float) -> dict[str, Any]:
    """The held-out error gains less than that of the calibration data."""
    return {
        "layer": layer,
        "calibration_error": {"before": error, "after": error * gain},
        "holdout_error": {"before": error * 1.03, "after": error * (gain + 0.12)},
    }


def on_two_devices(made: RunRecord, device: str) -> RunRecord:
    """The same run on `device`, timed there first, on a machine with CUDA, where ratios to dense are half as large."""

    def both(step: StepRecord) -> StepRecord:
        cpu = step.measurement.latency
        halved = [tuple(sample / 2 for sample in latency.samples_s) for latency in cpu]
        cuda = [
            latency.model_copy(update={"device": "cuda", "samples_s": samples})
            for latency, samples in zip(cpu, halved, strict=True)
        ]
        latency = (*cuda, *cpu) if device == "cuda" else (*cpu, *cuda)
        return step.model_copy(update={"measurement": step.measurement.model_copy(update={"latency": latency})})

    recipe = made.recipe.model_copy(update={"device": device})
    steps = tuple(map(both, made.steps))
    return made.model_copy(update={"recipe": recipe, "recipe_sha256": recipe.sha256, "steps": steps})


def save_three(folder: Path) -> list[Path]:
    """A depth-only, a width-only and a combined run, each in a folder of its name."""
    records = [depth_record(), width_record(), combined_record()]
    return [save(record, folder / record.recipe.name) for record in records]


def save(record: RunRecord, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    record.save(folder)
    return folder


def _latency(batch_size: int, dense_s: float, ratio: float) -> Latency:
    random_ = random.Random(round(1e6 * ratio) + batch_size)
    dense = tuple(dense_s * random_.uniform(0.97, 1.05) for _ in range(40))
    return Latency(
        device="cpu",
        batch_size=batch_size,
        threads=2,
        dtype="float32",
        samples_s=tuple(ratio * dense_s * random_.uniform(0.97, 1.06) for _ in range(40)),
        dense_samples_s=dense,
    )


def _quality(split: str, value: float, num_examples: int) -> Quality:
    details = {f"mAP@{tenth / 10}": value + 0.05 * (5 - tenth) for tenth in range(3, 8)}
    return Quality(metric="mAP", split=split, value=value, num_examples=num_examples, details=details)
