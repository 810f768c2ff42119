"""Tables corrected by scores of whole plans: what a change really adds, and how sure that is. No torch here.

A Bayesian linear model: the loss that a plan adds is the sum of what its changes add, and noise. Before any plan is
scored a change is believed to add what it does alone, times a factor that is the same for all and about 1 (changes made
together add more than alone, gains add up to less), give or take a doubt of its own. Each score then corrects the
changes of its plan, those most that are least sure. How large doubts and noise are is not set either: several of both
are believed in as far as they make the scores likely (Rasmussen and Williams, Gaussian Processes for Machine Learning,
equation 2.30 for the likelihood).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from toolkit.planning.tables import Choice, Tables

DOUBT_OF_FACTOR = 1.0  # standard deviation
DOUBTS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # root mean square over changes, in median losses that plans add
NOISES = (0.1, 0.2, 0.4, 0.8)  # in the same unit; a plan that adds more has more
FLOOR = 0.2  # of the median change: what all are counted with beside their own, for their doubt
STEADY_DRAWS = 5  # after as many draws in a row the doubt has doubled

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Setting:
    """Covariances of what changes add, and of what plans were scored to add, before the scores are known."""

    of_changes: Array
    of_scores: Array


@dataclass(frozen=True)
class Surrogate:
    """`scores` are losses of whole plans, on the data of the tables."""

    tables: Tables
    scores: Mapping[Choice, float]

    def believed(self) -> Tables:
        """With what every change is most likely to add."""
        means = [self._mean(setting) for setting in self._settings]
        return self._with(np.average(means, axis=0, weights=self._weights))

    def sampled(self, rng: np.random.Generator) -> Iterator[Tables]:
        """Endlessly, with what every change might add (Thompson, Biometrika 1933), doubted more with every draw."""
        for draw in itertools.count():
            setting = self._settings[int(rng.choice(len(self._settings), p=self._weights))]
            doubt = rng.multivariate_normal(np.zeros(len(self._alone)), self._covariance(setting), method="eigh")
            yield self._with(self._mean(setting) + (1.0 + draw / STEADY_DRAWS) * doubt)

    @cached_property
    def _alone(self) -> Array:
        """What each change adds alone: drops, widths of groups, widths of the stream."""
        tables = self.tables
        widths = [loss for group in tables.groups for loss in group.losses[1:]]
        streams = [context.loss for context in tables.contexts[1:]]
        return np.array([*(block.loss for block in tables.blocks), *widths, *streams])

    @cached_property
    def _made(self) -> Array:
        """1 for each change that a plan makes; a row for each plan that was scored."""
        made: Array = np.zeros((len(self._plans), len(self._alone)))
        for row, choice in zip(made, self._plans, strict=True):
            row[:] = self._changes(choice)
        return made

    @cached_property
    def _plans(self) -> list[Choice]:
        return [choice for choice in self.scores if choice != Choice()]

    @cached_property
    def _added(self) -> Array:
        return np.array([self.scores[choice] for choice in self._plans]) - self.tables.dense_loss

    @cached_property
    def _missed(self) -> Array:
        """What plans add beside the sum of what their changes do alone."""
        missed: Array = self._added - self._made @ self._alone
        return missed

    @cached_property
    def _unit(self) -> float:
        """What a plan adds, or a change as long as no plan is known: the median."""
        return max(float(np.median(np.abs(self._added if self._plans else self._alone))), 1e-12)

    @cached_property
    def _settings(self) -> list[_Setting]:
        """All doubts with all noises."""
        noise = np.diag(np.maximum(np.abs(self._added), self._unit) ** 2)
        size = np.abs(self._alone)
        size = size + FLOOR * np.median(size) + 1e-12
        own = self._unit**2 * np.diag(size / size.mean())  # a small change is doubted more for its size
        common = DOUBT_OF_FACTOR**2 * np.outer(self._alone, self._alone)
        own_of_plans, common_of_plans = (self._made @ part @ self._made.T for part in (own, common))
        return [
            _Setting(doubt**2 * own + common, doubt**2 * own_of_plans + common_of_plans + share**2 * noise)
            for doubt, share in itertools.product(DOUBTS, NOISES)
        ]

    @cached_property
    def _weights(self) -> Array:
        """How far each setting is believed in."""
        likelihoods = np.array([_log_likelihood(self._missed, setting.of_scores) for setting in self._settings])
        weights = np.exp(likelihoods - likelihoods.max())
        shares: Array = weights / weights.sum()
        return shares

    def _mean(self, setting: _Setting) -> Array:
        corrections: Array = setting.of_changes @ self._made.T @ np.linalg.solve(setting.of_scores, self._missed)
        return self._alone + corrections

    def _covariance(self, setting: _Setting) -> Array:
        known = self._made @ setting.of_changes
        left: Array = setting.of_changes - known.T @ np.linalg.solve(setting.of_scores, known)
        return left

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
        values = iter(added.tolist())
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


def _log_likelihood(missed: Array, covariance: Array) -> float:
    """Of values that are normal around 0, less a constant."""
    lower = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(lower, missed)
    return float(-0.5 * whitened @ whitened - np.log(np.diag(lower)).sum())
