"""What `measure` may ask for: runtimes and precisions that the device can do, found before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.apply import main
from toolkit.base.errors import RecipeError
from toolkit.measure import possible
from toolkit.measure.possible import is_possible
from toolkit.measure.results import MeasurementKey
from toolkit.measure.runtimes import compiled
from toolkit.recipe.changes import ChangedValue
from toolkit.recipe.estimate import estimate_s
from toolkit.recipe.read import dump_recipe, load_recipe, read_recipe
from toolkit.recipe.recipe import Measure
from toolkit.sweeping.settings import read_sweep
from toolkit.tasks.cards import TASKS

TEXT = """\
version: 1
name: x
task: tad-watch
seed: 0
device: cpu
stages: []
measure:
  batch_sizes: [1]
  precisions: [float32, bfloat16]
  runtimes: [eager]
"""

SWEEP = """\
version: 1
name: x
device: cpu
seeds: [{seed: 0, task: tad-watch}]
variants:
  none: [{type: block_drop, num_blocks: 1}]
  other: [{type: block_drop, num_blocks: 2}]
measure: {precisions: [tf32]}
"""


def written(folder: Path, *changes: tuple[str, str], text: str = TEXT) -> Path:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / "x.yaml"
    file.write_text(text)
    return file


def lines(file: Path) -> list[str]:
    with pytest.raises(RecipeError) as error:
        load_recipe(file)
    return [line.removeprefix(f"{file}:") for line in str(error.value).splitlines()]


TF32_ON_CPU = '9: measure.precisions.1: "tf32" needs a CUDA device; on device cpu choose from: float32, bfloat16'

NO_GRAPH = '10: measure.runtimes.0: "cuda_graph" needs a CUDA device; on device cpu choose from: eager, compile'


@pytest.fixture(autouse=True)
def _with_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.shutil, "which", lambda name: f"/bin/{name}")


def test_what_the_cpu_cannot_do_is_a_fault_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, ("bfloat16", "tf32"), ("[eager]", "[cuda_graph]"))
    assert lines(file) == [TF32_ON_CPU, NO_GRAPH]
    assert main([str(file), "--check"]) == 2
    assert TF32_ON_CPU in capsys.readouterr().err


def test_they_are_found_beside_faults_of_form(tmp_path: Path) -> None:
    file = written(tmp_path, ("bfloat16", "tf32"), ("seed: 0", "seed: -1"))
    assert lines(file)[1:] == [TF32_ON_CPU]


def test_the_device_of_the_command_line_is_the_one_that_counts(tmp_path: Path) -> None:
    file = written(tmp_path, ("bfloat16", "tf32"), ("[eager]", "[cuda_graph]"))
    recipe, _ = read_recipe(file, changes=[ChangedValue("--device cuda", ("device",), "cuda")])
    assert (recipe.device, recipe.measure.precisions) == ("cuda", ("float32", "tf32"))
    file = written(tmp_path, ("bfloat16", "tf32"), ("device: cpu", "device: cuda"))
    with pytest.raises(RecipeError, match="tf32"):
        read_recipe(file, changes=[ChangedValue("--device cpu", ("device",), "cpu")])


@pytest.mark.parametrize(
    ("device", "variable", "words"),
    [
        ("cpu", "CXX", "a C++ compiler, and c-plus is not found here (CXX can name another one)"),
        ("cuda", "CC", "a C compiler, and c-plus is not found here (CC can name another one)"),
    ],
)
def test_compile_needs_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, variable: str, words: str
) -> None:
    file = written(tmp_path, ("[eager]", "[eager, compile]"), ("device: cpu", f"device: {device}"))
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda _: object())
    assert load_recipe(file).measure.runtimes == ("eager", "compile")
    monkeypatch.setenv(variable, "c-plus -O2" if device == "cpu" else "c-plus")
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    (found,) = lines(file)
    assert found.startswith('10: measure.runtimes.1: "compile" needs a C') and "choose from: eager" in found
    assert words.replace("c-plus", "c-plus -O2" if device == "cpu" else "c-plus") in found


def test_compile_on_cuda_needs_triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda _: None)
    file = written(tmp_path, ("[eager]", "[compile]"), ("device: cpu", "device: cuda"))
    assert (
        "needs the package triton, which is not installed here; on device cuda choose from: eager, cuda_g"
        in lines(file)[0]
    )


def test_tf32_needs_a_device_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old")
    for capability, needs in (((7, 5), "a CUDA device of compute capability 8.0, and Old is older"), ((8, 0), None)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda found=capability: found)
        assert possible.precision_needs("tf32", "cuda") == needs
        key = MeasurementKey(device="cuda:1", precision="tf32", batch_size=1)
        assert is_possible(key) is (needs is None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[eager]", "[eager, eager]", "measure: runtimes has eager twice"),
        ("bfloat16]", "float32]", "measure: precisions has float32 twice"),
        ("[eager]", "[onnx]", '"onnx" is not a choice; choose one of: eager, compile, cuda_graph'),
        ("bfloat16]", "float16]", '"float16" is not a choice; did you mean'),
        ("[eager]", "eager", 'measure.runtimes: must be a list, not the text "eager"'),
        ("[eager]", "[]", "measure.runtimes: must not be empty"),
    ],
)
def test_what_is_no_list_of_choices(tmp_path: Path, old: str, new: str, message: str) -> None:
    (found,) = lines(written(tmp_path, (old, new)))
    assert message in found


def test_recipes_from_before_keep_their_hash_and_their_text(tmp_path: Path) -> None:
    assert set(Measure().model_dump()) == {"batch_sizes", "threads", "repeats", "warmup", "splits"}
    recipe = load_recipe(written(tmp_path))
    assert "bfloat16" in dump_recipe(recipe) and "runtimes" not in dump_recipe(recipe)
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml").sha256 == recipe.sha256


def test_every_runtime_and_precision_takes_its_time(tmp_path: Path) -> None:
    recipe, card = load_recipe(written(tmp_path)), TASKS["tad-watch"]
    more = recipe.measure.model_copy(update={"precisions": ("float32",)})
    one, two = (estimate_s(recipe.model_copy(update={"measure": measure}), card) for measure in (more, recipe.measure))
    assert one is not None and two is not None and two - one == pytest.approx(90 * card.costs.forward_s)


def test_sweeps_are_told_once(tmp_path: Path) -> None:
    file = written(tmp_path, text=SWEEP)
    with pytest.raises(RecipeError) as error:
        read_sweep(file)
    assert [(fault.place, fault.line) for fault in error.value.faults] == [("measure.precisions.0", 8)]
