"""Counts multiply-adds while a model runs, operator by operator, for models that a trace does not count in full.

The formulas of `torch.utils.flop_counter` count the large operators, and `FORMULAS` those that it lacks. An operator
that is in neither, and is not known to be cheap, makes the count a partial one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.measure.counted import Macs
from toolkit.measure.mac_rules import NORMALISATION
from toolkit.measure.uncounted import CHEAP, CHEAP_ELSEWHERE, CHEAP_WHEN_RUN, MOVES, MOVES_WHEN_RUN

Formula = Callable[[Sequence[Any], Any], int]  # takes the positional arguments of a call and its output

# Operator -> position of the weight among its arguments, and fvcore's estimate of operations per element.
_NORMS: Mapping[str, tuple[int, int]] = {
    "native_batch_norm": (1, 1),
    "_native_batch_norm_legit_no_training": (1, 1),
    "cudnn_batch_norm": (1, 1),
    "miopen_batch_norm": (1, 1),
    "_native_batch_norm_legit": (1, 4),
    "native_layer_norm": (2, 4),
    "native_group_norm": (1, 4),
    "_fused_rms_norm": (2, 4),
}


def count_by_dispatch(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Macs:
    """Returns the multiply-adds of one forward pass in eval mode, with all examples of the inputs.

    Raises:
        Exception: whatever the model raises on these inputs.
    """
    counter = _Counting()
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(without_fast_path())
        stack.enter_context(torch.no_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # counts attention in full, even what a mask leaves out
        stack.enter_context(counter)
        model(*example_inputs)
    by_operator = {name: number for name, number in counter.counts.items() if name != NORMALISATION}
    return Macs(
        total=sum(by_operator.values()),
        normalisation=counter.counts[NORMALISATION],
        by_operator=dict(sorted(by_operator.items())),
        uncounted=dict(sorted(counter.cheap.items())),
        unknown=dict(sorted(counter.unknown.items())),
    )


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that runs; an operator without a formula is taken apart into those it is made of."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.cheap: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        space, name = func.namespace, packet.__name__
        if packet not in flop_registry and f"{space}::{name}" not in FORMULAS:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        output = func(*args, **kwargs)
        self._note(packet, space, name, func.tags, (args, kwargs, output))
        return output

    def _note(self, packet: Any, space: str, name: str, tags: Sequence[Any], call: tuple[Any, Any, Any]) -> None:
        args, kwargs, output = call
        full = f"{space}::{name}"
        plain = name.removesuffix("_")
        if packet in flop_registry:
            self.counts[name] += flop_registry[packet](*args, **kwargs, out_val=output) // 2  # two flops each
        elif full in FORMULAS:
            self.counts[name] += FORMULAS[full](args, output)
        elif name in _NORMS:
            place, per_element = _NORMS[name]
            has_weight = len(args) > place and args[place] is not None
            self.counts[NORMALISATION] += args[0].numel() * (per_element + has_weight)
        elif space in ("prim", "profiler") or plain in MOVES or plain in MOVES_WHEN_RUN:
            pass
        elif plain in CHEAP or plain in CHEAP_WHEN_RUN or full in CHEAP_ELSEWHERE or torch.Tag.pointwise in tags:
            self.cheap[f"{space}::{plain}"] += 1
        else:
            self.unknown[full] += 1


def _fft(args: Sequence[Any], output: Any) -> int:
    """Counts radix-2 transforms along every dimension; one of length n takes n / 2 * log2(n) complex products.

    A complex product is four real ones, or two if the input or the output is real.
    """
    signal, dims = args[0], args[1]
    largest = signal if signal.numel() >= output.numel() else output
    per_value = sum(math.log2(largest.shape[dim]) for dim in dims if largest.shape[dim] > 1)
    both_complex = signal.is_complex() and output.is_complex()
    return int(largest.numel() * per_value * (2 if both_complex else 1) + 0.5)


def _recurrent(weights: Sequence[Tensor], steps: int) -> int:
    """Counts a recurrent layer, whose weight matrices are each applied once per step of each example."""
    return steps * sum(weight.numel() for weight in weights if weight.ndim == 2)


def _steps(sequence: Tensor) -> int:
    return math.prod(sequence.shape[:-1])


def _distances(args: Sequence[Any], output: Any) -> int:
    return int(output.numel() * args[0].shape[-1])


FORMULAS: Mapping[str, Formula] = {
    "aten::mv": lambda args, _: args[0].numel(),
    "aten::addmv": lambda args, _: args[1].numel(),
    "aten::addcmul": lambda _, output: output.numel(),
    "aten::dot": lambda args, _: args[0].numel(),
    "aten::vdot": lambda args, _: args[0].numel(),
    "aten::addbmm": lambda args, _: args[1].numel() * args[2].shape[-1],
    "aten::bilinear": lambda args, _: _steps(args[0]) * args[2].numel(),
    "aten::_cdist_forward": _distances,
    "aten::_euclidean_dist": _distances,
    "aten::_pdist_forward": lambda args, output: output.numel() * args[0].shape[-1],
    "aten::_fft_c2c": _fft,
    "aten::_fft_r2c": _fft,
    "aten::_fft_c2r": _fft,
    "aten::mkldnn_rnn_layer": lambda args, _: _recurrent(args[1:3], _steps(args[0])),
    "aten::_cudnn_rnn": lambda args, _: _recurrent(args[1], _steps(args[0])),
    "aten::miopen_rnn": lambda args, _: _recurrent(args[1], _steps(args[0])),
    "torchvision::deform_conv2d": lambda args, output: output.numel() * math.prod(args[1].shape[1:]),
}
