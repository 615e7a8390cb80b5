"""Files are replaced as a whole, and a lock is one process's only."""

import errno
import fcntl
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from checks import files_below, one_line, refusal
from scripts import PATIENCE_S, REPOSITORY

from mop.common.files import (
    check_writable,
    file_digest,
    find_files,
    folder_lock,
    remove_leftovers,
    save_array,
    whole_digest,
    write_atomic,
    write_together,
)


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


NAMES = ("a/cache.json", "a/cache.npz", "a/result.json")


def write_three(folder: Path, content: bytes) -> None:
    write_together([(folder / name, lambda file, n=n: file.write(content + b"%d" % n)) for n, name in enumerate(NAMES)])


def contents(folder: Path) -> list[bytes | None]:
    return [(folder / name).read_bytes() if (folder / name).exists() else None for name in NAMES]


def test_a_full_disk_keeps_every_old_file_and_is_named(tmp_path, monkeypatch):
    write_three(tmp_path, b"old")
    fsync = os.fsync
    for full_at, name in enumerate(NAMES):
        calls = itertools.count()

        def refuse(descriptor, full_at=full_at, calls=calls):
            if next(calls) == full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space left on device") as error:
            write_three(tmp_path, b"new")
        assert str(tmp_path / name) in one_line(error)
        assert contents(tmp_path) == [b"old0", b"old1", b"old2"] and files_below(tmp_path) == sorted(NAMES)
    assert full_at == 2


def test_an_array_that_does_not_fit_keeps_the_reason(tmp_path):
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, most))
    try:
        with pytest.raises(OSError, match=r"array\.npy") as error:
            write_atomic(tmp_path / "array.npy", lambda file: save_array(file, np.zeros(2**16)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert error.value.errno == errno.EFBIG and files_below(tmp_path) == []


def test_arrays_are_those_of_numpy(tmp_path):
    arrays = [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.eye(3)), np.zeros((0, 2), np.int8), np.array(True)]
    for array in arrays:
        write_atomic(tmp_path / "ours.npy", lambda file, array=array: save_array(file, array))
        np.save(tmp_path / "numpys.npy", array)
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpys.npy").read_bytes()


def test_a_kill_between_the_moves_leaves_no_result_beside_another_cache(tmp_path, monkeypatch):
    replace = os.replace
    for killed_at in range(3):
        write_three(tmp_path, b"old")
        calls = itertools.count()

        def die(source, target, killed_at=killed_at, calls=calls):
            if next(calls) == killed_at:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            write_three(tmp_path, b"new")
        monkeypatch.setattr(os, "replace", replace)
        assert contents(tmp_path)[2] is None, killed_at
        assert contents(tmp_path)[:2] == [b"new%d" % n if n < killed_at else b"old%d" % n for n in range(2)]
    assert killed_at == 2
    write_three(tmp_path, b"new")
    assert contents(tmp_path) == [b"new0", b"new1", b"new2"]


WRITES_FOR_EVER = """
import sys, time
from mop.common.files import write_atomic
def write(file):
    file.write(b"half"); file.flush()
    print("writing", flush=True)
    time.sleep(60)
write_atomic(sys.argv[1], write)
"""


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_is_not(tmp_path):
    (tmp_path / ".mine.tmp").write_bytes(b"of another program")
    command = [sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path / "file.txt")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        (temporary,) = tmp_path.glob(".file.txt.*.tmp")
        remove_leftovers(tmp_path.glob(".*"))
        assert temporary.read_bytes() == b"half"
        writer.kill()
    assert temporary.exists()
    remove_leftovers(tmp_path.glob(".*"))
    assert files_below(tmp_path) == [".mine.tmp"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    check_writable(tmp_path, "--to")
    check_writable(tmp_path / "new" / "newer", "--to")
    file = tmp_path / "file"
    for folder in (file, file / "below", Path("/proc/x")):
        assert refusal(check_writable, folder, "--to").startswith(f"--to: {folder} ")
    assert files_below(tmp_path) == ["file"]


def test_links_are_followed_and_each_folder_is_searched_once(tmp_path):
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    for folder in (tree / "b" / "one", elsewhere / "two"):
        folder.mkdir(parents=True)
        (folder / "x.txt").write_bytes(b"")
        (folder / "x.csv").write_bytes(b"")
    (tree / "linked").symlink_to(elsewhere)
    (tree / "a_dangling").symlink_to(tmp_path / "nowhere")
    assert find_files(tree, "*.txt") == [tree / "b" / "one" / "x.txt", tree / "linked" / "two" / "x.txt"]
    assert find_files(tmp_path / "nowhere", "*") == []
    (tree / "a_again").symlink_to(tree / "b")  # before the real folder in the alphabet
    (elsewhere / "cycle").symlink_to(tree)
    with pytest.warns(UserWarning, match="is skipped: it is a link") as told:
        assert find_files(tree, "*.txt") == [tree / "b" / "one" / "x.txt", tree / "linked" / "two" / "x.txt"]
    named = {str(warning.message).split()[0] for warning in told}
    assert named == {str(tree / "a_again"), str(tree / "linked" / "cycle")}


def test_digests_are_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-2, appendix B.1
    assert whole_digest(tmp_path / "a") == known and file_digest(tmp_path / "a") == known[:16]
    refusal(whole_digest, tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "b")


def test_a_lock_is_one_process_only_and_leaves_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a run")
    with folder_lock(tmp_path / "a run") as first, folder_lock(tmp_path / "link") as second:
        assert (first, second) == (True, False) and files_below(tmp_path) == [".a run.lock"]
    with folder_lock(tmp_path / "a run") as again, folder_lock(tmp_path / "b" / "c") as other:
        assert again and other
    assert files_below(tmp_path) == []
    (tmp_path / "file").write_bytes(b"")
    for nowhere in (Path("/proc/x/run"), tmp_path / "file" / "below"):
        with folder_lock(nowhere) as acquired:  # who cannot write there will be told so by the writing
            assert acquired


def test_a_look_at_a_lock_is_no_refusal(tmp_path):
    path = tmp_path / ".run.lock"
    path.touch()
    with path.open() as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_EX)  # as `remove_leftovers` does for a moment
        look = threading.Timer(0.03, fcntl.flock, (looked_at, fcntl.LOCK_UN))
        look.start()
        with folder_lock(tmp_path / "run") as is_ours:
            assert is_ours
        look.join()


HOLDS = """
import sys
from mop.common.files import folder_lock
with folder_lock(sys.argv[1]) as is_ours:
    print(is_ours, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("call", ["os.open", "fcntl.flock"])
def test_ctrl_c_while_a_lock_is_taken_leaves_none(call, tmp_path, monkeypatch):
    module, name = (os if call.startswith("os") else fcntl), call.split(".")[1]
    real, count = getattr(module, name), [0]

    def cut_off(*arguments, **options):
        result = real(*arguments, **options)
        count[0] += 1
        if count[0] == 1:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(module, name, cut_off)
    with pytest.raises(KeyboardInterrupt), folder_lock(tmp_path / "run"):
        raise AssertionError("it was cut off before")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path / "run") as is_ours:
        assert is_ours


def test_a_lock_holds_whatever_the_environment_and_ends_with_its_process(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    other.mkdir()
    command, pipes = [sys.executable, "-c", HOLDS, str(run)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = os.environ | {"TMPDIR": str(other), "HOME": str(other)}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipes) as process:
        assert process.stdout.readline() == b"True\n"
        with folder_lock(run) as is_ours:
            assert not is_ours
        process.send_signal(signal.SIGKILL)
    with folder_lock(run, wait_s=10) as is_ours:
        assert is_ours
    assert not run.exists() and list(other.iterdir()) == []


def test_locks_of_many_processes_never_overlap(tmp_path):
    program = """
import sys, time
from mop.common.files import folder_lock
num_claims = 0
end = time.monotonic() + 1
while time.monotonic() < end:
    with folder_lock(sys.argv[1] + "/task/run") as is_ours:
        if is_ours:
            with open(sys.argv[1] + "/owner", "x"):  # fails if another process is in here
                pass
            num_claims += 1
            __import__("os").unlink(sys.argv[1] + "/owner")
print(num_claims)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counts = [int(process.communicate(timeout=PATIENCE_S)[0]) for process in processes]
    assert len(counts) == 3 and sum(counts) > 50 and all(process.returncode == 0 for process in processes)
    assert files_below(tmp_path) == []
