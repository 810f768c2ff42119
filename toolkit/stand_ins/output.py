"""How a block hands back its tensor, so that a stand-in can hand it back in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from toolkit.base.settings import Settings


class OutputStructure(Settings):
    """How a block hands back its tensor: alone, or at `index` of `length` outputs, named by `keys` in a mapping."""

    kind: Literal["tensor", "tuple", "list", "mapping"] = "tensor"
    length: Annotated[int, Field(ge=1, le=64)] = 1
    index: Annotated[int, Field(ge=0, le=63)] = 0
    keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, output: Any) -> tuple[OutputStructure, Tensor] | None:
        """The structure and the first tensor of an output; None when the output cannot be rebuilt or has no tensor."""
        if isinstance(output, Tensor):
            return cls(), output
        if isinstance(output, Mapping):
            kind, entries, keys = "mapping", list(output.values()), tuple(output)
        elif type(output) in (tuple, list):  # a named tuple is another type that passing a plain tuple would break
            kind, entries, keys = type(output).__name__, list(output), ()
        else:
            return None
        for index, entry in enumerate(entries):
            if isinstance(entry, Tensor) and len(entries) <= 64 and all(isinstance(key, str) for key in keys):
                return cls.model_validate({"kind": kind, "length": len(entries), "index": index, "keys": keys}), entry
        return None

    def wrap(self, tensor: Tensor) -> Any:
        """`tensor` in this structure; every other entry is None."""
        if self.kind == "tensor":
            return tensor
        entries = [tensor if place == self.index else None for place in range(self.length)]
        if self.kind == "mapping":
            return _NamedOutputs(zip(self.keys, entries, strict=True))
        return tuple(entries) if self.kind == "tuple" else entries


class _NamedOutputs(dict[str, Any]):
    """A mapping that can also be read by attribute and by place, as the model outputs of transformers are."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)

    def __getitem__(self, key: str | int) -> Any:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)
