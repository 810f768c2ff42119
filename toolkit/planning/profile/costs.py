"""Measures what every change costs: multiply-adds, parameters, and latency on the device at hand.

A block is timed alone, on the inputs that it has in the network, in turns with the whole model; each narrower form of
the block is timed in turns with the block. Blocks that are alike (types, shapes, inputs) are timed once. Models with
all blocks and without any block are timed as wholes. Block times are scaled so that they sum to (whole model - model
without blocks); otherwise the error of one block time is multiplied by the number of blocks. What widths save in whole
models is fitted on a few random plans (`correction`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut
from toolkit.channels.groups import still_there
from toolkit.hooks.copies import copy_model
from toolkit.measure.latency import measure_latency
from toolkit.measure.macs import count_macs
from toolkit.measure.results import MeasurementKey
from toolkit.planning.profile.bypasses import drop_all, new_bypass
from toolkit.planning.profile.calls import Bound, call_of, signature_of
from toolkit.planning.profile.space import Space
from toolkit.planning.profile.store import Store
from toolkit.planning.tables import MACS, PARAMS, Drops, PlanCosts, Width, latency_of
from toolkit.record.plan import Rank
from toolkit.stages.channel_prune.widths import choose, even_scores, given_cuts

REPEATS, WARMUP = 30, 3

ANCHOR = 3  # factor on the repeats for whole models, to which all block times are scaled


@dataclass(frozen=True)
class TimingSettings:
    """Holds the settings of the latency measurement.

    batch_sizes: numbers of examples per call that are timed; empty for no timing.
    repeats: samples per timing.
    """

    device: torch.device
    batch_sizes: tuple[int, ...]
    threads: int
    repeats: int = REPEATS

    @property
    def keys(self) -> tuple[MeasurementKey, ...]:
        """Returns the key of every latency that is timed: one per batch size, on the device."""
        return tuple(MeasurementKey(device=self.device.type, batch_size=size) for size in self.batch_sizes)

    @property
    def resources(self) -> list[str]:
        """Returns the names of all resources: multiply-adds, parameters, and every latency that is timed."""
        return [MACS, PARAMS, *map(latency_of, self.keys)]


class CostProfiler:
    """Measures the costs of a model's parts as shares of the dense model's, and keeps them in `store`.

    inputs: returns the task's example inputs of a batch size.
    """

    def __init__(
        self,
        dense: nn.Module,
        space: Space,
        inputs: Callable[[int], tuple[Tensor, ...]],
        timing: TimingSettings,
        store: Store,
    ) -> None:
        self.dense, self.space, self.timing, self.store = dense, space, timing, store
        self.inputs = {
            size: tuple(part.to(timing.device) for part in inputs(size)) for size in (1, *timing.batch_sizes)
        }
        self.total = self._counts(dense, self.inputs[1])
        self._streams: dict[str, nn.Module] = {}
        self._kinds: dict[str, dict[str, str]] = {}  # by the context's label

    def whole(self, label: str) -> PlanCosts:
        """Returns the costs of the model of a context: all blocks, and full widths except those of the stream."""
        if not self.space.streams[label]:
            return dict.fromkeys(self.timing.resources, 1.0)
        return self._known(f"{label} | whole", lambda: self._of_model(self._stream(label)))

    def bare(self, label: str) -> PlanCosts:
        """Returns the costs of the model of a context without its blocks."""

        def measure() -> dict[str, float]:
            model = copy_model(self._stream(label))
            for block in find_blocks(model, self.inputs[1]):
                if block in self.space.blocks:
                    drop_block(model, block)
            return self._of_model(model)

        return self._known(f"{label} | bare", measure)

    def block(self, label: str, name: str) -> PlanCosts:
        """Returns the costs of a block, which is timed alone."""
        part = f"block {self._kind(label, name)}"
        return self._known(f"{label} | {part}", lambda: self._of_part(label, name))

    def bypass(self, label: str, name: str, rank: Rank) -> PlanCosts:
        """Returns the costs of a bypass in the place of the block; the bypass is timed alone."""
        part = f"bypass {rank} | block {self._kind(label, name)}"
        return self._known(f"{label} | {part}", lambda: self._of_part(label, name, rank))

    def width(self, label: str, group: str, width: Width) -> PlanCosts:
        """Returns what the width adds to the costs of its block, or of the model if no block holds the group."""
        home = self.space.home(group)

        def measure() -> dict[str, float]:
            model = self._stream(label)
            narrow = self.narrowed(model, {group: width})
            base = self.whole(label) if home is None else self.block(label, home)
            changes = self._compared(narrow, model, home)
            return {
                key: base[key] * (value - 1.0) if key.startswith("latency") else value for key, value in changes.items()
            }

        where = "model" if home is None else f"block {self._kind(label, home)}"
        name = group if home is None else group.removeprefix(f"{home}.")
        return self._known(f"{label} | {where} | {name} | {width}", measure)

    def narrowed(self, model: nn.Module, widths: Mapping[str, Width]) -> nn.Module:
        """Returns a copy of the model with these widths; which channels are removed does not change the costs."""
        narrow = copy_model(model)
        groups = [self.space.groups[name] for name in widths]
        cut(narrow, choose(given_cuts(groups, self.dense, widths), even_scores(groups)))
        return narrow

    def built(self, drops: Drops, widths: Mapping[str, Width]) -> nn.Module:
        """Returns the model of a plan without repairs, of which only the costs are right."""
        model = copy_model(self.dense)
        find_blocks(model, self.inputs[1])
        drop_all(model, drops, self.inputs[1])
        groups = still_there([self.space.groups[name] for name in widths], model)
        cut(model, choose(given_cuts(groups, self.dense, widths), even_scores(groups)))
        return model

    def counts(self, drops: Drops, widths: Mapping[str, Width]) -> dict[str, float]:
        """Returns the counted multiply-adds and parameters of a plan's model, as shares of the dense model's."""
        counts = self._counts(self.built(drops, widths), self.inputs[1])
        return {key: counts[key] / self.total[key] for key in counts}

    def latency_ratio(self, model: nn.Module, key: MeasurementKey) -> float:
        """Returns the latency of a whole model as a share of the dense model's."""
        return self._timed(model, self.dense, self.inputs[key.batch_size], key)

    def _stream(self, label: str) -> nn.Module:
        if label not in self._streams:
            widths = self.space.streams[label]
            self._streams[label] = self.narrowed(self.dense, widths) if widths else self.dense
        return self._streams[label]

    def _known(self, name: str, measure: Callable[[], dict[str, float]]) -> PlanCosts:
        def values() -> list[float]:
            costs = measure()
            return [costs[key] for key in self.timing.resources]

        return dict(zip(self.timing.resources, self.store.get(name, values), strict=True))

    def _of_model(self, model: nn.Module) -> dict[str, float]:
        """Returns the costs of a whole model as shares of the dense model's."""
        counts = self._counts(model, self.inputs[1])
        costs = {key: counts[key] / self.total[key] for key in (MACS, PARAMS)}
        for latency in self.timing.keys:
            inputs = self.inputs[latency.batch_size]
            costs[latency_of(latency)] = self._timed(model, self.dense, inputs, latency, ANCHOR)
        return costs

    def _of_part(self, label: str, block: str, rank: Rank | None = None) -> dict[str, float]:
        """Returns the costs of a block, or of the bypass of that rank in its place, as shares of the dense model's."""
        model, whole = self._stream(label), self.whole(label)

        def called(size: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
            part, stream = call_of(model, block, self.inputs[size])
            return (part if rank is None else new_bypass(model, block, rank, self.inputs[1])), stream

        counts = self._counts(*called(1))
        costs = {key: counts[key] / self.total[key] for key in (MACS, PARAMS)}
        for key in self.timing.keys:
            inputs = self.inputs[key.batch_size]
            share = self._timed(Bound(*called(key.batch_size)), Bound(model, inputs), inputs, key)
            costs[latency_of(key)] = share * whole[latency_of(key)]
        return costs

    def _compared(self, narrow: nn.Module, model: nn.Module, block: str | None) -> dict[str, float]:
        """Compares a narrowed part with the part before.

        Returns the change of each count as a share of the dense model's, and each latency as a share of the part's
        before.

        narrow: the model with the cut.
        model: the model without the cut.
        block: the block to compare; None compares the whole models.
        """
        pairs = {}
        for size in (1, *self.timing.batch_sizes):
            inputs = self.inputs[size]
            pairs[size] = (
                [call_of(whole, block, inputs) for whole in (narrow, model)]
                if block
                else [(narrow, inputs), (model, inputs)]
            )
        (new, new_inputs), (old, old_inputs) = pairs[1]
        after, before = self._counts(new, new_inputs), self._counts(old, old_inputs)
        changes = {key: (after[key] - before[key]) / self.total[key] for key in (MACS, PARAMS)}
        for latency in self.timing.keys:
            (new, new_inputs), (old, old_inputs) = pairs[latency.batch_size]
            inputs = self.inputs[latency.batch_size]
            changes[latency_of(latency)] = self._timed(Bound(new, new_inputs), Bound(old, old_inputs), inputs, latency)
        return changes

    def _timed(
        self, model: nn.Module, other: nn.Module, inputs: tuple[Tensor, ...], key: MeasurementKey, times: int = 1
    ) -> float:
        return measure_latency(
            model,
            other,
            inputs,
            key,
            threads=self.timing.threads,
            warmup=WARMUP,
            repeats=self.timing.repeats * times,
        ).ratio

    @staticmethod
    def _counts(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, float]:
        macs = max(1, count_macs(model, inputs).total)  # a partial count may know of none
        return {MACS: macs, PARAMS: sum(parameter.numel() for parameter in model.parameters())}

    def _kind(self, label: str, name: str) -> str:
        """Returns the first block of the context's model that is like this one; it is timed for all that are alike."""
        if label not in self._kinds:
            first: dict[str, str] = {}
            model = self._stream(label)
            signed = {block: signature_of(model, block, self.inputs[1]) for block in self.space.blocks}
            self._kinds[label] = {block: first.setdefault(text, block) for block, text in signed.items()}
        return self._kinds[label][name]
