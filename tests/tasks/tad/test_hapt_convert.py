"""The converter on a made-up miniature of the official archive, and on archives with faults."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from toolkit.base.errors import UserError
from toolkit.tasks.hapt import read_recordings
from toolkit.tasks.local_data import checksum, read_arrays
from toolkit.tasks.tad.hapt import convert as hapt_convert
from toolkit.tasks.tad.hapt.convert import main, read_archive

FILES = {
    "README.txt": "made up",
    "RawData/acc_exp01_user01.txt": "9.1805557e-01 -1.1250000e-01 5.0972222e-01 \n" * 8,
    "RawData/gyro_exp01_user01.txt": " -0.05497787 -0.06963864 -0.03084869\n" * 8,
    "RawData/acc_exp12_user06.txt": "1 2 3\n4 5 6\n7 8 9\n",
    "RawData/gyro_exp12_user06.txt": "-1 -2 -3\n-4 -5 -6\n-7 -8 -9\n",
    "RawData/labels.txt": "1 1 5 2 4\n1 1 7 5 8 \n12 6 12 1 3\n",
    "Train/X_train.txt": "0 0",
}


def made_up_archive(folder: Path, changes: dict[str, str | None] | None = None, inside: str = "") -> Path:
    """The miniature with some files changed, or left out (None)."""
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**FILES, **(changes or {})}.items():
            if text is not None:
                archive.writestr(inside + name, text)
    return path


@pytest.mark.parametrize("inside", ["", "HAPT Data Set/", "a/b/"])
def test_the_layout_is_that_of_the_published_file(tmp_path: Path, inside: str) -> None:
    resource_fork = "__MACOSX/HAPT Data Set/RawData/labels.txt"  # a Mac's zip has these: not data
    arrays = read_archive(made_up_archive(tmp_path, {resource_fork: "x"} if not inside else None, inside))
    assert set(arrays) == {"exp01_user01", "exp12_user06", "labels"}
    assert arrays["labels"].dtype == np.int32
    assert arrays["labels"].tolist() == [[1, 1, 5, 2, 4], [1, 1, 7, 5, 8], [12, 6, 12, 1, 3]]
    assert arrays["exp12_user06"].dtype == np.float32
    assert arrays["exp12_user06"].tolist() == [[1, 2, 3, -1, -2, -3], [4, 5, 6, -4, -5, -6], [7, 8, 9, -7, -8, -9]]
    row = np.float32([0.91805557, -0.1125, 0.50972222, -0.05497787, -0.06963864, -0.03084869])
    assert (arrays["exp01_user01"] == row).all() and len(arrays["exp01_user01"]) == 8


def test_what_is_written_is_what_the_task_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive, out = made_up_archive(tmp_path), tmp_path / "data" / "hapt" / "hapt_raw_f32.npz"
    assert main([str(archive), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "2 recordings, 3 labelled segments" in printed and "are NOT the published ones" in printed
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    first, second = read_recordings(out, checksum(read_archive(archive)))
    assert (first.bounds.tolist(), first.labels.tolist()) == ([[1, 4], [4, 8]], [4, 6])
    assert (second.name, second.bounds.tolist(), second.labels.tolist()) == ("exp12_user06", [[0, 3]], [11])


def test_it_says_when_the_arrays_are_the_published_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = made_up_archive(tmp_path), tmp_path / "out.npz"
    monkeypatch.setattr(hapt_convert, "SHA256", checksum(read_archive(archive)))
    assert main([str(archive), "--out", str(out)]) == 0
    assert "the arrays are the published ones" in capsys.readouterr().out
    assert checksum(read_arrays(out, "get it again")) == checksum(read_archive(archive))


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.npz"
    out.write_text("mine")
    assert main([str(made_up_archive(tmp_path)), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = made_up_archive(tmp_path)
    assert main([str(archive), "--out", str(archive / "out.npz")]) == 2
    assert "out.npz: cannot be written" in capsys.readouterr().err


def test_a_file_that_is_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, cut_off, out = tmp_path / "text.zip", made_up_archive(tmp_path), tmp_path / "out.npz"
    text.write_text("not a zip")
    cut_off.write_bytes(cut_off.read_bytes()[:-300])
    for path in (text, cut_off, tmp_path / "missing.zip"):
        assert main([str(path), "--out", str(out)]) == 2
        assert f"{path}: cannot be read as a zip archive" in capsys.readouterr().err
    assert not out.exists()


def test_a_flipped_byte_in_the_archive(tmp_path: Path) -> None:
    path = made_up_archive(tmp_path)
    content = bytearray(path.read_bytes())
    name = b"RawData/labels.txt"
    content[content.index(name) + len(name) + 4] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a zip archive"):
        read_archive(path)


FAULTS: dict[str, tuple[dict[str, str | None], str]] = {
    "no labels": ({"RawData/labels.txt": None}, "one RawData/labels.txt was expected, but no folder has it"),
    "two folders": ({"again/RawData/labels.txt": "1 1 1 1 1"}, "expected, but 2 folders have it"),
    "no gyro": ({"RawData/gyro_exp01_user01.txt": None}, "exp01_user01 has only acc data; acc and gyro are needed"),
    "lengths": ({"RawData/acc_exp12_user06.txt": "1 2 3\n"}, "exp12_user06: acc has 1 samples, gyro has 3"),
    "columns": ({"RawData/acc_exp12_user06.txt": "1 2\n" * 3}, "RawData/acc_exp12_user06.txt: has 2 columns"),
    "ragged": ({"RawData/acc_exp12_user06.txt": "1 2 3\n1 2\n"}, "RawData/acc_exp12_user06.txt: "),
    "text": ({"RawData/acc_exp12_user06.txt": "1 2 x\n" * 3}, "RawData/acc_exp12_user06.txt: could not convert"),
    "empty": ({"RawData/acc_exp12_user06.txt": " \n"}, "RawData/acc_exp12_user06.txt: is empty"),
    "not finite": (
        {"RawData/acc_exp12_user06.txt": "1 2 nan\n" * 3},
        "acc_exp12_user06.txt: holds numbers that are not",
    ),
    "too large": (
        {"RawData/acc_exp12_user06.txt": "1 2 1e39\n" * 3},
        "acc_exp12_user06.txt: holds numbers that are not",
    ),
    "label columns": ({"RawData/labels.txt": "1 1 5 2\n"}, "labels.txt: has 4 columns, expected 5"),
    "fraction": ({"RawData/labels.txt": "1 1 5 2 4.5\n"}, "labels.txt:1: [1.0, 1.0, 5.0, 2.0, 4.5] are not whole"),
    "class": ({"RawData/labels.txt": "1 1 5 2 4\n1 1 13 5 8\n"}, "labels.txt:2: class 13 is not in 1 to 12"),
    "recording": ({"RawData/labels.txt": "3 2 5 2 4\n"}, "labels.txt:1: there is no complete recording exp03_user02"),
    "start": ({"RawData/labels.txt": "1 1 5 0 4\n"}, "labels.txt:1: samples 0 to 4 are not in 1 to 8 of exp01_user01"),
    "end": ({"RawData/labels.txt": "1 1 5 2 9\n"}, "labels.txt:1: samples 2 to 9 are not in 1 to 8 of exp01_user01"),
    "order": ({"RawData/labels.txt": "1 1 5 4 3\n"}, "labels.txt:1: samples 4 to 3 are not in"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes, message = FAULTS[fault]
    path, out = made_up_archive(tmp_path, changes), tmp_path / "out.npz"
    assert main([str(path), "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert f"{path}: " in printed and message in printed
    assert not out.exists()


def test_all_faults_are_told_at_once_up_to_twenty(tmp_path: Path) -> None:
    path = made_up_archive(tmp_path, {"RawData/labels.txt": "1 1 13 0 4\n" * 30})
    with pytest.raises(UserError) as caught:
        read_archive(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21 and lines[-1] == f"{path}: and 40 more"
