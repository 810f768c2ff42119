"""A Python file of the user's that makes a task: what is wrong with it is one sentence with the line of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.base.errors import UserError
from toolkit.base.files import file_sha256
from toolkit.tasks.origin import TaskOrigin
from toolkit.tasks.task import Task
from toolkit.tasks.task_file import DATA, METHODS, read_task_file

GOOD = """\
from tests.helpers.tiny_task import TinyTask


class Mine(TinyTask):
    name = "mine"


def make_task():
    return Mine()


def other():
    task = Mine()
    task.name = "other"
    return task
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_task.py"
    path.write_text(GOOD)
    return path


def test_the_members_that_are_looked_for_are_those_of_a_task() -> None:
    members = set(Task.__annotations__) | {name for name, value in vars(Task).items() if callable(value)}
    assert {name for name in members if not name.startswith("_")} == {*DATA, *METHODS}


@pytest.mark.parametrize(("ending", "name"), [("", "mine"), (":make_task", "mine"), (":other", "other")])
def test_a_task_and_where_it_comes_from(ending: str, name: str, file: Path) -> None:
    found = read_task_file(f"{file}{ending}")
    assert found.make().name == name
    function = ending.removeprefix(":") or "make_task"
    assert found.origin == TaskOrigin(file="my_task.py", function=function, sha256=file_sha256(file))


def test_a_moved_file_is_the_same_and_a_changed_one_is_not(file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.py"
    moved.write_bytes(file.read_bytes())
    one, two = read_task_file(str(file)).origin, read_task_file(str(moved)).origin
    assert not one.is_other_than(two)
    moved.write_bytes(file.read_bytes() + b"\n")
    assert one.is_other_than(read_task_file(str(moved)).origin)
    assert one.is_other_than(read_task_file(f"{file}:other").origin)
    assert not one.is_other_than(TaskOrigin()), "nothing is known of a task that came from a program"


def test_modules_and_dataclasses_beside_it(tmp_path: Path) -> None:
    (tmp_path / "my_neighbour_net.py").write_text("NAME = 'of a neighbour'\n")
    source = GOOD.replace(
        "class Mine",
        "from dataclasses import dataclass\nfrom my_neighbour_net import NAME\n\n\n"
        "@dataclass\nclass Sizes:\n    width: 'int' = 3\n\n\nclass Mine",
    ).replace('"mine"', "NAME")
    (tmp_path / "task.py").write_text(source)
    assert read_task_file(str(tmp_path / "task.py")).make().name == "of a neighbour"


BROKEN = {
    "not Python": ("def make_task(:\n", "{file}:1: is not Python: invalid syntax"),
    "indented wrongly": ("x = 1\n  y = 2\n", "{file}:2: is not Python: unexpected indent"),
    "a null byte": ("x = 1\0\n", "{file}: is not Python: source code string cannot contain null bytes"),
    "no function": (
        "def make():\n    pass\n\n\nx = print\n",
        "{file}: has no function 'make_task'; its functions are: make; choose one with --task {file}:FUNCTION",
    ),
    "nothing in it": ("", "{file}: has no function 'make_task'; its functions are: none; choose one"),
    "a value of that name": ("make_task = 3\n", "{file}: has no function 'make_task'"),
    "arguments": (
        "def make_task(folder, size, seed=0):\n    pass\n",
        "{file}: make_task must take no arguments, but needs folder, size",
    ),
    "raises on import": ("import math\n\nx = math.sqrt(-1)\n", "{file}:3: ValueError: math domain error"),
    "raises": ("def make_task():\n    return {}['weights']\n", "{file}:2: KeyError: 'weights'"),
    "raises in a function of its own": (
        "def read():\n    raise OSError('no disk\\nhere')\n\n\ndef make_task():\n    return read()\n",
        "{file}:2: OSError: no disk here",
    ),
    "leaves": ("import sys\n\n\ndef make_task():\n    sys.exit('done')\n", "{file}:5: SystemExit: done"),
    "imports what is not there": ("import no_such_module_of_mine\n", "{file}:1: ModuleNotFoundError: No module named"),
    "a mistake that the toolkit finds": (
        "import torch\nfrom toolkit import ClassificationTask\n\n\ndef make_task():\n    data = torch.zeros(9, 2)\n"
        "    return ClassificationTask(torch.nn.Identity, {}, train=data, validation=data, test=data)\n",
        "{file}:7: train, validation and test must be different data",
    ),
    "returns nothing": ("def make_task():\n    pass\n", "{file}: make_task returns nothing; it must return a Task"),
    "returns a model": (
        "from torch import nn\n\n\ndef make_task():\n    return nn.Identity()\n",
        "{file}: make_task returns an Identity, which is no Task: it lacks name, metric, protected, build_model, ",
    ),
    "one member missing": (
        GOOD.replace("return Mine()", "task = Mine()\n    task.timeline = None\n    return task", 1),
        "{file}: make_task returns a Mine, which is no Task: it lacks timeline; the members",
    ),
    "a class, not a task": (GOOD.replace("Mine()", "Mine.name", 1), "returns a str, which is no Task: it lacks name"),
    "the name of a built-in task": (
        GOOD.replace('"mine"', '"tad-watch"'),
        "{file}: the task's name 'tad-watch' is that of a built-in task",
    ),
    "no name": (GOOD.replace('"mine"', "None"), "{file}: the task's name is None; it must be a text"),
    "protected as a text": (
        GOOD.replace('name = "mine"', 'name = "mine"\n    protected = "head"'),
        "{file}: the task's protected is 'head'; it must be a tuple of texts",
    ),
}


@pytest.mark.parametrize("situation", BROKEN)
def test_what_is_wrong_is_one_sentence(situation: str, file: Path) -> None:
    source, words = BROKEN[situation]
    file.write_text(source)
    with pytest.raises(UserError) as caught:
        read_task_file(str(file)).make()
    assert words.format(file=file) in str(caught.value)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


def test_an_error_in_a_file_beside_it_names_both_lines(file: Path, tmp_path: Path) -> None:
    (tmp_path / "my_broken_net.py").write_text("def net():\n    return 1 / 0\n")
    file.write_text("from my_broken_net import net\n\n\ndef make_task():\n    return net()\n")
    with pytest.raises(UserError) as caught:
        read_task_file(str(file)).make()
    assert str(caught.value) == f"{file}:5 (in my_broken_net.py:2): ZeroDivisionError: division by zero"


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"\x80\x81")
    with pytest.raises(UserError, match="is not Python"):
        read_task_file(str(file))


@pytest.mark.parametrize("name", ["missing.py", "missing.py:make_task", "."])
def test_no_such_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--task .*: (there is no file missing\.py|\. is a folder)"):
        read_task_file(name)
