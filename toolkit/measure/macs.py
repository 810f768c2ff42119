"""Counts the multiply-adds of one forward pass, on a trace of the model or else while it runs.

fvcore supplies the trace and the walk over it; `mac_rules.py` has the counts per operator. No other file imports
fvcore.
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
from toolkit.measure.counted import Macs
from toolkit.measure.dispatch_macs import count_by_dispatch
from toolkit.measure.mac_rules import NORMALISATION, operator_handles
from toolkit.stand_ins.decisions import gated_layers

with warnings.catch_warnings():  # fvcore scripts functions on import, which torch deprecates with a warning
    warnings.simplefilter("ignore")
    from fvcore.nn.jit_analysis import JitModelAnalysis


def count_macs(model: nn.Module, example_inputs: tuple[Tensor, ...], examples: int = 1) -> Macs:
    """Returns the multiply-adds of one example; the model and its modes are left as they were.

    Attention is counted in full, even where a mask would skip part of it. `uncounted` lists the operators with a few
    operations per element; operators that only move data are not listed. A model that cannot be traced, or whose trace
    has an operator without a count, is counted again while it runs. Operators that may be heavy and have no count there
    either are listed as `unknown`, and the count is a partial one. Gates are counted only while the model runs: a trace
    holds their decisions as constants.

    examples: the batch size of `example_inputs`.

    Raises:
        Exception: whatever the model raises on these inputs.
    """
    macs = None if gated_layers(model) else _by_trace(model, example_inputs)
    if macs is None or macs.is_partial:
        macs = _by_dispatch(model, example_inputs)
    if examples == 1:
        return macs
    by_operator = {name: number // examples for name, number in macs.by_operator.items()}
    total, normalisation = sum(by_operator.values()), macs.normalisation // examples
    return macs.model_copy(update={"total": total, "normalisation": normalisation, "by_operator": by_operator})


def _by_trace(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Macs | None:
    """Returns the count on a trace; None if the model cannot be traced, or an operator of the trace raises."""
    graph_model = FlatOutputs(model)
    with (
        warnings.catch_warnings(),
        untouched(graph_model),
        evaluating(graph_model),
        without_fast_path(),
        _without_new_hooks(graph_model),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")  # the tracer warns that shapes become constants, which is wanted here
        try:
            analysis = JitModelAnalysis(graph_model, example_inputs)
            analysis.set_op_handle(**operator_handles()).unsupported_ops_warnings(False).uncalled_modules_warnings(
                False
            )
            counts = analysis.by_operator()
            unknown = analysis.unsupported_ops()
        except Exception:  # the tracer and the model under it may raise anything
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
    """Returns the count while the model runs; a partial count of 0 if the model runs but cannot be followed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return count_by_dispatch(model, example_inputs)
        except Exception as error:
            with evaluating(model), torch.no_grad():
                model(*example_inputs)  # if the model is at fault, its own error is raised here
            reason = f"the whole model ({type(error).__name__} while it was counted)"
            return Macs(total=0, normalisation=0, by_operator={}, uncounted={}, unknown={reason: 1})


@contextlib.contextmanager
def _without_new_hooks(model: nn.Module) -> Iterator[None]:
    """Removes the hooks that fvcore leaves behind when the model raises while it is traced."""
    tables = [table for module in model.modules() for table in (module._forward_hooks, module._forward_pre_hooks)]
    known_keys = [set(table) for table in tables]
    try:
        yield
    finally:
        for table, known in zip(tables, known_keys, strict=True):
            for key in set(table) - known:
                del table[key]
