"""Finds blocks that a model can do without in one way to run it, but not in another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from toolkit.blocks.drop import block_dropped
from toolkit.hooks.paths import Path


def faults_on_paths(model: nn.Module, blocks: Sequence[str], paths: Sequence[Path]) -> dict[str, str]:
    """Returns, by name, why blocks of `find_blocks` cannot be dropped: without such a block one of the passes fails."""
    if not paths:
        return {}
    shapes = [_shapes(model, path) for path in paths]
    faults: dict[str, str] = {}
    for block in blocks:
        with block_dropped(model, block):
            for path, expected in zip(paths, shapes, strict=True):
                try:
                    shapes_without = _shapes(model, path)
                except Exception as error:  # the user's code may raise anything
                    faults[block] = (
                        f"without it the model does not run {path.words}: {' '.join(str(error).split())[:160]}"
                    )
                    break
                if shapes_without != expected:
                    faults[block] = f"without it the outputs have other shapes {path.words}"
                    break
    return faults


def _shapes(model: nn.Module, path: Path) -> list[tuple[int, ...]]:
    with path.taken(model), torch.no_grad():
        return [tuple(part.shape) for part in path.run(model)]
