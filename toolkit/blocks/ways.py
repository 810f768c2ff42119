"""Blocks that a model can do without on one way to run it, and not on another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from toolkit.blocks.drop import block_dropped
from toolkit.hooks.paths import FAULTS, Path


def faults_on_paths(model: nn.Module, blocks: Sequence[str], paths: Sequence[Path]) -> dict[str, str]:
    """Returns why blocks that `find_blocks` found cannot be dropped, by name: without one of them a pass fails."""
    if not paths:
        return {}
    shapes = [_shapes(model, path) for path in paths]
    found: dict[str, str] = {}
    for block in blocks:
        with block_dropped(model, block):
            for path, expected in zip(paths, shapes, strict=True):
                try:
                    now = _shapes(model, path)
                except FAULTS as error:
                    found[block] = (
                        f"without it the model does not run {path.words}: {' '.join(str(error).split())[:160]}"
                    )
                    break
                if now != expected:
                    found[block] = f"without it the outputs have other shapes {path.words}"
                    break
    return found


def _shapes(model: nn.Module, path: Path) -> list[tuple[int, ...]]:
    with path.taken(model), torch.no_grad():
        return [tuple(part.shape) for part in path.run(model)]
