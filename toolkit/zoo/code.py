"""Writes the Python code that builds a zoo model as `toolkit.zoo.build` does, with the model's library alone."""

from __future__ import annotations

from toolkit.zoo.build import Arguments, checked, library_of, torchvision_arguments
from toolkit.zoo.transformers_types import TYPES


def building_code(name: str, arguments: Arguments) -> tuple[list[str], str]:
    """Returns the imports that the code needs, and the expression whose value is the model.

    Raises:
        UserError: the model is not known, or its library is not installed.
    """
    library, model = checked(name, arguments)
    if library == "torchvision":
        given = _keywords(torchvision_arguments(model, arguments))
        return ["import torchvision"], f"torchvision.models.get_model({model!r}, {given})"
    if library == "timm":
        return ["import timm"], f"timm.create_model({', '.join([repr(model), 'pretrained=False', *_each(arguments)])})"
    kind = TYPES[model]
    transformers = library_of("transformers")
    module = getattr(transformers, kind.config).__module__.replace(".configuration_", ".modeling_")
    places = {name: "transformers" if hasattr(transformers, name) else module for name in (kind.config, kind.model)}
    imports = [
        f"from {place} import {', '.join(sorted(name for name in places if places[name] == place))}"
        for place in dict.fromkeys(places.values())
    ]
    return imports, f"{kind.model}({kind.config}({_keywords({**kind.settings, **arguments})}))"


def _keywords(arguments: Arguments) -> str:
    return ", ".join(_each(arguments))


def _each(arguments: Arguments) -> list[str]:
    return [f"{name}={value!r}" for name, value in arguments.items()]
