"""Holds the floor plan: layers, who may know what, sizes and names. Every rule is also seen to fail on an offender."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.helpers import import_rules, name_rules, size_rules
from tests.helpers.source import ROOT, Module, Modules, parse, read_modules

MODULES = read_modules()

RULES: tuple[Callable[[Modules], list[str]], ...] = (
    import_rules.lower_layers_alone,
    import_rules.no_cycles,
    import_rules.imports_at_the_top,
    import_rules.root_is_the_commands,
    import_rules.reports_stand_apart,
    import_rules.siblings_apart,
    import_rules.heavy_packages_have_one_importer,
    name_rules.few_name_stages,
    name_rules.few_name_zoo,
    name_rules.few_register_hooks,
    name_rules.private_names_stay_private,
    name_rules.hashes_and_replaces_in_one_place,
    name_rules.models_have_two_bases,
    name_rules.class_names_once,
    size_rules.packages_say_what_they_hold,
    size_rules.everything_is_short,
)

MAIN = "def main(argv=None):\n    return 0\n"

# the rule that is broken, and the files that break it and no other rule
OFFENDERS: list[tuple[Callable[[Modules], list[str]], dict[str, str]]] = [
    (import_rules.lower_layers_alone, {"toolkit.base.made_up": "from toolkit.hooks.modes import evaluating"}),
    (import_rules.lower_layers_alone, {"toolkit.base.made_up": "from ..hooks.modes import evaluating"}),
    (import_rules.lower_layers_alone, {"toolkit.zoo.made_up": "import toolkit.blocks.find"}),
    (import_rules.lower_layers_alone, {"toolkit.running.made_up": "from toolkit import load_recipe"}),
    (import_rules.lower_layers_alone, {"toolkit.attic.made_up": "from toolkit.base.errors import UserError"}),
    (
        import_rules.no_cycles,
        {
            "toolkit.base.made_up": "from toolkit.base.made_up_too import b",
            "toolkit.base.made_up_too": "from .made_up import a",
        },
    ),
    (
        import_rules.imports_at_the_top,
        {"toolkit.hooks.made_up": "def f():\n    from toolkit.base.errors import UserError"},
    ),
    (import_rules.root_is_the_commands, {"toolkit.made_up": "LIBRARY = 1"}),
    (import_rules.root_is_the_commands, {"toolkit.made_up": MAIN + "# more\n" * 160}),
    (import_rules.root_is_the_commands, {"toolkit.made_up": f"from toolkit.plan import main\n{MAIN}"}),
    (import_rules.reports_stand_apart, {"toolkit.made_up": f"from reports.run.page import write_page\n{MAIN}"}),
    (import_rules.reports_stand_apart, {"reports.made_up": "from toolkit.planning.budget import Budget"}),
    (import_rules.reports_stand_apart, {"reports.made_up": "from toolkit.stages.recover.apply import apply_recover"}),
    (import_rules.reports_stand_apart, {"reports.made_up": "import torch"}),
    (
        import_rules.siblings_apart,
        {"toolkit.stages.recover.made_up": "from toolkit.stages.align.apply import align_model"},
    ),
    (
        import_rules.siblings_apart,
        {"toolkit.tasks.tad.watch.made_up": "from toolkit.tasks.tad.hapt.task import FOLDER"},
    ),
    (import_rules.heavy_packages_have_one_importer, {"toolkit.measure.made_up": "import fvcore.nn"}),
    (import_rules.heavy_packages_have_one_importer, {"toolkit.stages.made_up": "from peft import LoraConfig"}),
    (
        name_rules.few_name_stages,
        {"toolkit.recipe.made_up": "from toolkit.stages.recover.settings import Recover"},
    ),
    (name_rules.few_name_stages, {"reports.made_up": "from toolkit.stages.align.settings import Align as Other"}),
    (name_rules.few_name_zoo, {"toolkit.running.made_up": "from toolkit.tasks.agreement.card import ZOO"}),
    (name_rules.few_name_zoo, {"toolkit.running.made_up": "IS_ZOO = 'x' == 'zoo'"}),
    (
        name_rules.few_register_hooks,
        {"toolkit.training.made_up": "def f(model):\n    model.register_forward_hook(print)"},
    ),
    (name_rules.private_names_stay_private, {"toolkit.stages.made_up": "from torch.utils._pytree import tree_map"}),
    (name_rules.private_names_stay_private, {"toolkit.stages.made_up": "def f(m):\n    return m._parameters"}),
    (name_rules.hashes_and_replaces_in_one_place, {"toolkit.recipe.made_up": "import hashlib"}),
    (name_rules.hashes_and_replaces_in_one_place, {"reports.made_up": "import os\nos.replace('a', 'b')"}),
    (
        name_rules.models_have_two_bases,
        {"toolkit.base.made_up": "from pydantic import BaseModel\nclass Made(BaseModel):\n    x: int"},
    ),
    (name_rules.class_names_once, {"toolkit.base.made_up": "class ChannelGroup:\n    pass"}),
    (size_rules.everything_is_short, {"toolkit.base.made_up": "X = 1\n" * 251}),
    (size_rules.everything_is_short, {"toolkit.base.made_up": "def f():\n" + "    print()\n" * 50}),
    (
        size_rules.everything_is_short,
        {"toolkit.base.made_up": "class Made:\n    def f(self, a, b, c, d, e, /, f, *g, h, **i):\n        pass"},
    ),
]


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 150
    assert {name.split(".")[0] for name in MODULES} == {"toolkit", "reports"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_holds(rule: Callable[[Modules], list[str]]) -> None:
    assert rule(MODULES) == []


@pytest.mark.parametrize(
    ("rule", "files"), OFFENDERS, ids=[f"{number}-{rule.__name__}" for number, (rule, _) in enumerate(OFFENDERS)]
)
def test_an_offender_breaks_its_rule_alone(rule: Callable[[Modules], list[str]], files: dict[str, str]) -> None:
    made_up = {name: parse(name, source) for name, source in files.items()}
    broken = {each: set(each({**MODULES, **made_up})) - set(each(MODULES)) for each in RULES}
    assert {each for each, faults in broken.items() if faults} == {rule}
    assert all("made_up" in fault for fault in broken[rule])


def test_a_folder_without_docstring_breaks_the_rule() -> None:
    package = {"toolkit.base": parse("toolkit.base", "", is_package=True)}
    assert size_rules.packages_say_what_they_hold({**MODULES, **package}) == [
        "toolkit.base has no docstring of one line"
    ]


def test_every_rule_has_an_offender() -> None:
    assert {rule for rule, _ in OFFENDERS} | {size_rules.packages_say_what_they_hold} == set(RULES)


def test_every_exception_is_needed() -> None:
    """What is allowed by name exists and would be an offence: an exception does not outlive its reason."""
    functions = {n: f for module in MODULES.values() for n, f in size_rules.qualified(module.tree, module.name)}
    for name in size_rules.MANY_PARAMETERS:
        assert size_rules.num_parameters(functions[name]) > size_rules.MOST_PARAMETERS
    places = {*name_rules.NAMES_STAGES, *name_rules.NAMES_ZOO, *import_rules.SEES_REPORTS}
    assert places <= set(MODULES)


def folder_table(modules: dict[str, Module]) -> dict[str, str]:
    """Returns the docstring of every folder of `toolkit`, by its path below `toolkit`."""
    return {
        "/".join(name.split(".")[1:]) + "/": size_rules.docstring(module)
        for name, module in modules.items()
        if module.is_package and name.startswith("toolkit.")
    }


def rows_of(page: str) -> dict[str, str]:
    return dict(re.findall(r"^\| `([a-z0-9_/]+/)` \| (.*) \|$", page, flags=re.MULTILINE))


def test_the_readme_lists_the_folders_that_exist() -> None:
    page = (ROOT / "toolkit" / "README.md").read_text(encoding="utf-8")
    assert rows_of(page) == folder_table(MODULES)
    on_disk = {path.parent for path in (ROOT / "toolkit").rglob("*.py")} - {ROOT / "toolkit"}
    assert set(rows_of(page)) == {f"{path.relative_to(ROOT / 'toolkit').as_posix()}/" for path in on_disk}
    assert rows_of(page.replace("| `hooks/` |", "| `hocks/` |")) != folder_table(MODULES)
