from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
import torch

from toolkit.measure import environment
from toolkit.measure.environment import describe_environment, package_versions


def test_environment_of_this_machine() -> None:
    found = describe_environment()
    assert found.num_cores >= 1
    assert found.processor
    assert (found.gpu is None) == (not torch.cuda.is_available())
    assert found.packages == {name: metadata.version(name) for name in ("torch", "torch-pruning", "fvcore", "numpy")}


def test_processor_name_is_read_and_has_a_fallback(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Slide Rule 3000: fast\nprocessor\t: 1\n")
    assert environment._processor(cpuinfo) == "Slide Rule 3000: fast"
    cpuinfo.write_text("processor\t: 0\n")
    assert environment._processor(cpuinfo)
    assert environment._processor(tmp_path / "missing") == environment._processor(cpuinfo)


def test_absent_package_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package-here"))
    assert package_versions() == {"torch": metadata.version("torch")}
