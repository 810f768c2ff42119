"""Zoo models that are built and run in a moment: one of each type of transformers, cut to two tiny layers."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from toolkit.zoo.transformers_types import TYPES

TINY: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    **{"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 64, "embedding_size": 32},
    **{"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64},
    **{"image_size": 32, "patch_size": 8, "num_frames": 4, "max_source_positions": 40, "num_mel_bins": 16},
    **{"max_position_embeddings": 40, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16},
}
HIERARCHY: dict[str, dict[str, Any]] = {
    "swin": {"image_size": 64, "embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4},
    "convnext": {"image_size": 32, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 2, 1]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 2, 1], "layer_type": "basic"},
}
HIERARCHY |= {"swinv2": HIERARCHY["swin"] | {"patch_size": 4}, "convnextv2": HIERARCHY["convnext"]}
INPUT_SIZES = {"resnet": 64, "audio": 2000}


def tiny_arguments(model: str, fields: set[str]) -> dict[str, JsonValue]:
    """Arguments for the type `model`, of those that its configuration has."""
    family = model.removesuffix("-classifier")
    if family in HIERARCHY:
        return dict(HIERARCHY[family])
    given = {key: value for key, value in TINY.items() if key in fields}
    if TYPES[model].kind == "audio":
        given["num_conv_pos_embedding_groups"] = 2
    return given


def tiny_input_size(model: str) -> int | None:
    return INPUT_SIZES.get(model.removesuffix("-classifier"), INPUT_SIZES.get(TYPES[model].kind))
