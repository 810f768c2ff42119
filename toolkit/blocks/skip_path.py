"""Reads off the autograd graph whether a module's output contains its input through a skip connection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch.autograd.graph import Node

# Operators that a residual stream may pass through and still be the same stream: pointwise, normalising, reshaping.
_POINTWISE = frozenset(
    """
    Relu Gelu Silu Elu Celu Selu LeakyRelu PreluKernel Prelu Hardswish Hardtanh Mish Softplus Tanh Threshold Clamp
    ClampMin ClampMax NativeLayerNorm NativeBatchNorm CudnnBatchNorm MiopenBatchNorm MkldnnBatchNorm NativeGroupNorm
    FusedRmsNorm NativeDropout FusedDropout MaskedFill View UnsafeView Reshape ReshapeAlias Permute Transpose T Squeeze
    Unsqueeze Expand Slice Select Roll Clone Copy ToCopy Alias Flip AsStrided ConstantPadNd Movedim Unfold
    """.split()  # noqa: SIM905
)

# The operand that is the stream, by operator; None: any. CopySlices adds work to a part of the stream, in place.
_ADDING = {"Add": None, "Sub": 0, "Addcmul": 0, "CopySlices": None, "Where": None, "Lerp": 0}

_SCALING = {"Mul": None, "Div": 0}


def has_skip_path(output: Node, entry: Node, boundaries: Iterable[Node] = ()) -> bool:
    """Says whether a path leads from `output` to `entry` through at least one addition of other work.

    On the path there may only be additions, scalings and pointwise, normalising or reshaping operators, no matrix
    product and no convolution.

    boundaries: nodes of other inputs, where the search ends.
    """
    ends = {entry, *boundaries}
    edges = _stream_edges(output, ends)
    if entry not in edges:
        return False
    stream = _leading_to(entry, edges)
    return any(_adds_work(node, stream, ends) for node in stream - {entry})


def is_relu(node: Node) -> bool:
    """Says whether an autograd node is that of a ReLU."""
    return _kind(node) == "Relu"


def _stream_edges(output: Node, ends: set[Node]) -> dict[Node, list[Node]]:
    """Returns every node that can be reached from `output` along the stream, with the nodes that it leads to."""
    edges: dict[Node, list[Node]] = {}
    waiting = [output]
    while waiting:
        node = waiting.pop()
        if node not in edges:
            edges[node] = [] if node in ends else list(_upstream(node))
            waiting.extend(edges[node])
    return edges


def _leading_to(entry: Node, edges: dict[Node, list[Node]]) -> set[Node]:
    """Returns the nodes from which `entry` can be reached, with `entry` itself."""
    downstream: dict[Node, list[Node]] = {}
    for node, upstream in edges.items():
        for source in upstream:
            downstream.setdefault(source, []).append(node)
    leading: set[Node] = set()
    waiting = [entry]
    while waiting:
        node = waiting.pop()
        if node not in leading:
            leading.add(node)
            waiting.extend(downstream.get(node, []))
    return leading


def _upstream(node: Node) -> Iterator[Node]:
    """Yields the operands of `node` that may be the stream."""
    kind, operands = _kind(node), _operands(node)
    if kind in _POINTWISE and operands:
        operands, places = operands[:1], None
    elif kind in _ADDING:
        places = _ADDING[kind]
    elif kind in _SCALING:
        places = _SCALING[kind]
    else:
        return
    for place, operand in enumerate(operands):
        others = [other for index, other in enumerate(operands) if index != place]
        if operand is None or (places is not None and place != places):
            continue
        if kind not in _SCALING or all(_is_scale(other) for other in others):
            yield operand


def _is_scale(node: Node | None) -> bool:
    """Says whether a factor is a constant, a parameter, or the factor of a hand-written RMS norm.

    Any other factor is a gate that the module computes.
    """
    while node is not None and _kind(node) not in ("AccumulateGrad", "Rsqrt"):
        operands = [operand for operand in _operands(node) if operand is not None]
        if _kind(node) not in _POINTWISE | _ADDING.keys() or len(operands) != 1:
            return False
        node = operands[0]
    return True


def _adds_work(node: Node, stream: set[Node], ends: set[Node]) -> bool:
    """Says whether `node` adds to the stream the result of more than pointwise operators."""
    if _kind(node) not in _ADDING:
        return False
    waiting = [operand for operand in _operands(node) if operand is not None and operand not in stream]
    seen: set[Node] = set()
    while waiting:
        side = waiting.pop()
        if side in seen or side in ends or _kind(side) == "AccumulateGrad":
            continue
        if _kind(side) not in _POINTWISE | _ADDING.keys() | _SCALING.keys():
            return True
        seen.add(side)
        waiting.extend(operand for operand in _operands(side) if operand is not None)
    return False


def _operands(node: Node) -> list[Node | None]:
    return [operand for operand, _ in node.next_functions]


def _kind(node: Node) -> str:
    """Returns the operator of a node: `Add` for `AddBackward0`."""
    return re.sub(r"Backward\d*$|Backwards$", "", node.name().rpartition("::")[2])
