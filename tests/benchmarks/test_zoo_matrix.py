"""The zoo matrix: its specification, when a cell passes, and the table with its failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.base.errors import RecipeError, RecordError
from toolkit.benchmarks.zoo_matrix.cell import CELL_FILE, Cell, Exported, load_cell
from toolkit.benchmarks.zoo_matrix.settings import ORDERS, folder_of, read_matrix
from toolkit.benchmarks.zoo_matrix.table import write_zoo_table

SHIPPED = Path(__file__).parents[2] / "recipes" / "matrix" / "zoo.yaml"
GOOD = Cell(
    model="timm/a",
    order="depth",
    macs_ratio=0.69,
    macs_are_there=True,
    reload_error=0.0,
    exports=(Exported(format="onnx", relative=1e-6, any_batch_size=True),),
)


def test_the_shipped_matrix_has_recipes_of_the_asked_families() -> None:
    matrix = read_matrix(SHIPPED)
    assert len(matrix.models) >= 20
    families = [matrix.recipe(matrix.models[0], order, 0.8).family for order in ORDERS]
    assert families == ["depth", "width", "combined", "combined"]
    last = matrix.recipe(matrix.models[0], "width_then_depth", 0.8).stages[0]
    assert last.macs_ratio == 0.8
    assert len({folder_of(model) for model in matrix.models}) == len(matrix.models)


def test_faults_have_lines(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text("version: 1\nmacs_ratio: 1.7\nmacs_tolerance: 0.02\nmodels:\n  - {name: timm/a, arms: 2}\n")
    with pytest.raises(RecipeError) as caught:
        read_matrix(path)
    assert [(fault.line, fault.place) for fault in caught.value.faults] == [(2, "macs_ratio"), (5, "models.0.arms")]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, ""),
        ({"reason": "no blocks"}, "no blocks"),
        ({"macs_are_there": False}, "the MACs are at 0.69"),
        ({"reload_error": 2e-6}, "reloaded, the outputs differ by 2e-06"),
        ({"reload_error": float("inf")}, "reloaded, the outputs differ by inf"),
        ({"reload_error": None}, "reloaded, the outputs differ by None"),
        ({"exports": ()}, "not exported"),
        ({"exports": (Exported(format="onnx", relative=None, reason="no such operator"),)}, "onnx: no such operator"),
    ],
)
def test_when_a_cell_passes(change: dict[str, object], fault: str) -> None:
    cell = GOOD.model_copy(update=change)
    assert (cell.fault, cell.passes) == (fault, fault == "")


def test_cells_are_kept_and_damage_is_named(tmp_path: Path) -> None:
    assert load_cell(tmp_path) is None
    GOOD.save(tmp_path)
    assert load_cell(tmp_path) == GOOD
    (tmp_path / CELL_FILE).write_text("{}")
    with pytest.raises(RecordError, match="damaged or not a cell"):
        load_cell(tmp_path)


def test_the_table_leaves_no_failure_out(tmp_path: Path) -> None:
    bad = GOOD.model_copy(update={"order": "width", "reason": "the model has no channels"})
    write_zoo_table(tmp_path, [GOOD, bad], 0.7)
    table = (tmp_path / "table.md").read_text()
    assert table.startswith("# Zoo matrix: 1 of 2 cells pass")
    assert "| timm/a | 0.690, onnx | **fails** | not run | not run |" in table
    assert "- **timm/a, width**: the model has no channels" in table
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 3
