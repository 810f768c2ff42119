"""Selects which of the remaining blocks should be dropped, and counts what that took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from toolkit.base.settings import Detail
from toolkit.blocks.find import find_blocks
from toolkit.hooks.passes import Meter, metered
from toolkit.stages.block_drop.candidates import raw_variants, repaired_variants
from toolkit.stages.block_drop.criteria import as_loss
from toolkit.stages.block_drop.racing import Rung
from toolkit.stages.block_drop.repairs import BlockRepair
from toolkit.stages.block_drop.scoring import ScoringRound
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Task

PASSES = ("executed", "layers", "repair", "naive")


@dataclass(frozen=True)
class Candidate:
    """Holds a block that could be dropped, its repair, and its score on the most data on which it was scored."""

    block: str
    repair: BlockRepair
    score: float


@dataclass(frozen=True)
class Selection:
    """Holds all candidates in execution order, and the best one.

    ranking: blocks from best to worst; in a race a block that came further is better, whatever the scores on less data.
    passes: block passes (see `toolkit.hooks.passes`): `executed` for scores, `layers` for single repaired layers that
        run instead of a block, `repair` for fitting repairs in both models, `naive` for n(n - 1).
    rungs: scores of each rung, only with racing.
    naive_scores: scores from one evaluation per candidate, only if asked for.
    """

    candidates: tuple[Candidate, ...]
    best: Candidate
    ranking: tuple[str, ...]
    passes: dict[str, float]
    rungs: tuple[Rung, ...] = ()
    naive_scores: dict[str, float] | None = None
    naive_choice: str | None = None

    def detail(self) -> Detail:
        """Returns the selection for the record of the round."""
        detail: Detail = {
            "scores": {candidate.block: candidate.score for candidate in self.candidates},
            "dropped": self.best.block,
            "ranking": list(self.ranking),
            "repair": self.best.repair.detail(),
            "block_passes": self.passes,
        }
        if self.rungs:
            detail["rungs"] = [{"num_examples": rung.num_examples, "scores": rung.scores} for rung in self.rungs]
        if self.naive_choice is not None:
            detail |= {"naive_choice": self.naive_choice, "naive_scores": self.naive_scores}
        return detail


def total_passes(rounds: Sequence[Detail]) -> dict[str, float]:
    """Returns the sums of block passes over the details of rounds."""
    counts = [
        detail["block_passes"] for detail in rounds if "block_passes" in detail
    ]  # rounds of named blocks have none
    return {name: sum(count[name] for count in counts) for name in PASSES}


def score_candidates(
    model: nn.Module,
    reference: nn.Module,
    remaining: Sequence[str],
    task: Task,
    config: BlockDrop,
    context: StageContext,
    number: int,
) -> Selection:
    """Scores every remaining block, removed alone and after its repair; the model is left unchanged.

    reference: model whose streams are the goal of repairs and of `block_mse`.
    remaining: blocks that `find_blocks` found, in execution order.
    number: number of the round, from 1.

    Raises:
        StageError: a score is not a finite number, or the scoring data differ from call to call.
    """
    fitting, scoring = Meter(), Meter()
    reference_blocks = find_blocks(reference, context.example_inputs(task))
    with metered(fitting, model, remaining), metered(fitting, reference, reference_blocks):
        variants = raw_variants(remaining)
        if config.repair != "none":
            options = config.repair_kind, config.rank
            variants = repaired_variants(model, reference, remaining, task, context, *options)
    one_round = ScoringRound(model, reference, variants, task, config, context, number)
    with metered(scoring, model, remaining), metered(scoring, reference, reference_blocks):
        rungs = one_round.rungs(scoring)
    naive = one_round.naive_scores() if config.verify_selection else None
    latest = {block: score for rung in rungs for block, score in rung.scores.items()}
    candidates = {block: Candidate(block, variants[block].repair, latest[block]) for block in remaining}
    ranking = _ranking(rungs, config)
    return Selection(
        candidates=tuple(candidates.values()),
        best=candidates[ranking[0]],
        ranking=ranking,
        passes=_passes(scoring, fitting, len(remaining), task),
        rungs=tuple(rungs) if config.racing != "none" else (),
        naive_scores=naive,
        naive_choice=None if naive is None else _ranked(naive, config)[0],
    )


def _ranking(rungs: Sequence[Rung], config: BlockDrop) -> tuple[str, ...]:
    ranking: list[str] = []
    for rung in reversed(rungs):
        ranking += [block for block in _ranked(rung.scores, config) if block not in ranking]
    return tuple(ranking)


def _ranked(scores: Mapping[str, float], config: BlockDrop) -> list[str]:
    """Returns the blocks from best to worst, ties in execution order."""
    return sorted(scores, key=lambda block: as_loss(scores[block], config.criterion))


def _passes(scoring: Meter, fitting: Meter, num_blocks: int, task: Task) -> dict[str, float]:
    rows = sum(len(batch.inputs[0]) for batch in task.batches("score", 16))
    counts = (scoring.blocks / rows, scoring.layers / rows, fitting.blocks / rows, num_blocks * (num_blocks - 1))
    return dict(zip(PASSES, counts, strict=True))
