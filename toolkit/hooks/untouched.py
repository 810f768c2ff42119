"""Leaves a model as it was found: attributes, modes, buffers, hooks, and the state of random generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from toolkit.hooks.held import OF_EVERY_MODULE, attributes_kept


@contextlib.contextmanager
def untouched(*models: nn.Module) -> Iterator[None]:
    """Whatever passes do meanwhile, the models and the random generators are afterwards as before, an error or not.

    Weights are taken to be changed by nobody; modules, buffers and hooks that a pass makes are taken away again.
    """
    modules = list({id(module): module for model in models for module in model.modules()}.values())
    found = [vars(module)[name] for module in modules for name in _TABLES & vars(module).keys()]
    tables = [(table, dict(table)) for table in found]
    kinds = [(module, type(module), module.training) for module in modules]
    values = [(buffer, buffer.detach().clone()) for module in modules for buffer in module.buffers(recurse=False)]
    with random_state_kept(), attributes_kept(*models):
        try:
            yield
        finally:
            for module, kind, training in kinds:
                if type(module) is not kind:
                    module.__class__ = kind  # lazy modules and parametrizations change it
                module.training = training
            for table, content in tables:
                _put_table(table, content)
            with torch.no_grad():
                for buffer, value in values:
                    _put_buffer(buffer, value)


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Numbers drawn meanwhile, by torch, numpy's global generator or `random`, do not change those drawn later."""
    own, of_numpy = random.getstate(), np.random.get_state()  # models use the global one
    is_used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if is_used else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(of_numpy)


_TABLES = frozenset(name for name in OF_EVERY_MODULE if isinstance(vars(nn.Module())[name], dict))


def _put_table(table: dict[object, object], content: dict[object, object]) -> None:
    if table.keys() != content.keys() or any(table[key] is not value for key, value in content.items()):
        table.clear()
        table.update(content)


def _put_buffer(buffer: torch.Tensor, value: torch.Tensor) -> None:
    if buffer.is_meta:
        return
    with torch.inference_mode(buffer.is_inference()):
        if buffer.shape != value.shape or not torch.equal(buffer, value):
            buffer.copy_(value)
