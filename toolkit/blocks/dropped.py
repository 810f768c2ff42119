"""What stands in the place of a residual block that was taken out."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from toolkit.base.errors import StageError
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


class DroppedBlock(nn.Module):
    """Stands where a residual block was and passes its first tensor input through, without parameters.

    The output has the block's own structure with None for every entry but the first tensor. The plain attributes of
    the block and its submodules can still be read (nn.TransformerEncoder reads `layers[0].self_attn.batch_first`).
    """

    def __init__(self, block: nn.Module, structure: OutputStructure) -> None:
        super().__init__()
        self.structure = structure
        self.remains = _plain_attributes(block)
        self.training = block.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.structure.wrap(next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))

    def __getattr__(self, name: str) -> Any:
        remains = self.__dict__.get("remains")
        return getattr(remains, name) if hasattr(remains, name) else super().__getattr__(name)


def _plain_attributes(module: nn.Module) -> SimpleNamespace:
    kept = (bool, int, float, str, tuple, type(None))
    values = {name: value for name, value in vars(module).items() if name[0] != "_" and isinstance(value, kept)}
    return SimpleNamespace(**values, **{name: _plain_attributes(child) for name, child in module.named_children()})


def replace_block(model: nn.Module, name: str, structure: OutputStructure) -> None:
    """Put a `DroppedBlock` of the given structure in the place of any submodule but the model itself.

    Raises:
        StageError: the model has no such submodule.
    """
    if not name or name not in dict(model.named_modules()):
        raise StageError(f"the model has no submodule {name!r} to drop")
    put_module(model, name, DroppedBlock(model.get_submodule(name), structure))


def dropped_blocks(model: nn.Module) -> list[str]:
    """Names of the blocks that were dropped, in the order of the module tree."""
    return [name for name, module in model.named_modules() if isinstance(module, DroppedBlock)]


def put_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place of the submodule called `name`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
