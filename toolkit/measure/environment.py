"""Describes the machine and the libraries that numbers were measured with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from toolkit.measure.results import Environment

PACKAGES = ("torch", "torch-pruning", "fvcore", "numpy")

CPUINFO = Path("/proc/cpuinfo")


def describe_environment() -> Environment:
    """Returns the environment of this process; its `num_cores` counts the cores that the process may use."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        processor=_processor(CPUINFO),
        num_cores=_num_cores(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        threads=torch.get_num_threads(),
        packages=package_versions(),
    )


def package_versions() -> dict[str, str]:
    """Returns the installed versions of `PACKAGES`, read without importing them; one that is missing is left out."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _processor(cpuinfo: Path) -> str:
    """Returns the model name of the processor, or its architecture where the system does not tell the name."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
