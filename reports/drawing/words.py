"""Numbers, names and stages in the words that a reader meets on pages and in figures."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from toolkit.measure.results import MeasurementKey
from toolkit.recipe.recipe import Family
from toolkit.record.run import StepRecord
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.recover.settings import Recover

MACS_NOTE = (
    "MACs are multiply-adds of one example: what fvcore calls “FLOPs”. A count of single "
    "floating-point operations would be twice as high."
)

MACS_AXIS = "MACs = multiply-adds (fvcore’s “FLOPs”)"

FAMILY_WORDS: dict[Family, str] = {
    "depth": "depth only",
    "width": "width only",
    "combined": "depth and width",
    "none": "no cut",
}

CHANNEL_WORDS = {
    "mlp": "MLP hidden units",
    "heads": "attention heads",
    "head_dim": "dimensions per attention head",
    "conv": "convolution channels",
    "embedding": "channels of the residual stream",
}

CRITERION_WORDS = {
    "task_metric": "task metric on training data with the block removed",
    "loss": "loss on training data with the block removed",
    "block_mse": "mean squared difference between the block's input and output",
    "random": "luck of a seeded draw (a control)",
}

_DEPTH_REPAIR = {"closed_form": "; the layer before each cut is repaired by least squares", "none": ""}


def count(number: int) -> str:
    """`17_234_567` -> `17.23 M`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def percent(ratio: float) -> str:
    """A measured share, always with one decimal."""
    return f"{100 * ratio:.1f} %"


def setting(ratio: float) -> str:
    """A share that someone chose, with as few decimals as it needs."""
    return f"{100 * ratio:g} %"


def milliseconds(seconds: float) -> str:
    """Three significant digits, without the unit."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def change(difference: float) -> str:
    """With its sign."""
    return f"{difference:+.3f}".replace("-", "−")


def duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"


def plain(text: str, longest: int = 28) -> str:
    """Fit for a figure: unprintable characters replaced, the middle left out of long names."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    half = (longest - 1) // 2
    return shown if len(shown) <= longest else f"{shown[:half]}…{shown[-half:]}"


def short_names(names: Sequence[str]) -> tuple[str, list[str]]:
    """What dotted names share, with `*` for the rest, and each one's own part.

    `["blocks.0.fc1", "blocks.7.fc1"]` -> `("blocks.*.fc1", ["0", "7"])`.
    """
    parts = [name.split(".") for name in names]
    room = min((len(part) for part in parts), default=1) - 1
    if len(set(names)) < 2 or room < 1:
        return "", [plain(name) for name in names]
    head = next((i for i in range(room) if len({part[i] for part in parts}) > 1), room)
    tail = next((i for i in range(room - head) if len({part[-1 - i] for part in parts}) > 1), room - head)
    own = [plain(".".join(part[head : len(part) - tail])) for part in parts]
    return plain(".".join([*parts[0][:head], "*", *parts[0][len(parts[0]) - tail :]]), 60), own


def timed_at(key: MeasurementKey) -> str:
    """Returns what a latency is of, such as `cpu, batch 16`."""
    return f"{key.where}, batch {key.batch_size}"


def step_names(steps: Sequence[StepRecord]) -> list[str]:
    """`0 dense`, `1 block_drop`, ..."""
    return [f"{index} {plain(step.stage, 20) if index else 'dense'}" for index, step in enumerate(steps)]


def stage_in_words(stage: BaseModel) -> str:
    """One sentence; a stage type that this page does not know is shown with its settings."""
    if isinstance(stage, BlockDrop) and stage.blocks is not None:
        return f"removes the blocks {', '.join(plain(block) for block in stage.blocks)}{_DEPTH_REPAIR[stage.repair]}"
    if isinstance(stage, BlockDrop):
        target = f"{stage.num_blocks} whole residual blocks" if stage.num_blocks else "whole residual blocks"
        until = (
            ""
            if stage.macs_ratio is None
            else f" until {setting(stage.macs_ratio)} of the dense MACs (multiply-adds) are left"
        )
        how = f"the least important one per round, scored by the {CRITERION_WORDS[stage.criterion]}"
        return f"removes {target}{until}, {how}{_DEPTH_REPAIR[stage.repair]}"
    if isinstance(stage, ChannelPrune):
        how = f"importance: {stage.importance}; widths are rounded to a multiple of {stage.round_to}"
        repair = "; the layers that read them are repaired by least squares" if stage.repair != "none" else ""
        return f"makes layers narrower: {_width_target(stage)} ({how}){repair}"
    if isinstance(stage, Recover):
        early = "" if stage.patience is None else f", stopping after {stage.patience} validations without improvement"
        weights = f"task loss × {stage.task_weight:g} + alignment × {stage.alignment_weight:g}"
        return f"fine-tunes with the dense model as teacher ({weights}) for at most {stage.max_steps} steps{early}"
    if isinstance(stage, Align):
        return _alignment(stage)
    settings = stage.model_dump(mode="json", exclude={"type"})
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


def _alignment(stage: Align) -> str:
    teacher = "the dense model" if stage.teacher == "static" else "the model as it came into this stage"
    weights: dict[str, float | None] = {"task": stage.task_weight, "blocks": stage.feature_weight}
    weights |= {"classes": stage.class_weight, "segments": stage.segment_weight}
    loss = " + ".join(f"{name} × {1.0 if weight is None else weight:g}" for name, weight in weights.items())
    switches = {"norms": stage.train_norms, "embedding": stage.train_embedding, "head": stage.train_head}
    trained = ["low-rank adapters on attention", *(name for name, is_on in switches.items() if is_on)]
    what = "all weights" if stage.trainable == "full" else ", ".join(trained)
    early = "" if stage.patience is None else f", stopping after {stage.patience} validations without improvement"
    how = f"trained: {what}; loss: {loss}"
    return f"aligns outputs and every block with {teacher} ({how}) for at most {stage.max_steps} steps{early}"


def _width_target(stage: ChannelPrune) -> str:
    if stage.keep is None:
        kinds = ", ".join(CHANNEL_WORDS[kind] for kind in stage.scope or ()) or "all channels inside blocks"
        return f"{kinds}, down to {setting(stage.macs_ratio or 1.0)} of the dense MACs (multiply-adds)"
    kept = [(CHANNEL_WORDS[kind], ratio) for kind, ratio in stage.keep if ratio < 1.0]
    return "keeps " + ", ".join(f"{setting(ratio)} of the {kind}" for kind, ratio in kept)
