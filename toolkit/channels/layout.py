"""How units lie in a dimension: in a row, or in parts that each hold all units (fused q, k, v; gates)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from toolkit.channels.groups import Places
from toolkit.channels.layers import is_grouped


def candidate_layouts(size: int, num_units: int) -> Iterator[Places]:
    """In a row; then in 2, 3 ... parts one after another, in each of which the units lie in a row.

    The largest number of parts is one for each channel of a unit, as behind a flattening with the channels last.
    """
    per_unit, rest = divmod(size, num_units)
    if rest:
        return
    for parts in (count for count in range(1, per_unit + 1) if per_unit % count == 0):
        each = per_unit // parts
        yield tuple(
            tuple(part * num_units * each + unit * each + i for part in range(parts) for i in range(each))
            for unit in range(num_units)
        )


def granules(leaves: Sequence[nn.Module], width: int) -> Iterator[int]:
    """How many channels have to go together: those of a group of the convolutions and norms on the way."""
    needed = math.lcm(*map(granule_of, leaves))
    if width % needed == 0:
        yield needed


def granule_of(leaf: nn.Module) -> int:
    """Returns how many channels in a row a leaf works on together, so that they can only go together.

    A GroupNorm of one group stays one, of what is left.
    """
    if is_grouped(leaf):
        return int(leaf.in_channels // leaf.groups)  # type: ignore[operator]
    if isinstance(leaf, nn.GroupNorm) and leaf.num_groups > 1:
        return leaf.num_channels // leaf.num_groups
    return 1


def random_units(num_units: int, seed: int) -> list[int]:
    """About half of the units; at least one is in, and one is out."""
    generator = torch.Generator().manual_seed(1000 + seed)
    count = max(1, num_units // 2)
    return sorted(torch.randperm(num_units, generator=generator)[:count].tolist())


def spread_units(places: Places, units: Sequence[int], size: int) -> Tensor:
    """bool [size]: the indices of the units."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[[index for unit in units for index in places[unit]]] = True
    return mask
