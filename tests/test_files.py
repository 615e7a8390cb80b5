"""Files are replaced as a whole, and a claim is one process's only."""

import subprocess
import sys
import tempfile

import pytest
from checks import files_below
from conftest import REPOSITORY

from mop.base.files import claimed, write_atomic


def test_write_atomic_makes_parents_and_keeps_the_usual_mode(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    for content in (b"first", b"second"):
        write_atomic(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    with path.open("rb") as reader:
        write_atomic(path, lambda file: file.write(b"third"))
        assert reader.read() == b"second", "who has the old file open reads all of the old content"
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode
    assert files_below(tmp_path) == ["a/b/file.txt", "plain"]


def test_an_exception_in_the_writer_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half of the n")
        raise KeyboardInterrupt

    for target in (path, tmp_path / "new.txt"):
        with pytest.raises(KeyboardInterrupt):
            write_atomic(target, fail)
    assert path.read_bytes() == b"old" and files_below(tmp_path) == ["file.txt"]


def test_a_claim_is_one_process_only_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with claimed("a run") as first, claimed("a run") as second, claimed("another") as other:
        assert (first, second, other) == (True, False, True)
        assert len(files_below(tmp_path)) == 2
    with claimed("a run") as again:
        assert again
    assert files_below(tmp_path) == []


def test_claims_of_many_processes_never_overlap(tmp_path):
    program = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from mop.base.files import claimed
num_claims = 0
end = time.monotonic() + 2
while time.monotonic() < end:
    with claimed("a run") as is_ours:
        if is_ours:
            with open(sys.argv[1] + "/owner", "x"):  # fails if another process is in here
                pass
            num_claims += 1
            __import__("os").unlink(sys.argv[1] + "/owner")
print(num_claims)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert len(counts) == 3 and sum(counts) > 100 and all(process.returncode == 0 for process in processes)
    assert files_below(tmp_path) == []
