"""Writes the text of load.py: what it needs, tables of what differs, the unmodified model, and how it is changed."""

from __future__ import annotations

import ast
import inspect
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from toolkit.checkpoint.manifest import WEIGHTS_FILE
from toolkit.exporting.formats.format import Subject
from toolkit.exporting.formats.plain import parts
from toolkit.exporting.formats.plain.sources import Sources
from toolkit.exporting.formats.plain.structure import Difference
from toolkit.stand_ins import plain

# What every load.py uses, by the names that it has there.
_USED = {"Path": Path, "load_file": load_file, "nn": nn, "torch": torch}

_OWN_NAMES = (
    "WEIGHTS",
    "RETURNS",
    "FOLDED",
    "SHAPES",
    "NUMBERS",
    "BUFFERS",
    "COMPLEX",
    "unmodified_model",
    "load_model",
)

_WIDTH = 120


def new_sources() -> Sources:
    """Returns where the source that a load.py needs is gathered; its own names are taken there."""
    sources = Sources(reserved=_OWN_NAMES)
    for name in _USED:
        sources.take(name, globals())
    return sources


def program_text(subject: Subject, sources: Sources, body: list[str], difference: Difference, *, is_short: bool) -> str:
    """Returns the text of load.py.

    sources: what the body needs; what else load.py needs is added.
    body: of the function that builds the unmodified model.
    is_short: whether stand-ins take their first argument and return a tensor, which takes the least code.
    """
    classes = list(dict.fromkeys(name for name, _ in difference.stand_ins.values()))
    for name in classes:
        source = inspect.getsource(getattr(plain, name))
        sources.add(source if is_short else source.replace("(InPlace)", "(InPlaceOfAny)"), vars(plain))
    loader = _loader(difference, classes, is_short)
    for name in ("fold_tensor", "put_module_at", "put_like_block", "resize_tensors", "set_numbers"):
        if f"{name}(" in loader:
            sources.take(name, vars(parts))
    head = ["def unmodified_model() -> nn.Module:", '    """Returns the unmodified model, with untrained weights."""']
    pieces = [
        "from __future__ import annotations\n\n" + "\n".join(_in_order(sources.imports)),
        "\n\n".join([f'WEIGHTS = Path(__file__).with_name("{WEIGHTS_FILE}")', *_tables(difference, classes, is_short)]),
        *sources.definitions,
        "\n".join([*head, *(f"    {line}" for line in body)]),
        loader,
        'if __name__ == "__main__":\n    print(load_model())',
    ]
    text = "\n\n\n".join(piece.strip("\n") for piece in pieces) + "\n"
    return f"{_docstring(subject, difference, text)}\n\n{text}"


def _docstring(subject: Subject, difference: Difference, text: str) -> str:
    inputs = ", ".join(f"{each.name}: {each.dtype} [{', '.join(map(str, each.shape))}]" for each in subject.inputs)
    counts = [
        f"blocks in whose places a {name} stands: {count}"
        for name, count in Counter(name for name, _ in difference.stand_ins.values()).items()
    ]
    counts += [f"smaller tensors: {len(difference.shapes)}"] if difference.shapes else []
    differs = f"What differs from the unmodified model: {'; '.join(counts)}." if counts else ""
    needs = f"Needs {', '.join(_needed(text))}."
    lines = [
        f'"""Builds the model whose weights are in {WEIGHTS_FILE} beside this file.',
        "",
        "    from load import load_model",
        "    model = load_model()  # in eval mode on the CPU",
        f"    outputs = model({', '.join(each.name for each in subject.inputs)})",
        "",
        *wrap(f"Inputs: {inputs}.", _WIDTH),
        *wrap(differs, _WIDTH),
        *wrap(needs, _WIDTH),
        '"""',
    ]
    return "\n".join(lines)


def _needed(text: str) -> list[str]:
    """Returns the packages that a program imports beyond the standard library, with the versions that are here."""
    modules = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.append(node.module)
    packages = sorted({module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names))
    return [_with_version(package) for package in packages]


def _with_version(package: str) -> str:
    try:
        return f"{package} (here {metadata.version(package)})"
    except metadata.PackageNotFoundError:
        return f"{package} (your own)"


def _tables(difference: Difference, classes: Iterable[str], is_short: bool) -> list[str]:
    tables = []
    for class_name in classes:
        given = {name: arguments for name, (each, arguments) in difference.stand_ins.items() if each == class_name}
        comment = inspect.getdoc(getattr(plain, class_name)) or ""
        tables.append(_table(_constant(class_name), comment.splitlines()[0], given))
    if not is_short and difference.returns:
        tables.append(
            _table("RETURNS", "How these blocks return their stream, where it is not a tensor.", difference.returns)
        )
    if difference.folded:
        comment = "Tensors that the unmodified model computes in every pass, and by what; here they are parameters."
        tables.append(_table("FOLDED", comment, difference.folded))
    if difference.shapes:
        lines = [f"    {_quoted(name)}: {new!r},  # was {old!r}" for name, (new, old) in difference.shapes.items()]
        tables.append(
            "\n".join(["# Tensors that are smaller than in the unmodified model.", "SHAPES = {", *lines, "}"])
        )
    if difference.numbers:
        tables.append(_table("NUMBERS", "Attributes of modules that say how wide they are.", difference.numbers))
    if difference.buffers:
        tables.append(
            _table("BUFFERS", "Buffers that are saved with the weights here.", dict.fromkeys(difference.buffers))
        )
    if difference.complexes:
        comment = "Tensors of complex numbers, which are saved as real and imaginary parts."
        tables.append(_table("COMPLEX", comment, dict.fromkeys(difference.complexes)))
    return tables


def _table(name: str, comment: str, rows: Mapping[str, Any]) -> str:
    """Returns the assignment of a dictionary, or of a tuple where no key has a value."""
    if any(rows.values()):
        lines = [f"{name} = {{", *(f"    {_quoted(key)}: {_shown(value)}," for key, value in rows.items()), "}"]
    else:
        lines = [f"{name} = (", *(f"    {_quoted(key)}," for key in rows), ")"]
    return "\n".join([f"# {comment}", *lines])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)}: {_shown(part)}" for key, part in value.items()) + "}"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """Returns a text as code, in double quotes where that is possible without escapes."""
    return f'"{text}"' if repr(text) == f"'{text}'" and '"' not in text else repr(text)


def _constant(class_name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in class_name).lstrip("_")


def _loader(difference: Difference, classes: Iterable[str], is_short: bool) -> str:
    lines = ["model = unmodified_model()"]
    for class_name in classes:
        has_arguments = any(arguments for each, arguments in difference.stand_ins.values() if each == class_name)
        names, call = (
            (f"name, arguments in {_constant(class_name)}.items()", f"{class_name}(**arguments)")
            if has_arguments
            else (f"name in {_constant(class_name)}", f"{class_name}()")
        )
        put = f"put_module_at(model, name, {call})"
        if not is_short:
            returns = "RETURNS.get(name, {})" if difference.returns else "{}"
            put = f"put_like_block(model, name, {call}, {returns})"
        lines += [f"for {names}:", f"    {put}"]
    if difference.folded:
        lines += ["for name, kind in FOLDED.items():", "    fold_tensor(model, name, kind)"]
    lines += ["resize_tensors(model, SHAPES)"] if difference.shapes else []
    lines += ["set_numbers(model, NUMBERS)"] if difference.numbers else []
    lines.append("tensors = load_file(weights)")
    if difference.complexes:
        lines += ["for name in COMPLEX:", "    tensors[name] = torch.view_as_complex(tensors[name])"]
    if difference.buffers:
        lines += ["for name in BUFFERS:", "    model.get_buffer(name).copy_(tensors.pop(name))"]
    lines += ["model.load_state_dict(tensors, strict=True)", "return model.eval()"]
    head = [
        "def load_model(weights: str | Path = WEIGHTS) -> nn.Module:",
        '    """Returns the model with its weights, in eval mode on the CPU."""',
    ]
    return "\n".join([*head, *(f"    {line}" for line in lines)])


def _in_order(imports: Iterable[str]) -> list[str]:
    """Returns imports of the standard library, an empty line, and the others, each in alphabetical order."""
    names: dict[str, list[str]] = {}
    for line in sorted(imports, key=str.lower):
        module, _, name = line.removeprefix("from ").partition(" import ")
        names.setdefault(module if name else line, []).append(name)
    joined = {module: ", ".join(sorted(given)) for module, given in names.items()}
    lines = [f"from {module} import {given}" if given else module for module, given in joined.items()]
    lines.sort(key=lambda line: (line.startswith("from "), line))
    standard = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    return [*standard, "", *(line for line in lines if line not in standard)]
