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

from toolkit.planning.tables import Plan, PlanBlock, Tables, removal_losses, removals, removed_by

DOUBT_OF_FACTOR = 1.0  # standard deviation

DOUBTS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # root mean square over changes, in median losses that plans add

NOISES = (0.1, 0.2, 0.4, 0.8)  # in the same unit; a plan that adds more has more

FLOOR = 0.2  # of the median change: what all are counted with beside their own, for their doubt

LEAST_NOISE = 1e-4  # of the largest change: keeps equations solvable where scores hardly differ

BOLDNESS = 0.5  # share of the doubt by which the first draw differs from what is believed

STEADY_DRAWS = 5  # after as many draws in a row it has doubled, and so on

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Setting:
    """What is believed before the scores are known: standard deviations of each change and of each score's noise."""

    doubts: Array
    noises: Array


@dataclass(frozen=True)
class Surrogate:
    """`scores` are losses of whole plans, on the data of the tables."""

    tables: Tables
    scores: Mapping[Plan, float]

    def believed(self) -> Tables:
        """With what every change is most likely to add."""
        means = [self._corrections(setting, self._missed) for setting in self._settings]
        return self._with(self._alone + np.average(means, axis=0, weights=self._weights))

    def sampled(self, rng: np.random.Generator) -> Iterator[Tables]:
        """Endlessly, with what every change might add (Thompson, Biometrika 1933), farther and farther off.

        What might be is drawn as if no score were known, then corrected as the scores would (Matheron's rule).
        """
        for draw in itertools.count():
            setting = self._settings[int(rng.choice(len(self._settings), p=self._weights))]
            factor = DOUBT_OF_FACTOR * rng.standard_normal()
            doubt = factor * self._alone + setting.doubts * rng.standard_normal(len(self._alone))
            scored = self._made @ doubt + setting.noises * rng.standard_normal(len(self._plans))
            off = doubt - self._corrections(setting, scored)
            believed = self._corrections(setting, self._missed)
            yield self._with(self._alone + believed + BOLDNESS * 2.0 ** (draw / STEADY_DRAWS) * off)

    @cached_property
    def _alone(self) -> Array:
        """What each change adds alone: ways in which blocks go, widths of groups, widths of the stream."""
        tables = self.tables
        drops = [loss for block in tables.blocks for loss in removal_losses(block)]
        widths = [loss for group in tables.groups for loss in group.losses[1:]]
        streams = [context.loss for context in tables.contexts[1:]]
        return np.array([*drops, *widths, *streams])

    @cached_property
    def _made(self) -> Array:
        """1 for each change that a plan makes; a row for each plan that was scored."""
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
        """What plans add beside the sum of what their changes do alone."""
        missed: Array = self._added - self._made @ self._alone
        return missed

    @cached_property
    def _settings(self) -> list[_Setting]:
        """All doubts with all noises."""
        size = np.abs(self._alone)
        size = size + FLOOR * np.median(size) + 1e-12
        own = np.sqrt(size / size.mean())  # a small change is doubted more for its size
        unit = np.median(np.abs(self._added if self._plans else self._alone))
        unit = max(float(unit), LEAST_NOISE * float(np.abs(self._alone).max()), 1e-12)
        noise = np.maximum(np.abs(self._added), unit)
        return [_Setting(doubt * unit * own, share * noise) for doubt, share in itertools.product(DOUBTS, NOISES)]

    @cached_property
    def _weights(self) -> Array:
        """How far each setting is believed in."""
        likelihoods = np.array([_log_likelihood(self._missed, self._of_scores(one)) for one in self._settings])
        weights = np.exp(likelihoods - likelihoods.max())
        shares: Array = weights / weights.sum()
        return shares

    def _of_scores(self, setting: _Setting) -> Array:
        """Covariance of what plans are scored to add."""
        own, common = self._made * setting.doubts, DOUBT_OF_FACTOR * self._made @ self._alone
        covariance: Array = own @ own.T + np.outer(common, common) + np.diag(setting.noises**2)
        return covariance

    def _corrections(self, setting: _Setting, missed: Array) -> Array:
        """To what each change adds alone, if plans were scored to add so much more than the sum."""
        told = np.linalg.solve(self._of_scores(setting), missed) @ self._made
        common = DOUBT_OF_FACTOR**2 * self._alone * float(self._alone @ told)
        corrections: Array = setting.doubts**2 * told + common
        return corrections

    def _changes(self, choice: Plan) -> Array:
        """1 for each change that the plan makes."""
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
    """The next values are the losses of the ways in which the block can go."""
    loss = next(values)
    bypasses = tuple(one.model_copy(update={"loss": next(values)}) for one in block.bypasses)
    return block.model_copy(update={"loss": loss, "bypasses": bypasses})


def _log_likelihood(missed: Array, covariance: Array) -> float:
    """Of values that are normal around 0, less a constant."""
    lower = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(lower, missed)
    return float(-0.5 * whitened @ whitened - np.log(np.diag(lower)).sum())
