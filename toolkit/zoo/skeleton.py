"""Builds zoo models without weights: with buffers, and parameters that take no memory until they are filled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils.weak import WeakIdKeyDictionary


@contextmanager
def without_weights() -> Iterator[None]:
    """Puts parameters that are registered within the `with` on the meta device, and leaves buffers as they are.

    A buffer that is not saved with the weights, such as an index of positions, gets its value only from its module.
    """
    seen = WeakIdKeyDictionary()  # so that a parameter with two names stays one

    def empty(_: nn.Module, __: str, parameter: Tensor | None) -> Tensor | None:
        if not isinstance(parameter, nn.Parameter) or parameter.is_meta:
            return None
        if parameter not in seen:
            seen[parameter] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        new: Tensor = seen[parameter]
        return new

    handle = hooks.register_module_parameter_registration_hook(empty)  # type: ignore[arg-type]  # declared too narrow
    try:
        yield
    finally:
        handle.remove()


def materialise(model: nn.Module) -> None:
    """Gives the parameters and buffers on the meta device memory on the CPU, with arbitrary contents.

    A parameter with two names stays one. Buffers that are not saved with the weights are computed again.

    Raises:
        ValueError: the model cannot compute such a buffer again.
    """
    _fill_parameters(model)
    for name, module in model.named_modules():
        lost = [key for key, buffer in module._buffers.items() if buffer is not None and buffer.is_meta]
        for key in lost:
            module._buffers[key] = torch.empty_like(module._buffers[key], device="cpu")
        if not module._non_persistent_buffers_set.isdisjoint(lost):
            renew = getattr(module, "init_non_persistent_buffers", None)  # models of timm have it
            if not callable(renew):
                raise ValueError(f"{name} has buffers that cannot be made without its weights: {', '.join(lost)}")
            renew()


def _fill_parameters(model: nn.Module) -> None:
    filled: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                if id(parameter) not in filled:
                    empty = torch.empty_like(parameter, device="cpu")
                    filled[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = filled[id(parameter)]
