"""Enumerates how units can lie in a dimension: contiguous, or in parts that each hold all units (fused q, k, v)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from toolkit.channels.groups import Places
from toolkit.channels.layers import is_grouped


def candidate_layouts(size: int, num_units: int) -> Iterator[Places]:
    """Yields contiguous units first, then 2, 3, ... parts one after another, each with contiguous units.

    Up to one part for each channel of a unit is tried, as behind a flattening with the channels last.
    """
    per_unit, rest = divmod(size, num_units)
    if rest:
        return
    for parts in (count for count in range(1, per_unit + 1) if per_unit % count == 0):
        per_part = per_unit // parts
        yield tuple(
            tuple(part * num_units * per_part + unit * per_part + i for part in range(parts) for i in range(per_part))
            for unit in range(num_units)
        )


def granules(leaves: Sequence[nn.Module], width: int) -> Iterator[int]:
    """Yields the number of neighbouring channels that have to go together, if it divides `width`.

    It is the least common multiple of the channels in each group of the grouped convolutions and group norms.
    """
    granule = math.lcm(*map(granule_of, leaves))
    if width % granule == 0:
        yield granule


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
    """Returns about half of the units, at least one and not all, in ascending order."""
    generator = torch.Generator().manual_seed(1000 + seed)
    count = max(1, num_units // 2)
    return sorted(torch.randperm(num_units, generator=generator)[:count].tolist())


def spread_units(places: Places, units: Sequence[int], size: int) -> Tensor:
    """Returns a bool [size] that is true at the indices of the units."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[[index for unit in units for index in places[unit]]] = True
    return mask
