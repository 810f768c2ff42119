"""Sizes are found before memory is taken, and a model without weights can be filled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from toolkit.zoo.build import build_skeleton, build_zoo_model
from toolkit.zoo.inputs import example_inputs
from toolkit.zoo.limits import TooLargeError, check_activations, check_size, counting
from toolkit.zoo.skeleton import materialise, without_weights

KIB = 2**10


class Tied(nn.Module):
    """One parameter with two names, and one buffer that is no part of the state dict."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Parameter(torch.ones(4, 4))
        self.first, self.second = shared, shared
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("index", torch.arange(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.first


def test_parameters_buffers_and_modules_are_counted() -> None:
    bytes_of_norm = 4 * (4 * 256) + 8  # scale, bias, mean, variance; the number of batches
    check_size(lambda: nn.BatchNorm1d(256), bytes_of_norm)
    with pytest.raises(TooLargeError, match="counted up to 'num_batches_tracked'"):
        check_size(lambda: nn.BatchNorm1d(256), bytes_of_norm - 1)
    with pytest.raises(TooLargeError, match="more than 50000 modules"):
        check_size(lambda: nn.Sequential(*(nn.Identity() for _ in range(50_001))), KIB)
    nn.BatchNorm1d(256)  # nothing is counted any more
    with pytest.raises(TooLargeError), counting(KIB):
        nn.Linear(100, 100)
    nn.Linear(100, 100)


def test_what_a_layer_gives_is_counted_and_a_view_is_not() -> None:
    inputs = (torch.empty(1, 16, device="meta"),)
    grows = nn.Linear(16, KIB, device="meta")
    check_activations(grows, inputs, most_bytes=64 * KIB)
    with pytest.raises(TooLargeError, match="needs more than 0 MiB at once"):
        check_activations(grows, inputs, most_bytes=4 * KIB - 1)

    class Spread(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.expand(2**20, 16)[:1]

    check_activations(Spread(), inputs, most_bytes=KIB)
    with pytest.raises(ValueError, match="does not run"):
        check_activations(grows, (torch.empty(1, 15, device="meta"),), most_bytes=64 * KIB)


def test_a_skeleton_keeps_ties_flags_and_buffers() -> None:
    with without_weights():
        model = Tied()
    assert model.first.is_meta and model.first is model.second
    assert torch.equal(model.index, torch.arange(4))
    materialise(model)
    assert not model.first.is_meta and model.first is model.second
    assert not model.frozen.requires_grad and model.first.requires_grad
    assert not Tied().first.is_meta  # the hook is gone


def test_buffers_that_nobody_can_make_anew_are_an_error() -> None:
    with without_weights():
        model = Tied()
    model.index = model.index.to("meta")
    with pytest.raises(ValueError, match="buffers that cannot be made without its weights: index"):
        materialise(model)


@pytest.mark.parametrize("name", ["timm/swin_tiny_patch4_window7_224", "timm/swinv2_cr_tiny_224"])
def test_a_skeleton_filled_with_the_weights_computes_the_same(name: str) -> None:
    """Both compute buffers that are not saved where their parameters are."""
    settings = {"depths": [1, 2], "embed_dim": 24, "num_heads": [1, 2], "img_size": 56}
    model, skeleton = build_zoo_model(name, settings), build_skeleton(name, settings, 2**26)
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    materialise(skeleton)
    skeleton.load_state_dict(model.state_dict())
    inputs = example_inputs(name, settings, 2)
    assert torch.equal(model(*inputs), skeleton(*inputs))
