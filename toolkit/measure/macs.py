"""Multiply-adds of one forward pass, counted on a trace of the model. The only importer of fvcore.

fvcore supplies the trace and the walk over it; the counts per operator are those of `mac_rules.py`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import FlatOutputs
from toolkit.hooks.untouched import untouched
from toolkit.measure.mac_rules import NORMALISATION, operator_handles
from toolkit.measure.results import Macs

with warnings.catch_warnings():  # fvcore scripts functions on import, which torch deprecates with a warning
    warnings.simplefilter("ignore")
    from fvcore.nn.jit_analysis import JitModelAnalysis


def count_macs(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Macs:
    """Count the multiply-adds of one example: the caller passes inputs of batch size 1.

    Attention is counted in full where a mask would skip part of it. `uncounted` lists the operators with a few
    operations per element; those that only move data are not listed. The model is left as it was, modes included.

    Raises:
        UserError: the model calls an operator that may be heavy and cannot be counted (an LSTM, a fused layer ...).
    """
    graph_model = FlatOutputs(model)
    analysis = JitModelAnalysis(graph_model, example_inputs)
    analysis.set_op_handle(**operator_handles()).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with (
        warnings.catch_warnings(),
        untouched(graph_model),
        evaluating(graph_model),
        without_fast_path(),
        _without_new_hooks(graph_model),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")  # the tracer's remarks on shapes taken as constants: that is what is wanted
        counts = analysis.by_operator()
        unknown = analysis.unsupported_ops()
    if unknown:
        calls = ", ".join(f"{name} ({number} calls)" for name, number in sorted(unknown.items()))
        raise UserError(
            f"the multiply-adds of this model cannot be counted: {calls} may be heavy and have no count; "
            "write the layer with matrix products or convolutions, or add the operator to toolkit/measure/mac_rules.py"
        )
    by_operator = {name: number for name, number in counts.items() if "::" not in name and name != NORMALISATION}
    return Macs(
        total=sum(by_operator.values()),
        normalisation=counts[NORMALISATION],
        by_operator=dict(sorted(by_operator.items())),
        uncounted=dict(sorted((name, number) for name, number in counts.items() if "::" in name)),
    )


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
