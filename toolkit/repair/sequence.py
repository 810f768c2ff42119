"""Repairs one layer after another quickly: the part of the network before a layer is computed once.

Blocks that are final return their stored outputs, batch by batch, and the reference's activations are stored too. The
fits are those of `toolkit.repair.fit`; an eighth of the calibration data is set apart to choose the damping of each.
Memory: up to two activations per block over the calibration data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from toolkit.hooks.forward import Forward, forward_replaced
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.hooks.tensors import copied
from toolkit.repair.batch_norm import reestimate_batch_norms
from toolkit.repair.bypass import BypassSite, Streams, fit_with_rows_apart
from toolkit.repair.fit import Fitted, add_rows, fit_with_part_apart, install, installed, problem_of
from toolkit.repair.site import Site, look_at_goal, look_at_model
from toolkit.stand_ins.linear_bypass import LinearBypass

GoalKey = tuple[ActivationPoint, str | None]

Goals = list[dict[GoalKey, Tensor]]  # the reference's activations in each batch

Outputs = dict[tuple[str, int], Any]  # (name of a block, number of a batch) -> output


@dataclass(frozen=True)
class Aim:
    """Holds what repairs aim at.

    reference: the unmodified model.
    goals: its activations that were captured so far.
    outputs: stored outputs of its blocks.
    """

    reference: nn.Module
    goals: Goals
    outputs: Outputs

    def look_at(self, sites: set[Site], batches: Sequence[Inputs]) -> None:
        """Captures the goals of sites that are not known yet: streams in one pass, lifted sums one by one."""
        missing = {goal_key(site): site for site in sites if goal_key(site) not in self.goals[0]}
        plain = {site.goal for site in missing.values() if site.goal_joint is None}
        lifts = {key: site for key, site in missing.items() if site.goal_joint is not None}
        points = {site.goal for site in missing.values()}
        known = {block for block, _ in self.outputs}
        needed = {block for block in known for point in points if point.module.startswith(f"{block}.")}
        needed |= {block for block in known for site in lifts.values() if site.layer.startswith(f"{block}.")}
        current: list[int] = []
        with ExitStack() as stack:
            for block in known - needed if missing else ():
                stored = keeping(self.outputs, block, current)
                stack.enter_context(forward_replaced(self.reference.get_submodule(block), stored))
            for number, inputs in enumerate(batches if missing else ()):
                current[:] = [number]
                if plain:
                    seen = capture(self.reference, inputs, plain)
                    self.goals[number] |= {(point, None): value for point, value in seen.items()}
                for key, site in lifts.items():
                    self.goals[number][key] = look_at_goal(self.reference, site, inputs)


def goal_key(site: Site) -> GoalKey:
    """Returns the key under which a goal is kept: its place, and the layer whose sum it is, if it is a sum."""
    return site.goal, None if site.goal_joint is None else site.layer


class RepairSequence:
    """Repairs one model, in execution order.

    batches: the calibration data.
    blocks: the names of the blocks.
    order: the modules of the model in execution order.
    known: stored outputs of blocks that are final.
    """

    def __init__(
        self,
        model: nn.Module,
        aim: Aim,
        batches: Sequence[Inputs],
        blocks: Sequence[str],
        order: Sequence[str],
        known: Outputs,
    ) -> None:
        self.model, self.aim, self.batches, self.blocks = model, aim, batches, blocks
        self.order, self.known = order, known

    def look_at(self, sites: set[Site]) -> None:
        """Captures the goals of sites that are not known yet."""
        self.aim.look_at(sites, self.batches)

    def fit(self, site: Site) -> None:
        """Refits the layer of a site in the model."""
        install(self.model, self._fitted(site))

    def fit_with_bypass(self, fold: Site | None, site: BypassSite) -> LinearBypass | None:
        """Refits the layer of `fold`, fits a bypass, or does both, whichever leaves the least error.

        The refitted layer is written into the model; the bypass is only returned, or None if none is worthwhile.

        fold: the layer before the block; None if there is none to refit.
        site: the place of the block.
        """
        refitted = None if fold is None else self._fitted(fold)
        folded = None if refitted is None or refitted.damping is None else refitted
        ways: list[tuple[float, Fitted | None, LinearBypass | None]] = []
        if folded is not None:
            ways.append((folded.calibration_error[1], folded, None))
        for refit in [None] if folded is None else [None, folded]:
            with installed(self.model, refit):
                fitted = fit_with_rows_apart(self.model, site, self._streams(site))
            if fitted.is_worthwhile:
                ways.append((fitted.calibration_error[1], refit, fitted.module))
        if not ways:
            return None
        _, chosen, bypass = min(ways, key=lambda way: way[0])
        if chosen is not None:
            install(self.model, chosen)
        return bypass

    def _streams(self, site: BypassSite) -> Streams:
        """Returns for each batch the stream before the block's place, and the stream that should be behind it.

        No outputs of blocks are stored on the way: a layer before the block may still be refitted.
        """
        entry = ActivationPoint(site.block, "input")
        goal = Site(site.block, entry, site.goal)
        self.look_at({goal})
        current: list[int] = []
        streams = []
        with self._settled_kept(site.block, current, dict(self.known)):
            for number, inputs in enumerate(self.batches):
                current[:] = [number]
                streams.append((capture(self.model, inputs, {entry})[entry], self.aim.goals[number][goal_key(goal)]))
        return streams

    def _fitted(self, site: Site) -> Fitted:
        self.look_at({site})
        problem, apart = problem_of(site), problem_of(site)
        current: list[int] = []
        with self._settled_kept(site.layer, current):
            for number, inputs in enumerate(self.batches):
                current[:] = [number]
                seen = look_at_model(self.model, site, inputs)
                add_rows(problem, self.model, site, seen, self.aim.goals[number][goal_key(site)], apart)
        return fit_with_part_apart(self.model, site, problem, apart)

    def reestimate(self, norms: Sequence[str]) -> None:
        """Estimates the statistics of BatchNorms again; `norms` are in execution order."""
        if not norms:
            return
        current: list[int] = []

        def numbered() -> Iterator[Inputs]:
            for number, inputs in enumerate(self.batches):
                current[:] = [number]
                yield inputs

        with self._settled_kept(norms[0], current):
            reestimate_batch_norms(self.model, numbered(), norms)

    @contextmanager
    def _settled_kept(self, layer: str, current: list[int], known: Outputs | None = None) -> Iterator[None]:
        """Makes the blocks before a layer return their stored outputs for the length of the `with`.

        current: holds the number of the present batch.
        known: the stored outputs, to which missing ones are added; None stands for `self.known`.
        """
        known = self.known if known is None else known
        place = self.order.index(layer)
        earlier = [block for block in self.blocks if block in self.order and self.order.index(block) < place]
        settled = [block for block in earlier if not layer.startswith(f"{block}.")]
        with ExitStack() as stack:
            for block in settled:
                stored = keeping(known, block, current)
                stack.enter_context(forward_replaced(self.model.get_submodule(block), stored))
            yield


def keeping(known: Outputs, block: str, current: list[int]) -> Callable[[Forward], Forward]:
    """Returns a replacement for a forward method, which computes a block's output once per batch and then returns it.

    known: the outputs, which are added to.
    current: holds the number of the present batch.
    """

    def keeps(forward: Forward) -> Forward:
        def call(*args: Any, **kwargs: Any) -> Any:
            key = (block, current[0])
            if key not in known:
                known[key] = copied(forward(*args, **kwargs))
            return copied(known[key])  # models may change it in place

        return call

    return keeps
