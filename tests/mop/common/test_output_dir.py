"""The folder of a command: one process, one command's settings, nothing left of a command that did nothing."""

import pytest

from mop.common.errors import InputError
from mop.common.files import open_output_dir


def refused(folder, words, **options):
    with pytest.raises(InputError, match=words), open_output_dir(folder, **options):
        pass


def test_settings_are_kept_and_compared(tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        with open_output_dir(out, settings={"lr": 1, "sizes": (1, 2)}) as folder:
            assert folder == out and (out / "config.json").exists()
    refused(out, "out was made with other settings; choose another --out", settings={"lr": 2, "sizes": (1, 2)})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    refused(tmp_path / "other", "other holds something else", settings={})


def test_one_process_at_a_time_and_only_where_one_can_write(tmp_path):
    with open_output_dir(tmp_path / "out"):
        refused(tmp_path / "out", "another process .* choose another --name", other="another --name")
    (tmp_path / "file").touch()
    refused(tmp_path / "file" / "out", "--data_dir", flag="--data_dir")


def test_what_is_empty_or_left_over_goes(tmp_path):
    with open_output_dir(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a").exists()
    leftover = tmp_path / "out" / ".log.csv.0123456789ab.tmp"
    leftover.parent.mkdir()
    leftover.touch()
    with open_output_dir(tmp_path / "out") as folder:
        (folder / "result").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result"]
