"""Holds the runtime `compile`: torch.compile, with one program for each shape of the inputs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from toolkit.measure.runtimes.runtime import ModelRuntime, Ready

if TYPE_CHECKING:
    from torch import Tensor, nn

INDUCTOR: Final = "inductor"  # the backend that users deploy, and torch.compile's default

_CPP_COMPILERS: Final = {"darwin": "clang++", "win32": "cl"}  # where CXX names no other; g++ everywhere else


def compiled(backend: str | Callable[..., Ready] = INDUCTOR) -> ModelRuntime:
    """Returns the runtime that uses a backend of torch.compile; only inductor needs a C or C++ compiler."""

    @contextmanager
    def prepare(model: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[Ready]:
        import torch  # noqa: PLC0415  # this file is read where recipes are checked, without torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice on the model
            ready = torch.compile(model, backend=backend, dynamic=False)
            ready(*inputs)  # compiles
        try:
            yield ready
        finally:
            torch.compiler.reset()  # else the programs add up, and past torch's limit no more are compiled

    return ModelRuntime(missing=_missing if backend == INDUCTOR else lambda _: None, prepare=prepare)


def _missing(device: str) -> str | None:
    if device == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "the package triton, which is not installed here"
        cc = os.environ.get("CC", "")
        if not any(shutil.which(name) for name in ([cc] if cc else ["gcc", "clang", "cc"])):
            return f"a C compiler, and {cc or 'gcc'} is not found here (CC can name another one)"
        return None
    name = os.environ.get("CXX") or _CPP_COMPILERS.get(sys.platform, "g++")
    if shutil.which(name.split()[0]) is None:
        return f"a C++ compiler, and {name} is not found here (CXX can name another one)"
    return None


COMPILE_RUNTIME = compiled()
