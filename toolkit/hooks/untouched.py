"""Restores a model after forward passes: attributes, modes, buffers, hooks, and the state of random generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from toolkit.hooks.graphs import graphs_quiet
from toolkit.hooks.held import OF_EVERY_MODULE, attributes_kept
from toolkit.hooks.tensors import put_values


@contextlib.contextmanager
def untouched(*models: nn.Module) -> Iterator[None]:
    """Restores the models and the random generators when the `with` ends, after an error too.

    Modules, buffers and hooks that a pass adds are removed. Parameters are not restored: passes do not change them.
    Buffers that a pass with gradients has written into, as caches are, lose their autograd graph, and so they do before
    the `with` begins: a graph that grows from pass to pass ends in a crash of the tracer. Graphs of torch.fx print no
    errors meanwhile.
    """
    modules = list({id(module): module for model in models for module in model.modules()}.values())
    dicts = [vars(module)[name] for module in modules for name in _TABLES & vars(module).keys()]
    tables = [(table, dict(table)) for table in dicts]
    kinds = [(module, type(module), module.training) for module in modules]
    _cut_graphs(modules)
    values = [(buffer, buffer.detach().clone()) for module in modules for buffer in module.buffers(recurse=False)]
    with random_state_kept(), attributes_kept(*models), graphs_quiet(*models):
        try:
            yield
        finally:
            for module, kind, training in kinds:
                if type(module) is not kind:
                    module.__class__ = kind  # lazy modules and parametrizations change it
                module.training = training
            for table, content in tables:
                _put_table(table, content)
            _cut_graphs(modules)
            for buffer, value in values:
                put_values(buffer, value)


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Restores the random generators of torch, of numpy (the global one) and of `random` when the `with` ends."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    is_used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if is_used else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


_TABLES = frozenset(name for name in OF_EVERY_MODULE if isinstance(vars(nn.Module())[name], dict))


def _put_table(table: dict[object, object], content: dict[object, object]) -> None:
    if table.keys() != content.keys() or any(table[key] is not value for key, value in content.items()):
        table.clear()
        table.update(content)


def _cut_graphs(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        for buffer in module.buffers(recurse=False):
            if buffer.grad_fn is not None and not buffer._is_view():  # torch detaches no views in place
                buffer.detach_()
