"""Attention as the zoos have it: Llama's with shared key heads, GPT-2's Conv1D, rotary ViTs; generated after a cut."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from timm import create_model
from timm.models.eva import Eva
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tests.helpers.cut_checks import found_in, halved
from toolkit.channels.cut import KeptUnits, cut
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model

SIZES = {"vocab_size": 40, "max_position_embeddings": 32}


def llama(kv_heads: int, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=kv_heads,
        pad_token_id=0, bos_token_id=1, eos_token_id=None, **SIZES, **more,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=8, n_inner=48, bos_token_id=1, eos_token_id=None,
        pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def ids(seed: int) -> tuple[torch.Tensor]:
    return (torch.randint(2, 40, (2, 6), generator=torch.Generator().manual_seed(seed)),)


def generated(model: Any, cached: bool) -> torch.Tensor:
    return model.generate(
        ids(3)[0], max_new_tokens=5, do_sample=False, use_cache=cached, attention_mask=torch.ones(2, 6)
    )


@pytest.mark.parametrize("way", ["sdpa", "eager"])
@pytest.mark.parametrize(("kv_heads", "units"), [(1, 8), (2, 2), (4, 4), (8, 8)])
def test_half_of_the_query_heads_go_and_the_model_generates(
    kv_heads: int, units: int, way: str, tmp_path: Path
) -> None:
    dense = llama(kv_heads, attn_implementation=way)
    found = halved(dense, ids(0), ids(1), tmp_path) if way == "sdpa" else found_in(dense, ids(0))
    heads = found.of_kind("attention")
    assert [(group.name, group.num_units) for group in heads] == [
        (f"model.layers.{layer}.self_attn", units) for layer in range(2)
    ]
    assert {group.kind for group in found.groups} == {"attention", "mlp", "embedding"}
    model = copy.deepcopy(dense)
    cut(model, [KeptUnits(group, tuple(range(units // 2))) for group in heads])
    layer = model.get_submodule("model.layers.0.self_attn")
    assert layer.q_proj.out_features == layer.o_proj.in_features == 16  # 4 of 8 heads
    assert layer.k_proj.out_features == layer.v_proj.out_features == max(4, 2 * kv_heads)
    with_cache, without = generated(model, True), generated(model, False)
    assert torch.equal(with_cache, without) and with_cache.shape == (2, 11)
    save_model(tmp_path / "cut", model, dense, factory={"task": "x"}, example_inputs=ids(0), recipe_sha256=None)
    loaded = load_model(tmp_path / "cut", llama(kv_heads, attn_implementation=way))
    assert torch.equal(generated(loaded, True), with_cache)


def test_convolutions_of_gpt2_are_linear_layers_and_it_generates(tmp_path: Path) -> None:
    dense = gpt2()
    found = halved(dense, ids(0), ids(1), tmp_path)
    named = {group.name: group.num_units for group in found.groups}
    assert {"transformer.h.0.attn": 8, "transformer.h.0.mlp.c_fc": 48}.items() <= named.items()
    model = copy.deepcopy(dense)
    cut(model, [KeptUnits(group, tuple(range(group.num_units // 2))) for group in found.groups])
    assert tuple(model.get_submodule("transformer.h.0.attn.c_attn").weight.shape) == (16, 48)
    assert torch.equal(generated(model, True), generated(model, False))


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_grouped_heads_of_a_rotary_vit(kv_heads: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Eva(
        img_size=32, patch_size=16, num_classes=4, embed_dim=32, depth=2, num_heads=4, num_kv_heads=kv_heads,
        qkv_fused=False, attn_type="rope", use_rot_pos_emb=True, rope_type="cat",
    ).eval()  # fmt: skip
    inputs, fresh = (torch.randn(1, 3, 32, 32),), (torch.randn(2, 3, 32, 32),)
    found = halved(model, inputs, fresh, tmp_path)
    assert {group.name: group.num_units for group in found.of_kind("attention")} == {
        f"blocks.{block}.attn": kv_heads if kv_heads > 1 else 4 for block in range(2)
    }


def test_a_rotary_vit_with_one_layer_for_queries_keys_and_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model(
        "vit_small_patch16_rope_224", img_size=32, embed_dim=32, depth=2, num_heads=4, num_classes=4
    ).eval()
    inputs, fresh = (torch.randn(1, 3, 32, 32),), (torch.randn(2, 3, 32, 32),)
    found = halved(model, inputs, fresh, tmp_path)
    assert {group.num_units for group in found.of_kind("attention")} == {4}


def test_heads_of_eva_are_refused_with_what_is_in_the_way() -> None:
    """Its attention calls no layer for queries, keys and values, and shapes its result by the width of the stream."""
    torch.manual_seed(0)
    model = create_model(
        "eva02_tiny_patch14_224", img_size=28, embed_dim=32, depth=2, num_heads=4, num_classes=4
    ).eval()
    found = found_in(model, (torch.randn(1, 3, 28, 28),))
    assert found.of_kind("mlp") and not found.of_kind("attention")
    assert found.refused["blocks.0.attn"] == "computes with layers that it does not call"
