"""Builds models of public zoos with random weights, which are always the same, and never downloads anything.

`toolkit.zoo.names` checks the names and arguments of a recipe or a manifest before a library sees them.
"""

from __future__ import annotations

import difflib
import importlib
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any

import torch
from torch import nn

from toolkit.base.errors import UserError
from toolkit.zoo.limits import MOST_BYTES, TooLargeError, check_size, counting
from toolkit.zoo.names import OF_TRANSFORMERS, REFUSED, argument_faults, split_name
from toolkit.zoo.skeleton import without_weights
from toolkit.zoo.transformers_types import TYPES

SEED = 0

TORCHVISION_MODULES = ("torchvision.models", "torchvision.models.video", "torchvision.models.segmentation")

MOST_TABLE = 2**22  # numbers that a video model computes in Python for its positions

Arguments = Mapping[str, Any]


def build_zoo_model(name: str, arguments: Arguments | None = None, most_bytes: int = MOST_BYTES) -> nn.Module:
    """Returns the model of this name, such as `torchvision/resnet18`, with random weights, in eval mode.

    The weights are the same on every call; the caller's random state is not touched.

    Raises:
        UserError: the model is not known, arguments are refused or do not fit, or the library is not installed.
        TooLargeError: parameters and buffers need more than `most_bytes`; this shows before they take memory.
    """
    _check_size(name, arguments or {}, most_bytes)
    with counting(most_bytes):
        return _build(name, arguments or {})


def build_skeleton(name: str, arguments: Arguments, most_bytes: int) -> nn.Module:
    """Returns the model with its parameters on the meta device; `toolkit.zoo.skeleton.materialise` fills them.

    Raises:
        UserError, TooLargeError: as `build_zoo_model`.
    """
    _check_size(name, arguments, most_bytes)
    try:
        with counting(most_bytes), without_weights():
            return _build(name, arguments)
    except TooLargeError:
        raise
    except UserError:  # some models copy between buffers and parameters; any other error is raised again below
        with counting(most_bytes), torch.device("meta"):
            return _build(name, arguments)


def _check_size(name: str, arguments: Arguments, most_bytes: int) -> None:
    """Checks the size alone, on the meta device; any other error is ignored, as building for real raises it again."""
    try:
        check_size(lambda: _build(name, arguments), most_bytes)
    except TooLargeError:
        raise
    except UserError:
        return


def _build(name: str, arguments: Arguments) -> nn.Module:
    library, model = checked(name, arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        try:
            return _BUILD[library](model, dict(arguments)).eval()
        except TooLargeError as error:
            raise TooLargeError(f"{name} is too large: {error}") from error
        except UserError:
            raise
        except Exception as error:  # constructors raise anything on arguments that do not fit together
            shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
            raise UserError(f"{name} cannot be built with {shown}: {_short(error)}") from error


def checked(name: str, arguments: Arguments) -> tuple[str, str]:
    """Returns the library and the model of a name, whose arguments are checked as far as possible without building.

    Raises:
        UserError: the model is not known, the library is not installed, or arguments are refused; the message holds
            all faults.
    """
    try:
        library, model = split_name(name)
    except ValueError as error:
        raise UserError(str(error)) from error
    faults = [f"{key}: {fault}" if key else fault for key, fault in argument_faults(library, arguments)]
    if faults:
        raise UserError(f"{name}: {'; '.join(faults)}")
    if library == "timm" and library_of("timm").is_model(model) and "." not in model:
        return library, model  # sorting timm's thousand names takes a while
    known_models = _KNOWN[library]()
    if (
        model not in known_models
        and library == "torchvision"
        and model in library_of("torchvision").models.list_models()
    ):
        raise UserError(
            f"{name} takes other inputs than a batch of images, as models of detection and optical flow do, or is "
            "quantised; write a task of your own for it and give its file with --task FILE.py"
        )
    if model not in known_models:
        close = difflib.get_close_matches(model, known_models, n=8, cutoff=0.3)
        raise UserError(f"{name} is not known; similar names are: {', '.join(close) or 'none'}")
    return library, model


def library_of(name: str) -> ModuleType:
    """Returns the imported library.

    Raises:
        UserError: the library is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is not installed; run: pip install 'depth-width-toolkit[zoo]'") from error


def _names_of_torchvision() -> list[str]:
    library_of("torchvision")
    modules = [importlib.import_module(module) for module in TORCHVISION_MODULES]
    return [name for module in modules for name in modules[0].list_models(module=module)]


def _names_of_timm() -> list[str]:
    names: list[str] = library_of("timm").list_models()
    return names


def torchvision_arguments(model: str, arguments: Arguments) -> dict[str, Any]:
    """Returns what torchvision's `get_model` is given, so that it downloads nothing."""
    models = importlib.import_module("torchvision.models")
    all_arguments = {"weights": None, **arguments}
    if model in models.list_models(module=models.segmentation):
        all_arguments["weights_backbone"] = None
    elif model in ("googlenet", "inception_v3"):
        all_arguments = {"aux_logits": False, "init_weights": True, **all_arguments}
    return all_arguments


def _torchvision(model: str, arguments: dict[str, Any]) -> nn.Module:
    models = importlib.import_module("torchvision.models")
    built: nn.Module = models.get_model(model, **torchvision_arguments(model, arguments))
    return built


def _timm(model: str, arguments: dict[str, Any]) -> nn.Module:
    built: nn.Module = library_of("timm").create_model(model, pretrained=False, **arguments)
    return built


def _transformers(model: str, arguments: dict[str, Any]) -> nn.Module:
    transformers = library_of("transformers")
    kind = TYPES[model]
    config_class = getattr(transformers, kind.config)
    choices = sorted(config_fields(config_class) | OF_TRANSFORMERS)
    unknown = [key for key in arguments if key not in choices]
    if unknown:
        raise UserError(
            f"transformers/{model}: {', '.join(unknown)} is not an argument; choose from: {', '.join(choices)}"
        )
    config = config_class(**{**kind.settings, **arguments})
    if kind.kind == "video":
        _check_table(config)
    module = importlib.import_module(config_class.__module__.replace(".configuration_", ".modeling_"))
    built: nn.Module = getattr(module, kind.model)(config)
    return built


def _check_table(config: Any) -> None:
    """Refuses large position tables: VideoMAE computes them number by number in Python lists, on any device."""
    sides = [size if isinstance(size, (list, tuple)) else [size] * 2 for size in (config.image_size, config.patch_size)]
    tokens = math.prod(sides[0]) / math.prod(sides[1]) * config.num_frames / config.tubelet_size
    if tokens * config.hidden_size > MOST_TABLE:
        raise TooLargeError(f"it has {tokens:.0f} positions of {config.hidden_size} numbers")


def config_fields(config_class: type) -> set[str]:
    """Returns the names of the plain fields of a configuration class that not every class of transformers has."""
    base = {field.name for field in fields(library_of("transformers").PreTrainedConfig)}
    return {
        field.name
        for field in fields(config_class)
        if field.name not in base and not REFUSED.search(field.name) and _is_plain(field.type)
    }


def _is_plain(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return True
    parts = [part for part in typing.get_args(hint) if part is not Ellipsis]
    if parts:
        return typing.get_origin(hint) is not dict and all(map(_is_plain, parts))
    return hint in (int, float, bool, str, list, tuple, type(None))


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


_KNOWN: dict[str, Callable[[], list[str]]] = {
    "torchvision": _names_of_torchvision,
    "timm": _names_of_timm,
    "transformers": lambda: list(TYPES),
}

_BUILD = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
