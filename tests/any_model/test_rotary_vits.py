"""Rotary ViTs of timm lose heads where their attention takes its width from its own heads; EVA's takes the stream's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm import create_model
from timm.models.eva import Eva
from torch import nn

from tests.helpers.cut_checks import found_in, halved

SIZES: dict[str, Any] = {
    **{"img_size": 32, "patch_size": 16, "num_classes": 4},
    **{"embed_dim": 32, "depth": 2, "num_heads": 4},
}


def named(name: str, **more: Any) -> Callable[[], nn.Module]:
    return lambda: create_model(name, **SIZES, **more)


def eva(**more: Any) -> Callable[[], nn.Module]:
    return lambda: Eva(**SIZES, use_rot_pos_emb=True, **more)


def images(count: int) -> tuple[torch.Tensor]:
    return (torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count)),)


CUT = {
    "RoPE beside learnt positions": named("vit_small_patch16_rope_ape_224"),
    "the perception encoder, with attention pooling": named("vit_pe_core_tiny_patch16_384", attn_pool_num_heads=4),
    "norms of queries, keys and all heads": eva(attn_type="rope", qkv_fused=False, qk_norm=True, scale_attn_inner=True),
    "halves that turn": eva(attn_type="rope", rope_rotate_half=True),
}


@pytest.mark.parametrize("situation", CUT)
def test_heads_are_cut_proved_and_loaded(situation: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = halved(CUT[situation]().eval(), images(1), images(2), tmp_path)
    attentions = {group.name: group.num_units for group in found.of_kind("attention")}
    assert attentions == {"blocks.0.attn": 4, "blocks.1.attn": 4}


OF_THE_STREAM = "its forward code does not run with the narrower layers: shape '[1, 5, 32]' is invalid"

REFUSED = {
    "EVA with three layers": (eva(qkv_fused=False), OF_THE_STREAM),
    "angles of all heads of all blocks in one table": (
        named("vit_small_patch16_rope_mixed_224"),
        "shares a tensor with rope.freqs, where the same channels cannot be cut",
    ),
}


@pytest.mark.parametrize("situation", REFUSED)
def test_heads_are_refused_with_what_is_in_the_way(situation: str) -> None:
    """EVA's forward method gives its result the width of its input, whatever its heads hold together."""
    build, reason = REFUSED[situation]
    torch.manual_seed(0)
    found = found_in(build().eval(), images(1))
    assert found.of_kind("mlp") and not found.of_kind("attention")
    assert all(reason in found.refused[f"blocks.{block}.attn"] for block in range(2))
