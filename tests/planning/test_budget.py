"""What a budget may say, and what is said of one that makes no sense."""

from __future__ import annotations

import pytest

from toolkit.base.errors import UserError
from toolkit.measure.results import MeasurementKey
from toolkit.planning.budget import Budget, Limit, parse_limits
from toolkit.planning.tables import latency_of


def test_words_become_limits() -> None:
    limits = parse_limits(["latency=12ms", "macs=0.6", "params=4e-1"])
    assert limits == (
        Limit(resource="latency", value=12.0, unit="ms"),
        Limit(resource="macs", value=0.6),
        Limit(resource="params", value=0.4),
    )
    budget = Budget(limits=limits, batch_size=16)
    assert str(budget) == "latency=12ms,macs=0.6,params=0.4"
    assert budget.ratios("cpu", 0.024) == {"latency@cpu_batch16": pytest.approx(0.5), "macs": 0.6, "params": 0.4}
    with pytest.raises(UserError, match="dense model's latency is not known"):
        budget.ratios("cpu", None)


def test_latency_is_of_the_planning_device() -> None:
    budget = Budget(limits=parse_limits(["latency=0.5"]), batch_size=16)
    assert budget.latency_key("cuda") == MeasurementKey(device="cuda", batch_size=16)
    assert (
        budget.resource_of(budget.primary, "cuda") == latency_of(budget.latency_key("cuda")) == "latency@cuda_batch16"
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("latency", "give latency=0.5, latency=12ms, macs=0.6 or params=0.4"),
        ("speed=0.5", "give latency=0.5"),
        ("latency=fast", "give latency=0.5"),
        ("latency=1e", "could not convert"),
        ("macs=1.5", "more than the dense model takes"),
        ("macs=0", "greater than 0"),
        ("latency=-1", "greater than 0"),
        ("macs=12ms", "has no unit ms"),
    ],
)
def test_nonsense_is_named(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_limits([word])
    assert word in str(caught.value)


def test_twice_is_once_too_often() -> None:
    with pytest.raises(UserError, match="macs is given twice"):
        parse_limits(["macs=0.5", "macs=0.6"])
