"""The page about saved models names every key of a manifest, and no other."""

from __future__ import annotations

import re

from tests.helpers.source import ROOT
from toolkit.checkpoint.manifest import Fingerprint, InputSpec, Manifest, OutputPrint, TensorSpec, WeightsFile
from toolkit.stand_ins.output import HandedOn, OutputStructure

PAGE = (ROOT / "toolkit" / "checkpoint" / "README.md").read_text(encoding="utf-8")


def keys_of(page: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)


def test_the_table_holds_the_keys_in_their_order() -> None:
    assert keys_of(PAGE) == list(Manifest.model_fields)
    assert keys_of(PAGE.replace("| `folded` |", "| `melted` |")) != list(Manifest.model_fields)


def test_the_keys_within_are_named() -> None:
    for part in (TensorSpec, InputSpec, OutputPrint, Fingerprint, WeightsFile, OutputStructure, HandedOn):
        for key in part.model_fields:
            assert f"`{key}`" in PAGE, f"{part.__name__}.{key}"
