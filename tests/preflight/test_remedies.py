"""Remedies are found by words of the reasons: those words are in the reasons that the searches give."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers.own_net import Net, task_of
from toolkit import preflight_of
from toolkit.preflight.remedies import _OF_BLOCKS, _OF_CHANNELS, block_remedy

TOOLKIT = Path(__file__).parents[2] / "toolkit"


def texts(*folders: str) -> list[str]:
    """Returns all texts in the code of the folders, with `{}` where a value is put in."""
    found = []
    for path in sorted(path for folder in folders for path in (TOOLKIT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("words", [words for words, _ in _OF_BLOCKS])
def test_words_of_reasons_against_blocks(words: str) -> None:
    assert any(words in text for text in texts("blocks", "hooks"))


@pytest.mark.parametrize("words", [words for words, _ in _OF_CHANNELS])
def test_words_of_reasons_against_channels(words: str) -> None:
    assert any(words in text for text in texts("channels", "hooks"))


def test_a_block_that_halves_the_stream_has_to_stay() -> None:
    assert "have to stay" in block_remedy("it returns [1, 32, 4, 4] of float32 where [1, 16, 8, 8] of float32 comes in")


def test_a_stream_that_begins_at_the_input_is_not_only_told_to_take_sizes_from_tensors() -> None:
    task = task_of(Net)
    reasons = {part.name: part for part in preflight_of(task, parts=("channels",)).channels if not part.can_go}
    assert "The size of tensor a (8) must match the size of tensor b (4)" in reasons["blocks.0.b"].reason
    assert "what is added to an input of the model has to keep its width" in reasons["blocks.0.b"].change
