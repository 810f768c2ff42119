"""The documentation against the disk: paths, commands, tables, figures, and the blocks of code."""

from __future__ import annotations

import importlib
import re
import textwrap
from pathlib import Path

import pytest

from tests.docs.pages import (
    ROOT,
    blocks,
    commands,
    links,
    named_paths,
    pages,
    quoted_tables,
    unsupported,
)
from toolkit.__main__ import COMMANDS
from toolkit.recipe.read import read_recipe
from toolkit.stages.registry import STAGES
from toolkit.tasks.cards import TASKS
from toolkit.tasks.origin import TaskOrigin

PAGES = pages()
README = ROOT / "README.md"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def missing_paths(page: Path, text: str) -> list[str]:
    """Returns the links that lead nowhere from the page, and the paths that the repository does not have."""
    lost = [target for target in links(text) if not (page.parent / target).exists()]
    return lost + [path for path in named_paths(text) if not (ROOT / path).exists()]


def wrong_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Returns the options of a command that its own help does not list."""
    module = importlib.import_module(words[0] if words[0] != "reports" else "reports.__main__")
    if not hasattr(module, "main"):
        module = importlib.import_module(f"{words[0]}.__main__")
    with pytest.raises(SystemExit):
        module.main(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    return [word for word in words[1:] if word.startswith("--") and word not in known]


def wrong_figures(page: Path, text: str) -> list[str]:
    """Returns what the tables quote that their source does not say."""
    wrong = []
    for table in quoted_tables(text):
        source = (page.parent / table.source).read_text(encoding="utf-8")
        for row in table.rows:
            wrong += [f"{table.source}: {row[0]}: {figure}" for figure in unsupported(row, source)]
    return wrong


def first_cells(text: str, mark: str) -> list[str]:
    section = text.split(f"<!-- {mark} -->\n")[1].split("<!-- end -->", maxsplit=1)[0]
    return [line.split("|")[1].strip().strip("`") for line in section.strip().splitlines()[2:]]


def test_there_are_pages() -> None:
    assert len(PAGES) > 12 and README in PAGES


@each_page
def test_paths_exist(page: Path) -> None:
    assert missing_paths(page, page.read_text(encoding="utf-8")) == []


@each_page
def test_commands_have_the_options_that_are_shown(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        assert wrong_options(words, capsys) == [], " ".join(words)


@each_page
def test_quoted_figures_are_those_of_the_records(page: Path) -> None:
    assert wrong_figures(page, page.read_text(encoding="utf-8")) == []


@each_page
def test_every_recipe_that_is_shown_loads(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "yaml":
            file, text = tmp_path / "shown.yaml", textwrap.dedent(block.text)
            file.write_text(text, encoding="utf-8")
            name = re.search(r"^task: ([\w-]+)", text, flags=re.MULTILINE)
            is_own = name is not None and name[1] not in TASKS  # such as the one that the page's program makes
            assert read_recipe(file, TaskOrigin() if is_own else None)[0].stages


@each_page
def test_every_program_that_is_shown_compiles(page: Path) -> None:
    """The names that it imports exist too. One runs as it stands: tests/recipes/test_own_model_page.py."""
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            compile(block.text, str(page), "exec")
            for module, names in re.findall(r"^from (toolkit[\w.]*) import ([\w, ]+)$", block.text, flags=re.MULTILINE):
                for name in names.split(","):
                    assert hasattr(importlib.import_module(module), name.strip())


@each_page
def test_nothing_is_said_without_a_record(page: Path) -> None:
    assert not re.search(r"by hand|no record\b", page.read_text(encoding="utf-8"))


def test_the_front_page_is_short() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 180
    assert [line for line in lines if len(line) > 120] == []


def test_the_table_of_commands_is_that_of_the_code() -> None:
    shown = [cell.split()[2] for cell in first_cells(README.read_text(encoding="utf-8"), "commands")]
    assert sorted(shown) == sorted([*(f"toolkit.{name}" for name in COMMANDS), "reports"])


def test_the_table_of_commands_shows_options_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    section = README.read_text(encoding="utf-8").split("<!-- commands -->")[1].split("<!-- end -->")[0]
    for line in section.strip().splitlines()[2:]:
        first, *rest = re.findall(r"`([^`]+)`", line)
        words = first.split()[2:] + [word for code in rest for word in code.split() if word.startswith("--")]
        assert wrong_options(words, capsys) == [], line


def test_the_table_of_stages_is_that_of_the_code() -> None:
    assert sorted(first_cells(README.read_text(encoding="utf-8"), "stages")) == sorted(STAGES)


def test_planted_faults_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong path, option and figure, each beside a right one."""
    text = "see [this](tests/check.sh), [that](tests/chekc.sh), `toolkit/apply.py` and `toolkit/aply.py`"
    assert missing_paths(README, text) == ["tests/chekc.sh", "toolkit/aply.py"]
    assert wrong_options(["toolkit.apply", "r.yaml", "--check", "--chekc"], capsys) == ["--chekc"]
    (words,) = commands("```bash\n.venv/bin/python -m toolkit.plan tad-watch \\\n  --budget macs=0.5  # a share\n```")
    assert words == ["toolkit.plan", "tad-watch", "--budget", "macs=0.5"]
    place = "reports/results/rounding/resnet18/table.md"
    table = "<!-- figures: {} -->\n| a | b |\n| --- | --- |\n| 4 | {} |\n<!-- end -->"
    assert wrong_figures(README, table.format(place, "0.552, 0.672 (0.668 to 0.677)")) == []
    assert wrong_figures(README, table.format(place, "0.552, 0.67")) == []
    assert wrong_figures(README, table.format(place, "0.552, 0.69")) == [f"{place}: 4: 0.69"]
    assert len(wrong_figures(README, table.format(place, "0.548, 0.672"))) == 1, "figures of two rows"
