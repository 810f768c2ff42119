"""A zoo model without its weights: structure, buffers, and parameters that take no memory until they are filled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils.weak import WeakIdKeyDictionary


@contextmanager
def without_weights() -> Iterator[None]:
    """Parameters that are registered meanwhile go to the meta device; buffers are real.

    A buffer that is not saved with the weights, such as an index of positions, has its value only from its module.
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
    """Give what is saved with a model and lies on the meta device memory on the CPU, with arbitrary contents.

    A parameter with two names stays one. Other buffers, which some modules put where their parameters are, are made
    anew.

    Raises:
        ValueError: there are buffers that the model does not know how to make anew.
    """
    _fill_parameters(model)
    for name, module in model.named_modules():
        lost = [key for key, buffer in module._buffers.items() if buffer is not None and buffer.is_meta]
        for key in lost:
            module._buffers[key] = torch.empty_like(module._buffers[key], device="cpu")
        if not module._non_persistent_buffers_set.isdisjoint(lost):
            renew = getattr(module, "init_non_persistent_buffers", None)  # of timm
            if not callable(renew):
                raise ValueError(f"{name} has buffers that cannot be made without its weights: {', '.join(lost)}")
            renew()


def _fill_parameters(model: nn.Module) -> None:
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                if id(parameter) not in made:
                    empty = torch.empty_like(parameter, device="cpu")
                    made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
