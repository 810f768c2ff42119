"""Names modules that no stage can change: compiled, scripted or quantised ones, and modules without values."""

from __future__ import annotations

import torch
import torch.fx
from torch import nn
from torch.nn.parameter import is_lazy

from toolkit.base.errors import UserError


def refuse_unfit(model: nn.Module, what: str) -> None:
    """Checks that a model consists of plain modules whose weights have values.

    what: what messages call the model.

    Raises:
        UserError: a module cannot be changed or has no values yet; the message says what to give instead.
    """
    for name, module in model.named_modules():
        fault = _fault_of_class(module) or _fault_of_tensors(module)
        if fault:
            place = f"module {name} of {what}" if name else what
            raise UserError(f"{place} {fault}")


def _fault_of_class(module: nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return "is TorchScript, which cannot be changed: give the Python module that it was made from"
    if isinstance(vars(module).get("_orig_mod", module._modules.get("_orig_mod")), nn.Module):
        return (
            "is compiled by torch.compile, and a cut would not reach its code: give the module inside, which is "
            "._orig_mod, and compile the model that comes out"
        )
    if isinstance(module, torch.fx.GraphModule) and "train" in vars(module):
        return "is a graph of torch.export, which has one mode only: give the Python module that it was made from"
    if module._compiled_call_impl is not None:
        return "is compiled by its method compile(): give the model without that, and compile the model that comes out"
    if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
        return "is quantised: give the model of floating-point weights, and quantise the model that comes out"
    return ""


def _fault_of_tensors(module: nn.Module) -> str:
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if is_lazy(tensor):
            return "has no weights before its first run: run the model on an example in build_model"
        if tensor.is_meta:
            return "is on the meta device, so that its weights have no values: build it on the CPU"
    return ""
