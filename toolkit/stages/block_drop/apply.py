"""Removes residual blocks, the least important first (Progressive Block Drop, CVPR 2025, arXiv 2503.16916).

In a round, every remaining block is scored by removing it alone, on training data and after its repair if there is one;
then the best one is dropped, the rest is aligned with a teacher if asked for, and the model is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.base.settings import Detail
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks, look_for_blocks
from toolkit.blocks.ways import faults_on_paths
from toolkit.hooks.copies import copy_model
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.hooks.routes import routed_modules
from toolkit.repair.fit import install
from toolkit.stages.align.apply import align_model
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.candidates import repaired_variants
from toolkit.stages.block_drop.criteria import HIGHER_IS_BETTER
from toolkit.stages.block_drop.detail import BlockDropDetail
from toolkit.stages.block_drop.repairs import NO_REPAIR, bypass_sites
from toolkit.stages.block_drop.selection import score_candidates, total_passes
from toolkit.stages.block_drop.settings import BlockDrop, RepairKind
from toolkit.stages.context import StageContext
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import Task


def apply_block_drop(
    model: nn.Module, task: Task, config: BlockDrop, context: StageContext
) -> tuple[nn.Module, BlockDropDetail]:
    """Drops blocks until `num_blocks` are dropped, `macs_ratio` is reached, or a round is undone for its quality.

    Raises:
        StageError: there are too few blocks, the ratio cannot be met, or a score is not a finite number.
    """
    candidates = look_for_blocks(model, context.example_inputs(task))
    refused = faults_on_paths(model, candidates.names, context.other_paths(task, model))
    refused |= routed_modules(model, context.varied_inputs(task, "score"))
    names = [name for name in candidates.names if name not in refused]
    for name in candidates.names:
        if name in refused:
            context.console.line(f"  {name} stays: {refused[name]}")
    _check_target(names, config, {**candidates.refused, **refused})
    if config.rank is not None:
        bypass_sites(model, config.blocks or names, context.example_inputs(task), {}, config.rank)
    config = config if config.blocks is None else config.model_copy(update={"num_blocks": len(config.blocks)})
    reference = context.dense if _same_streams(model, context.dense, names, context.example_inputs(task)) else model
    return _Drop(task, config, context, copy_model(reference), names).run(model)


def _same_streams(model: nn.Module, dense: nn.Module, blocks: list[str], inputs: tuple[Tensor, ...]) -> bool:
    """Says whether the residual streams are as wide as in the dense model, which then is the reference."""
    ends = {ActivationPoint(block, "output") for block in blocks}
    streams, dense_streams = capture(model, inputs, ends), capture(dense, inputs, ends)
    return all(streams[end].shape == dense_streams[end].shape for end in ends)


def _check_target(names: list[str], config: BlockDrop, refused: Mapping[str, str]) -> None:
    if not names:
        reasons = "".join(f"; {name}: {reason}" for name, reason in list(refused.items())[:3])
        raise StageError(
            f"the model has no residual block that keeps its input's shape, so none can be dropped{reasons}"
        )
    unknown = [block for block in config.blocks or () if block not in names]
    refusals = [f"{block} cannot be dropped: {refused[block]}" for block in unknown if block in refused]
    if refusals:
        raise StageError(f"blocks: {'; '.join(refusals)}; choose among: {', '.join(names)}")
    if unknown:
        raise StageError(f"blocks: {', '.join(unknown)}: no such block is left; choose among: {', '.join(names)}")
    if config.blocks is not None and len(config.blocks) == len(names):
        raise StageError(f"blocks: all blocks are listed, but one of {', '.join(names)} must stay")
    if config.num_blocks is not None and config.num_blocks >= len(names):
        raise StageError(
            f"num_blocks is {config.num_blocks}, but the model has {len(names)} blocks ({', '.join(names)}) "
            f"and one must stay: at most {len(names) - 1}"
        )


NO_FOLD: Final = "no layer before it was found that, refitted, makes up for the block on held-out data"
NO_BYPASS: Final = "no linear map in its place makes up for it on held-out data, or the stream's channels are not known"
WHY_NOT: Final[dict[RepairKind, str]] = {
    "fold": f"{NO_FOLD}; repair: bypass may put a linear map in its place",
    "bypass": NO_BYPASS,
    "fold_and_bypass": f"{NO_FOLD}, and {NO_BYPASS}",
}


@dataclass(frozen=True)
class _Drop:
    """Runs the stage; `reference` is the goal of repairs: the unmodified model, or the model before the stage."""

    task: Task
    config: BlockDrop
    context: StageContext
    reference: nn.Module
    names: list[str]

    def run(self, model: nn.Module) -> tuple[nn.Module, BlockDropDetail]:
        store = self.context.rounds
        rounds = store.finished()
        if rounds:
            model = store.model_after(len(rounds))
            self.context.console.line(f"  going on after round {len(rounds)}")
        floor = self._floor()
        undone: Detail | None = None
        while not self._reached(model, _dropped(rounds)):
            number = len(rounds) + 1
            after, detail = self._round(copy_model(model), number, _dropped(rounds))
            detail |= self._measure(after)
            if floor is not None and detail["validation"] < floor:
                undone = detail | {"floor": floor}
                self.context.console.line(f"  round {number} undone: {detail['validation']:.4f} is below {floor:.4f}")
                break
            model = store.finish(number, after, detail)
            rounds.append(detail)
            self.context.console.line(f"  round {number}: {_summary(detail)}")
        return model, self._detail(model, rounds, undone)

    def _round(self, model: nn.Module, number: int, dropped: list[str]) -> tuple[nn.Module, Detail]:
        undropped = copy_model(model) if self._has_dynamic_teacher() else None
        detail = self._choose(model, number, dropped)
        blocks = self._blocks_to_drop(detail)
        repairs = [self._drop(model, block) for block in blocks]
        detail |= {"all_dropped": blocks, "repair": repairs[0], "repairs": repairs}
        if self.config.align is not None:
            teacher = self.context.dense if undropped is None else undropped
            detail["align"] = self._align(model, teacher, number, len(blocks))
        return model, detail

    def _choose(self, model: nn.Module, number: int, dropped: list[str]) -> Detail:
        """Returns the scores and the choice of a round, from disk if the round was interrupted afterwards."""
        if self.config.blocks is not None:
            find_blocks(model, self.context.example_inputs(self.task))
            return {"scores": {}, "dropped": self.config.blocks[number - 1]}
        remaining = [name for name in self.names if name not in dropped]
        if len(remaining) == 1:
            raise StageError(
                f"macs_ratio {self.config.macs_ratio} cannot be met by dropping blocks: with one block left "
                f"({remaining[0]}) the model is at {self.context.macs_ratio(model):.3f}; "
                "raise macs_ratio, or add channel_prune"
            )
        choice = self.context.rounds.choice(number)
        find_blocks(model, self.context.example_inputs(self.task))  # marks the blocks of a loaded model
        if choice is None:
            arguments = (self.reference, remaining, self.task, self.config, self.context, number)
            choice = score_candidates(model, *arguments).detail()
            self.context.rounds.keep_choice(number, choice)
        return choice

    def _blocks_to_drop(self, choice: Detail) -> list[str]:
        """Returns the chosen block, or all blocks that a one-shot stage drops, the best first."""
        if self.config.schedule == "progressive":
            return [choice["dropped"]]
        assert self.config.num_blocks is not None
        return list(choice["ranking"][: self.config.num_blocks])

    def _drop(self, model: nn.Module, block: str) -> Detail | None:
        """Repairs and drops a block, and returns the detail of the repair, if there was one."""
        if self.config.repair == "none":
            drop_block(model, block)
            return None
        kind, rank = self.config.repair_kind, self.config.rank
        variant = repaired_variants(model, self.reference, [block], self.task, self.context, kind, rank)[block]
        if variant.repair == NO_REPAIR:
            self.context.console.line(f"  {block}: no repair: {WHY_NOT[kind]}")
        if variant.fitted is not None:
            install(model, variant.fitted)
        drop_block(model, block, variant.stand_in)
        return variant.repair.detail()

    def _align(self, model: nn.Module, teacher: nn.Module, number: int, num_dropped: int) -> Detail:
        """Trains `max_steps` for each dropped block, with a seed of its own for each round."""
        config = self.config.align
        assert config is not None
        steps = {"max_steps": config.max_steps * num_dropped}
        context = replace(self.context, seed=self.context.seed * 100 + number)
        share = self._data_share(config, number)
        checkpoint = self.context.rounds.alignment(number)
        arguments = (model, teacher, self.task, config.model_copy(update=steps), context)
        return align_model(*arguments, data_share=share, checkpoint=checkpoint).model_dump(mode="json")

    def _data_share(self, config: Align, number: int) -> float:
        """Returns `data_share` in the first half of the rounds, then 1 (section 3.3 of the paper)."""
        if self.config.schedule == "one_shot" or self.config.num_blocks is None:
            return config.data_share
        return config.data_share if number <= self.config.num_blocks // 2 else 1.0

    def _has_dynamic_teacher(self) -> bool:
        return self.config.align is not None and self.config.align.teacher == "dynamic"

    def _higher_is_better(self) -> bool:
        return self.config.criterion in HIGHER_IS_BETTER

    def _floor(self) -> float | None:
        if self.config.max_quality_drop is None:
            return None
        return evaluate(self.task, self.context.dense, "validation").value - self.config.max_quality_drop

    def _measure(self, model: nn.Module) -> Detail:
        """Returns the share of multiply-adds, and the validation metric unless the blocks were named."""
        detail: Detail = {"macs_ratio": self.context.known_macs_ratio(model)}
        if self.config.blocks is None:
            detail["validation"] = evaluate(self.task, model, "validation").value
        return detail

    def _reached(self, model: nn.Module, dropped: list[str]) -> bool:
        if self.config.num_blocks is not None:
            return len(dropped) >= self.config.num_blocks
        if self.config.macs_ratio is not None:
            return self.context.macs_ratio(model) <= self.config.macs_ratio
        return len(dropped) == len(self.names) - 1

    def _detail(self, model: nn.Module, rounds: list[Detail], undone: Detail | None) -> BlockDropDetail:
        dropped = _dropped(rounds)
        detail = {
            "criterion": self.config.criterion if self.config.blocks is None else "given",
            "higher_is_better": self._higher_is_better(),
            "schedule": self.config.schedule,
            "blocks": self.names,
            "rounds": rounds,
            "undone": undone,
            "dropped": dropped,
            "remaining": [name for name in self.names if name not in dropped],
            "block_passes": total_passes(rounds),
            "macs_ratio": self.context.known_macs_ratio(model),
        }
        return BlockDropDetail.model_validate(detail)


def _dropped(rounds: list[Detail]) -> list[str]:
    return [block for detail in rounds for block in detail["all_dropped"]]


def _summary(detail: Detail) -> str:
    blocks = ", ".join(detail["all_dropped"])
    quality = f", validation {detail['validation']:.4f}" if "validation" in detail else ""
    ratio = detail["macs_ratio"]
    macs = "" if ratio is None else f", {ratio:.3f} of the dense MACs"
    return f"dropped {blocks}{macs}{quality}"
