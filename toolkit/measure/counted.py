"""Holds what is counted of a model as data: multiply-adds, and their spread over inputs. Nothing here imports torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from toolkit.base.settings import Data


def percentile(values: Sequence[float], percent: int) -> float:
    """Returns a percentile of the values by linear interpolation; `percent` is from 1 to 99."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


class InputMacs(Data):
    """Holds how the multiply-adds of a model with gates spread over the examples of a split.

    p10, p90: percentiles, in multiply-adds.
    edges: the bounds of the bins of a histogram, rising; one more than there are counts.
    counts: the number of examples in each bin; the last bin holds its upper bound.
    by_group: the mean of each group of examples, such as those of one true class, where the task tells groups.
    """

    num_examples: Annotated[int, Field(ge=1)]
    mean: float
    p10: float
    p90: float
    deviation: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    by_group: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def of(cls, values: Sequence[int], groups: Sequence[str] = (), bins: int = 20) -> InputMacs:
        """Returns mean, spread and histogram of the multiply-adds of single examples.

        groups: the name of each example's group, or nothing.
        """
        low, high = min(values), max(values)
        width = max(high - low, 1) / bins
        counts = [0] * bins
        for value in values:
            counts[min(int((value - low) / width), bins - 1)] += 1
        members: dict[str, list[int]] = {}
        for group, value in zip(groups, values, strict=True) if groups else ():
            members.setdefault(group, []).append(value)
        return cls(
            num_examples=len(values),
            mean=statistics.fmean(values),
            p10=percentile(values, 10),
            p90=percentile(values, 90),
            deviation=statistics.pstdev(values),
            edges=tuple(low + width * edge for edge in range(bins + 1)),
            counts=tuple(counts),
            by_group={group: statistics.fmean(members[group]) for group in sorted(members)},
        )


class Macs(Data):
    """Holds the multiply-adds of one example; fvcore calls them "flops", although these would be twice as many.

    unknown: operators without a count that may be heavy, with their number of calls. If there is one, the count is
        partial: `total` holds what is known, and no ratio can be made of it.
    of_inputs: how they spread over the validation examples, for a model whose work depends on its input; `total` is
        then their mean, and the counts by operator are those of one example.
    """

    total: Annotated[int, Field(ge=0)]  # matrix products, convolutions, scaled dot-product attention
    normalisation: int  # kept apart: fvcore counts these per element, not as multiply-adds
    by_operator: dict[str, int]
    uncounted: dict[str, int]  # cheap operator without a count -> number of calls
    unknown: dict[str, int] = Field(default_factory=dict)
    of_inputs: InputMacs | None = None

    @property
    def is_partial(self) -> bool:
        """Returns whether an operator that may be heavy has no count."""
        return bool(self.unknown)

    @property
    def known_total(self) -> int | None:
        """Returns the multiply-adds, or None if the count is partial."""
        return None if self.is_partial else self.total

    @property
    def why_partial(self) -> str:
        """Returns which operators have no count, in words, with three names at the most."""
        names = [f"{name} ({number} calls)" for name, number in self.unknown.items()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{', '.join(names[:3])}{more} may be heavy and have no count"

    def ratio_to(self, dense: Macs) -> float | None:
        """Returns the share of the dense model's multiply-adds; None if a count is partial or the dense one is 0."""
        return None if self.is_partial or dense.is_partial or not dense.total else self.total / dense.total
