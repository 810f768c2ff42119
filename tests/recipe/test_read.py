"""Bad recipes: every fault is reported, with file and line, exit code 2 and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.apply import main
from toolkit.base.errors import RecipeError
from toolkit.recipe.read import dump_recipe, load_recipe, read_recipe
from toolkit.recipe.recipe import Recipe
from toolkit.stages.block_drop.settings import BlockDrop

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
GOOD = """\
version: 1
name: good
task: tad-watch
seed: 0
device: cpu
stages:
  - type: block_drop
    num_blocks: 3
    criterion: loss
  - type: channel_prune
    keep:
      mlp: 0.25
  - type: recover
    learning_rate: 3e-4
measure:
  batch_sizes: [1]
"""
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\n" + GOOD


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


# name: (text, [(line, place and start of the message), ...])
BAD: dict[str, tuple[str | bytes, list[tuple[int | None, str]]]] = {
    "empty": ("", [(None, "the file is empty")]),
    "comments only": ("# nothing\n", [(None, "the file is empty")]),
    "binary": (b"\x00\x01\n\xff\xfe\x80", [(2, "is not text in UTF-8")]),
    "nul byte": (GOOD.encode() + b"\x00", [(17, "holds a control character")]),
    "utf-16": (GOOD.encode("utf-16"), [(1, "is not text in UTF-8")]),
    "too large": ("#" * 300_000, [(None, "is over 256 KB")]),
    "too deep": ("[" * 100_000, [(1, "nested too deeply: more than 16 levels")]),
    "tab": (edited("    num_blocks", "\tnum_blocks"), [(8, "not valid YAML: a tab")]),
    "syntax": (edited("seed: 0", "seed: [0"), [(5, "not valid YAML: ")]),
    "undefined alias": (edited("seed: 0", "seed: *x"), [(4, "not valid YAML: ")]),
    "two documents": (GOOD + "---\na: 1\n", [(17, "holds more than one YAML document")]),
    "directive": ("%YAML 1.1\n---\n" + GOOD, [(1, "directives")]),
    "a list": ("- 1\n- 2\n", [(1, "a recipe is a mapping (lines of key: value), not a list")]),
    "a word": ("hello\n", [(1, "a recipe is a mapping (lines of key: value), not text")]),
    "anchored whole": ("&a\n" + GOOD, [(1, "anchors, aliases")]),
    "duplicates": (
        edited("seed: 0", "seed: 0\nseed: 1\nseed: 2").replace("criterion: loss", "num_blocks: 4"),
        [
            (5, "seed: duplicate key, first given on line 4"),
            (6, "seed: duplicate key"),
            (11, "stages.0.num_blocks: dup"),
        ],
    ),
    "bomb": (
        BOMB,
        [(line, f"{name}: anchors, aliases and merge keys") for line, name in enumerate("abcd", start=1)],
    ),
    "recursive alias": (edited("[1]", "&x [*x]"), [(16, "measure.batch_sizes: anchors, aliases")]),
    "merge key": (
        edited("  - type: recover\n", "  - <<: {max_steps: 3}\n    type: recover\n"),
        [(13, "stages.2: anchors, aliases")],
    ),
    "tag": (edited("seed: 0", "seed: !!python/object:os.system 0"), [(4, "seed: tags (!name)")]),
    "standard tag": (edited("seed: 0", 'seed: !!int "0"'), [(4, "seed: tags (!name)")]),
    "number as key": (edited("seed: 0", "seed: 0\n3: x"), [(5, "a key must be a word, not '3'")]),
    "list as key": (edited("seed: 0", "seed: 0\n? [a]\n: x"), [(5, "a key must be a word, not a list")]),
    "strange key": (edited("seed: 0", 'seed: 0\n"a\\nb": x'), [(5, r"a key must be a word, not 'a\nb'")]),
    "unknown stage": (
        edited("type: block_drop", "type: blok_drop"),
        [
            (
                7,
                "stages.0.type: \"blok_drop\" is not a choice; did you mean 'block_drop'? "
                "choose one of: block_drop, channel_prune, recover",
            )
        ],
    ),
    "no stage type": (
        edited("- type: recover\n    learning", "- learning"),
        [(13, "stages.2.type: missing; choose one of: block_drop, channel_prune, recover")],
    ),
    "stage as a word": (
        edited("- type: recover\n    learning_rate: 3e-4", "- recover"),
        [(13, "stages.2: must be a map")],
    ),
    "misspelt key": (
        edited("num_blocks", "num_bloks"),
        [(8, "stages.0.num_bloks: unknown key; did you mean 'num_blocks'? the keys here are: type, num_blocks, ")],
    ),
    "misspelt kind": (
        edited("mlp:", "mpl:"),
        [(12, "stages.1.keep.mpl: unknown key; did you mean 'mlp'? the keys here are: mlp, heads, head_dim")],
    ),
    "missing keys": (
        "name: x\n",
        [(1, f"{key}: missing; the keys here") for key in ("task", "stages")],
    ),
    "ratio above 1": (
        edited("mlp: 0.25", "mlp: 1.5"),
        [(12, "stages.1.keep.mlp: 1.5 is out of range: must be at most 1.0")],
    ),
    "ratio 0": (edited("mlp: 0.25", "mlp: 0"), [(12, "stages.1.keep.mlp: 0 is out of range: must be above 0.0")]),
    "negative seed": (edited("seed: 0", "seed: -1"), [(4, "seed: -1 is out of range: must be at least 0")]),
    "huge seed": (edited("seed: 0", "seed: 2147483648"), [(4, "seed: 2147483648 is out of range: must be below")]),
    "endless seed": (edited("seed: 0", "seed: " + "9" * 5000), [(4, "seed: must be a whole number")]),
    "number in quotes": (
        edited("num_blocks: 3", 'num_blocks: "3"'),
        [(8, 'stages.0.num_blocks: "3" is a string in quotes; write 3 without quotes')],
    ),
    "version in quotes": (edited("version: 1", "version: '1'"), [(1, 'version: "1" is a string in quotes')]),
    "version true": (edited("version: 1", "version: true"), [(1, "version: true is not a choice; choose one of: 1")]),
    "version 2": (edited("version: 1", "version: 2"), [(1, "version: 2 is not a choice; choose one of: 1")]),
    "comma": (edited("0.25", "0,25"), [(12, 'stages.1.keep.mlp: must be a number, not the text "0,25"')]),
    "nan": (edited("0.25", ".nan"), [(12, "stages.1.keep.mlp: must be a finite number, not .nan")]),
    "inf": (edited("3e-4", "-.inf"), [(14, "stages.2.learning_rate: must be a finite number, not -.inf")]),
    "bool for a number": (edited("seed: 0", "seed: true"), [(4, "seed: must be a whole number, not true")]),
    "fraction of a block": (edited("num_blocks: 3", "num_blocks: 3.0"), [(8, "stages.0.num_blocks: must be a whole")]),
    "yes": (
        edited("criterion: loss", "allow_no_change: yes"),
        [(9, 'stages.0.allow_no_change: must be true or false, not the text "yes"')],
    ),
    "no value": (edited("seed: 0", "seed:"), [(4, "seed: must be a whole number, not empty")]),
    "list for a mapping": (
        edited("measure:\n  batch_sizes: [1]", "measure: [1]"),
        [(15, "measure: must be a mapping (key: value), not a list")],
    ),
    "word for a list": (edited("[1]", "1"), [(16, "measure.batch_sizes: must be a list, not 1")]),
    "empty list": (edited("[1]", "[]"), [(16, "measure.batch_sizes: must not be empty")]),
    "bad items": (
        edited("[1]", "\n    - 1\n    - '2'\n    - 0"),
        [(18, 'measure.batch_sizes.1: "2" is a string'), (19, "measure.batch_sizes.2: 0 is out of range")],
    ),
    "one bad item": (edited("[1]", "['2']"), [(16, 'measure.batch_sizes.0: "2" is a string')]),
    "device": (edited("device: cpu", "device: gpu"), [(5, 'device: "gpu" is not a choice; ')]),
    "criterion": (
        edited("criterion: loss", "criterion: block_mes"),
        [
            (
                9,
                "stages.0.criterion: \"block_mes\" is not a choice; did you mean 'block_mse'? choose one of: task",
            )
        ],
    ),
    "name": (edited("name: good", "name: ../up"), [(2, 'name: "../up" cannot be a name: it must be 1 to 80 letters')]),
    "name a number": (edited("name: good", "name: 3"), [(2, "name: must be text, not 3")]),
    "empty task": (edited("tad-watch", '""'), [(3, "task: must not be empty")]),
    "unknown task": (edited("tad-watch", "tad"), [(3, 'task: "tad" is not a known task; choose one of: tad-watch')]),
    "no target": (
        edited("    num_blocks: 3\n", ""),
        [(7, "stages.0: give a target: num_blocks, macs_ratio, max_quality_drop or blocks")],
    ),
    "two targets": (
        edited("num_blocks: 3", "num_blocks: 3\n    macs_ratio: 0.5"),
        [(7, "stages.0: give only one of num_blocks and macs_ratio")],
    ),
    "impossible target": (
        edited("num_blocks: 3", "num_blocks: 12"),
        [(8, "stages.0.num_blocks: 12 leaves no block: tad-watch has 12; drop at most 11 here")],
    ),
    "no-op": (edited("mlp: 0.25", "mlp: 1.0"), [(11, "stages.1.keep: would change nothing: ratios are of the unmod")]),
    "of every kind": (
        edited("tad-watch", "tad")
        .replace("seed: 0", "sead: 0")
        .replace("criterion: loss", "criterion: los")
        .replace("0.25", "1.0")
        .replace("[1]", "1\nmore: &a x"),
        [
            (3, "task: "),
            (4, "sead: unknown key; did you mean 'seed'?"),
            (9, "stages.0.criterion: "),
            (11, "stages.1.keep: would change nothing"),
            (16, "measure.batch_sizes: must be a list"),
            (17, "more: anchors"),
        ],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recipe(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, expected = BAD[name]
    file = tmp_path / "bad.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main([str(file), "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert not (tmp_path / "out").exists()
    found = err.splitlines()
    assert len(found) == len(expected), err
    for line, (number, start) in zip(found, expected, strict=True):
        where = f"{file}: " if number is None else f"{file}:{number}: "
        assert line.startswith(where + start), line
        for jargon in ("Traceback", "type=", "Value error", "Input should", "https://"):
            assert jargon not in line


@pytest.mark.parametrize(("place", "message"), [("missing.yaml", "no such file"), (".", "is a directory")])
def test_no_file(place: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / place)]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path / place}: {message}")


def test_good_recipe_with_lines(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text("\ufeff" + GOOD, encoding="utf-8")  # a byte order mark is no fault
    recipe, lines = read_recipe(file)
    assert recipe.stages[0] == BlockDrop(num_blocks=3, criterion="loss")
    assert recipe.stages[2].model_dump()["learning_rate"] == 3e-4
    assert lines.at(("stages", 0, "num_blocks")) == 8
    assert lines.at(("stages", 1, "keep", "mlp")) == 12
    assert lines.at(("stages", 1, "repair")) == 10  # not in the file: the line of its stage
    assert lines.at(("nowhere",)) == 1


def test_faults_carry_path_and_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(edited("seed: 0", "seed: x"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert [(fault.path, fault.line) for fault in caught.value.faults] == [(("seed",), 4)]


def test_recipes_are_found() -> None:
    assert len(RECIPES) >= 5


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_resolved_recipe_reads_back(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file)
    again = tmp_path / "resolved.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe
    assert load_recipe(again).sha256 == recipe.sha256
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_check_in_a_process_of_its_own_needs_no_torch() -> None:
    code = "import sys; from toolkit.apply import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code + "; sys.exit(code)", str(RECIPES[0]), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("version: 1\n")
    assert "Estimated run time: about" in done.stdout


def test_bad_recipe_in_a_process_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(edited("0.25", "2"))
    command = [sys.executable, "-m", "toolkit.apply", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{file}:12: stages.1.keep.mlp: 2 is out of range: must be at most 1.0\n"


@pytest.mark.parametrize(
    ("width", "place", "message"),
    [
        ("-1", "stages.0.widths.mlp", "-1 is out of range: must be at least 1"),
        ("x", "stages.0.widths.mlp", 'must be a whole number, not the text "x"'),
        ("{heads: 2, foo: 1}", "stages.0.widths.mlp.foo", "unknown key; the keys here are: heads, head_dim"),
        ("{heads: 0}", "stages.0.widths.mlp.heads", "0 is out of range: must be at least 1"),
    ],
)
def test_a_width_that_is_none_is_one_fault(width: str, place: str, message: str, tmp_path: Path) -> None:
    """A width is a number or a mapping: only the fault of the form that it has is told."""
    file = tmp_path / "widths.yaml"
    head, _, tail = GOOD.partition("stages:")
    measure = tail[tail.index("measure") :]
    file.write_text(f"{head}stages:\n  - {{type: channel_prune, widths: {{mlp: {width}}}}}\n{measure}")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert [(fault.place, fault.message) for fault in caught.value.faults] == [(place, message)]


def test_a_name_with_control_characters_is_quoted(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(GOOD.replace("task: tad-watch", r'task: "\e[31mred\nblue"'))
    with pytest.raises(RecipeError) as caught:
        read_recipe(file)
    (line,) = str(caught.value).splitlines()
    assert line.isprintable() and r"\u001b[31mred\nblue" in line


def test_what_a_recipe_leaves_out_is_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, full = tmp_path / "short.yaml", tmp_path / "full.yaml"
    short.write_text("name: short\ntask: tad-watch\nstages: []\n")
    full.write_text("version: 1\nseed: 0\ndevice: cpu\nmeasure: {}\n" + short.read_text())
    assert load_recipe(short).sha256 == load_recipe(full).sha256
    assert main([str(short), "--check"]) == 0
    shown = capsys.readouterr().out
    for line in ("version: 1\n", "seed: 0\n", "device: cpu\n", "measure:\n", "  repeats: 40\n", "  threads: 2\n"):
        assert f"\n{line}" in f"\n{shown}"


def test_faults_of_a_measure_are_found_where_the_device_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text("name: s\ntask: tad-watch\nstages: []\nseed: x\nmeasure: {precisions: [tf32]}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert [fault.place for fault in caught.value.faults] == ["seed", "measure.precisions.0"]
