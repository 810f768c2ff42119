"""The list of stand-ins is closed, and each is built from plain arguments."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from torch import nn

from toolkit.base.errors import StageError
from toolkit.blocks.dropped import replace_block
from toolkit.stand_ins.dynamic_arguments import DynamicConvArguments
from toolkit.stand_ins.linear_bypass import LinearBypassArguments
from toolkit.stand_ins.nothing import NothingArguments
from toolkit.stand_ins.registry import STAND_INS, make_stand_in

BYPASS = LinearBypassArguments(layer="linear", channels=4, rank=2)

EXAMPLES = (
    (NothingArguments(), nn.Linear(4, 4)),
    (BYPASS, nn.Linear(4, 4)),
    (DynamicConvArguments(steps=(1, 2), channels=(4, 2), order=(3, 1, 0, 2), inputs=2), nn.Conv1d(2, 4, 3)),
)


def test_the_list_is_closed_and_every_entry_is_built_from_plain_arguments() -> None:
    assert {one.type for one, _ in EXAMPLES} == set(STAND_INS)
    for one, replaced in EXAMPLES:
        again = type(one).model_validate_json(one.model_dump_json())
        assert again == one and type(make_stand_in(replaced, again)) is STAND_INS[one.type]


def test_a_rank_above_the_channels_is_refused() -> None:
    with pytest.raises(ValidationError, match="rank 5 is more than the 4 channels"):
        LinearBypassArguments(layer="linear", channels=4, rank=5)


def test_a_block_is_replaced_once() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    replace_block(net, "1", BYPASS)
    with pytest.raises(StageError, match="'1' cannot be dropped: '1' has already been dropped"):
        replace_block(net, "1", BYPASS)
