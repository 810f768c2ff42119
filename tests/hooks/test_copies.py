"""Copies of models: they share nothing with the model, and what cannot be copied is named."""

from __future__ import annotations

import ast
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.source import ROOT
from toolkit.base.errors import UserError
from toolkit.hooks.copies import copy_model


class Child(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.kept: Any = None

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Net(nn.Module):
    """A child that `change` prepares; the forward is the child's, or what `call` does."""

    call: Callable[[Tensor], Tensor]

    def __init__(self, change: Callable[[Net], None]) -> None:
        super().__init__()
        self.child = Child()
        change(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x) if hasattr(self, "call") else self.child(x)


def by_closure(net: Net) -> None:
    child = net.child
    net.call = lambda x: child(x) + 1


def by_default(net: Net) -> None:
    net.call = lambda x, child=net.child: child(x)


def by_nested_closure(net: Net) -> None:
    inner = net.child.forward

    def outer(x: Tensor) -> Tensor:
        return inner(x)

    net.call = partial(lambda x, outer: outer(x), outer=outer)


def by_weak_reference(net: Net) -> None:
    net.child.kept = weakref.ref(net)
    net.call = lambda x: x @ net.child.kept().child.layer.weight


def by_list_beside_the_tree(net: Net) -> None:
    net.others = [net.child]
    net.call = lambda x: net.others[0](x) + 1


def by_hook(net: Net) -> None:
    seen: dict[str, Tensor] = {}
    net.child.register_forward_hook(lambda _, __, out: seen.update(out=out))
    child = net.child
    net.call = lambda x: (child(x), seen["out"] * 2)[1]


def by_patched_forward(net: Net) -> None:
    old = net.child.forward
    net.child.forward = lambda x: old(x) + 1  # type: ignore[method-assign]


WAYS = (by_closure, by_default, by_nested_closure, by_weak_reference, by_list_beside_the_tree, by_hook)


@pytest.mark.parametrize("change", [*WAYS, by_patched_forward], ids=lambda change: change.__name__)
def test_a_copy_computes_with_its_own_weights(change: Callable[[Net], None]) -> None:
    net, x = Net(change), torch.randn(2, 4)
    before = net(x)
    copied = copy_model(net)
    torch.testing.assert_close(copied(x), before)
    with torch.no_grad():
        copied.child.layer.weight.zero_()
        copied.child.layer.bias.zero_()
    torch.testing.assert_close(net(x), before)
    assert not torch.equal(copied(x), before)


def graph_as_attribute(child: Child) -> object:
    return child(torch.randn(2, 4))


def graph_in_a_list(child: Child) -> object:
    return [{"map": child(torch.randn(2, 4))}]


def graph_in_an_object(child: Child) -> object:
    return SimpleNamespace(keys=(child(torch.randn(2, 4)),))


def made_in_inference_mode(child: Child) -> object:
    with torch.inference_mode():
        return {"cache": child(torch.randn(2, 4))}


def generator(child: Child) -> object:
    return torch.Generator().manual_seed(3)


KEPT = (graph_as_attribute, graph_in_a_list, graph_in_an_object, made_in_inference_mode, generator)


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.__name__)
def test_what_a_forward_pass_left_does_not_stop_the_copy(kept: Callable[[Child], object]) -> None:
    net = Net(lambda net: None)
    net.child.kept = kept(net.child)
    copied = copy_model(net)
    assert copied.child.kept is not net.child.kept
    if isinstance(copied.child.kept, Tensor):
        assert copied.child.kept.grad_fn is None
    copied(torch.randn(2, 4)).sum().backward()


def test_a_buffer_with_a_graph_is_copied_without_it() -> None:
    net = Net(lambda net: None)
    net.register_buffer("mean", torch.zeros(4))
    net.mean = 0.9 * net.mean + net(torch.randn(2, 4)).mean(0)
    copied = copy_model(net)
    assert not copied.mean.requires_grad
    torch.testing.assert_close(copied.mean, net.mean.detach())


def a_lock(_: Path) -> object:
    return threading.Lock()


def a_lock_in_a_list(_: Path) -> object:
    return [threading.RLock()]


def an_open_file(folder: Path) -> object:
    return (folder / "log.txt").open("w")


def a_running_generator(_: Path) -> object:
    return (number for number in range(3))


@pytest.mark.parametrize("make", [a_lock, a_lock_in_a_list, an_open_file, a_running_generator])
def test_what_cannot_be_copied_is_named(make: Callable[[Path], object], tmp_path: Path) -> None:
    net = Net(lambda net: None)
    net.child.kept = make(tmp_path)
    with pytest.raises(UserError, match=r"^child\.kept \(a .*\) cannot be copied, and every stage works on copies"):
        copy_model(net)
    if hasattr(net.child.kept, "close"):
        net.child.kept.close()


def test_a_module_that_gives_itself_for_a_copy_is_refused() -> None:
    class Shared(nn.Linear):
        def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
            return self

    with pytest.raises(UserError, match=r"^1 \(Shared\) makes no real copy of itself"):
        copy_model(nn.Sequential(nn.Linear(4, 4), Shared(4, 4)))


def test_tied_weights_stay_tied() -> None:
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    net[1].weight = net[0].weight
    copied = copy_model(net)
    assert copied[1].weight is copied[0].weight
    assert copied[1].weight is not net[1].weight


def test_no_other_place_copies_models() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): [
            ast.unparse(node)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("deepcopy")
        ]
        for path in (ROOT / "toolkit").rglob("*.py")
    }
    others = {name: calls for name, calls in found.items() if calls and name != "toolkit/hooks/copies.py"}
    assert others == {"toolkit/training/fit.py": ["copy.deepcopy(state.average.state_dict())"]}
