"""Holds the layout of a run's folder, and refuses folders that must not be written to."""

from __future__ import annotations

from pathlib import Path

from toolkit.base.errors import RecordError, UserError
from toolkit.base.files import write_atomically
from toolkit.measure.environment import describe_environment
from toolkit.recipe.read import RESOLVED_FILE, dump_recipe
from toolkit.recipe.recipe import Recipe
from toolkit.record.run import RUN_FILE, RunRecord, load_record

MODEL_FOLDER = "model"

STAGES_FOLDER = "stages"


def begin_record(record: RunRecord, out: Path) -> None:
    """Writes the files of a new run; a run that is refused must be refused before, so that it leaves nothing behind."""
    write_atomically(out / RESOLVED_FILE, dump_recipe(record.recipe))
    record.save(out)


def open_record(recipe: Recipe, out: Path, resume: bool) -> RunRecord:
    """Returns the record to resume, or a new record for an empty folder, in which nothing is written yet.

    Raises:
        UserError: `out` holds something already and `resume` is off.
        RecordError: the record is damaged, belongs to another recipe, or was begun with another task file or in another
            environment.
    """
    environment = describe_environment()
    if not resume:
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file; choose another --out")
        if out.exists() and any(out.iterdir()):
            raise UserError(
                f"{out} exists already; continue that run with --resume, choose another --out, or remove the folder"
            )
        out.mkdir(parents=True, exist_ok=True)
        return RunRecord(recipe=recipe, recipe_sha256=recipe.sha256, environment=environment)
    if not (out / RUN_FILE).exists():
        raise UserError(f"{out} holds no {RUN_FILE}, so there is nothing to resume; start without --resume")
    record = load_record(out)
    is_of_this_version = record.recipe_sha256 == record.recipe.sha256
    if not is_of_this_version or not record.recipe.is_same_but_for_its_task_file(recipe):
        raise RecordError(
            f"{out / RUN_FILE} belongs to another recipe, or another version of it; "
            "choose another --out, or remove the folder"
        )
    recorded_task, given_task = record.recipe.own_task, recipe.own_task
    if recorded_task is not None and given_task is not None and recorded_task.is_other_than(given_task):
        raise RecordError(
            f"{out / RUN_FILE} was begun with the task of {recorded_task.in_words()}, but this one is of "
            f"{given_task.in_words()}: it may make another model or read other data; restore the file as it was, or "
            "start a new run with another --out"
        )
    if record.environment != environment:
        changed = [
            f"{name} was {getattr(record.environment, name)}, is {getattr(environment, name)}"
            for name in type(environment).model_fields
            if getattr(record.environment, name) != getattr(environment, name)
        ]
        raise RecordError(
            f"{out / RUN_FILE} was begun in another environment ({'; '.join(changed)}); choose another --out"
        )
    return record
