"""How a task's `build_model` becomes code: functions, classes, partials, lambdas, nested functions, methods."""

from __future__ import annotations

import functools
import math
import os as system
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers.plain_exports import assert_names_no_toolkit
from toolkit.base.errors import ExportError
from toolkit.base.words import did_you_mean
from toolkit.exporting.formats.plain.builder import building_lines
from toolkit.exporting.formats.plain.program import new_sources
from toolkit.exporting.formats.plain.sources import annotation_names, global_names

SIZES = [2, 4]
HALF = math.sqrt(0.25)
ACTIVATION = functools.partial(F.leaky_relu, negative_slope=HALF)
TASKS = {1: "x"}


@dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...]
    kind: Callable[..., Any] = nn.Linear
    depth: int = 1


class Net(nn.Module):
    """Uses constants, a module under another name, a function, itself by name, and a hint of a toolkit's type."""

    def __init__(self, config: Config, scale: float = 1.0, words: Callable[..., ExportError] | None = None) -> None:
        super(Net, self).__init__()  # noqa: UP008
        self.layers = nn.ModuleList(config.kind(SIZES[0], size) for size in config.sizes)
        self.scale, self.place = scale, system.sep

    def forward(self, x: Tensor) -> Tensor:
        parts = [both(layer(x)) for layer in self.layers]
        return torch.cat(parts, -1) * self.scale


def both(x: Tensor) -> Tensor:
    SIZES = x  # noqa: N806  # hides the constant here alone
    return ACTIVATION(SIZES)


def make() -> nn.Module:
    return Net(Config((3, 5)))


class Made(Net):
    def __init__(self) -> None:
        super().__init__(Config((2,)))


class Task:
    """Stands for a user's task."""

    scale = 0.5

    def __init__(self) -> None:
        self.config, self.kind, self.path = Config((6,), depth=2), nn.Linear, Path("x")
        self.net = functools.partial(Net, self.config, scale=2)

    def build(self) -> nn.Module:
        """Builds it."""
        model = Net(self.config, scale=self.scale)
        model.extra = self.kind(3, 4)
        return model

    def of_partial(self) -> nn.Module:
        return self.net()

    def of_method(self) -> nn.Module:
        return self.build()

    def of_path(self) -> nn.Module:
        return Net(self.path)

    def of_itself(self) -> nn.Module:
        return build_of(self)


def build_of(task: Task) -> nn.Module:
    return task.build()


def nested(width: int) -> Callable[[], nn.Module]:
    config = Config((width,))

    def build() -> nn.Module:
        return Net(config)

    return build


def in_a_lambda(scale: float) -> Callable[[], nn.Module]:
    return lambda: Net(Config((1, 1, 1)), scale)


def nested_class() -> Callable[[], nn.Module]:
    class Inner(Net):
        pass

    return lambda: Inner(Config((1,)))


def needs_the_toolkit() -> nn.Module:
    did_you_mean("x", [])
    return Net(Config((3,)))


def needs_a_computed_table() -> nn.Module:
    return nn.Linear(len(TABLE), 2)


TABLE = {}
TABLE[1] = nn.Linear


def load_model() -> nn.Module:
    return Net(Config((3,)))


def text_of(build: Callable[[], nn.Module]) -> str:
    sources = new_sources()
    body = building_lines(build, sources)
    return "\n".join(
        ["from __future__ import annotations", *sources.imports, *sources.definitions, "def unmodified():"]
        + [f"    {line}" for line in body]
    )


def built(build: Callable[[], nn.Module]) -> nn.Module:
    text = text_of(build)
    assert_names_no_toolkit(text)
    names: dict[str, Any] = {"__name__": __name__}
    exec(text, names)
    model = names["unmodified"]()
    assert isinstance(model, nn.Module)
    return model


@pytest.mark.parametrize(
    "build",
    [
        make,
        Made,
        functools.partial(Net, Config((1, 2)), scale=3.0),
        functools.partial(make),
        Task().build,
        Task().of_partial,
        nested(4),
        in_a_lambda(0.25),
        functools.partial(nn.Linear, 3, 4),
    ],
    ids=["function", "class", "partial", "partial of a function", "method", "method", "nested", "lambda", "torch"],
)
def test_the_code_builds_the_same(build: Callable[[], nn.Module]) -> None:
    wanted, found = build(), built(build)
    assert [(name, part.shape) for name, part in wanted.named_parameters()] == [
        (name, part.shape) for name, part in found.named_parameters()
    ]
    found.load_state_dict(wanted.state_dict())
    x = torch.randn(3, next(wanted.parameters()).shape[1])
    assert torch.equal(found(x), wanted(x))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Task().of_method, r"self\.build is a method"),
        (Task().of_path, r"self\.path is a \w*PosixPath, which cannot be written as code"),
        (Task().of_itself, "it needs the task itself"),
        (nested_class(), r"Inner is nested_class\.<locals>\.Inner, which is not at the top level of its file"),
        (needs_a_computed_table, "TABLE in .* is not defined by one statement that can be copied"),
        (load_model, "two things that it needs are both called load_model; rename yours"),
        (Made().parameters, None),
        (nn.Linear(2, 2), "build_model is a Linear, not a function"),
    ],
)
def test_what_cannot_be_written(build: Any, reason: str | None) -> None:
    if reason is None:
        reason = "self"
    with pytest.raises(ExportError, match=reason):
        text_of(build)


def test_code_of_the_toolkit_is_copied_if_it_stands_alone() -> None:
    text = text_of(needs_the_toolkit)
    assert "def did_you_mean(word: str, choices: Iterable[str]) -> str:" in text and "import difflib" in text


def test_constants_keep_their_statement_only_where_they_must() -> None:
    text = text_of(make)
    assert "SIZES = [2, 4]" in text and "HALF = 0.5" in text and "import os as system" in text
    assert "ACTIVATION = functools.partial(F.leaky_relu, negative_slope=HALF)" in text
    assert text.index("HALF = 0.5") < text.index("ACTIVATION =") < text.index("def both") < text.index("class Net")
    assert "TASKS" not in text and "did_you_mean" not in text


def test_names_of_source() -> None:
    source = "def f(a: int, b=C) -> Hint:\n    d = e\n    return [g(d) for g in h if i]\n"
    assert global_names(source) == ["C", "e", "h", "i"]
    assert annotation_names(source) == ["Hint", "int"]
    assert global_names("class A(B):\n    x = y\n    def f(self):\n        return x, A\n") == ["A", "B", "x", "y"]
