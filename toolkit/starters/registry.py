"""Lists the kinds of starter, by the word that the command line takes."""

from __future__ import annotations

from toolkit.starters.starter import Starter
from toolkit.starters.task import TASK

STARTERS: dict[str, Starter] = {starter.name: starter for starter in (TASK,)}
