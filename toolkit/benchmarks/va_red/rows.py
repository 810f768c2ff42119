"""Lists the rows of the table, and the recipe of each row that a recipe can state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.recover.settings import Recover
from toolkit.stages.settings import Stage
from toolkit.stages.va_red.settings import VaRed
from toolkit.tasks.moving_digits.clips import MOTIONS

SEEDS: Final = (0, 1, 2)

ROWS: Final = ("dense", "dense_trained")

LEVEL_ROWS: Final = (
    "policy",
    "policy_hard",
    "shuffled",
    "random",
    "oracle",
    "constant_free",
    "constant",
    "channel_prune",
    "block_drop_policy",
)  # in the order of running: the ones behind `policy` need its multiply-adds

RULE_ROWS: Final = ("rule_oracle", "rule_constant")  # have no level; the second takes the multiply-adds of the first

STRONGEST: Final = ("oracle", "channel_prune", "block_drop_policy")  # are run at the last efficiency weight alone

WORDS: Final[Mapping[str, str]] = {
    "dense": "dense",
    "dense_trained": "dense, trained as long",
    "policy": "policy",
    "policy_hard": "policy before its last part of training",
    "shuffled": "the policy's net, choices of other inputs",
    "random": "random gates, trained as long",
    "oracle": "oracle gates, trained as long",
    "rule_oracle": "oracle gates by a rule, trained as long",
    "rule_constant": "constant options at the rule's MACs, trained as long",
    "constant_free": "constant options, closed form",
    "constant": "constant options, trained as long",
    "channel_prune": "channel_prune, trained as long",
    "block_drop_policy": "one block fewer, then a policy",
}


@dataclass(frozen=True)
class Study:
    """Describes the part of the benchmark that is about one task.

    tasks: the name of the task for each seed; baselines may differ from seed to seed.
    weights: the efficiency weights of the policies, by the name of their level.
    policy_steps, steps: training steps of a policy with mixed options, and of every trained row altogether.
    learning_rate: the highest learning rate of policies; that of what follows, and of all other rows, is `later_rate`.
    true_groups: returns the names of the examples' groups from their targets, which the oracle is told; None where
        there is no oracle.
    rule: the option that every layer takes for the examples of a group, by the group's name, as indices into strides
        and shares of channels; examples of other groups are computed in full. Empty where there is no such oracle.
    """

    name: str
    tasks: tuple[str, ...]
    weights: Mapping[str, float]
    policy_steps: int
    steps: int
    learning_rate: float
    later_rate: float
    true_groups: Callable[[Any], list[str]] | None = None
    batch_size: int = 16
    rule: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    measure: Measure = field(default_factory=lambda: Measure(batch_sizes=(1, 16), threads=1, repeats=64, warmup=3))

    def rows(self) -> list[tuple[str, str]]:
        """Returns the rows in the order of running, as pairs of row and level; the first ones have no level."""
        rows = [row for row in LEVEL_ROWS if self.true_groups or row != "oracle"]
        *milder, strongest = self.weights
        return [
            *((row, "") for row in ROWS),
            *((row, "") for row in RULE_ROWS if self.rule),
            *((row, level) for level in milder for row in rows if row not in STRONGEST),
            *((row, strongest) for row in rows),
        ]

    def recover(self, steps: int) -> Recover:
        """Returns the training that all rows share; it keeps the last weights, so that nothing is chosen by it."""
        return Recover(
            max_steps=steps,
            learning_rate=self.later_rate,
            batch_size=self.batch_size,
            validate_every=steps,
            select="last",
        )

    def policy(self, level: str) -> VaRed:
        """Returns the stage that trains a policy."""
        return VaRed(
            efficiency_weight=self.weights[level],
            max_steps=self.policy_steps,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            validate_every=self.policy_steps,
        )

    def stages(self, row: str, level: str, macs_ratio: float) -> tuple[Stage, ...]:
        """Returns the stages of a row.

        macs_ratio: the mean share of the dense multiply-adds that constant options or widths may take.
        """
        everything = self.recover(self.steps)
        settling = self.recover(self.steps - self.policy_steps)
        whole: dict[str, tuple[Stage, ...]] = {
            "dense": (),
            "dense_trained": (everything,),
            "constant": (VaRed(scope="constant", macs_ratio=macs_ratio), everything),
            "rule_constant": (VaRed(scope="constant", macs_ratio=macs_ratio), everything),
            "channel_prune": (ChannelPrune(macs_ratio=macs_ratio, round_to=1), everything),
        }
        if row in whole:
            return whole[row]
        before: dict[str, tuple[Stage, ...]] = {"policy": (), "block_drop_policy": (BlockDrop(num_blocks=1),)}
        return (*before[row], self.policy(level), settling)

    def recipe(self, row: str, level: str, seed: int, macs_ratio: float = 1.0) -> Recipe:
        """Returns the recipe of a row, which measures quality and multiply-adds; latency is measured later."""
        return Recipe(
            name=name_of(row, level, seed),
            task=self.tasks[seed],
            seed=seed,
            device="cpu",
            stages=self.stages(row, level, macs_ratio),
            measure=self.measure.model_copy(update={"batch_sizes": (16,), "repeats": 3, "warmup": 0}),
        )


def name_of(row: str, level: str, seed: int) -> str:
    """Returns the name of a cell."""
    return f"{row}{'_' * bool(level)}{level}_seed{seed}"


STUDIES: Final[Mapping[str, Study]] = {
    study.name: study
    for study in (
        Study(
            name="moving-digits",
            tasks=("moving-digits",) * 3,
            weights={"mild": 0.8, "strong": 3.0},
            policy_steps=250,
            steps=500,
            learning_rate=2e-3,
            later_rate=1e-3,
            true_groups=lambda targets: [MOTIONS[motion] for motion in targets[:, 1].tolist()],
            rule={"still": (2, 0)},  # every fourth step, all channels: the others are equal by construction
        ),
        Study(
            name="har-windows",
            tasks=("har-windows", "har-windows-seed1", "har-windows-seed2"),
            weights={"mild": 0.8, "strong": 3.0},
            policy_steps=250,
            steps=500,
            learning_rate=2e-3,
            later_rate=1e-3,
        ),
    )
}
