"""Ways to abuse the folder of a model that is loaded by its name in a zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.helpers.damages import WEIGHTS, Damage, edit, flip, overwrite, patch, put, remove_block, reweigh
from toolkit.checkpoint.save import save_model
from toolkit.zoo.inputs import example_inputs
from toolkit.zoo.random_baseline import build_random_baseline

NAME, ARGUMENTS = "timm/test_vit", {"img_size": 64, "num_classes": 10}
FACTORY: dict[str, Any] = {"zoo": NAME, "arguments": ARGUMENTS, "input_size": None}


def save_zoo_model(folder: Path) -> None:
    model = build_random_baseline(NAME, ARGUMENTS)
    inputs = example_inputs(NAME, ARGUMENTS, 1)
    save_model(folder, model, model, factory=FACTORY, example_inputs=inputs, recipe_sha256=None)


def factory(**values: Any) -> Damage:
    return put(factory={**FACTORY, **values})


def arguments(**values: Any) -> Damage:
    return factory(arguments={**ARGUMENTS, **values})


def other(name: str, **values: Any) -> Damage:
    """Another model than the weights are of."""
    return put(factory={"zoo": name, "arguments": values, "input_size": None})


def inputs(*specs: dict[str, Any]) -> Damage:
    return edit(lambda manifest: manifest["fingerprint"].update(inputs=specs))


def image(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"shape": shape, "dtype": dtype, "scale": 1.0}


ZOO_DAMAGES: dict[str, tuple[Damage, str]] = {
    "zoo a number": (factory(zoo=3), "factory: name: must be text"),
    "zoo elsewhere": (factory(zoo="hf-hub:me/model"), "is not the name of a zoo model"),
    "zoo hub inside timm": (factory(zoo="timm/hf-hub:me/model"), "is not the name of a zoo model"),
    "zoo local folder": (factory(zoo="timm/local-dir:some/folder"), "is not the name of a zoo model"),
    "zoo path": (factory(zoo="../../timm/test_vit"), "is not the name of a zoo model"),
    "zoo with a tag": (factory(zoo="timm/test_vit.r160_in1k"), "is not known"),
    "zoo unknown": (factory(zoo="timm/test_vitt"), "similar names are: test_vit"),
    "zoo detector": (other("torchvision/maskrcnn_resnet50_fpn"), "takes other inputs than a batch of images"),
    "zoo quantized": (other("torchvision/quantized_resnet18"), "or is quantised"),
    "zoo module": (factory(zoo="transformers/os.system"), "is not known"),
    "factory with code": (factory(code="import os"), "factory: 'code' is unknown"),
    "factory with weights": (factory(weights="/etc/passwd"), "factory: 'weights' is unknown"),
    "factory of both kinds": (factory(task="tad-watch"), "factory: 'task' is unknown"),
    "pretrained": (arguments(pretrained=True), "pretrained: is not an allowed argument"),
    "checkpoint": (arguments(checkpoint_path="/etc/passwd"), "checkpoint_path: is not an allowed argument"),
    "overlay": (arguments(pretrained_cfg_overlay={"file": "/etc/passwd"}), "pretrained_cfg_overlay: is not"),
    "cache": (arguments(cache_dir="/tmp"), "cache_dir: is not an allowed argument"),
    "weights of torchvision": (other("torchvision/resnet18", weights="DEFAULT"), "weights: is not an allowed argument"),
    "attention kernel": (other("transformers/vit", attn_implementation="org/kernel"), "must be one of: sdpa, eager"),
    "configuration path": (
        other("transformers/vit", _name_or_path="org/model"),
        "_name_or_path: is not an allowed argument",
    ),
    "text with a path": (arguments(global_pool="../x"), "text must be a word"),
    "argument a mapping": (arguments(img_size={"a": 1}), "must be a number, true, false"),
    "image size a word": (arguments(img_size="big"), "do not say how large an input is"),
    "image size three numbers": (arguments(img_size=[64, 64, 64]), "do not say how large an input is"),
    "image size true": (arguments(img_size=True), "are out of range|cannot be built|not those of"),
    "image size zero": (arguments(img_size=0), "cannot be built|not those of"),
    "channels a word": (arguments(in_chans="many"), "are out of range"),
    "labels huge": (other("transformers/vit-classifier", num_labels=2**20), "must be at most 65536"),
    "argument nested": (arguments(img_size=[[[64]]]), "must be a number, true, false"),
    "argument of many items": (arguments(img_size=[64] * 10**5), "at most 32 items"),
    "many arguments": (factory(arguments={f"a{index}": 1 for index in range(10**5)}), "too many"),
    "unknown argument of the model": (arguments(depths=[1, 1]), "cannot be built"),
    "layers without end": (arguments(depth=10**9), "must be at most 512"),
    "many layers": (arguments(depth=512, embed_dim=4096), "is too large"),
    "width huge": (arguments(embed_dim=2**20), "is too large|cannot be built"),
    "classes huge": (arguments(num_classes=2**20), "is too large"),
    "image huge": (arguments(img_size=2048, patch_size=1), "give a smaller input_size"),
    "many tokens": (arguments(img_size=512, patch_size=2), "not those of timm/test_vit"),
    "input size huge": (factory(input_size=2**20), "give a smaller input_size"),
    "input size negative": (factory(input_size=-1), "factory: input_size"),
    "vocabulary huge": (other("transformers/bert", vocab_size=2**20), "not those of|is too large"),
    "positions huge": (other("transformers/bert", max_position_embeddings=2**20), "not those of|is too large"),
    "large model": (other("torchvision/vit_h_14"), "not those of"),
    "large model, as it is": (other("torchvision/vit_h_14", image_size=224), "not those of"),
    "other model of these inputs": (factory(zoo="timm/test_resnet", arguments={}, input_size=64), "tensors: missing"),
    "input of many rows": (inputs(image(1000, 3, 64, 64)), "not those of timm/test_vit"),
    "input of another size": (inputs(image(1, 3, 1024, 1024)), "not those of timm/test_vit"),
    "input of another type": (inputs(image(1, 3, 64, 64, dtype="float64")), "not those of timm/test_vit"),
    "input twice": (inputs(image(1, 3, 64, 64), image(1, 3, 64, 64)), "not those of timm/test_vit"),
    "no input": (inputs(), "not those of timm/test_vit"),
    "input scale huge": (inputs({**image(1, 3, 64, 64), "scale": 1e308}), "not finite|does not"),
    "zoo weights flipped": (overwrite(WEIGHTS, flip, fits=True), "does not compute|not finite"),
    "zoo weights not numbers": (reweigh(lambda tensors: tensors["head.bias"].fill_(torch.nan)), "not finite"),
    "zoo weight missing": (reweigh(lambda tensors: tensors.pop("head.bias")), "head.bias is None in the file"),
    "zoo stride": (patch("patch_embed.proj", stride=[1, 1]), "needs more than|does not"),
    "zoo blocks gone": (remove_block("blocks"), "unknown|does not"),
    "zoo heads": (patch("blocks.0.attn", num_heads=1), "does not"),
}
ZOO_DAMAGES["large convolutions"] = (factory(zoo="timm/convnext_xxlarge", arguments={}, input_size=64), "is too large")
