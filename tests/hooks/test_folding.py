"""Weights that are computed from others become plain ones of the same values, and versions stay with weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from toolkit.base.errors import UserError
from toolkit.hooks.copies import copy_model
from toolkit.hooks.folding import computed_tensors, fold_all, fold_tensors
from toolkit.hooks.state import load_state, versions_of


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


def quietly(change: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def changed(module: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return change(module)

    return changed


def symmetric(module: nn.Module) -> nn.Module:
    parametrize.register_parametrization(module, "weight", Symmetric())
    return module


def twice(module: nn.Module) -> nn.Module:
    return symmetric(parametrizations.spectral_norm(module))


def mask_over_bias(module: nn.Module) -> nn.Module:
    prune.random_unstructured(module, "weight", 0.5)
    prune.random_unstructured(module, "bias", 0.5)
    return prune.l1_unstructured(module, "weight", 0.2)


WAYS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "the old weight_norm": (quietly(weight_norm), "weight_norm"),
    "the old spectral_norm": (quietly(spectral_norm), "spectral_norm"),
    "weight_norm": (parametrizations.weight_norm, "the parametrization WeightNorm"),
    "spectral_norm": (parametrizations.spectral_norm, "the parametrization SpectralNorm"),
    "orthogonal": (parametrizations.orthogonal, "the parametrization Orthogonal"),
    "a parametrization of one's own": (symmetric, "the parametrization Symmetric"),
    "two parametrizations": (twice, "the parametrization SpectralNorm and Symmetric"),
    "masks, twice on the weight": (mask_over_bias, "a pruning mask"),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_folded_weights_are_loaded_like_any(way: str) -> None:
    """torch leaves a hook of the old spectral_norm behind, which looks for weights that are gone."""
    torch.manual_seed(0)
    layer = WAYS[way][0](nn.Linear(4, 4))
    fold_all(layer)
    load_state(layer, {name: torch.ones_like(value) for name, value in layer.state_dict().items()})
    assert bool((layer.weight == 1).all())


@pytest.mark.parametrize("way", list(WAYS))
def test_folded_weights_compute_the_same(way: str) -> None:
    change, kind = WAYS[way]
    torch.manual_seed(0)
    net, x = nn.Sequential(change(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2)), torch.randn(3, 4)
    net.train()(x)  # so that power iterations have moved
    expected = net.eval()(x)
    net.train()
    found = fold_all(net)
    assert found["0.weight"] == kind
    assert computed_tensors(net) == {}
    assert net.training
    assert sorted(net.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert type(net[0]) is nn.Linear
    assert isinstance(net[0].weight, nn.Parameter)
    assert net[0].weight.requires_grad
    torch.testing.assert_close(net.eval()(x), expected)


def test_a_frozen_weight_stays_frozen() -> None:
    net = parametrizations.weight_norm(nn.Linear(4, 4)).requires_grad_(False)
    fold_all(net)
    assert not net.weight.requires_grad


def test_a_convolution_with_a_normed_weight_and_a_plain_model() -> None:
    net = parametrizations.weight_norm(nn.Conv1d(4, 4, 3), dim=2)
    x = torch.randn(1, 4, 8)
    expected = net(x)
    fold_all(net)
    torch.testing.assert_close(net(x), expected)
    assert fold_all(nn.Linear(4, 4)) == {}


def test_a_name_that_is_not_computed_is_refused() -> None:
    with pytest.raises(UserError, match=r"^0\.weight is not computed from other tensors in this model"):
        fold_tensors(nn.Sequential(nn.Linear(4, 4)), ["0.weight"])


class Versioned(nn.Linear):
    """Takes weights of version 3 alone, as torchvision's MNASNet takes 1 and 2."""

    _version = 3

    def _load_from_state_dict(self, state: object, prefix: str, metadata: dict[str, int], *rest: object) -> None:
        if metadata.get("version") != 3:
            raise ValueError(f"version should be 3 instead of {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *rest)  # type: ignore[arg-type]


def test_weights_without_versions_are_of_the_models_own() -> None:
    net = nn.Sequential(Versioned(4, 4))
    plain = dict(net.state_dict())
    with pytest.raises(ValueError, match="instead of None"):
        net.load_state_dict(plain)
    load_state(net, plain)
    assert versions_of(net.state_dict())["0"] == 3


def test_versions_that_weights_have_are_kept() -> None:
    net = nn.Sequential(Versioned(4, 4))
    with pytest.raises(ValueError, match="instead of 2"):
        load_state(net, net.state_dict(), {"": 1, "0": 2})
    old = nn.Sequential(nn.BatchNorm1d(4))
    load_state(old, {name: value for name, value in old.state_dict().items() if "num" not in name})


def test_a_wrong_shape_is_still_an_error() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_state(nn.Linear(4, 4), nn.Linear(4, 5).state_dict())


def test_folding_one_copy_leaves_the_other_copies_and_the_original_as_they_are() -> None:
    """torch makes one class for a parametrized module, which all its copies share."""
    net = nn.Sequential(parametrizations.weight_norm(nn.Conv1d(3, 4, 3)))
    first, second = copy_model(net), copy_model(net)
    inputs = torch.randn(2, 3, 8)
    expected = net(inputs)
    for model in (first, second, net):
        fold_all(model)
        torch.testing.assert_close(model(inputs), expected)
        assert not computed_tensors(model)
