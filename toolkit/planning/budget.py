"""Budgets: what may be spent of latency, multiply-adds or parameters, and what must be kept of quality."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from toolkit.base.errors import UserError
from toolkit.base.settings import Positive, Settings
from toolkit.measure.results import MeasurementKey
from toolkit.planning.tables import MACS, PARAMS, latency_of

Resource = Literal["latency", "macs", "params"]

RESOURCES: tuple[Resource, ...] = ("latency", "macs", "params")

_FORM = re.compile(r"^(?P<what>\w+)=(?P<value>[0-9.eE+-]+)(?P<unit>ms)?$")

_EXAMPLES = "latency=0.5, latency=12ms, macs=0.6 or params=0.4"


class Limit(Settings):
    """At most `value` of a resource: a share of the dense model's, or milliseconds of latency."""

    resource: Resource
    value: Annotated[float, Field(gt=0.0)]
    unit: Literal["ratio", "ms"] = "ratio"

    @model_validator(mode="after")
    def _possible(self) -> Limit:
        if self.unit == "ms" and self.resource != "latency":
            raise ValueError(f"{self.resource} has no unit ms; give a share of the dense model's, such as 0.5")
        if self.unit == "ratio" and self.value > 1.0:
            raise ValueError(f"{self.resource} {self.value:g} is above the dense model's (1.0); give a share of it")
        return self

    def __str__(self) -> str:
        return f"{self.resource}={self.value:g}{'ms' if self.unit == 'ms' else ''}"


class Budget(Settings):
    """Limits, the first of which is what the plan is for; all must hold.

    Latency is that of `batch_size` examples on the planning device with `threads`. `min_quality`: of the task's
    metric on the validation split, after repair and before any fine-tuning.
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
        return self.limits[0]

    @property
    def limits_latency(self) -> bool:
        return any(limit.resource == "latency" for limit in self.limits)

    def latency_key(self, device: str) -> MeasurementKey:
        """Returns which latency is limited, on the planning device."""
        return MeasurementKey(device=device, batch_size=self.batch_size)

    def resource_of(self, limit: Limit, device: str) -> str:
        """Returns the resource's name in the tables of the planning device."""
        return {"latency": latency_of(self.latency_key(device)), "macs": MACS, "params": PARAMS}[limit.resource]

    def ratios(self, device: str, dense_latency_s: float | None) -> dict[str, float]:
        """Returns the limits as shares of the dense model's, by the resource's name in the tables of the device.

        Raises:
            UserError: a latency in milliseconds and nothing to compare it with.
        """
        found = {}
        for limit in self.limits:
            if limit.unit == "ms" and dense_latency_s is None:
                raise UserError(f"{limit}: the dense model's latency is not known; give a ratio")
            scale = 1.0 if limit.unit == "ratio" else 1e3 * (dense_latency_s or math.nan)
            found[self.resource_of(limit, device)] = limit.value / scale
        return found

    def __str__(self) -> str:
        return ",".join(map(str, self.limits))


def parse_limits(words: Sequence[str]) -> tuple[Limit, ...]:
    """`latency=0.5`, `latency=12ms`, `macs=0.6`, `params=0.4`.

    Raises:
        UserError: of another form, impossible, or given twice.
    """
    limits = []
    for word in words:
        match = _FORM.match(word)
        if match is None or match["what"] not in RESOURCES:
            raise UserError(f"--budget {word}: give {_EXAMPLES}")
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
        raise UserError(f"--budget: {next(name for name in names if names.count(name) > 1)} is given twice")
    return tuple(limits)
