"""Opens a saved model together with what builds the unmodified one, because some formats describe the difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from toolkit.checkpoint.factory import check_made_for, example_inputs_of, origin_of
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.manifest import MANIFEST_FILE, Manifest, read_manifest
from toolkit.running.folder import MODEL_FOLDER
from toolkit.tasks.task import Task
from toolkit.zoo.build import build_zoo_model
from toolkit.zoo.settings import ZooModel


@dataclass(frozen=True)
class SavedModel:
    """Holds a saved model's folder and manifest, and what builds the unmodified model.

    origin: the task whose `build_model` builds it, or the model of a zoo.
    is_own: whether the origin is the user's own task, which the manifest cannot name.
    """

    folder: Path
    manifest: Manifest
    origin: Task | ZooModel
    is_own: bool = False

    @property
    def example_inputs(self) -> Callable[[int], tuple[Tensor, ...]]:
        """Returns the function that gives the model's inputs for a number of examples."""
        return example_inputs_of(self.origin)

    def build_dense(self) -> nn.Module:
        """Returns the unmodified model with untrained weights, in eval mode."""
        if isinstance(self.origin, ZooModel):
            return build_zoo_model(self.origin.name, self.origin.arguments)
        return self.origin.build_model().eval()

    def load(self) -> nn.Module:
        """Returns the saved model, in eval mode on the CPU.

        Raises:
            CheckpointError: the folder is damaged.
        """
        return load_model(self.folder, self.build_dense() if self.is_own else None)


def open_saved(directory: Path, task: Task | None = None) -> SavedModel:
    """Returns the saved model in a folder, or in the folder of a run.

    task: the task that the model was made for, if that is the user's own.

    Raises:
        CheckpointError: there is no saved model, or it is damaged.
        ExportError: it was made for another task, or for one of its user's own that is not given.
    """
    folder = directory
    if not (folder / MANIFEST_FILE).exists() and (folder / MODEL_FOLDER / MANIFEST_FILE).exists():
        folder = folder / MODEL_FOLDER
    place = folder / MANIFEST_FILE
    manifest = read_manifest(place)
    if task is None:
        return SavedModel(folder, manifest, origin_of(manifest, place))
    check_made_for(manifest, task.name, place)
    return SavedModel(folder, manifest, task, is_own=True)
