"""One random net: looked at, cut at random, compared with the reference, saved and loaded."""

from __future__ import annotations

import copy
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.random_nets.by_stages import cut_by_stage, drop_by_stage
from tests.random_nets.network import inputs_of, network
from tests.random_nets.parts import Draw
from tests.random_nets.reasons import BLOCKS, GROUPS, kind_of
from tests.random_nets.reference import Expected, expected_of, tensors_of
from toolkit import load_model
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks, look_for_blocks
from toolkit.channels.cut import KeptUnits, cut, parts_of
from toolkit.channels.find import find_groups
from toolkit.channels.groups import ChannelGroup
from toolkit.channels.proof import check_cut
from toolkit.checkpoint.save import save_model
from toolkit.hooks.paths import find_paths
from toolkit.measure.macs import count_macs

TOLERANCE = 1e-7  # of the largest output, in float64


@dataclass
class Outcome:
    """faults: what is wrong. refusals: how often each reason was given. cut: elements of which something is gone."""

    seed: int
    faults: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    elements: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    num_groups: int = 0
    num_cut: int = 0
    num_dropped: int = 0

    @property
    def is_by_stages(self) -> bool:
        """Whether the stages cut, of every tenth net, which look at it once more and choose the channels themselves."""
        return self.seed % 10 == 0


def outcome_of(seed: int) -> Outcome:
    """Whatever goes wrong is among the faults, with the seed."""
    found = Outcome(seed)
    try:
        _try(found, Draw(f"cuts of {seed}"))
    except Exception:
        found.faults.append(traceback.format_exc(limit=-14))
    return found


def _try(found: Outcome, draw: Draw) -> None:
    wide = network(found.seed)
    found.elements = set(elements_of(wide).values())
    narrow, drops_first = copy.deepcopy(wide), draw.chance(0.5)
    gone = _drop(narrow, found, draw) if drops_first else []
    _cut(narrow, found, draw)
    gone = gone if drops_first else _drop(narrow, found, draw)
    if not found.num_cut and not found.num_dropped:
        return
    fresh = inputs_of(wide, 2, seed=1)
    wanted = expected_of(wide, narrow, gone, fresh)
    _compare(found, wanted, narrow, fresh, "the cut net")
    macs = count_macs(narrow, inputs_of(narrow, 1)).total
    if macs != wanted.macs:
        found.faults.append(f"seed {found.seed}: {macs} multiply-adds were counted, and there are {wanted.macs}")
    found.cut = _cut_elements(wide, narrow)
    if found.seed % 2:
        return
    with tempfile.TemporaryDirectory() as folder:
        one = inputs_of(wide, 1)
        save_model(Path(folder) / "m", narrow, wide, factory={}, example_inputs=one, recipe_sha256=None)
        _compare(found, wanted, load_model(Path(folder) / "m", network(found.seed)), fresh, "the loaded net")


def _drop(net: nn.Module, found: Outcome, draw: Draw) -> list[str]:
    blocks = look_for_blocks(net, inputs_of(net, 1))
    _note(found, blocks.refused, BLOCKS)
    gone = [name for name in blocks.names if draw.chance(0.3)]
    if gone and len(gone) < len(blocks.names) and found.is_by_stages:
        drop_by_stage(net, gone, found.seed)
    else:
        for name in gone:
            drop_block(net, name)
    found.num_dropped += len(gone)
    return gone


def _cut(net: nn.Module, found: Outcome, draw: Draw) -> None:
    inputs, paths = inputs_of(net, 1), find_paths(net, partial(inputs_of, net))
    structure = find_groups(net, inputs, find_blocks(net, inputs), (), paths.taken[1:])
    _note(found, structure.refused, GROUPS)
    choices = [_some_of(group, draw) for group in structure.groups if draw.chance(0.7)]
    if choices and found.is_by_stages:
        cut_by_stage(net, choices, found.seed)
    else:
        reference = copy.deepcopy(net)
        cut(net, choices)
        check_cut(reference, net, parts_of(choices), inputs, paths.taken[1:])
    found.num_groups, found.num_cut = len(structure.groups), len(choices)


def _some_of(group: ChannelGroup, draw: Draw) -> KeptUnits:
    """Any number of units, any of them; of heads perhaps fewer channels too."""

    def some(count: int, size: int) -> tuple[int, ...]:
        return tuple(sorted(draw.sample(range(size), count)))

    units = some(draw.randrange(1, group.num_units), group.num_units)
    if not group.dims_are_free or draw.chance(0.5):
        return KeptUnits(group, units)
    size = draw.randrange(1, group.head_dim + 1)
    return KeptUnits(group, units, tuple(some(size, group.head_dim) for _ in units) if size < group.head_dim else ())


def _note(found: Outcome, refused: dict[str, str], patterns: dict[str, str]) -> None:
    for name, reason in refused.items():
        kind = kind_of(reason, patterns)
        if kind is None:
            found.faults.append(f"seed {found.seed}: {name} is refused for a reason that is not in the list: {reason}")
        else:
            found.refusals[kind] += 1


def _compare(found: Outcome, wanted: Expected, net: nn.Module, inputs: tuple[Tensor, ...], what: str) -> None:
    with torch.no_grad():
        outputs = list(tensors_of(net(*(part.clone() for part in inputs))))
    if [part.shape for part in outputs] != [part.shape for part in wanted.outputs]:
        found.faults.append(f"seed {found.seed}: {what} puts out other shapes")
        return
    for one, other in zip(outputs, wanted.outputs, strict=True):
        error = float((one - other).abs().max() / other.abs().max().clamp(min=1e-9))
        if not error < TOLERANCE:
            found.faults.append(f"seed {found.seed}: {what} is off by {error:.2g}")


def elements_of(net: nn.Module) -> dict[str, str]:
    """The kind of every part of a net that the generator draws, by its name."""
    named = {name: getattr(module, "element", "") for name, module in net.named_modules()}
    for name, module in net.named_modules():
        kind = type(module).__name__
        if "Norm" in kind:
            named[name] = kind.rstrip("12d").lower().replace("norm", " norm")
        elif getattr(module, "groups", 1) != 1 and hasattr(module, "in_channels"):
            named[name] = "depthwise convolution" if module.groups == module.in_channels else "grouped convolution"
    return {name: element for name, element in named.items() if element}


def _cut_elements(wide: nn.Module, narrow: nn.Module) -> set[str]:
    """Elements of which a parameter is smaller now, or gone; those without parameters where any parameter is."""
    left = {name: part.shape for name, part in narrow.named_parameters(remove_duplicate=False)}
    whole = wide.named_parameters(remove_duplicate=False)
    changed = [name for name, part in whole if left.get(name) != part.shape]
    return {
        element
        for name, element in elements_of(wide).items()
        if any(one.startswith(f"{name}.") for one in changed)
        or (not any(True for _ in wide.get_submodule(name).parameters()) and changed)
        or not name
    }
