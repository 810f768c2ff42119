"""Tables corrected by scores of whole plans: what a change really adds, and how sure that is. No torch here.

A Bayesian linear model: the loss that a plan adds is the sum of what its changes add, and noise. Before any plan is
scored a change is believed to add what it does alone, times one factor for all: changes made together add more than
alone. Each score then corrects the changes of its plan, those most that are least sure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from toolkit.planning.tables import Choice, Tables

DOUBT = 0.3  # standard deviation of what a change adds, before any plan is scored, as a share of it
NOISE = 0.1  # standard deviation of what a plan adds beside the sum, as a share of it
STEADY_DRAWS = 5  # after as many draws in a row the doubt has doubled
FLOOR = 0.2  # of the median change: what those are counted as, for both, that add less

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surrogate:
    """`scores` are losses of whole plans, on the data of the tables."""

    tables: Tables
    scores: Mapping[Choice, float]

    def believed(self) -> Tables:
        """With what every change is most likely to add."""
        return self._with(self._posterior[0])

    def sampled(self, rng: np.random.Generator) -> Iterator[Tables]:
        """Endlessly, with what every change might add (Thompson, Biometrika 1933), doubted more with every draw."""
        mean, covariance = self._posterior
        for draw in itertools.count():
            doubt = rng.multivariate_normal(np.zeros(len(mean)), covariance, method="eigh")
            yield self._with(mean + (1.0 + draw / STEADY_DRAWS) * doubt)

    @cached_property
    def _alone(self) -> Array:
        """What each change adds alone: drops, widths of groups, widths of the stream."""
        tables = self.tables
        widths = [loss for group in tables.groups for loss in group.losses[1:]]
        streams = [context.loss for context in tables.contexts[1:]]
        return np.array([*(block.loss for block in tables.blocks), *widths, *streams])

    @cached_property
    def _posterior(self) -> tuple[Array, Array]:
        alone = self._alone
        floor = FLOOR * float(np.median(np.abs(alone))) + 1e-12
        plans = [choice for choice in self.scores if choice != Choice()]
        if not plans:
            return alone, np.diag((DOUBT * np.maximum(np.abs(alone), floor)) ** 2)
        made = np.stack([self._changes(choice) for choice in plans])
        added = np.array([self.scores[choice] for choice in plans]) - self.tables.dense_loss
        noise: Array = NOISE * np.maximum(np.abs(added), floor)
        together: Array = (made @ alone) / noise
        factor = float(together @ (added / noise)) / max(float(together @ together), 1e-12)
        prior = alone * (factor if factor > 0 else 1.0)
        spread = np.diag((DOUBT * np.maximum(np.abs(prior), floor)) ** 2)
        gain = np.linalg.solve(made @ spread @ made.T + np.diag(noise**2), made @ spread).T
        return prior + gain @ (added - made @ prior), spread - gain @ made @ spread

    def _changes(self, choice: Choice) -> Array:
        """1 for each change that the plan makes."""
        tables = self.tables
        drops = [block.name in choice.dropped for block in tables.blocks]
        widths = [
            choice.levels.get(group.name, 0) == level
            for group in tables.groups
            for level in range(1, len(group.widths))
        ]
        streams = [choice.context == index for index in range(1, len(tables.contexts))]
        return np.array([*drops, *widths, *streams], dtype=np.float64)

    def _with(self, added: Array) -> Tables:
        """No change is taken to gain more than it did alone."""
        values = iter(np.maximum(added, np.minimum(self._alone, 0.0)).tolist())
        tables = self.tables
        blocks = tuple(block.model_copy(update={"loss": next(values)}) for block in tables.blocks)
        groups = tuple(
            group.model_copy(update={"losses": (0.0, *(next(values) for _ in group.losses[1:]))})
            for group in tables.groups
        )
        streams = tuple(context.model_copy(update={"loss": next(values)}) for context in tables.contexts[1:])
        return tables.model_copy(
            update={"blocks": blocks, "groups": groups, "contexts": (tables.contexts[0], *streams)}
        )
