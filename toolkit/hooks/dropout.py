"""Runs models in training mode without dropout, so that two models of different widths can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

_OWN_DROPOUT = (_DropoutNd, nn.RNNBase, nn.MultiheadAttention)  # modules whose mode decides nothing but dropout

_DROPOUTS: frozenset[Callable[..., Any]] = frozenset(
    [
        *(functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d),
        *(functional.alpha_dropout, functional.feature_alpha_dropout),
        *(torch.dropout, torch.dropout_, torch.feature_dropout, torch.alpha_dropout, torch.feature_alpha_dropout),
    ]
)


def train_without_dropout(model: nn.Module) -> None:
    """Calls the model's own `train()`, which may leave parts in eval mode, and then turns its dropout modules off."""
    model.train()
    for module in model.modules():
        if isinstance(module, _OWN_DROPOUT):
            module.training = False


class NoDropout(TorchFunctionMode):
    """Makes the dropout functions of torch return their input unchanged, whatever `training` they are given."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in _DROPOUTS:
            value: Tensor = args[0] if args else named["input"]
            return value
        if func is functional.scaled_dot_product_attention:
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
            named |= {} if len(args) > 4 else {"dropout_p": 0.0}
        return func(*args, **named)
