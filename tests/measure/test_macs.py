"""MACs are integers, so they are compared to the unit: with a hand count and with torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from toolkit.measure.macs import count_macs

T, C, HEADS, HIDDEN = 10, 8, 2, 24


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)
        self.proj = nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Net(nn.Module):
    """Convolution, batch norm, one pre-norm attention + MLP, pooling; dictionary output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(3, C, 3, padding="same")
        self.bn = nn.BatchNorm1d(C)
        self.norm = nn.LayerNorm(C)
        self.attn = Attention()
        self.mlp = nn.Sequential(nn.Linear(C, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, C))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.bn(self.embed(x)).transpose(1, 2)
        x = x + self.attn(self.norm(x))
        return {"tokens": x + self.mlp(x), "pooled": F.adaptive_avg_pool1d(x.transpose(1, 2), 1)}


def test_hand_count() -> None:
    macs = count_macs(Net(), (torch.randn(1, 3, T),))
    assert macs.by_operator == {
        "conv": T * 3 * 3 * C,
        "linear": T * C * 3 * C + T * C * C + 2 * T * C * HIDDEN,
        "scaled_dot_product_attention": 2 * T * T * C,
    }
    assert macs.total == sum(macs.by_operator.values())
    assert macs.normalisation == T * C * 2 + T * C * 5
    assert macs.uncounted == {"aten::adaptive_avg_pool1d": 1, "aten::add": 2, "aten::relu": 1}


def test_agrees_with_torch() -> None:
    model, inputs = Net().eval(), torch.randn(1, 3, T)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(inputs)
    assert counter.get_total_flops() == 2 * count_macs(model, (inputs,)).total


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)  # type: ignore[operator]


A, B, M, K, N = 2, 3, 4, 5, 6


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.matmul, [(M, K), (K, N)], M * K * N),
        (torch.matmul, [(M, K), (A, B, K, N)], A * B * M * K * N),  # the batch comes from the second operand alone
        (torch.matmul, [(A, M, K), (K,)], A * M * K),
        (torch.matmul, [(K,), (K,)], K),
        (torch.bmm, [(A, M, K), (A, K, N)], A * M * K * N),
        (torch.baddbmm, [(A, M, N), (A, M, K), (A, K, N)], A * M * K * N),
        (torch.addmm, [(N,), (M, K), (K, N)], M * K * N),
        (torch.mv, [(M, K), (K,)], M * K),
        (torch.dot, [(K,), (K,)], K),
        (torch.inner, [(A, M, K), (N, K)], A * M * N * K),
        (lambda x, y: torch.tensordot(x, y, dims=([0, 2], [1, 0])), [(A, M, K), (K, A, N)], A * K * M * N),
        (lambda x, y: torch.einsum("bmk,bnk->bmn", x, y), [(A, M, K), (A, N, K)], A * M * N * K),
        (lambda x, y: torch.einsum("...k,kn", x, y), [(A, B, K), (K, N)], A * B * K * N),
        (lambda x, y: torch.einsum("...mk,...kn->...mn", x, y), [(M, K), (A, K, N)], A * M * K * N),
        (lambda x, y: torch.einsum("mk,qk->m", x, y), [(M, K), (N, K)], M * K),  # q is summed before the product
        (lambda x, w: F.conv1d(x, w, groups=2, stride=2), [(1, 4, 9), (6, 2, 3)], 6 * 4 * 2 * 3),
        (F.conv1d, [(4, 9), (6, 4, 3)], 6 * 7 * 4 * 3),  # without a batch
        (lambda x, w: F.conv_transpose1d(x, w, stride=2), [(1, 4, 9), (4, 6, 3)], 4 * 9 * 6 * 3),
        (F.scaled_dot_product_attention, [(1, 2, 7, 4), (1, 2, 9, 4), (1, 2, 9, 6)], 2 * 7 * 9 * (4 + 6)),
        (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            [(1, 4, 7, 4), (1, 2, 9, 4), (1, 2, 9, 4)],
            4 * 7 * 9 * 8,
        ),
    ],
)
def test_operators(function: object, shapes: list[tuple[int, ...]], expected: int) -> None:
    assert count_macs(Apply(function), tuple(torch.randn(shape) for shape in shapes)).total == expected


@pytest.mark.parametrize("function", [torch.mul, lambda x, y: torch.einsum("mk,mk->mk", x, y)])
def test_elementwise_products_are_uncounted(function: object) -> None:
    macs = count_macs(Apply(function), (torch.randn(M, K), torch.randn(M, K)))
    assert macs.total == 0
    assert len(macs.uncounted) == 1


@pytest.mark.parametrize("norm_first", [True, False])
def test_torch_encoder_is_not_hidden_by_its_fast_path(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(C, HEADS, HIDDEN, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    with torch.no_grad():
        macs = count_macs(model, (torch.randn(1, T, C),))
    assert macs.total == 3 * (4 * T * C * C + 2 * T * T * C + 2 * T * C * HIDDEN)
    assert torch.backends.mha.get_fastpath_enabled()


def test_model_is_left_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    model = Net().train()
    model.mlp.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, (torch.randn(1, 3, T),))
    assert model.training
    assert model.bn.training
    assert not model.mlp[0].training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not caplog.records


def test_model_that_raises_keeps_no_hooks() -> None:
    model = Net().train()
    with pytest.raises(RuntimeError):
        count_macs(model, (torch.randn(1, 4, T),))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()
