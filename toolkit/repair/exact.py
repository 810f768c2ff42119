"""Solves least squares without damping from sums of products, also where inputs depend on one another."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-11  # the smallest eigenvalue that counts, as a share of the largest, once every input has energy 1


def least_squares(gram: Tensor, cross: Tensor) -> Tensor:
    """Returns the solution [..., inputs, outputs] that minimises ||X W - T||^2, with the smallest norm among those.

    The inputs are scaled to equal energy first, so that the result does not depend on their scales. An input without
    energy gets weight 0.

    gram: X^T X in float64, [..., inputs, inputs].
    cross: X^T T in float64, [..., inputs, outputs].
    """
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp(min=0.0).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    scaled = gram / scale[..., :, None] / scale[..., None, :]
    inverse = torch.linalg.pinv(scaled, rtol=SMALLEST, hermitian=True)
    solution: Tensor = inverse @ (cross / scale[..., :, None]) / scale[..., :, None]
    return solution
