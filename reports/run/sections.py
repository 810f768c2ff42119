"""Makes the sections of a run's page from its record; sections without content are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reports.drawing.html import Safe, bullets, el, together
from reports.drawing.style import Drawing
from reports.drawing.words import MACS_NOTE
from reports.run.channels_figure import draw_channels, kept_by_kind
from reports.run.details import detail_of, details_of
from reports.run.dynamic_figure import OPTIONS_CAPTION, draw_input_macs, draw_options, input_macs_caption
from reports.run.importance_figure import direction, draw_importance
from reports.run.recovery_figure import draw_recovery
from reports.run.repairs_figure import draw_repairs
from reports.run.tables import (
    counted_operators,
    facts_table,
    quality_details,
    raw_details,
    stages_table,
    summary_tiles,
    uncounted_operators,
    unstable_timings,
)
from reports.run.timeline_figure import SHOWN_SHARE, draw_timeline
from reports.run.waterfall_figure import LATENCY_NOISE, draw_waterfall
from toolkit.base.words import setting
from toolkit.record.run import RunRecord

REPAIR_CAPTION = (
    "Relative squared error of the stream that the layer writes to, compared with the stream that the repair aims at; "
    "0 is no error. Hollow marks are without repair, filled marks with the least-squares repair, which takes no "
    "gradient step."
)
DAMPING_CAPTION = " The strength of each fit's damping was chosen on the held-out data too."


@dataclass(frozen=True)
class Section:
    """Holds one section of the page: its title, its text and its figures."""

    title: str
    text: Safe
    drawings: tuple[Drawing, ...] = ()


def sections_of(record: RunRecord) -> list[Section]:
    """Returns the sections in reading order; it draws figures, so it must be called within `drawing_style()`."""
    always = [what_was_done(record)]
    if not record.steps:
        return [*always, Section("Results", el("p", "Nothing was measured yet.", class_="warning")), raw_recipe(record)]
    makers: tuple[Callable[[RunRecord], Section | None], ...] = (
        results, work_by_input, importance, channels, dynamic, repairs, recovery, timeline, operators, other_stages,
        raw_recipe,
    )  # fmt: skip
    return always + [section for maker in makers if (section := maker(record)) is not None]


def what_was_done(record: RunRecord) -> Section:
    """Returns the section on the recipe's stages and the run's machine."""
    stages = record.recipe.stages
    items = [together([el("strong", stage.type), " ", stage.in_words()]) for stage in stages]
    words = bullets(items, "ol") if items else el("p", "The recipe has no stages: the dense model was only measured.")
    done = max(len(record.steps) - 1, 0)
    state = "" if record.finished else f"This run is not finished: {done} of {len(stages)} stages are done."
    warning = el("p", state, class_="warning") if state else Safe("")
    return Section("What was done", together([warning, words, facts_table(record)]))


def results(record: RunRecord) -> Section:
    """Returns the section on costs and quality after each stage."""
    note = (
        f"{MACS_NOTE} Ratios are to the dense model. Both models are timed in turns, so that both meet the same load."
    )
    unstable = unstable_timings(record.steps)
    warning = (
        "Latency samples that vary widely (p90 − p10 is above half the median); measure them again on an idle machine: "
    )
    parts = [summary_tiles(record), stages_table(record), el("p", note, class_="note")]
    parts += [el("p", warning + "; ".join(unstable), class_="warning")] if unstable else []
    caption = (
        "Each bar starts where the bar of the stage before ends; the dashed line is the dense model. "
        f"Latency that changes by at most {setting(LATENCY_NOISE)} of the dense model's counts as unchanged. "
        f"{MACS_NOTE} The quality axes do not start at 0."
    )
    figure = Drawing("waterfall", draw_waterfall(record.steps), caption)
    return Section("Result after each stage", together([*parts, quality_details(record.steps)]), (figure,))


def work_by_input(record: RunRecord) -> Section | None:
    """Returns the section on how the multiply-adds spread over inputs, for models whose work depends on its input."""
    dense = record.steps[0].measurement.macs
    drawings = []
    for number, step in enumerate(record.steps):
        spread = step.measurement.macs.of_inputs
        if spread is not None and dense.total:
            figure = draw_input_macs(spread, dense.total, f"Stage {number}: multiply-adds of each validation example")
            drawings.append(Drawing(f"inputs-{number}", figure, input_macs_caption(spread, dense.total)))
    return Section("Work for each input", Safe(""), tuple(drawings)) if drawings else None


def dynamic(record: RunRecord) -> Section | None:
    """Returns the section on layers that compute only a part of their output."""
    drawings = tuple(
        Drawing(
            f"dynamic-{number}",
            draw_options(detail.dynamic_layers(), f"Stage {number}: what dynamic layers compute"),
            OPTIONS_CAPTION,
        )
        for number, detail in details_of(record.steps)
        if detail.dynamic_layers()
    )
    return Section("Dynamic layers", Safe(""), drawings) if drawings else None


def importance(record: RunRecord) -> Section | None:
    """Returns the section on the scores of blocks."""
    drawings = tuple(
        Drawing(
            f"importance-{number}",
            draw_importance(scores, f"Stage {number}: importance of each block, round by round"),
            f"{direction(scores)} Dropped, in this order: {', '.join(scores.gone)}.",
        )
        for number, detail in details_of(record.steps)
        if (scores := detail.block_scores()) is not None
    )
    return Section("Block importance", Safe(""), drawings) if drawings else None


def channels(record: RunRecord) -> Section | None:
    """Returns the section on the channels that stages kept."""
    drawings = []
    for number, detail in details_of(record.steps):
        widths = detail.kept_channels()
        if widths is None or not widths.groups:
            continue
        sums = "; ".join(f"{kind}: {count} of {original} kept" for kind, count, original in kept_by_kind(widths))
        caption = f"Channels chosen by importance “{widths.importance}”. {sums}."
        figure = draw_channels(widths, f"Stage {number}: channels kept in each layer")
        drawings.append(Drawing(f"channels-{number}", figure, caption))
    return Section("Channels kept per layer", Safe(""), tuple(drawings)) if drawings else None


def repairs(record: RunRecord) -> Section | None:
    """Returns the section on the errors of repaired layers."""
    drawings = []
    for number, detail in details_of(record.steps):
        if errors := detail.repair_errors():
            figure = draw_repairs(errors, f"Stage {number}: error of each repaired layer")
            caption = REPAIR_CAPTION + (DAMPING_CAPTION if any(repair.damping for _, repair in errors) else "")
            drawings.append(Drawing(f"repairs-{number}", figure, caption))
    return Section("Repair", Safe(""), tuple(drawings)) if drawings else None


def recovery(record: RunRecord) -> Section | None:
    stopped = {
        "max_steps": "all its steps were used",
        "patience": "validation stopped improving",
        "broken": "a number was not finite any more",
    }
    drawings = []
    for number, detail in details_of(record.steps):
        training = detail.training()
        if training is None:
            continue
        levels = [record.steps[index].measurement.quality_on("validation") for index in (0, number - 1)]
        dense, before = (level.value if level else None for level in levels)
        figure = draw_recovery(training, f"Stage {number}: fine-tuning", dense, before)
        reason = stopped.get(training.stopped, training.stopped)
        caption = f"Ended after {training.steps} steps: {reason}."
        if outcome := training.outcome():
            caption += f" The stage {outcome}."
        elif training.kept_step is not None:
            caption += f" The weights of step {training.kept_step} were kept."
        drawings.append(Drawing(f"recovery-{number}", figure, caption))
    return Section("Recovery", Safe(""), tuple(drawings)) if drawings else None


def timeline(record: RunRecord) -> Section | None:
    """Returns the section on the segments that are predicted in one test stream."""
    title = "One test stream"
    before, after = (record.steps[index].measurement.timeline for index in (0, -1))
    if before is None or after is None or before.stream != after.stream:
        return Section(title, el("p", "No timeline of the same stream was recorded before and after compression."))
    caption = (
        f"Stream {before.stream}, {before.duration_s:.0f} s. Predictions are shown if their score is at least "
        f"{setting(SHOWN_SHARE)} of the model's highest; a stronger colour is a higher score."
    )
    return Section(title, Safe(""), (Drawing("timeline", draw_timeline(before, after), caption),))


def operators(record: RunRecord) -> Section:
    """Returns the section on operators with and without a count of multiply-adds."""
    parts = [
        el("p", f"{MACS_NOTE} Operators without a count add nothing to the MACs.", class_="note"),
        uncounted_operators(record.steps),
        el("h3", "Where the MACs are"),
        counted_operators(record.steps),
    ]
    return Section("Uncounted operators", together(parts))


def other_stages(record: RunRecord) -> Section | None:
    """Returns the section with the raw details of stages that no other section shows."""
    unseen = []
    for number, step in enumerate(record.steps[1:], start=1):
        detail = detail_of(step)
        if detail is None or not detail.has_view():
            unseen.append((number, step))
    if not unseen:
        return None
    note = el("p", "This page has no figure for these stages. They recorded in run.json:", class_="note")
    return Section("Other stages", together([note, raw_details(unseen)]))


def raw_recipe(record: RunRecord) -> Section:
    """Returns the section with the whole recipe."""
    note = el("p", "The recipe with all defaults filled in, as JSON, which can be used as a YAML file.", class_="note")
    written = el("pre", record.recipe.model_dump_json(indent=2))
    return Section("Recipe", together([note, written, el("p", f"SHA-256: {record.recipe_sha256}", class_="note")]))
