"""Builds random models that behave like trained ones: no layer is switched off, and BatchNorm fits its inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from toolkit.hooks.modes import evaluating
from toolkit.zoo.build import Arguments, build_zoo_model
from toolkit.zoo.inputs import example_inputs

SETTLING_EXAMPLES, SETTLING_SEED = 8, 77

ADDED_WORDS = (
    "bias",
    "token",
    "pos",
    "embed",
    "mask",
)  # parameters that are added to the signal; other vectors multiply it

LEAST_FACTOR = 0.1


def build_random_baseline(name: str, arguments: Arguments | None = None, input_size: int | None = None) -> nn.Module:
    """Returns a zoo model whose parameters are not constant: zero heads, tiny layer scales and zero biases hide faults.

    Tensors that the library fills with one number are drawn at random, then BatchNorm takes its statistics from made-up
    inputs. The model is the same on every call.

    Raises:
        UserError: as `build_zoo_model` and `example_inputs`.
    """
    model = build_zoo_model(name, arguments)
    generator = torch.Generator().manual_seed(SETTLING_SEED)
    with torch.no_grad():
        for full_name, parameter in model.named_parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                _draw(parameter, full_name.rpartition(".")[2], generator)
        _settle(model, example_inputs(name, arguments, SETTLING_EXAMPLES, SETTLING_SEED, input_size))
    return model


def _draw(parameter: Tensor, leaf: str, generator: torch.Generator) -> None:
    noise = torch.randn(parameter.shape, generator=generator)
    constant = float(parameter.flatten()[0])
    if any(word in leaf for word in ADDED_WORDS):
        parameter.copy_(constant + 0.02 * noise)
    elif parameter.numel() == max(parameter.shape):
        factor = constant if abs(constant) >= LEAST_FACTOR else 0.5
        parameter.copy_(factor * (1 + 0.2 * noise))
    else:
        parameter.copy_(constant + noise * (parameter[0].numel() ** -0.5))


def _settle(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Sets the running statistics of BatchNorm to those of `inputs`; all other layers run in eval mode."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    with evaluating(model):
        for layer in layers:
            layer.reset_running_stats()
            layer.training, layer.momentum = True, None  # with None, the statistics are plain averages over all calls
        model(*inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
