"""Finds how much memory a model takes before it takes any, by building and running it on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode

from toolkit.base.errors import UserError
from toolkit.hooks.tensors import tensors_in

MOST_BYTES = 8 * 2**30  # of the weights and buffers of a model that a recipe names

MOST_MODULES = 50_000


class TooLargeError(UserError):
    """Says that a model needs more memory than it may take."""


def check_size(build: Callable[[], nn.Module], most_bytes: int) -> None:
    """Builds a model on the meta device, where tensors take no memory, to check its size.

    Raises:
        TooLargeError: parameters and buffers need more than `most_bytes`, or there are too many modules.
        UserError: `build` raises it; some models cannot be built on the meta device.
    """
    with counting(most_bytes), torch.device("meta"):
        build()


@contextmanager
def counting(most_bytes: int) -> Iterator[None]:
    """Counts every parameter, buffer and module that is registered within the `with`.

    Raises:
        TooLargeError: they need more than `most_bytes`, or there are too many modules.
    """
    used = {"bytes": 0, "modules": 0}

    def count_tensor(_: nn.Module, name: str, tensor: Tensor | None) -> None:
        used["bytes"] += 0 if tensor is None else tensor.numel() * tensor.element_size()
        if used["bytes"] > most_bytes:
            raise TooLargeError(f"its weights need more than {_mib(most_bytes)} (counted up to {name!r})")

    def count_module(_: nn.Module, name: str, child: nn.Module | None) -> None:
        used["modules"] += 1
        if used["modules"] > MOST_MODULES:
            raise TooLargeError(f"it has more than {MOST_MODULES} modules (counted up to {name!r})")

    with ExitStack() as stack:
        for handle in (
            hooks.register_module_parameter_registration_hook(count_tensor),
            hooks.register_module_buffer_registration_hook(count_tensor),
            hooks.register_module_module_registration_hook(count_module),
        ):
            stack.callback(handle.remove)
        yield


def check_activations(model: nn.Module, inputs: tuple[Tensor, ...], most_bytes: int) -> None:
    """Runs a model on the meta device, where its tensors and the inputs lie, to check the size of its results.

    Raises:
        TooLargeError: the result of a single operator needs more than `most_bytes`.
        ValueError: the model does not run on these inputs.
    """
    try:
        with _Watched(most_bytes), torch.no_grad(), torch.device("meta"):
            model(*inputs)
    except (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError) as error:
        raise ValueError(f"the model does not run on its example inputs: {error}") from error


class _Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Checks the size of every result; a view counts with the size of the tensor that it views."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most_bytes = most_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            if tensor.untyped_storage().nbytes() > self.most_bytes:
                raise TooLargeError(f"running it needs more than {_mib(self.most_bytes)} at once ({func})")
        return result


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
