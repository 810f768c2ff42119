"""The baseline is the trained model: what may be given as its weights, and what a rebuilt model may lack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toolkit import ClassificationTask
from toolkit.base.errors import UserError
from toolkit.hooks.state_dicts import few

X = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 4


def build() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))


def make(trained: Any, build: Callable[[], nn.Module] = build) -> ClassificationTask:
    parts = {"train": slice(0, 30), "validation": slice(30, 45), "test": slice(45, 60)}
    return ClassificationTask(build, trained, **{name: (X[part], Y[part]) for name, part in parts.items()})  # type: ignore[arg-type]


W = build().state_dict()
OPTIMIZER = torch.optim.AdamW(build().parameters()).state_dict()

CHECKPOINTS: dict[str, tuple[Any, str]] = {
    "model": ({"model": W, "epoch": 3}, r"keys model, epoch; .* weights under 'model': pass trained\['model'\]$"),
    "state_dict": ({"state_dict": W, "optimizer": OPTIMIZER}, r"pass trained\['state_dict'\]$"),
    "ema too": ({"state_dict": W, "state_dict_ema": W}, r"trained\['state_dict'\] \(there .*\['state_dict_ema'\]\)"),
    "ema alone": ({"ema": W, "step": 5}, r"pass trained\['ema'\]$"),
    "ema with a prefix": ({"ema": {f"module.{k}": v for k, v in W.items()}, "step": 5}, r"pass trained\['ema'\]$"),
    "a module": ({"model": build(), "date": "today"}, r"a module under 'model': pass trained\['model'\]"),
    "an optimizer's": (OPTIMIZER, "state of an optimizer and holds no model"),
    "nothing": ({}, "trained is an empty dict"),
    "DataParallel": ({f"module.{k}": v for k, v in W.items()}, r"begin with 'module\.', as DataParallel.*prefix"),
    "compiled": ({f"_orig_mod.{k}": v for k, v in W.items()}, r"begin with '_orig_mod\.', as torch.compile"),
    "both": ({f"module._orig_mod.{k}": v for k, v in W.items()}, r"begin with 'module\.'"),
    "a compiled part": ({k.replace("0.", "0._orig_mod."): v for k, v in W.items()}, r"hold '_orig_mod\.', .*\.replace"),
    "part of another": ({**{f"net.{k}": v for k, v in W.items()}, "loss.w": W["0.bias"]}, r"names begin with 'net\.'"),
    "numpy": ({k: v.numpy() for k, v in W.items()}, r"numpy arrays \(0\.weight, 0\.bias, 1\.weight and 6 more\)"),
    "lists": ({k: v.tolist() for k, v in W.items()}, "values that are not tensors"),
    "extra state": ({**W, "0._extra_state": {"scale": 1}}, "without the names that end in _extra_state"),
    "a path": ("net.pt", r"load the file: torch\.load\('net\.pt'"),
    "None": (None, "trained is None; trained must be a trained torch.nn.Module"),
    "a class": (nn.Linear, "not its class"),
    "a function": (build, "give what it returns"),
    "another width": ({**W, "2.weight": torch.zeros(5, 16)}, r"1 of 9 of another shape: 2\.weight \(\[5, 16\], not"),
    "a part of it": (build()[0].state_dict(), "do not fit what build_model builds"),
    "whole numbers": ({**W, "0.weight": W["0.weight"].int()}, r"0\.weight is int32, not float32"),
    "a wrapped model": (nn.DataParallel(build()), r"pass trained\.module"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_what_is_no_state_dict(kind: str) -> None:
    given, message = CHECKPOINTS[kind]
    with pytest.raises(UserError, match=message) as caught:
        make(given)
    assert "\n" not in str(caught.value) and str(caught.value).count("weight") <= 6


def test_what_is_told_to_be_passed_is_taken() -> None:
    expected = make(W).load_baseline()(X)
    for given in (
        {"model": W}["model"],
        {k.removeprefix("module."): v for k, v in {f"module.{k}": W[k] for k in W}.items()},
    ):
        assert torch.equal(make(given).load_baseline()(X), expected)
    assert torch.equal(make(build().half()).load_baseline()(X), make(build().half().state_dict()).load_baseline()(X))


def test_at_most_three_names() -> None:
    assert few(["a"]) == "a"
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    with pytest.raises(UserError) as caught:
        make({f"x{number}": torch.zeros(1) for number in range(50)})
    assert "and 47 more" in str(caught.value) and len(str(caught.value)) < 250


class Beside(nn.Module):
    """Subtracts a mean, which is kept as `kind`, and scales by a number."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.scale, self.means = kind, 1.0, {"x": torch.zeros(8)}
        self.mean: Tensor
        if kind == "buffer":
            self.register_buffer("mean", torch.zeros(8), persistent=False)
        else:
            self.mean = torch.zeros(8)
        self.layers = build()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.scale * (x - self.mean - self.means["x"]))


class Merging(nn.Linear):
    """Adds an adapter to its weight when it is put into eval mode."""

    def __init__(self) -> None:
        super().__init__(8, 4)
        self.extra, self.merged = nn.Parameter(torch.ones(4, 8)), False

    def train(self, mode: bool = True) -> Merging:
        if self.merged == mode:
            self.weight.data += self.extra.data * (-1 if mode else 1)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight if self.merged else self.weight + self.extra, self.bias)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = build()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x + torch.randn_like(x))


def test_state_beside_the_state_dict() -> None:
    def trained(kind: str, change: Callable[[Beside], object]) -> Callable[[], ClassificationTask]:
        model = Beside(kind)
        change(model)
        return lambda: make(model, lambda: Beside(kind))

    changes: dict[str, tuple[str, Callable[[Beside], object]]] = {
        r"do(es)? not hold: mean; .*register tensors as buffers": ("", lambda m: setattr(m, "mean", X.mean(0) + 1)),
        r"\(persistent=False\): mean;": ("buffer", lambda m: m.mean.add_(1)),
        r"not hold: scale;": ("", lambda m: setattr(m, "scale", 3.0)),
        r"not hold: means;": ("", lambda m: m.means.update(x=torch.ones(8))),
        r"another class: layers\.1 \(Identity, not BatchNorm1d\)": (
            "", lambda m: (m.layers.__setitem__(1, nn.Identity()), m.layers[1].register_module("x", None)),
        ),
    }  # fmt: skip
    for message, (kind, change) in changes.items():
        with pytest.raises(UserError, match=message if "class" not in message else "do not fit|another class"):
            trained(kind, change)()
    assert torch.equal(trained("", lambda m: m)().load_baseline()(X), Beside("").eval()(X))


def test_weights_that_eval_mode_merges() -> None:
    with pytest.raises(UserError, match=r"weights that eval\(\), train\(\) or loading has changed: weight"):
        make(Merging().eval(), Merging)
    make(Merging(), Merging)  # as it was trained: not merged yet


def test_another_architecture_with_the_same_weights() -> None:
    with pytest.raises(UserError, match=r"differ by \S+ of their size .*(class|differ in their code)"):
        make(build(), lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)).append(nn.Tanh()))


def test_a_model_that_is_random_in_eval_mode() -> None:
    with pytest.raises(UserError, match="does not repeat itself"):
        make(Noisy(), Noisy)


def test_the_trained_model_is_left_as_it_was() -> None:
    trained = build().train()
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    make(trained)
    assert all(module.training for module in trained.modules())
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_frozen_parameters_stay_frozen() -> None:
    trained, frozen = build(), build()
    trained[0].requires_grad_(False)
    frozen[2].requires_grad_(False)

    def flags(model: nn.Module) -> list[bool]:
        return [model[place].weight.requires_grad for place in range(3)]  # type: ignore[index]

    def build_frozen() -> nn.Module:
        model = build()
        model[2].requires_grad_(False)
        return model

    assert flags(make(trained).load_baseline()) == [False, True, True]
    assert flags(make(trained, build_frozen).load_baseline()) == [False, True, True]  # the trained model's count
    assert flags(make(W, build_frozen).load_baseline()) == [True, True, False]  # weights have no flags
