"""Knows the layers that write and read channels, and where in their tensors the channels are."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)


def is_conv(module: nn.Module) -> bool:
    """Says whether a module is a convolution of any kind."""
    return isinstance(module, _ConvNd)


def is_grouped(module: nn.Module) -> bool:
    """Says whether a module is a grouped convolution, such as a depthwise one."""
    return isinstance(module, _ConvNd) and module.groups > 1


def is_transposed(module: nn.Module) -> bool:
    """Says whether a module is a transposed convolution, whose weight is [inputs, outputs, ...]."""
    return isinstance(module, _ConvTransposeNd)


def batch_norm_scale(module: nn.Module) -> Tensor | None:
    """Returns the scales [channels] of a BatchNorm layer, or None for other modules and for layers without scales."""
    return module.weight if isinstance(module, _BatchNorm) and module.affine else None


def is_transposed_linear(module: nn.Module) -> bool:
    """Says whether a module is the Conv1D of GPT-2: x @ weight + bias with weight [inputs, outputs]."""
    weight = getattr(module, "weight", None)
    if type(module).__name__ != "Conv1D" or not isinstance(weight, Tensor):
        return False
    return (getattr(module, "nx", None), getattr(module, "nf", None)) == tuple(weight.shape)


def mixes_channels(module: nn.Module) -> bool:
    """Says whether each output of a layer reads all inputs.

    This holds for linear layers, convolutions that are not grouped, and embeddings.
    """
    is_matrix = isinstance(module, (nn.Linear, nn.Embedding)) or is_transposed_linear(module)
    return is_matrix or (is_conv(module) and not is_grouped(module))


def channel_dim(module: nn.Module) -> int:
    """Returns the dimension of the channels in the layer's input and output."""
    return 1 if is_conv(module) else -1


def num_outputs(module: nn.Module) -> int:
    """Returns the number of output channels of a layer that mixes channels."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Embedding):
        return module.embedding_dim
    if is_transposed_linear(module):
        return int(module.nf)  # type: ignore[arg-type]
    assert isinstance(module, _ConvNd)
    return module.out_channels


def output_weights(module: nn.Module) -> Tensor:
    """Returns the weights [outputs, ...] that make each output channel."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    has_outputs_second = isinstance(module, (nn.Embedding, _ConvTransposeNd)) or is_transposed_linear(module)
    return weight.transpose(0, 1) if has_outputs_second else weight


def input_weights(module: nn.Module) -> Tensor:
    """Returns the weights [inputs, ...] that read each input channel."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    has_inputs_first = isinstance(module, _ConvTransposeNd) or is_transposed_linear(module)
    return weight if has_inputs_first else weight.transpose(0, 1)


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters of a module by name, without those of its children."""
    return dict(module.named_parameters(recurse=False))


def has_computed_weights(module: nn.Module) -> bool:
    """Says whether weight or bias is computed at every pass, as by weight_norm."""
    held = {*own_parameters(module), *dict(module.named_buffers(recurse=False))}
    return any(isinstance(getattr(module, name, None), Tensor) and name not in held for name in ("weight", "bias"))


def is_leaf(module: nn.Module) -> bool:
    """Says whether a module has parameters or is a norm without any, and its children have none."""
    is_one = bool(own_parameters(module)) or isinstance(module, NORMS)
    return is_one and not any(True for child in module.children() for _ in child.parameters())


def channel_sizes(leaf: nn.Module) -> set[int]:
    """Returns the numbers of channels that a leaf may have: sizes of its parameters, or those told by a norm."""
    sizes = {size for parameter in leaf.parameters(recurse=False) for size in parameter.shape}
    if not sizes and isinstance(leaf, NORMS):
        told = (getattr(leaf, name, ()) for name in ("num_features", "num_channels", "normalized_shape"))
        sizes = {size for one in told for size in (one if isinstance(one, tuple) else (one,))}
    return sizes


def broad_dims(tensor: Tensor) -> int:
    """Returns the number of dimensions that are longer than 1."""
    return sum(size > 1 for size in tensor.shape)


def holders_of(model: nn.Module) -> dict[int, list[tuple[str, str]]]:
    """Returns, by the id of each tensor that is in several places, these places as (name of a module, attribute).

    Such tensors are tied weights and shared buffers.
    """
    holders: dict[int, list[tuple[str, str]]] = {}
    for name, module in model.named_modules():
        tensors = [
            *module.named_parameters(recurse=False, remove_duplicate=False),
            *module.named_buffers(recurse=False, remove_duplicate=False),
        ]
        for leaf, tensor in tensors:
            holders.setdefault(id(tensor), []).append((name, leaf))
    return {tensor: places for tensor, places in holders.items() if len(places) > 1}
