"""Which latencies a record holds: one per device and batch size."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.measure.results import Latency, Measurement


@dataclass(frozen=True)
class Timing:
    device: str
    batch_size: int

    @property
    def words(self) -> str:
        return f"{self.device}, batch {self.batch_size}"

    @property
    def key(self) -> str:
        """As a part of file and column names."""
        return f"{self.device.replace(':', '_')}_batch{self.batch_size}"

    def of(self, measurement: Measurement) -> Latency | None:
        found = (entry for entry in measurement.latency if timing_of(entry) == self)
        return next(found, None)


def timing_of(latency: Latency) -> Timing:
    return Timing(latency.device, latency.batch_size)


def timings_of(measurement: Measurement) -> list[Timing]:
    return [timing_of(latency) for latency in measurement.latency]
