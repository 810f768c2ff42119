"""Describes how a block returns its tensor, so that a stand-in can return it in the same way.

An input of the same place and shape stands for an output: for a block that returns (x, mask), the stand-in returns the
mask that it was given. An output that no input can stand for is None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from toolkit.base.settings import Settings
from toolkit.hooks.tensors import entries_of, equal, stream_in, tensors_in
from toolkit.stand_ins.plain import wrapped

Place = tuple[int | str, ...]  # number or name of an argument, and for a part of it the number or key of the part

_MOST_ENTRIES = 64


class HandedOn(Settings):
    """Says that entry number `at` of an output is the input at `place`."""

    at: Annotated[int, Field(ge=0, lt=_MOST_ENTRIES)]
    place: Annotated[Place, Field(min_length=1, max_length=2)]


class OutputStructure(Settings):
    """Describes how a block returns its stream: alone, or as one of several entries.

    kind: the kind of container; "tensor" if the stream is returned alone.
    length: the number of entries.
    index: the position of the stream among the entries.
    keys: the names of the entries; empty if they have none.
    handed: the entries that are inputs of the block.
    like: the argument that is a container of the output's own type, of which a copy is returned; None if there is none.
        The types of other containers with names are not kept, but their names are.
    """

    later: ClassVar[frozenset[str]] = frozenset({"handed", "like"})

    kind: Literal["tensor", "tuple", "list", "mapping", "named_tuple", "dataclass"] = "tensor"
    length: Annotated[int, Field(ge=1, le=_MOST_ENTRIES)] = 1
    index: Annotated[int, Field(ge=0, lt=_MOST_ENTRIES)] = 0
    keys: tuple[str, ...] = ()
    handed: tuple[HandedOn, ...] = ()
    like: int | str | None = None

    @classmethod
    def of(
        cls, output: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, names: Sequence[str] = ()
    ) -> tuple[OutputStructure, Tensor] | None:
        """Returns the structure and the stream of a block's output; None if it has no tensor or cannot be rebuilt.

        args, kwargs: what the block was called with.
        names: the block's names of its positional arguments.
        """
        if isinstance(output, Tensor):
            return cls(), output
        kind, named_entries = _kind_of(output), entries_of(output)
        stream = stream_in(named_entries[1]) if named_entries is not None else None
        if kind is None or named_entries is None or len(named_entries[1]) > _MOST_ENTRIES:
            return None
        keys, entries = named_entries
        index = next((at for at, entry in enumerate(entries) if entry is stream), None)
        if stream is None or index is None or (kind not in ("tuple", "list") and not all(map(_is_name, keys))):
            return None
        named = keys if kind not in ("tuple", "list") else ()
        arguments = list(_given(args, kwargs or {}))
        entering = stream_in((args, kwargs or {}))
        others = [(place, value) for place, value in arguments if value is not entering]
        handed = []
        for at, entry in enumerate(entries):
            place = (
                None if at == index or entry is None else _source(entry, at, named[at : at + 1], others, names, args)
            )
            if place is not None:
                handed.append({"at": at, "place": place})
        like = next((place[0] for place, value in arguments if _is_like(value, output) and len(place) == 1), None)
        fields = {"kind": kind, "length": len(entries), "index": index, "keys": named, "handed": handed, "like": like}
        return cls.model_validate(fields, strict=False), stream

    def lost(self, output: Any) -> list[int | str]:
        """Returns the keys of the entries of a block's output that a stand-in cannot return."""
        named_entries = entries_of(output)
        if isinstance(output, Tensor) or named_entries is None:
            return []
        returned = {self.index, *(entry.at for entry in self.handed)}
        return [
            key
            for at, (key, entry) in enumerate(zip(*named_entries, strict=True))
            if entry is not None and at not in returned
        ]

    @property
    def keeps_its_type(self) -> bool:
        """Returns whether a stand-in returns a container of the block's own type."""
        return self.kind in ("tensor", "tuple", "list") or self.like is not None

    def wrap(self, tensor: Tensor, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Returns the stream `tensor` in this structure, with the inputs that are handed on; other entries are None.

        args, kwargs: what the stand-in was called with.
        """
        return wrapped(tensor, (args, kwargs or {}), **self.plain())

    def plain(self) -> dict[str, Any]:
        """Returns the arguments with which `wrapped` returns a stream in this structure; none if it is a tensor."""
        fields: dict[str, Any] = {
            "kind": self.kind,
            "length": self.length,
            "index": self.index,
            "keys": self.keys,
            "handed": tuple((entry.at, entry.place) for entry in self.handed),
            "like": self.like,
        }
        return {name: value for name, value in fields.items() if value != getattr(OutputStructure(), name)}


def _kind_of(output: Any) -> str | None:
    if isinstance(output, Mapping):
        return "mapping"
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return "named_tuple"
    if type(output) in (tuple, list):
        return type(output).__name__
    return "dataclass" if dataclasses.is_dataclass(output) and not isinstance(output, type) else None


def _is_name(key: Any) -> bool:
    return isinstance(key, str)


def _is_like(argument: Any, output: Any) -> bool:
    """Returns whether an argument is a container with names, of the output's type and with the same names."""
    if type(argument) is not type(output) or _kind_of(output) in ("tuple", "list", None):
        return False
    first, second = entries_of(argument), entries_of(output)
    return first is not None and second is not None and first[0] == second[0]


def _given(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    """Yields all arguments, and the parts of those that are containers, with their places."""
    arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for name, value in arguments:
        yield (name,), value
        named_parts = entries_of(value)
        for key, part in zip(*named_parts, strict=True) if named_parts is not None else ():
            if isinstance(key, int | str):
                yield (name, key), part


def _source(
    entry: Any,
    at: int,
    key: Sequence[str],
    given: Iterable[tuple[Place, Any]],
    names: Sequence[str],
    args: Sequence[Any],
) -> Place | None:
    """Returns the place of the input that an entry of the output is; None if it is none.

    It is the same object, else an input of the same place and shape, else an input with the same numbers.
    """
    given = list(given)
    same = [place for place, value in given if value is entry and not isinstance(entry, bool | int | float | str)]
    alike = [(place, value) for place, value in given if _is_alike(value, entry)]
    in_place = [place for place, _ in alike if _is_place(place, at, key, names, args)]
    equals = [place for place, value in alike if isinstance(value, Tensor) and equal(value, entry)]
    return next(iter((*same, *in_place, *equals)), None)


def _is_place(place: Place, at: int, key: Sequence[str], names: Sequence[str], args: Sequence[Any]) -> bool:
    """Returns whether an argument, or a part of one, has the number or the name of an entry of the output."""
    last = place[-1]
    name = names[last] if len(place) == 1 and isinstance(last, int) and last < len(names) else last
    if key:
        return name == key[0]
    if len(place) == 1 and isinstance(last, str) and last in names:
        return names.index(last) == at
    return last == at


def _is_alike(value: Any, entry: Any) -> bool:
    """Returns whether two values hold tensors of the same shapes and types, or are the same plain value."""
    if type(value) is not type(entry):
        return False
    first, second = tensors_in(value), tensors_in(entry)
    if not second:
        return isinstance(entry, bool | int | float | str) and value == entry
    return [(part.shape, part.dtype) for part in first] == [(part.shape, part.dtype) for part in second]
