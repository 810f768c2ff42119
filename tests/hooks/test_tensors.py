"""Hashes of tensors are the ones that kept tables and interrupted trainings are bound to; structures are kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.hooks.tensors import FlatOutputs, map_tensors, model_sha256, tensors_sha256


def small_model() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) / 7 + number)
    model[2].requires_grad_(False)
    return model


def test_the_hash_of_tensors_does_not_change() -> None:
    odd = [
        torch.zeros(0, 3),
        torch.tensor(True),
        torch.arange(6).reshape(2, 3).t(),
        torch.ones(2, dtype=torch.bfloat16),
    ]
    found = tensors_sha256([*small_model().state_dict().values(), *odd])
    assert found == "8714b3f953ef621fc2b68e47d6615b12d2d040c98c07c1523bcadcd3338653c3"


def test_the_hash_of_a_training_does_not_change() -> None:
    found = model_sha256(small_model(), [{"a": 1, "b": 0.5}, True])
    assert found == "5fc628c2befeaca0bd20930eed1bf2faf0e251107b35e9933fc4ea82611d8fe9"


def test_the_hash_of_a_training_sees_what_is_trained() -> None:
    frozen = small_model().requires_grad_(False)
    assert model_sha256(frozen, []) != model_sha256(small_model(), [])
    assert model_sha256(small_model(), [1]) != model_sha256(small_model(), [])


def test_outputs_of_any_nesting_become_a_flat_tuple() -> None:
    class Nested(nn.Module):
        def forward(self, x: Tensor) -> dict[str, object]:
            return {"a": [x, (x + 1, "text")], "b": None}

    first, second = FlatOutputs(Nested())(torch.zeros(2))
    assert torch.equal(first + 1, second)


def test_tensors_are_mapped_place_by_place() -> None:
    first, second = {"x": torch.ones(2), "y": "kept"}, {"x": torch.zeros(1), "y": "lost"}
    joined = map_tensors(lambda *parts: torch.cat(parts), first, second)
    assert joined["x"].tolist() == [1.0, 1.0, 0.0] and joined["y"] == "kept"
