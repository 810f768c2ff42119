"""The machine and the libraries that numbers were measured with."""

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
    """Describe this process's machine; `num_cores` are those the process may use."""
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
    """Installed versions, read without importing; a package that is not installed is left out."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _processor(cpuinfo: Path) -> str:
    """The processor's model name; where the system does not tell, its architecture."""
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
