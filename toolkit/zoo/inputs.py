"""Made-up inputs for zoo models: smooth images and clips, token ids with padding, tones, log-mel-like features.

Every example has a random generator of its own, so it is the same in whatever batch it stands.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from toolkit.base.errors import UserError
from toolkit.zoo.build import Arguments, checked, library_of
from toolkit.zoo.transformers_types import TYPES, Kind

LARGEST_ELEMENTS = 2**23  # of one example

TOKENS, SAMPLES = 64, 16_000

FIRST_WORD = 5  # ids below are padding and marks in most vocabularies

# (frames, side) where a video model of torchvision does not take 8 frames of 112 x 112
VIDEO_SIZES = {"s3d": (16, 224), "mvit": (16, 224), "swin3d": (16, 224)}


@dataclass(frozen=True)
class InputShape:
    """`sizes`: image (C, H, W); video (T, C, H, W) or (C, T, H, W); text (T,); audio (T,); mel (bins, frames)."""

    kind: Kind
    sizes: tuple[int, ...]
    vocabulary: int = 0
    frames_first: bool = True  # of a video


def example_inputs(
    name: str, arguments: Arguments | None, batch_size: int, seed: int = 0, input_size: int | None = None
) -> tuple[Tensor, ...]:
    """Positional inputs of the model, batch first; example i of a seed is the same for every batch size.

    `input_size` is the side of images and clips, the number of tokens of a text, of samples of a sound; where it is
    not given, it is the model's own.

    Raises:
        UserError: no such model, or an input size that the kind of model does not have.
    """
    shape = input_shape(name, arguments or {}, input_size)
    rows = [_MAKE[shape.kind](shape, generator_of(seed, index)) for index in range(batch_size)]
    return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))


def input_specs(name: str, arguments: Arguments, input_size: int | None) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """(shape without the batch, type) of each of the `example_inputs`, without making them."""
    shape = input_shape(name, arguments, input_size)
    if shape.kind == "text":
        return [(shape.sizes, torch.int64)] * 2
    return [(shape.sizes, torch.float32)]


def generator_of(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + index)


def input_shape(name: str, arguments: Arguments, input_size: int | None = None) -> InputShape:
    """What one example of the model looks like. Raises UserError, as `example_inputs`."""
    library, model = checked(name, arguments)
    if input_size is not None and input_size < 1:
        raise UserError(f"{name}: input_size is {input_size}; it must be at least 1")
    try:
        shape = _SHAPE[library](model, arguments, input_size)
    except (TypeError, ValueError) as error:  # a word where a size should be, or a list of three
        raise UserError(f"{name}: the arguments do not say how large an input is: {error}") from error
    if not all(type(size) is int and size > 0 for size in shape.sizes) or math.prod(shape.sizes) > LARGEST_ELEMENTS:
        raise UserError(f"{name}: inputs of size {shape.sizes} are out of range; give a smaller input_size")
    return shape


def _torchvision_shape(model: str, arguments: Arguments, input_size: int | None) -> InputShape:
    models = importlib.import_module("torchvision.models")
    if model in models.list_models(module=models.video):
        frames, side = next((size for start, size in VIDEO_SIZES.items() if model.startswith(start)), (8, 112))
        side = input_size or side
        return InputShape("video", (3, frames, side, side), frames_first=False)
    side = input_size or arguments.get("image_size") or (299 if model == "inception_v3" else 224)
    return InputShape("image", (3, side, side))


def _timm_shape(model: str, arguments: Arguments, input_size: int | None) -> InputShape:
    settings = library_of("timm").get_pretrained_cfg(model, allow_unregistered=False)
    own = (3, 224, 224) if settings is None else settings.input_size
    height, width = _pair(input_size or arguments.get("img_size") or own[1:])
    return InputShape("image", (arguments.get("in_chans") or own[0], height, width))


def _transformers_shape(model: str, arguments: Arguments, input_size: int | None) -> InputShape:
    kind = TYPES[model]
    config_class = getattr(library_of("transformers"), kind.config)
    defaults = {name: field.default for name, field in config_class.__dataclass_fields__.items()}
    settings: Mapping[str, Any] = {**defaults, **arguments}
    if kind.kind == "text":
        longest = settings["max_position_embeddings"] - 2  # RoBERTa counts from 2
        return InputShape("text", (input_size or min(TOKENS, longest),), vocabulary=settings["vocab_size"])
    if kind.kind == "audio":
        return InputShape("audio", (input_size or SAMPLES,))
    if kind.kind == "mel":
        if input_size is not None:
            raise UserError(f"transformers/{model} takes inputs of one length: set max_source_positions, no input_size")
        return InputShape("mel", (settings["num_mel_bins"], 2 * settings["max_source_positions"]))
    height, width = _pair(input_size or settings.get("image_size") or 224)
    if kind.kind == "video":
        return InputShape("video", (settings["num_frames"], settings["num_channels"], height, width))
    return InputShape("image", (settings["num_channels"], height, width))


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _image(shape: InputShape, generator: torch.Generator) -> tuple[Tensor, ...]:
    channels, height, width = shape.sizes
    return (_standard(_smooth((channels, height, width), generator)),)


def _video(shape: InputShape, generator: torch.Generator) -> tuple[Tensor, ...]:
    sizes = shape.sizes if shape.frames_first else (shape.sizes[1], shape.sizes[0], *shape.sizes[2:])
    first, last = (_smooth(sizes[1:], generator) for _ in range(2))
    share = torch.linspace(0, 1, sizes[0])[:, None, None, None]
    clip = _standard(first * (1 - share) + last * share)  # one image turns into another
    return (clip if shape.frames_first else clip.transpose(0, 1).contiguous(),)


def _text(shape: InputShape, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Token ids, frequent ones small as in most vocabularies, and a mask with up to half of the row as padding."""
    (length,) = shape.sizes
    first = min(FIRST_WORD, shape.vocabulary - 1)
    ids = first + (torch.rand(length, generator=generator) ** 3 * (shape.vocabulary - first)).long()
    end = int(torch.randint((length + 1) // 2, length + 1, (), generator=generator))
    mask = (torch.arange(length) < end).long()
    return ids * mask, mask


def _audio(shape: InputShape, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Eight tones that swell and fade, and a little noise."""
    time = torch.arange(shape.sizes[0]) / SAMPLES
    pitch, beat, phase = torch.rand(3, 8, 1, generator=generator)
    tones = torch.sin(2 * math.pi * (80 + 2000 * pitch**2) * time + 6 * phase) * torch.sin(8 * beat * time + 6 * phase)
    return (_standard(tones.sum(0) + 0.1 * torch.randn(len(time), generator=generator)),)


def _mel(shape: InputShape, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (_standard(_smooth((1, *shape.sizes), generator))[0],)


def _smooth(sizes: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random [C, H, W]: large patches of colour, smaller ones on them, a little grain."""
    total = 0.1 * torch.randn(sizes, generator=generator)
    for cells, weight in ((4, 1.0), (16, 0.4)):
        coarse = torch.randn(1, sizes[0], cells, cells, generator=generator)
        total = total + weight * F.interpolate(coarse, sizes[1:], mode="bicubic", align_corners=False)[0]
    return total


def _standard(values: Tensor) -> Tensor:
    """Mean 0, standard deviation 1, as after the usual normalisation."""
    return (values - values.mean()) / values.std(correction=0).clamp_min(1e-6)


_SHAPE: dict[str, Callable[[str, Arguments, int | None], InputShape]] = {
    "torchvision": _torchvision_shape,
    "timm": _timm_shape,
    "transformers": _transformers_shape,
}

_MAKE: dict[Kind, Callable[[InputShape, torch.Generator], tuple[Tensor, ...]]] = {
    "image": _image,
    "video": _video,
    "text": _text,
    "audio": _audio,
    "mel": _mel,
}
