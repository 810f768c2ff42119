"""Multiply-adds of one forward pass, counted on a trace of the model, or else while it runs. The only fvcore importer.

fvcore supplies the trace and the walk over it; the counts per operator are those of `mac_rules.py`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import FlatOutputs
from toolkit.hooks.untouched import untouched
from toolkit.measure.dispatch_macs import count_by_dispatch
from toolkit.measure.mac_rules import NORMALISATION, operator_handles
from toolkit.measure.results import Macs

with warnings.catch_warnings():  # fvcore scripts functions on import, which torch deprecates with a warning
    warnings.simplefilter("ignore")
    from fvcore.nn.jit_analysis import JitModelAnalysis


def count_macs(model: nn.Module, example_inputs: tuple[Tensor, ...], examples: int = 1) -> Macs:
    """Count the multiply-adds of one example: the caller passes inputs of batch size 1, or of `examples`.

    Attention is counted in full where a mask would skip part of it. `uncounted` lists the operators with a few
    operations per element; those that only move data are not listed. The model is left as it was, modes included.

    A model that cannot be traced, or whose trace has an operator without a count, is counted again while it runs.
    Operators that may be heavy and have no count there either are `unknown`, and the count is a partial one.

    Raises:
        Exception: whatever the model raises on these inputs.
    """
    found = _by_trace(model, example_inputs)
    if found is None or found.is_partial:
        found = _by_dispatch(model, example_inputs)
    if examples == 1:
        return found
    by_operator = {name: number // examples for name, number in found.by_operator.items()}
    total, normalisation = sum(by_operator.values()), found.normalisation // examples
    return found.model_copy(update={"total": total, "normalisation": normalisation, "by_operator": by_operator})


def _by_trace(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Macs | None:
    """Returns None if the model cannot be traced, or a part of the trace cannot be counted at all."""
    graph_model = FlatOutputs(model)
    with (
        warnings.catch_warnings(),
        untouched(graph_model),
        evaluating(graph_model),
        without_fast_path(),
        _without_new_hooks(graph_model),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")  # the tracer's remarks on shapes taken as constants: that is what is wanted
        try:
            analysis = JitModelAnalysis(graph_model, example_inputs)
            analysis.set_op_handle(**operator_handles()).unsupported_ops_warnings(False).uncalled_modules_warnings(
                False
            )
            counts = analysis.by_operator()
            unknown = analysis.unsupported_ops()
        except Exception:  # the tracer, and what it calls of the user's, raise what they like
            return None
    by_operator = {name: number for name, number in counts.items() if "::" not in name and name != NORMALISATION}
    return Macs(
        total=sum(by_operator.values()),
        normalisation=counts[NORMALISATION],
        by_operator=dict(sorted(by_operator.items())),
        uncounted=dict(sorted((name, number) for name, number in counts.items() if "::" in name)),
        unknown=dict(sorted(unknown.items())),
    )


def _by_dispatch(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Macs:
    """Returns a count of nothing, a partial one, where the model runs but cannot be followed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return count_by_dispatch(model, example_inputs)
        except Exception as error:
            with evaluating(model), torch.no_grad():
                model(*example_inputs)  # if the model is at fault, its own error is the one to see
            reason = f"the whole model ({type(error).__name__} while it was counted)"
            return Macs(total=0, normalisation=0, by_operator={}, uncounted={}, unknown={reason: 1})


@contextlib.contextmanager
def _without_new_hooks(model: nn.Module) -> Iterator[None]:
    """fvcore leaves its hooks behind when the model raises while it is traced."""
    tables = [table for module in model.modules() for table in (module._forward_hooks, module._forward_pre_hooks)]
    before = [set(table) for table in tables]
    try:
        yield
    finally:
        for table, known in zip(tables, before, strict=True):
            for key in set(table) - known:
                del table[key]
