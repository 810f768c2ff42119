"""What layers, norms, sums and attention do with marked tensors; importing this teaches `masked` these operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.random_nets.masked import Masked, Pass, UnlikeMarksError, apply, handles, masked_in, pointwise

Dims = int | tuple[int, ...] | list[int] | None


def _marks(value: Any) -> Tensor:
    return value.alive if isinstance(value, Masked) else torch.ones(value.shape, dtype=torch.bool)


def _values(value: Any) -> Tensor:
    return value.value if isinstance(value, Masked) else value


@handles("dropout", "dropout1d", "dropout2d")
def _dropout(_: Pass, x: Masked, *args: object, **kwargs: object) -> Masked:
    return x


@handles("stack")
def _stack(run: Pass, parts: Any, dim: int = 0) -> Masked:
    return _cat(run, [part.unsqueeze(dim) for part in parts], dim)


@handles("cat")
def _cat(run: Pass, parts: Any, dim: int = 0) -> Masked:
    """A plain tensor among marked ones, such as a class token, has the channels left that the others have."""
    known = next(masked_in(parts))
    others = known.alive.any(dim, keepdim=True)
    marks = [part.alive if isinstance(part, Masked) else others.expand(part.shape) for part in parts]
    values = [_values(part).masked_fill(~mark, 0) for part, mark in zip(parts, marks, strict=True)]
    return Masked(torch.cat(values, dim), torch.cat(marks, dim), run)


@handles("pad")
def _pad(run: Pass, x: Masked, pad: Any, mode: str = "constant", value: float | None = None) -> Masked:
    fill = {"value": 1.0} if mode == "constant" else {}
    alive = F.pad(x.alive.double(), pad, mode, **fill) > 0
    return Masked.of(F.pad(x.value, pad, mode, value), alive, run)


@handles("glu")
def _glu(run: Pass, x: Masked, dim: int = -1) -> Any:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


def _of_channels(name: str) -> Any:
    def pooled(run: Pass, x: Masked, *args: Any, **kwargs: Any) -> Masked:
        alive = x.alive.flatten(2).any(2)
        value = getattr(F, name)(x.value, *args, **kwargs)
        return Masked.of(value, alive.reshape(*alive.shape, *([1] * (value.ndim - 2))), run)

    return pooled


for _name in ("avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"):
    handles(_name)(_of_channels(_name))
handles("interpolate")(_of_channels("interpolate"))


@handles("sum")
def _sum(run: Pass, x: Masked, dim: Dims = None, keepdim: bool = False) -> Masked:
    dims = tuple(range(x.ndim)) if dim is None else dim
    alive = x.alive.double().sum(dims, keepdim=keepdim) > 0
    return Masked.of(x.value.sum(dims, keepdim=keepdim), alive, run)


@handles("mean")
def _mean(run: Pass, x: Masked, dim: Dims = None, keepdim: bool = False) -> Any:
    dims = tuple(range(x.ndim)) if dim is None else dim
    counts = x.alive.double().sum(dims, keepdim=keepdim).clamp(min=1)
    return _sum(run, x, dims, keepdim) / counts


@handles("amax")
def _amax(run: Pass, x: Masked, dim: Dims = None, keepdim: bool = False) -> Masked:
    dims = tuple(range(x.ndim)) if dim is None else dim
    alive = x.alive.double().sum(dims, keepdim=keepdim) > 0
    return Masked.of(x.value.masked_fill(~x.alive, -math.inf).amax(dims, keepdim=keepdim), alive, run)


@handles("softmax")
def _softmax(run: Pass, x: Masked, dim: int, *args: object, **kwargs: object) -> Masked:
    value = x.value.masked_fill(~x.alive, -math.inf).softmax(dim)
    return Masked.of(value.nan_to_num(0.0), x.alive, run)


def _normed(x: Masked, dims: tuple[int, ...], eps: float, is_centred: bool = True) -> Masked:
    """Mean and variance are those of the numbers that are left."""
    counts = x.alive.double().sum(dims, keepdim=True).clamp(min=1)
    centred = x.value - x.value.sum(dims, keepdim=True) / counts if is_centred else x.value
    centred = centred.masked_fill(~x.alive, 0)
    variance = centred.square().sum(dims, keepdim=True) / counts
    return Masked.of(centred / (variance + eps).sqrt(), x.alive, x.run)


def _scaled(x: Masked, weight: Tensor | None, bias: Tensor | None) -> Masked:
    value = x.value if weight is None else x.value * weight
    return Masked.of(value if bias is None else value + bias, x.alive, x.run)


@handles("layer_norm")
def _layer_norm(run: Pass, x: Masked, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Masked:
    return _scaled(_normed(x, tuple(range(-len(shape), 0)), eps), weight, bias)


@handles("rms_norm")
def _rms_norm(run: Pass, x: Masked, shape: Any, weight: Any = None, eps: float | None = None) -> Masked:
    smallest = torch.finfo(x.value.dtype).eps if eps is None else eps
    return _scaled(_normed(x, tuple(range(-len(shape), 0)), smallest, is_centred=False), weight, None)


@handles("group_norm")
def _group_norm(run: Pass, x: Masked, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Masked:
    parts = _normed(x.unflatten(1, (groups, -1)), tuple(range(2, x.ndim + 1)), eps).flatten(1, 2)
    shape = (-1, *([1] * (x.ndim - 2)))
    wide = [None if part is None else part.reshape(shape) for part in (weight, bias)]
    return _scaled(parts, *wide)


def _read(run: Pass, x: Masked, dim: int, columns: Tensor | None, what: str) -> Tensor:
    """Which channels a layer reads: the same at all places, and those of which it has weights left."""
    marks = x.alive.movedim(dim, -1)
    channels = marks.reshape(-1, marks.shape[-1]).any(0)
    if not bool((marks == channels).all()):
        raise UnlikeMarksError(f"{what} reads other channels at some places")
    if columns is not None and not torch.equal(columns, channels):
        raise UnlikeMarksError(f"{what} has weights for other channels than those that are left")
    return channels


@handles("linear")
def _linear(run: Pass, x: Masked, weight: Tensor, bias: Tensor | None = None) -> Masked:
    rows, columns = run.kept_of(weight)
    channels = _read(run, x, -1, columns, "a linear layer")
    run.macs += x.value[..., 0].numel() * int(channels.sum()) * int(rows.sum())
    return Masked.of(F.linear(x.value, weight, bias), rows, run)


def _convolution(name: str) -> Any:
    def convolved(
        run: Pass, x: Masked, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> Masked:  # fmt: skip
        rows, columns = run.kept_of(weight)[:2]
        channels = _read(run, x, 1, columns if groups == 1 else None, "a convolution")
        value = getattr(F, name)(x.value, weight, bias, stride, padding, dilation, groups)
        pairs = (channels.reshape(groups, -1).sum(1) * rows.reshape(groups, -1).sum(1)).sum()
        run.macs += value[:, 0].numel() * weight[0, 0].numel() * int(pairs)
        return Masked.of(value, rows.reshape(-1, *([1] * (value.ndim - 2))), run)

    return convolved


def _transposed(name: str) -> Any:
    def convolved(
        run: Pass, x: Masked, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, more: Any = 0,
        groups: int = 1, dilation: Any = 1,
    ) -> Masked:  # fmt: skip
        columns, rows = run.kept_of(weight)[:2]
        channels = _read(run, x, 1, columns, "a transposed convolution")
        value = getattr(F, name)(x.value, weight, bias, stride, padding, more, groups, dilation)
        left = channels.reshape(groups, -1).any(1)  # a group makes outputs of its own, and goes with its inputs
        alive = (left[:, None] & rows).flatten()
        run.macs += x.value[:, 0].numel() * weight[0, 0].numel() * int(channels.sum()) * int(rows.sum())
        return Masked.of(value, alive.reshape(-1, *([1] * (value.ndim - 2))), run)

    return convolved


for _name in ("conv1d", "conv2d"):
    handles(_name)(_convolution(_name))
    handles(_name.replace("conv", "conv_transpose"))(_transposed(_name.replace("conv", "conv_transpose")))


@handles("embedding")
def _embedding(run: Pass, ids: Masked, weight: Tensor, *args: object, **kwargs: object) -> Masked:
    return Masked.of(F.embedding(ids.value, weight), run.kept_of(weight)[1], run)


@handles("matmul", "bmm")
def _matmul(run: Pass, one: Any, other: Any) -> Masked:
    terms = _marks(one).double() @ _marks(other).double()
    run.macs += int(terms.sum())
    return Masked.of(_values(one) @ _values(other), terms > 0, run)


@handles("einsum")
def _einsum(run: Pass, equation: str, *parts: Any) -> Masked:
    terms = torch.einsum(equation, *(_marks(part).double() for part in parts))
    run.macs += int(terms.sum())
    return Masked.of(torch.einsum(equation, *(_values(part) for part in parts)), terms > 0, run)


@handles("scaled_dot_product_attention")
def _attention(
    run: Pass, q: Masked, k: Masked, v: Masked, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    if enable_gqa:
        k, v = (part.repeat_interleave(q.shape[-3] // part.shape[-3], -3) for part in (k, v))
    scores = (q @ k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        length = q.shape[-2]
        attn_mask = torch.ones(length, length, dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = pointwise(lambda x: x.masked_fill(~attn_mask, -math.inf), (scores,), {}, run)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return apply("softmax", (scores, -1), {}) @ v


def of_torch(forward: Callable[..., Any], query: Masked, key: Masked, value: Masked, **kwargs: Any) -> Any:
    """torch's own attention [B, T, C], whose forward takes no marked tensors. It is not cut: what it reads is whole."""
    if not all(bool(part.alive.all()) for part in (query, key, value)):
        raise UnlikeMarksError("torch's own attention reads a stream of which channels are gone")
    out, weights = forward(query.value, key.value, value.value, **kwargs)
    batch, length, width = query.shape
    query.run.macs += batch * (4 * length * width * width + 2 * length * length * width)
    return Masked.of(out, torch.ones(out.shape, dtype=torch.bool), query.run), weights
