"""Counts the multiply-adds of each operator of a traced graph.

These rules replace fvcore's own, which skip scaled dot-product attention and `padding="same"`, forget broadcast batches
in `matmul`, round `einsum`, and count pooling as multiply-adds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from toolkit.measure.uncounted import CHEAP, CHEAP_ELSEWHERE, MOVES

Values = Sequence[Any]  # torch._C.Value, the inputs or outputs of one node of the trace

Handle = Callable[[Values, Values], "Counter[str]"]

NORMALISATION = "normalisation"


def operator_handles() -> dict[str, Handle | None]:
    """Returns a handle for each operator, by its full name; None for one that only moves data.

    A handle returns a counter with one key: the operator's short name with its multiply-adds, or, for an operator that
    is not counted, its full name (`aten::name`) with 1 for the call.
    """
    counted: Mapping[str, Callable[[Values, Values], int]] = {
        "linear": _linear,
        "matmul": lambda inputs, _: _matrix_product(inputs[0], inputs[1]),
        "mm": lambda inputs, _: _matrix_product(inputs[0], inputs[1]),
        "bmm": lambda inputs, _: _matrix_product(inputs[0], inputs[1]),
        "mv": lambda inputs, _: _matrix_product(inputs[0], inputs[1]),
        "addmm": lambda inputs, _: _matrix_product(inputs[1], inputs[2]),
        "addmv": lambda inputs, _: _matrix_product(inputs[1], inputs[2]),
        "addbmm": lambda inputs, _: _matrix_product(inputs[1], inputs[2]),
        "baddbmm": lambda inputs, _: _matrix_product(inputs[1], inputs[2]),
        "dot": _contraction,
        "vdot": _contraction,
        "inner": _contraction,
        "tensordot": _contraction,
        "scaled_dot_product_attention": _attention,
        "bilinear": lambda inputs, _: math.prod(_shape(inputs[0])[:-1]) * math.prod(_shape(inputs[2])),
        "addcmul": lambda _, outputs: math.prod(_shape(outputs[0])),
        "cdist": lambda inputs, outputs: math.prod(_shape(outputs[0])) * _shape(inputs[0])[-1],
        **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
        **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _recurrent_cell),
    }
    handles: dict[str, Handle | None] = {f"aten::{name}": None for op in MOVES for name in (op, op + "_")}
    handles |= {f"aten::{name}": _calls(f"aten::{name}") for op in CHEAP for name in (op, op + "_")}
    handles |= {f"aten::{name}": _counter(name, count) for name, count in counted.items()}
    handles |= {f"aten::{name}": _counter("conv", _convolution) for name in ("_convolution", "_convolution_mode")}
    handles |= {f"aten::{name}": _normalisation(at) for name, at in (("layer_norm", 2), ("group_norm", 2))}
    handles |= {f"aten::{name}": _normalisation(at) for name, at in (("instance_norm", 1), ("rms_norm", 2))}
    handles["aten::batch_norm"] = _normalisation(1, per_element=1)  # in eval mode: a scale and a shift
    handles["aten::einsum"] = _einsum
    handles |= {name: _calls(name) for name in CHEAP_ELSEWHERE}
    handles["torchvision::deform_conv2d"] = _counter("deform_conv2d", _deformable_convolution)
    return handles


def _counter(name: str, count: Callable[[Values, Values], int]) -> Handle:
    return lambda inputs, outputs: Counter({name: count(inputs, outputs)})


def _calls(name: str) -> Handle:
    return lambda inputs, outputs: Counter({name: 1})


def _normalisation(weight_at: int, per_element: int = 4) -> Handle:
    """Returns a handle with fvcore's estimate per element, and one more if there is a weight."""

    def count(inputs: Values, outputs: Values) -> Counter[str]:
        has_weight = inputs[weight_at].isCompleteTensor()
        return Counter({NORMALISATION: math.prod(_shape(inputs[0])) * (per_element + has_weight)})

    return count


def _shape(value: Any) -> list[int]:
    sizes: list[int] = value.type().sizes()
    return sizes


def _linear(inputs: Values, _: Values) -> int:
    weight = _shape(inputs[1])
    return math.prod(_shape(inputs[0])) * (weight[0] if len(weight) == 2 else 1)


def _matrix_product(left: Any, right: Any) -> int:
    """Counts a product of vectors, matrices or batches of matrices that broadcast, as in torch.matmul."""
    left_shape, right_shape = _shape(left), _shape(right)
    columns = right_shape[-1] if len(right_shape) > 1 else 1
    batch: list[int] = list(torch.broadcast_shapes(left_shape[:-2], right_shape[:-2]))  # type: ignore[no-untyped-call]
    return math.prod(batch) * math.prod(left_shape[-2:]) * columns


def _contraction(inputs: Values, outputs: Values) -> int:
    """Counts |out| * k for [free a, k] x [free b, k] -> [free a, free b], with any number of dimensions of each."""
    result = math.prod(_shape(outputs[0]))
    return math.isqrt(math.prod(_shape(inputs[0])) * math.prod(_shape(inputs[1])) * result)


def _attention(inputs: Values, outputs: Values) -> int:
    """Counts q k^T and the weighted sum of v: queries x keys x (Dqk + Dv) for each example and query head."""
    *queries, value_dim = _shape(outputs[0])
    return math.prod(queries) * _shape(inputs[1])[-2] * (_shape(inputs[0])[-1] + value_dim)


def _convolution(inputs: Values, outputs: Values) -> int:
    """Counts one product per weight of the filter for every output element (transposed: every input element)."""
    transposed = len(inputs) > 7 and inputs[6].toIValue()  # _convolution_mode has 7 inputs and is never transposed
    return math.prod(_shape(inputs[0] if transposed else outputs[0])) * math.prod(_shape(inputs[1])[1:])


def _deformable_convolution(inputs: Values, outputs: Values) -> int:
    return math.prod(_shape(outputs[0])) * math.prod(_shape(inputs[1])[1:])


def _recurrent(inputs: Values, _: Values) -> int:
    """Counts every weight matrix of every layer and direction once per step of each example."""
    lists = [value.node() for value in inputs if value.node().kind() == "prim::ListConstruct"]
    sizes = [
        _shape(value) for value in lists[-1].inputs()
    ]  # the last list holds the weights, the one before it the states
    return math.prod(_shape(inputs[0])[:-1]) * sum(math.prod(size) for size in sizes if len(size) == 2)


def _recurrent_cell(inputs: Values, _: Values) -> int:
    """Counts one step of each example; the weights are the two matrices after the states."""
    input_weight, state_weight = inputs[2:4]
    return math.prod(_shape(inputs[0])[:-1]) * (math.prod(_shape(input_weight)) + math.prod(_shape(state_weight)))


def _einsum(inputs: Values, outputs: Values) -> Counter[str]:
    """Counts two operands as one batched matrix product; without a contracted index the product is elementwise.

    An index that only one operand has, and the result lacks, is summed before the product, as torch does.
    """
    shapes = [_shape(value) for value in inputs[1].node().inputs()]
    if len(shapes) == 1:
        return Counter({"aten::einsum": 1})
    if len(shapes) > 2:
        raise NotImplementedError("the multiply-adds of an einsum of more than two operands depend on its order")
    terms, arrow, result = inputs[0].toIValue().replace(" ", "").partition("->")
    sizes = [_label_sizes(term, shape) for term, shape in zip(terms.split(","), shapes, strict=True)]
    shared = set(sizes[0]) & set(sizes[1])
    if arrow:
        result_labels = set(_labels(result, len(_shape(outputs[0]))))
    else:  # without an arrow the result has the indices that occur once, and what `...` stands for
        result_labels = {label for label in (*sizes[0], *sizes[1]) if label not in shared or label.startswith(".")}
    if not shared - result_labels:
        return Counter({"aten::einsum": 1})
    return Counter(
        {
            "einsum": math.prod(max(size.get(label, 1) for size in sizes) for label in result_labels | shared)
        }  # broadcast: 1
    )


def _labels(term: str, rank: int) -> list[str]:
    """Returns the index names of one operand; `...` stands for the dimensions left over, numbered from the right."""
    before, dots, after = term.partition("...")
    hidden = [f".{place}" for place in range(rank - len(before) - len(after), 0, -1)] if dots else []
    return [*before, *hidden, *after]


def _label_sizes(term: str, shape: list[int]) -> dict[str, int]:
    return dict(zip(_labels(term, len(shape)), shape, strict=True))
