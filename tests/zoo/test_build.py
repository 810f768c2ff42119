"""Zoo models: built without a download, always the same, run on their own inputs, saved and loaded by name alone."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import nn

from tests.helpers.damages import forbid_pickle
from tests.helpers.tiny_models import tiny_arguments, tiny_input_size
from toolkit.base.errors import UserError
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model
from toolkit.hooks.tensors import tensors_in
from toolkit.zoo.build import build_zoo_model, config_fields, library_of
from toolkit.zoo.inputs import example_inputs, input_specs
from toolkit.zoo.random_baseline import build_random_baseline
from toolkit.zoo.transformers_types import TYPES

MODELS: dict[str, tuple[dict[str, Any], int | None]] = {
    "torchvision/resnet18": ({"num_classes": 5}, 64),
    "torchvision/regnet_y_400mf": ({}, 64),  # cannot be built on the meta device
    "torchvision/mc3_18": ({}, 16),
    "torchvision/lraspp_mobilenet_v3_large": ({}, 64),  # its backbone has weights of its own
    "timm/test_vit": ({"img_size": 64, "in_chans": 4}, None),
    "timm/test_resnet": ({}, 64),
    "timm/swin_tiny_patch4_window7_224": ({"img_size": 56, "depths": [1, 1, 2, 1]}, None),  # buffers beside weights
    "timm/eva02_tiny_patch14_224": ({"img_size": 56}, None),  # rotary positions
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a zoo model must never need the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def outputs_of(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    with torch.no_grad():
        return tensors_in(model(*inputs))


def settings_of(name: str) -> tuple[dict[str, Any], int | None]:
    if name in MODELS:
        return MODELS[name]
    kind = name.removeprefix("transformers/")
    fields = config_fields(getattr(library_of("transformers"), TYPES[kind].config))
    return tiny_arguments(kind, fields), tiny_input_size(kind)


@pytest.mark.parametrize("name", [*MODELS, *(f"transformers/{kind}" for kind in TYPES)])
def test_saved_and_loaded_by_name_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_pickle(monkeypatch)
    arguments, input_size = settings_of(name)
    model = build_random_baseline(name, arguments, input_size)
    inputs = example_inputs(name, arguments, 2, input_size=input_size)
    assert [(part.shape[1:], part.dtype) for part in inputs] == input_specs(name, arguments, input_size)
    factory = {"zoo": name, "arguments": arguments, "input_size": input_size}
    one = tuple(part[:1] for part in inputs)
    save_model(tmp_path / "model", model, model, factory=factory, example_inputs=one, recipe_sha256=None)
    loaded = load_model(tmp_path / "model")
    old, new = outputs_of(model, inputs), outputs_of(loaded, inputs)
    assert all(torch.equal(*pair) for pair in zip(old, new, strict=True))
    assert bool(old[0].isfinite().all()) and not torch.equal(old[0][0], old[0][1])
    assert not loaded.training
    flags = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    assert {key: parameter.requires_grad for key, parameter in loaded.named_parameters()} == flags


def test_the_same_on_every_call_and_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    first = build_random_baseline("timm/test_vit")
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(3), drawn)
    second = build_random_baseline("timm/test_vit")
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))


def test_nothing_of_a_random_baseline_is_constant() -> None:
    constant = dict(build_zoo_model("timm/test_resnet").named_parameters())
    assert float(constant["layer1.0.bn1.bias"].detach().abs().max()) == 0.0
    for parameter in build_random_baseline("timm/test_resnet", input_size=64).parameters():
        assert parameter.numel() == 1 or float(parameter.detach().std()) > 0


def test_a_head_of_zeros_and_tiny_layer_scales_are_drawn_anew() -> None:
    """torchvision starts the head of a ViT at 0; transformers adds DINOv2's blocks at a scale of `layerscale_value`."""
    head = build_random_baseline("torchvision/vit_b_16", {"image_size": 32}).get_parameter("heads.head.weight").detach()
    assert float(head.std()) == pytest.approx(768**-0.5, rel=0.1)
    name, settings = "transformers/dinov2", {"num_hidden_layers": 1, "layerscale_value": 1e-6, "image_size": 28}
    names = [key for key, _ in build_zoo_model(name, settings).named_parameters() if "lambda1" in key]
    assert names
    for key in names:
        scale = build_random_baseline(name, settings).get_parameter(key).detach()
        assert float(scale.mean()) == pytest.approx(0.5, rel=0.1) and float(scale.std()) > 0.05


def test_batch_normalisation_fits_its_inputs() -> None:
    model = build_random_baseline("timm/test_resnet", input_size=64)
    seen: list[torch.Tensor] = []
    model.get_submodule("layer1.0.bn1").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(*example_inputs("timm/test_resnet", {}, 32, seed=9, input_size=64))
    layer = model.get_submodule("layer1.0.bn1")
    torch.testing.assert_close(layer.running_mean, seen[0].mean((0, 2, 3)), atol=0.3, rtol=0.3)
    torch.testing.assert_close(layer.running_var, seen[0].var((0, 2, 3)), atol=0.3, rtol=0.3)
    assert layer.momentum == 0.1 and not layer.training


def test_examples_do_not_depend_on_the_batch_they_stand_in() -> None:
    for name in ("timm/test_vit", "transformers/bert", "transformers/wav2vec2", "torchvision/mc3_18"):
        many, one = example_inputs(name, {}, 3, seed=4), example_inputs(name, {}, 1, seed=4)
        assert all(torch.equal(first[:1], second) for first, second in zip(many, one, strict=True))
        assert not torch.equal(many[0][0], many[0][1])
        assert not torch.equal(example_inputs(name, {}, 1, seed=5)[0], one[0])


def test_images_are_smooth() -> None:
    (image,) = example_inputs("torchvision/resnet18", {}, 1)
    assert image.shape == (1, 3, 224, 224)
    assert float(image.diff(dim=-1).square().mean()) < 0.1 * float(image.square().mean())


def test_videos_have_the_layout_of_their_library() -> None:
    assert example_inputs("torchvision/r2plus1d_18", {}, 1)[0].shape == (1, 3, 8, 112, 112)
    assert example_inputs("transformers/videomae", {"num_frames": 4}, 1)[0].shape == (1, 4, 3, 224, 224)


def test_padding_of_texts() -> None:
    ids, mask = example_inputs("transformers/bert", {"vocab_size": 40}, 64)
    assert int(ids.max()) < 40 and mask.sum(1).min() >= 32 and bool((mask.sum(1) < 64).any())
    assert bool((ids * mask == ids).all())


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("torchvision/resnet19", {}, "similar names are: resnet18, resnet152"),
        ("torchvision/fasterrcnn_resnet50_fpn", {}, "takes other inputs than a batch of images"),
        ("timm/no_such_model", {}, "is not known"),
        ("timm/resnet18.a1_in1k", {}, "is not known"),
        ("transformers/gpt", {}, "choose transformers/ and one of: vit"),
        ("torchvision/resnet18", {"image_size": 64}, "cannot be built with image_size=64: TypeError"),
        ("torchvision/resnet18", {"num_classes": -1}, "cannot be built"),
        ("transformers/vit", {"hidden_size": "big"}, "cannot be built"),
        ("transformers/vit", {"vocab_size": 3}, "choose from: attention_probs_dropout_prob"),
        ("transformers/vit", {"hidden_act": "os_system"}, "cannot be built"),
        ("timm/vit_tiny_patch16_224", {"depth": 512, "embed_dim": 2**16, "num_heads": 1}, "8192 MiB"),
        ("transformers/videomae", {"image_size": 2048}, "131072 positions"),
    ],
)
def test_what_cannot_be_built(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_zoo_model(name, arguments)


def test_a_library_that_is_not_installed() -> None:
    with pytest.raises(UserError, match=r"pip install 'depth-width-toolkit\[zoo\]'"):
        library_of("no_such_zoo")


@pytest.mark.parametrize("size", [0, 10**5])
def test_input_sizes_out_of_range(size: int) -> None:
    with pytest.raises(UserError, match=r"give a smaller input_size|must be at least 1"):
        example_inputs("torchvision/resnet18", {}, 1, input_size=size)
