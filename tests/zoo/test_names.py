"""What a recipe or a manifest may say of a zoo model, without torch: only listed names, only plain small values."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.base.settings import Settings
from toolkit.recipe.check import check_model
from toolkit.recipe.compose import compose
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.zoo.names import argument_faults, split_name
from toolkit.zoo.settings import ZooModel


@pytest.mark.parametrize(
    "name",
    [
        *["resnet18", "torch/resnet18", "timm/", "timm/hf-hub:a/b", "timm/local-dir:/tmp", "timm/../x", "timm//etc"],
        *["timm/a b", "timm/" + "a" * 99, "transformers/auto", "transformers/bert/../vit", "", "/", "timm/\x1b[2J"],
    ],
)
def test_names_of_another_form(name: str) -> None:
    with pytest.raises(ValueError, match="choose"):
        split_name(name)


def test_names_of_the_right_form() -> None:
    assert split_name("timm/vit_tiny_patch16_224") == ("timm", "vit_tiny_patch16_224")
    assert split_name("transformers/whisper-encoder") == ("transformers", "whisper-encoder")


DOWNLOADS = ["pretrained", "weights", "weights_backbone", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"]
DOWNLOADS += ["cache_dir", "progress", "features_only", "pretrained_strict", "model_cfg", "kwargs_filter", "scriptable"]
CONFIGURED = [
    "_name_or_path",
    "name_or_path",
    "_attn_implementation",
    "cache_dir",
    "revision",
    "use_pretrained_backbone",
]
CONFIGURED += [
    "backbone",
    "backbone_config",
    "quantization_config",
    "hub_id",
    "__class__",
    "a.b",
    "sinusoidal_pos_embds",
]


@pytest.mark.parametrize(
    ("library", "key"),
    [(library, key) for library in ("timm", "torchvision") for key in DOWNLOADS]
    + [("transformers", key) for key in CONFIGURED],
)
def test_arguments_that_are_never_passed_on(library: str, key: str) -> None:
    ((place, message),) = argument_faults(library, {key: 1})
    assert place == key and "is not an allowed argument" in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("global_pool", "/etc/passwd", "text must be a word"),
        ("global_pool", "https://x", "text must be a word"),
        ("global_pool", "hf-hub:a", "text must be a word"),
        ("global_pool", ["avg"], "must be a number, true, false"),
        ("depths", [2, {"a": 1}], "must be a number, true, false"),
        ("depths", [[2, 2]], "must be a number, true, false"),
        ("depths", {"0": 2}, "must be a number, true, false"),
        ("depths", [2] * 33, "at most 32 items"),
        ("depth", 513, "at most 512"),
        ("depths", [2, 10**9], "at most 512"),
        ("layers", 10**30, "at most 512"),
        ("embed_dim", 2**20 + 1, "at most 1048576"),
        ("img_size", 4096, "at most 2048"),
        ("window_size", 64, "at most 32"),
        ("drop_rate", float("nan"), "a finite number"),
        ("drop_rate", float("-inf"), "a finite number"),
        ("drop_rate", 1e300, "at most"),
    ],
)
def test_values_that_are_not_plain_or_not_small(key: str, value: Any, words: str) -> None:
    ((place, message),) = argument_faults("timm", {key: value})
    assert place == key and words in message


def test_all_faults_at_once_and_good_ones_pass() -> None:
    assert (
        list(argument_faults("timm", {"depth": 12, "img_size": [64, 96], "qkv_bias": True, "init_values": None})) == []
    )
    assert list(argument_faults("transformers", {"hidden_size": 64, "vocab_size": 250_000, "hidden_act": "relu"})) == []
    places = [place for place, _ in argument_faults("timm", {"pretrained": True, "depth": 12, "drop_rate": "x.y"})]
    assert places == ["pretrained", "drop_rate"]
    assert [place for place, _ in argument_faults("timm", {f"a{index}": 1 for index in range(33)})] == [""]


def test_attention_comes_from_two_choices() -> None:
    """Other words are names of kernels, which transformers fetches from a hub."""
    assert list(argument_faults("transformers", {"attn_implementation": "eager"})) == []
    for word in ("flash_attention_2", "kernels_community", "org/repo", 1, ["sdpa"]):
        ((_, message),) = argument_faults("transformers", {"attn_implementation": word})
        assert message == "must be one of: sdpa, eager"


def test_faults_have_their_place_in_the_recipe() -> None:
    def places(task: str, model: ZooModel | None) -> list[tuple[str | int, ...]]:
        return [fault.path for fault in check_model(task, model)]

    good = ZooModel(name="torchvision/resnet18")
    assert places("zoo", good) == places("tad-watch", None) == []
    assert places("zoo", None) == places("tad-watch", good) == [("model",)]
    assert places("zoo", ZooModel(name="resnet18")) == [("model", "name")]
    bad = ZooModel(name="timm/test_vit", arguments={"pretrained": True, "depth": 1, "img_size": "a/b"})
    assert places("zoo", bad) == [("model", "arguments", "pretrained"), ("model", "arguments", "img_size")]


def test_recipes_of_other_tasks_are_written_and_hashed_as_before() -> None:
    recipe = compose(task="tad-watch", depth=BlockDrop(num_blocks=3))
    assert "model" not in recipe.model_dump(mode="json")
    zoo = compose(task="zoo", depth=BlockDrop(num_blocks=3), model=ZooModel(name="timm/test_vit"))
    assert zoo.model_dump(mode="json")["model"]["name"] == "timm/test_vit"
    assert isinstance(zoo.model, Settings) and zoo.sha256 != recipe.sha256
    other = compose(task="zoo", depth=BlockDrop(num_blocks=3), model=ZooModel(name="timm/test_vit", input_size=64))
    assert other.sha256 != zoo.sha256
