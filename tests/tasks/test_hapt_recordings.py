"""The file of HAPT recordings is read only if its arrays are the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.made_up_hapt import made_up_arrays
from toolkit.base.errors import UserError
from toolkit.tasks.hapt import load_recordings, read_recordings
from toolkit.tasks.local_data import checksum


def test_changed_arrays_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = made_up_arrays(range(1, 2))
    right = checksum(arrays)
    path = tmp_path / "hapt" / "hapt_raw_f32.npz"
    path.parent.mkdir()
    np.savez_compressed(path, **dict(reversed(arrays.items())))
    assert len(read_recordings(path, right)) == 2  # neither order nor compression counts
    monkeypatch.setenv("TOOLKIT_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"the SHA-256 of its arrays is .*, expected ffc99ebf"):
        load_recordings()
    for key, change in (("labels", (0, 4)), ("exp01_user01", (7, 3))):
        damaged = {name: values.copy() for name, values in arrays.items()}
        damaged[key][change] += 1
        assert checksum(damaged) != right
        np.savez(path, **damaged)
        with pytest.raises(UserError, match=rf"expected {right}; download .* UCI dataset 341"):
            read_recordings(path, right)
    for other in (
        {**arrays, "labels": arrays["labels"].astype(np.int64)},
        {**arrays, "labels": arrays["labels"].reshape(5, -1)},
        {name.replace("user01", "user02"): values for name, values in arrays.items()},
    ):
        assert checksum(other) != right


def test_files_that_are_no_plain_arrays_are_refused(tmp_path: Path) -> None:
    text, pickled, single, cut_off = (tmp_path / name for name in ("a.npz", "b.npz", "c.npz", "d.npz"))
    text.write_text("not a zip")
    np.savez(pickled, labels=np.asarray([{}], dtype=object))
    with open(single, "wb") as file:
        np.save(file, np.zeros(3))
    np.savez(cut_off, **made_up_arrays(range(1, 2)))
    cut_off.write_bytes(cut_off.read_bytes()[:-500])
    for path in (text, pickled, single, cut_off, tmp_path / "missing.npz", tmp_path):
        with pytest.raises(UserError, match="cannot be read as an npz file of arrays"):
            read_recordings(path)
