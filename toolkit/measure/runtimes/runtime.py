"""States what a runtime must offer: what it needs from a device, and how it makes a model ready to run.

Nothing here imports torch. To add a runtime: a file beside this one, its line in `registry.py`, and its name in
`MeasuredRuntime` of `toolkit/measure/results.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

Ready = Callable[..., Any]  # takes inputs of the same shapes and types as those that it was made ready with

Prepare = Callable[["nn.Module", "tuple[Tensor, ...]"], AbstractContextManager[Ready]]


@dataclass(frozen=True)
class ModelRuntime:
    """Describes something that runs models.

    missing: what keeps the runtime from running on a device of this type (`cpu`, `cuda`), in words that follow "needs";
        None if nothing does.
    prepare: takes a model in eval mode, and inputs on the same device and in the number types to run with. It returns a
        context that yields a function with the model's outputs; the context is entered and used in inference mode.
    tells_memory: whether CUDA's counter sees the memory of a call.
    """

    missing: Callable[[str], str | None]
    prepare: Prepare
    tells_memory: bool = True
