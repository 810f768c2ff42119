"""A planner's sweep built by hand: three families, three budgets, three seeds, two controls; some cells have no run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.helpers.example_records import (
    BLOCKS,
    DEPTH,
    RECOVER,
    depth_step,
    measurement,
    record,
    recover_step,
    save,
    width_step,
)
from toolkit.measure.results import MeasurementKey
from toolkit.record.plan import INFEASIBLE_FILE, PlanRecord, Predicted
from toolkit.record.run import RunRecord, StepRecord
from toolkit.stages.align.settings import Align
from toolkit.stages.channel_prune.settings import ChannelPrune, Heads, Keep
from toolkit.stages.settings import Stage

WIDTH = ChannelPrune(keep=Keep(mlp=0.5))
STAGES: Mapping[str, tuple[Stage, ...]] = {
    "depth": (DEPTH, RECOVER),
    "width": (WIDTH, RECOVER),
    "combined": (DEPTH, WIDTH, RECOVER),
}
LOSS = {"depth": 0.10, "width": 0.07, "combined": 0.05}  # of quality, at no cost at all
DENSE = {0: 0.652, 1: 0.661, 2: 0.643}
REASON = "no plan of this family is below 0.35: the fastest one is at 0.41"


def planned_record(
    family: str, budget: float, seed: int = 0, quality: float | None = None, **changes: Any
) -> RunRecord:
    """At the budget in MACs and in latency at batch 1."""
    random_ = random.Random(f"{family} {budget} {seed}")
    ratio = budget * random_.uniform(0.96, 1.05)
    value = DENSE[seed] - LOSS[family] * (1.0 - budget) + random_.uniform(-0.006, 0.006) if quality is None else quality
    macs = ratio * random_.uniform(0.9, 1.1)
    steps = {"depth": [depth_step], "width": [width_step], "combined": [depth_step, width_step]}[family]
    done = [step(macs, ratio, value - 0.02) for step in steps]
    return seeded(
        record(f"{family}_{budget}", STAGES[family], (*done, recover_step(macs, ratio, value))), seed, **changes
    )


def control_record(name: str, ratio: float, change: float, seed: int = 0) -> RunRecord:
    """Measured after one stage of alignment."""
    step = StepRecord(
        stage="align", detail={}, seconds=9.0, measurement=measurement(ratio, ratio, DENSE[seed] + change)
    )
    return seeded(record(name, (Align(),), (step,)), seed)


def seeded(made: RunRecord, seed: int, **changes: Any) -> RunRecord:
    """As of another seed: its own baseline. `changes`: of the recipe."""
    task = "tad-watch" if seed == 0 else f"tad-watch-seed{seed}"
    recipe = made.recipe.model_copy(update={"seed": seed, "task": task, **changes})
    dense = made.baseline.model_copy(update={"measurement": measurement(1.0, 1.0, DENSE[seed])})
    steps = (dense, *made.steps[1:])
    return made.model_copy(update={"recipe": recipe, "recipe_sha256": recipe.sha256, "steps": steps})


def plan_note(family: str, budget: float, /, **changes: Any) -> PlanRecord:
    dropped = () if family == "width" else ("blocks.3", "blocks.7", "blocks.8")
    left = [block for block in BLOCKS if block not in dropped]
    widths: dict[str, int | Heads] = {}
    if family != "depth":
        widths = {f"{block}.mlp.fc1": 64 if place < 4 else 96 for place, block in enumerate(left)}
        widths |= {f"{block}.attn": Heads(heads=2, head_dim=8) for block in left[:3]}
    latency = {
        MeasurementKey(device="cpu", batch_size=1): budget,
        MeasurementKey(device="cpu", batch_size=16): budget**1.1,
    }
    predicted = Predicted(macs_ratio=budget, params_ratio=budget, latency_ratio=latency)
    fields: dict[str, Any] = {
        "family": family, "budget": f"latency={budget}", "device": "cpu", "batch_size": 16, "threads": 2,
        "order": "depth_then_width", "dropped": dropped, "widths": widths, "predicted": predicted, "dense_loss": 0.3,
        "additive_loss": 0.4, "scored_loss": 0.41, "evaluations": 60, "block_passes": 700.0, "seconds": 12.0,
    }  # fmt: skip
    return PlanRecord(**{**fields, **changes})


def save_planned(folder: Path, family: str, budget: float, seed: int = 0, **changes: Any) -> Path:
    """`changes`: as of `planned_record`."""
    cell = save(planned_record(family, budget, seed, **changes), folder / f"{family}_{budget}" / f"seed{seed}")
    plan_note(family, budget).save(cell)
    return cell


def save_infeasible(folder: Path, family: str, budget: float, seed: int = 0, reason: str = REASON) -> Path:
    cell = folder / f"{family}_{budget}" / f"seed{seed}"
    cell.mkdir(parents=True)
    (cell / INFEASIBLE_FILE).write_text(f"{reason}\n")
    return cell


def save_sweep(folder: Path) -> Path:
    """Depth cannot reach 0.35; the cell of combined at 0.5 with seed 2 has not been begun."""
    for seed in DENSE:
        for budget in (0.7, 0.5, 0.35):
            for family in STAGES:
                if (family, budget) == ("depth", 0.35):
                    save_infeasible(folder, family, budget, seed)
                elif (family, budget, seed) != ("combined", 0.5, 2):
                    save_planned(folder, family, budget, seed)
        save(control_record("dense_control", 1.0, 0.004, seed), folder / "dense_control" / f"seed{seed}")
        save(control_record("plain_smaller", 0.5, -0.06, seed), folder / "plain_smaller" / f"seed{seed}")
    return folder
