"""Corrects tables by the scores of whole plans: what each change really adds, and how uncertain that is. No torch here.

The model is Bayesian and linear: a plan adds sum over its changes i of effect_i, plus noise. The prior is
effect_i = f * alone_i + e_i, where alone_i is what change i adds alone, f ~ N(1, 1) is one factor shared by all changes
(changes made together may add more or less than alone), and e_i is an independent error of each change. A score
corrects the changes of its plan, most the ones of largest error. The sizes of errors and of noise are not fixed:
several pairs of sizes are weighted by the likelihood of the scores (Rasmussen and Williams, Gaussian Processes for
Machine Learning, equation 2.30).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from toolkit.planning.tables import Plan, PlanBlock, Tables, removal_losses, removals, removed_by

DOUBT_OF_FACTOR = 1.0  # standard deviation

DOUBTS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # root mean square error of changes, in units of the median loss of plans

NOISES = (0.1, 0.2, 0.4, 0.8)  # in the same unit; the noise of a plan that adds more than the median is larger

FLOOR = 0.2  # share of the median change that is added to the size of every change, so that no error is near 0

LEAST_NOISE = 1e-4  # share of the largest change; keeps equations solvable where scores hardly differ

BOLDNESS = 0.5  # factor on how far the first draw is from the mean

STEADY_DRAWS = 5  # after so many draws in a row the factor has doubled, and it doubles again after as many more

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Setting:
    """Holds one pair of sizes: the standard deviation of each change's error, and of the noise of each plan's score."""

    doubts: Array
    noises: Array


@dataclass(frozen=True)
class Surrogate:
    """Corrects `tables` by `scores`, the losses of whole plans on the data of the tables."""

    tables: Tables
    scores: Mapping[Plan, float]

    def believed(self) -> Tables:
        """Returns the tables with the posterior mean of what every change adds."""
        means = [self._corrections(setting, self._missed) for setting in self._settings]
        return self._with(self._alone + np.average(means, axis=0, weights=self._weights))

    def sampled(self, rng: np.random.Generator) -> Iterator[Tables]:
        """Yields tables without end, each with a random draw of what every change adds (Thompson, Biometrika 1933).

        A draw is taken from the prior and corrected by the scores (Matheron's rule). Its distance from the posterior
        mean is scaled by a factor that doubles every `STEADY_DRAWS` draws.
        """
        for draw in itertools.count():
            setting = self._settings[int(rng.choice(len(self._settings), p=self._weights))]
            factor = DOUBT_OF_FACTOR * rng.standard_normal()
            doubt = factor * self._alone + setting.doubts * rng.standard_normal(len(self._alone))
            scored = self._made @ doubt + setting.noises * rng.standard_normal(len(self._plans))
            deviation = doubt - self._corrections(setting, scored)
            believed = self._corrections(setting, self._missed)
            yield self._with(self._alone + believed + BOLDNESS * 2.0 ** (draw / STEADY_DRAWS) * deviation)

    @cached_property
    def _alone(self) -> Array:
        """Returns what each change adds alone: first ways to drop blocks, then widths of groups, then of the stream."""
        tables = self.tables
        drops = [loss for block in tables.blocks for loss in removal_losses(block)]
        widths = [loss for group in tables.groups for loss in group.losses[1:]]
        streams = [context.loss for context in tables.contexts[1:]]
        return np.array([*drops, *widths, *streams])

    @cached_property
    def _made(self) -> Array:
        """Returns a matrix with a row per scored plan, which has 1 for each change that the plan makes."""
        made: Array = np.zeros((len(self._plans), len(self._alone)))
        for row, choice in zip(made, self._plans, strict=True):
            row[:] = self._changes(choice)
        return made

    @cached_property
    def _plans(self) -> list[Plan]:
        return [choice for choice in self.scores if choice != Plan()]

    @cached_property
    def _added(self) -> Array:
        return np.array([self.scores[choice] for choice in self._plans]) - self.tables.dense_loss

    @cached_property
    def _missed(self) -> Array:
        """Returns what each scored plan adds, less the sum of what its changes add alone."""
        missed: Array = self._added - self._made @ self._alone
        return missed

    @cached_property
    def _settings(self) -> list[_Setting]:
        """Returns all pairs of a size of errors and a size of noise."""
        size = np.abs(self._alone)
        size = size + FLOOR * np.median(size) + 1e-12
        relative = np.sqrt(size / size.mean())  # the error of a small change is larger in relation to the change
        unit = np.median(np.abs(self._added if self._plans else self._alone))
        unit = max(float(unit), LEAST_NOISE * float(np.abs(self._alone).max()), 1e-12)
        noise = np.maximum(np.abs(self._added), unit)
        return [_Setting(doubt * unit * relative, share * noise) for doubt, share in itertools.product(DOUBTS, NOISES)]

    @cached_property
    def _weights(self) -> Array:
        """Returns the posterior weight of each pair of sizes; the weights add up to 1."""
        likelihoods = np.array([_log_likelihood(self._missed, self._of_scores(setting)) for setting in self._settings])
        weights = np.exp(likelihoods - likelihoods.max())
        shares: Array = weights / weights.sum()
        return shares

    def _of_scores(self, setting: _Setting) -> Array:
        """Returns the prior covariance of what the scored plans add."""
        errors, common = self._made * setting.doubts, DOUBT_OF_FACTOR * self._made @ self._alone
        covariance: Array = errors @ errors.T + np.outer(common, common) + np.diag(setting.noises**2)
        return covariance

    def _corrections(self, setting: _Setting, missed: Array) -> Array:
        """Returns the correction of what each change adds alone, where the scored plans add `missed` more than the sum.

        That is the posterior mean of effect_i - alone_i.
        """
        weighted = np.linalg.solve(self._of_scores(setting), missed) @ self._made
        common = DOUBT_OF_FACTOR**2 * self._alone * float(self._alone @ weighted)
        corrections: Array = setting.doubts**2 * weighted + common
        return corrections

    def _changes(self, choice: Plan) -> Array:
        """Returns 1 for each change that the plan makes, and 0 for the others."""
        tables = self.tables
        made = set(removed_by(choice).items())
        drops = [removal in made for removal in removals(tables)]
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
        blocks = tuple(_with_losses(block, values) for block in tables.blocks)
        groups = tuple(
            group.model_copy(update={"losses": (0.0, *(next(values) for _ in group.losses[1:]))})
            for group in tables.groups
        )
        streams = tuple(context.model_copy(update={"loss": next(values)}) for context in tables.contexts[1:])
        return tables.model_copy(
            update={"blocks": blocks, "groups": groups, "contexts": (tables.contexts[0], *streams)}
        )


def _with_losses(block: PlanBlock, values: Iterator[float]) -> PlanBlock:
    """Returns the block with the next values as the losses of the ways to drop it."""
    loss = next(values)
    bypasses = tuple(bypass.model_copy(update={"loss": next(values)}) for bypass in block.bypasses)
    return block.model_copy(update={"loss": loss, "bypasses": bypasses})


def _log_likelihood(missed: Array, covariance: Array) -> float:
    """Returns the log likelihood, up to a constant, of values that are normal with mean 0 and this covariance."""
    lower = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(lower, missed)
    return float(-0.5 * whitened @ whitened - np.log(np.diag(lower)).sum())
