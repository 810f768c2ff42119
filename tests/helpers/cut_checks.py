"""Checks of cuts: what is found is cut in half, compared with the masked net on inputs it was not found with, saved."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit import load_model
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut, parts_of
from toolkit.channels.find import find_groups, half_of
from toolkit.channels.groups import Structure
from toolkit.channels.proof import cut_error
from toolkit.checkpoint.save import save_model
from toolkit.hooks.tensors import tensors_in


def found_in(net: nn.Module, inputs: tuple[Tensor, ...]) -> Structure:
    return find_groups(net, inputs, find_blocks(net, inputs))


def halved(net: nn.Module, inputs: tuple[Tensor, ...], fresh: tuple[Tensor, ...], folder: Path) -> Structure:
    """Every group is cut in half, alone and all together; the net that lost them all is saved, loaded and run."""
    found = found_in(net, inputs)
    for chosen in (*((group,) for group in found.groups), found.groups):
        narrow, choices = copy.deepcopy(net), [half_of(group) for group in chosen]
        cut(narrow, choices)
        assert cut_error(net, narrow, parts_of(choices), fresh) < 1e-4, [group.name for group in chosen]
        assert sum(part.numel() for part in narrow.parameters()) < sum(part.numel() for part in net.parameters())
    if found.groups:
        save_model(folder / "m", narrow, net, factory={"task": "x"}, example_inputs=inputs, recipe_sha256=None)
        with torch.no_grad():
            again, once = tensors_in(load_model(folder / "m", net)(*fresh)), tensors_in(narrow(*fresh))
        assert all(
            torch.allclose(one, other, atol=1e-6, equal_nan=True) for one, other in zip(again, once, strict=True)
        )
    return found


def sizes(found: Structure) -> dict[str, int]:
    """The number of units of every group."""
    return {group.name: group.num_units for group in found.groups}
