"""Holds budgets: limits of latency, multiply-adds or parameters, and a floor of quality."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from toolkit.base.errors import PlanError, UserError
from toolkit.base.settings import Positive, Settings
from toolkit.measure.counted import Macs
from toolkit.measure.results import MeasurementKey
from toolkit.planning.tables import MACS, PARAMS, latency_of

Resource = Literal["latency", "macs", "params"]

RESOURCES: tuple[Resource, ...] = ("latency", "macs", "params")

_FORM = re.compile(r"^(?P<what>\w+)=(?P<value>[0-9.eE+-]+)(?P<unit>ms)?$")

_EXAMPLES = "latency=0.5, latency=12ms, macs=0.6 or params=0.4"


class Limit(Settings):
    """Limits one resource to `value`: a share of what the dense model takes, or milliseconds of latency."""

    resource: Resource
    value: Annotated[float, Field(gt=0.0)]
    unit: Literal["ratio", "ms"] = "ratio"

    @model_validator(mode="after")
    def _possible(self) -> Limit:
        if self.unit == "ms" and self.resource != "latency":
            raise ValueError(f"{self.resource} has no unit ms; give a share of what the dense model takes, such as 0.5")
        if self.unit == "ratio" and self.value > 1.0:
            raise ValueError(
                f"{self.resource} {self.value:g} is more than the dense model takes (1.0); give a share between 0 and 1"
            )
        return self

    def __str__(self) -> str:
        return f"{self.resource}={self.value:g}{'ms' if self.unit == 'ms' else ''}"


class Budget(Settings):
    """States what a plan may take, and the quality that it must keep.

    limits: limits that must all hold; the first one is the primary limit.
    batch_size: examples per call of the latency that is limited, measured on the planning device.
    threads: CPU threads of the latency measurement.
    min_quality: the least value of the task's metric on the validation split, after repair and before fine-tuning.
    """

    limits: Annotated[tuple[Limit, ...], Field(min_length=1)]
    batch_size: Positive = 1
    threads: Positive = 2
    min_quality: float | None = None

    @model_validator(mode="after")
    def _each_once(self) -> Budget:
        names = [limit.resource for limit in self.limits]
        if len(names) != len(set(names)):
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is given twice")
        return self

    @property
    def primary(self) -> Limit:
        """Returns the first limit."""
        return self.limits[0]

    @property
    def limits_latency(self) -> bool:
        """Returns whether one of the limits is a limit of latency."""
        return any(limit.resource == "latency" for limit in self.limits)

    def check_countable(self, dense_macs: Callable[[], Macs]) -> None:
        """Checks that the multiply-adds of the dense model are counted in full, if they are limited.

        dense_macs: returns the count; it is called only if multiply-adds are limited.

        Raises:
            PlanError: the count is a partial one.
        """
        if any(limit.resource == "macs" for limit in self.limits) and (macs := dense_macs()).is_partial:
            raise PlanError(
                f"{self}: a budget in multiply-adds needs a full count, and this model's is partial: "
                f"{macs.why_partial}; give a budget in latency or parameters"
            )

    def latency_key(self, device: str) -> MeasurementKey:
        """Returns the key of the latency that is limited; `device` is the planning device."""
        return MeasurementKey(device=device, batch_size=self.batch_size)

    def resource_of(self, limit: Limit, device: str) -> str:
        """Returns the name of the limited resource in the tables of the planning device."""
        return {"latency": latency_of(self.latency_key(device)), "macs": MACS, "params": PARAMS}[limit.resource]

    def ratios(self, device: str, dense_latency_s: float | None) -> dict[str, float]:
        """Returns all limits as shares of what the dense model takes, by the resource's name in the device's tables.

        dense_latency_s: the latency of the dense model at the budget's batch size, for limits in milliseconds.

        Raises:
            UserError: a limit is in milliseconds, and `dense_latency_s` is None.
        """
        shares = {}
        for limit in self.limits:
            if limit.unit == "ms" and dense_latency_s is None:
                raise UserError(
                    f"{limit}: the dense model's latency is not known; give a share of it, such as latency=0.5"
                )
            scale = 1.0 if limit.unit == "ratio" else 1e3 * (dense_latency_s or math.nan)
            shares[self.resource_of(limit, device)] = limit.value / scale
        return shares

    def __str__(self) -> str:
        return ",".join(map(str, self.limits))


def parse_limits(words: Sequence[str]) -> tuple[Limit, ...]:
    """Returns the limits that words such as `latency=0.5`, `latency=12ms`, `macs=0.6` or `params=0.4` state.

    Raises:
        UserError: a word has another form, a limit is impossible, or a resource is given twice.
    """
    limits = []
    for word in words:
        match = _FORM.match(word)
        if match is None or match["what"] not in RESOURCES:
            raise UserError(f"--budget {word}: is not a limit; give {_EXAMPLES}")
        try:
            value = float(match["value"])
            limits.append(Limit(resource=match["what"], value=value, unit="ms" if match["unit"] else "ratio"))
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UserError(f"--budget {word}: {reason}") from error
        except ValueError as error:
            raise UserError(f"--budget {word}: {error}") from error
    names = [limit.resource for limit in limits]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--budget: {repeated} is given twice; give one limit for each resource")
    return tuple(limits)
