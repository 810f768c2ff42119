"""Names and numbers as readers meet them, and the sizes of what is written in figures."""

from __future__ import annotations

import pytest
from matplotlib.text import Text

from reports.drawing.style import drawing_style
from reports.drawing.words import change, count, milliseconds, short_names
from reports.run.details import detail_of
from reports.run.sections import sections_of
from tests.helpers.example_records import BLOCKS, combined_record
from toolkit.base.words import plain
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.detail import BlockDropDetail
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep


@pytest.mark.parametrize(
    ("names", "common", "own"),
    [
        (["blocks.0.mlp.fc1", "blocks.7.mlp.fc1"], "blocks.*.mlp.fc1", ["0", "7"]),
        (BLOCKS, "blocks.*", [str(index) for index in range(12)]),
        (["stage.0.a", "stage.0.b.c"], "stage.0.*", ["a", "b.c"]),
        (["fc", "blocks.1"], "", ["fc", "blocks.1"]),
        (["blocks.1"], "", ["blocks.1"]),
        (["a.b", "a.b"], "", ["a.b", "a.b"]),
        ([], "", []),
    ],
)
def test_short_names(names: list[str], common: str, own: list[str]) -> None:
    assert short_names(names) == (common, own)


def test_numbers() -> None:
    assert [count(number) for number in (17_234_560, 651_284, 999)] == ["17.23 M", "651.28 k", "999"]
    assert [milliseconds(seconds) for seconds in (0.00521, 0.0613, 0.25)] == ["5.21", "61.3", "250"]
    assert change(-0.0134) == "−0.013"


def test_plain_names_fit_and_are_printable() -> None:
    assert plain("a\x00b\nc") == "a?b?c"
    assert len(plain("x" * 100)) <= 28


def test_stages_in_words() -> None:
    dropped = BlockDrop(macs_ratio=0.625, criterion="block_mse", repair="none").in_words()
    assert "until 62.5 % of the dense MACs (multiply-adds) are left" in dropped
    assert "repaired" not in dropped
    narrowed = ChannelPrune(keep=Keep(mlp=0.25)).in_words()
    assert "keeps 25 % of the MLP hidden units (importance: activation" in narrowed
    assert "repaired by least squares" in narrowed
    aligned = Align(segment_weight=0.5, train_head=False).in_words()
    assert "every block with the dense model (trained: low-rank adapters on attention, norms, embedding; " in aligned
    assert "loss: task × 1 + blocks × 1 + classes × 1 + segments × 0.5) for at most 300 steps" in aligned
    assert "(trained: all weights; " in Align(trainable="full", teacher="dynamic").in_words()


def test_details_let_new_keys_through() -> None:
    step = combined_record().steps[1]
    reading = detail_of(step.model_copy(update={"detail": {**step.detail, "new": 1}}))
    assert isinstance(reading, BlockDropDetail)
    assert [turn.dropped for turn in reading.rounds] == ["blocks.7", "blocks.9", "blocks.4"]


def test_nothing_in_a_figure_is_smaller_than_9_points() -> None:
    with drawing_style():
        drawings = [drawing for section in sections_of(combined_record()) for drawing in section.drawings]
    assert len(drawings) == 7
    for drawing in drawings:
        texts = [text for text in drawing.figure.findobj(Text) if text.get_text()]
        assert texts
        assert min(text.get_fontsize() for text in texts) >= 9
