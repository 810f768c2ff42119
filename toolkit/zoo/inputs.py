"""Makes inputs for zoo models: smooth images and clips, token ids with padding, tones, log-mel-like features.

Every example has its own random generator, so that it is the same in a batch of any size.
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

FIRST_WORD = 5  # smaller ids are padding and special tokens in most vocabularies

# start of a name -> (frames, side), for video models of torchvision that do not take 8 frames of 112 x 112
VIDEO_SIZES = {"s3d": (16, 224), "mvit": (16, 224), "swin3d": (16, 224)}


@dataclass(frozen=True)
class InputShape:
    """Describes one example of a model.

    sizes: image (C, H, W); video (T, C, H, W) or (C, T, H, W); text (T,); audio (T,); mel (bins, frames).
    vocabulary: the number of token ids of a text.
    frames_first: whether a video is (T, C, H, W).
    """

    kind: Kind
    sizes: tuple[int, ...]
    vocabulary: int = 0
    frames_first: bool = True


def example_inputs(
    name: str, arguments: Arguments | None, batch_size: int, seed: int = 0, input_size: int | None = None
) -> tuple[Tensor, ...]:
    """Returns the positional inputs of a model, batch first; example i of a seed is the same for every batch size.

    input_size: the side of images and clips in pixels, or the number of tokens or samples; None is the model's default.

    Raises:
        UserError: the model is not known, or its inputs cannot have this size.
    """
    shape = input_shape(name, arguments or {}, input_size)
    rows = [_MAKE[shape.kind](shape, generator_of(seed, index)) for index in range(batch_size)]
    return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))


def input_specs(name: str, arguments: Arguments, input_size: int | None) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Returns the shape, without the batch, and the type of each of the `example_inputs`, without making them."""
    shape = input_shape(name, arguments, input_size)
    if shape.kind == "text":
        return [(shape.sizes, torch.int64)] * 2
    return [(shape.sizes, torch.float32)]


def generator_of(seed: int, index: int) -> torch.Generator:
    """Returns the random generator of one example."""
    return torch.Generator().manual_seed(seed * 1_000_003 + index)


def input_shape(name: str, arguments: Arguments, input_size: int | None = None) -> InputShape:
    """Returns the shape of one example of the model.

    Raises:
        UserError: as `example_inputs`.
    """
    library, model = checked(name, arguments)
    if input_size is not None and input_size < 1:
        raise UserError(f"{name}: input_size is {input_size}; it must be at least 1")
    try:
        shape = _SHAPE[library](model, arguments, input_size)
    except (TypeError, ValueError) as error:  # a word instead of a size, or a list of three sizes
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
    default_size = (3, 224, 224) if settings is None else settings.input_size
    height, width = _pair(input_size or arguments.get("img_size") or default_size[1:])
    return InputShape("image", (arguments.get("in_chans") or default_size[0], height, width))


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
    start, end = (_smooth(sizes[1:], generator) for _ in range(2))
    share = torch.linspace(0, 1, sizes[0])[:, None, None, None]
    clip = _standard(start * (1 - share) + end * share)  # one image turns into another
    return (clip if shape.frames_first else clip.transpose(0, 1).contiguous(),)


def _text(shape: InputShape, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Returns token ids, of which small ones are frequent, and a mask that makes up to half of the row padding."""
    (length,) = shape.sizes
    first_word = min(FIRST_WORD, shape.vocabulary - 1)
    ids = first_word + (torch.rand(length, generator=generator) ** 3 * (shape.vocabulary - first_word)).long()
    end = int(torch.randint((length + 1) // 2, length + 1, (), generator=generator))
    mask = (torch.arange(length) < end).long()
    return ids * mask, mask


def _audio(shape: InputShape, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Returns eight tones that swell and fade, with a little noise."""
    time = torch.arange(shape.sizes[0]) / SAMPLES
    pitch, beat, phase = torch.rand(3, 8, 1, generator=generator)
    tones = torch.sin(2 * math.pi * (80 + 2000 * pitch**2) * time + 6 * phase) * torch.sin(8 * beat * time + 6 * phase)
    return (_standard(tones.sum(0) + 0.1 * torch.randn(len(time), generator=generator)),)


def _mel(shape: InputShape, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (_standard(_smooth((1, *shape.sizes), generator))[0],)


def _smooth(sizes: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Returns a random image [C, H, W]: large patches of colour, smaller patches on them, and fine noise."""
    total = 0.1 * torch.randn(sizes, generator=generator)
    for cells, weight in ((4, 1.0), (16, 0.4)):
        coarse = torch.randn(1, sizes[0], cells, cells, generator=generator)
        total = total + weight * F.interpolate(coarse, sizes[1:], mode="bicubic", align_corners=False)[0]
    return total


def _standard(values: Tensor) -> Tensor:
    """Returns the values with mean 0 and standard deviation 1, as after the usual normalisation."""
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
