"""Adds low-rank adapters to linear layers inside blocks, and merges them exactly. Only this file imports peft."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from toolkit.base.errors import StageError
from toolkit.stages.align.detail import AdapterDetail


@dataclass(frozen=True)
class Adapter:
    """Describes an adapter: W x becomes W x + alpha / rank * B A x, with A [rank, inputs] and B [outputs, rank]."""

    layer: str
    rank: int
    alpha: float


class Adapted:
    """Holds a model with adapters on some of its linear layers, until they are merged or removed.

    The model stays the same object; all of its parameters except those of the adapters are frozen.
    """

    def __init__(self, model: nn.Module, adapters: Sequence[Adapter]) -> None:
        from peft import LoraConfig, LoraModel  # noqa: PLC0415  # takes seconds

        names = [rf"model\.{re.escape(adapter.layer)}" for adapter in adapters]
        config = LoraConfig(
            target_modules="|".join(names),  # a string must match the whole name
            rank_pattern={f"^{name}": adapter.rank for name, adapter in zip(names, adapters, strict=True)},
            alpha_pattern={f"^{name}": adapter.alpha for name, adapter in zip(names, adapters, strict=True)},
        )
        self.adapters = tuple(adapters)
        self._model, self._before = model, _description(model)
        holder = nn.ModuleDict(
            {"model": model}
        )  # peft sets attributes on the model it is given, and reads its `config`
        self._lora: Any = LoraModel(holder, {"default": config}, "default")

    def merge(self) -> None:
        """Adds the adapters to the weights and removes them: the model has its own modules again, still frozen."""
        self._lora.merge_and_unload(safe_merge=True)
        assert _description(self._model) == self._before, "a merged model must be as it was before it had adapters"

    def remove(self) -> None:
        """Removes the adapters; their layers have exactly the weights from before."""
        self._lora.unload()
        assert _description(self._model) == self._before, "a model must be as it was before it had adapters"

    def detail(self) -> tuple[AdapterDetail, ...]:
        """Returns the adapters for the record."""
        return tuple(AdapterDetail(**asdict(adapter)) for adapter in self.adapters)


def plan_adapters(model: nn.Module, layers: Sequence[str], rank: int | None, alpha: float | None) -> list[Adapter]:
    """Returns an adapter for each layer.

    rank: rank of all adapters; None is a quarter of the layer's inputs.
    alpha: scale of all adapters; None is the rank.
    """
    adapters = []
    for name in layers:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        layer_rank = max(1, layer.in_features // 4) if rank is None else rank
        adapters.append(Adapter(name, layer_rank, float(layer_rank) if alpha is None else alpha))
    return adapters


def find_targets(model: nn.Module, blocks: Sequence[str], patterns: Sequence[str], called: Sequence[str]) -> list[str]:
    """Returns the linear layers inside `blocks` whose names match a pattern.

    called: modules that the forward pass calls. Only these can get adapters: nn.MultiheadAttention reads the weights of
        its own layer without calling it.

    Raises:
        StageError: nothing matches.
    """
    linear = {
        name: name.removeprefix(f"{block}.")
        for block in blocks
        for name in dict.fromkeys(called)
        if name.startswith(f"{block}.") and isinstance(model.get_submodule(name), nn.Linear)
    }
    targets = [name for name, inner in linear.items() if any(_matches(inner, pattern) for pattern in patterns)]
    if not targets:
        raise StageError(
            f"targets ({', '.join(patterns)}) match no linear layer inside the model's blocks; "
            f"the linear layers there are: {', '.join(sorted(set(linear.values()))) or 'none'}; or use trainable: full"
        )
    return targets


def _matches(name: str, pattern: str) -> bool:
    """Says whether a pattern matches: `q` and `*.q` match `attn.q`; `attn.*` does not match `self.attn.mixer.q`."""
    parts = name.split(".")[-(pattern.count(".") + 1) :]
    return fnmatchcase(".".join(parts), pattern)


def _description(model: nn.Module) -> tuple[list[tuple[str, type]], list[tuple[str, tuple[int, ...]]]]:
    """Returns all modules with their classes, and all parameters with their shapes."""
    modules = [(name, type(module)) for name, module in model.named_modules()]
    return modules, [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]
