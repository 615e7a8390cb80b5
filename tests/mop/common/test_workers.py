"""Worker processes die, fail and outlive nobody; every wait here is bounded."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checks import refusal
from scripts import REPOSITORY

from mop.common.errors import InputError
from mop.common.workers import WorkerPool, carve, num_bytes
from mop.envs.vector_env import BabyAIVectorEnv

LIMIT_S = 30.0

PARENT = """
import multiprocessing
import sys
import numpy as np
from mop.envs.vector_env import BabyAIVectorEnv

if __name__ == "__main__":
    env = BabyAIVectorEnv("BabyAI-GoToObj-v0", 4, 0, num_workers=2)
    env.reset()
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    if sys.argv[1] == "idle":
        sys.stdin.read()
    while True:
        env.step(np.zeros(4, np.int64))
"""


def commands_of_a_worker(buffer, ask, name):
    """A worker without an environment: name -> function."""

    def fill(value):
        buffer[0 if name == "first" else 1] = value
        return name, os.getpid()

    def refuse(argument):
        raise InputError(f"{name} cannot use {argument}")

    def stumble(argument):
        return {}[argument]

    def die(argument):
        if name == "first":
            os.kill(os.getpid(), signal.SIGKILL)
        return name

    def consult(questions):
        return [ask(f"{name} {question}") for question in range(questions)]

    def leave(code):
        if code is not None:  # one alone: which of two is noticed first is chance
            os._exit(code)

    return {"consult": consult, "fill": fill, "refuse": refuse, "stumble": stumble, "die": die, "exit": leave}


def refuses_to_start(buffer, ask, text):
    raise InputError(text)


@pytest.fixture
def pool():
    pool = WorkerPool(8)
    for name in ("first", "second"):
        pool.start(commands_of_a_worker, (name,))
    assert pool.collect() == [None, None]
    yield pool
    pool.close()
    assert not multiprocessing.active_children()


def is_running(pid: int) -> bool:
    """Whether the process exists and is not merely waiting to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX" if Path("/proc/self/stat").exists() else True
    except OSError:
        return False


def test_answers_come_in_order_and_memory_is_shared(pool):
    answers = pool.call("fill", [7, 9])
    assert [name for name, _ in answers] == ["first", "second"]
    assert len({os.getpid(), *(pid for _, pid in answers)}) == 3
    assert bytes(pool.buffer[:3]) == bytes([7, 9, 0])
    pool.buffer[2] = 5
    assert pool.call("fill", [1, 2]) == answers and bytes(pool.buffer[:3]) == bytes([1, 2, 5])


def test_questions_of_workers_are_answered_while_they_work(pool):
    asked = []

    def answer(question):
        asked.append(question)
        return question.upper()

    answers = pool.call("consult", [3, 5], answer)
    assert answers == [[f"{name} {n}" for n in range(count)] for name, count in (("FIRST", 3), ("SECOND", 5))]
    assert len(asked) == 8 and pool.call("fill", [1, 2])[0][0] == "first"


def test_arrays_are_carved_without_overlap():
    layout = {"a": ((3, 5), np.dtype("f4")), "b": ((2,), np.dtype("?")), "c": ((4,), np.dtype("i8"))}
    buffer, covered = bytearray(num_bytes(layout)), 0
    arrays, rng = carve(buffer, layout), np.random.default_rng(0)
    written = {name: rng.integers(0, 2, shape).astype(dtype) for name, (shape, dtype) in layout.items()}
    for name, value in written.items():
        arrays[name][:] = value
    for name, array in carve(buffer, layout).items():
        assert (array.shape, array.dtype) == layout[name] and array.__array_interface__["data"][0] % 64 == 0
        np.testing.assert_array_equal(array, written[name])
        covered += 1
    assert covered == 3 and len(buffer) == 3 * 64 + 63
    with pytest.raises(TypeError, match="too small"):
        carve(buffer[:150], layout)


def test_input_error_of_a_worker_arrives_as_one(pool):
    assert refusal(pool.call, "refuse", ["this", "that"]) == "first cannot use this"


def test_bug_in_a_worker_arrives_with_its_traceback(pool):
    with pytest.raises(RuntimeError, match="in an environment worker") as caught:
        pool.call("stumble", ["missing", "missing"])
    assert "KeyError: 'missing'" in str(caught.value) and "in stumble" in str(caught.value)
    assert not isinstance(caught.value, InputError)


def test_input_error_at_the_start_arrives():
    pool = WorkerPool(8)
    pool.start(refuses_to_start, ("no such thing",))
    assert refusal(pool.collect) == "no such thing"
    pool.close()


@pytest.mark.parametrize("command, arguments, code", [("die", None, -9), ("exit", [3, None], 3)])
def test_worker_that_dies_at_work_is_reported(pool, command, arguments, code):
    start = time.monotonic()
    line = refusal(pool.call, command, arguments)
    assert "worker 0" in line and str(code) in line and "--resume" in line
    assert time.monotonic() - start < LIMIT_S


def test_unknown_task_in_a_worker_is_an_input_error():
    """Tasks that only the parent registered do not exist in the workers."""
    import gymnasium

    gymnasium.register("BabyAI-OnlyHere-v0", entry_point="minigrid.envs.babyai:GoToObj")
    try:
        assert "BabyAI-OnlyHere-v0" in refusal(BabyAIVectorEnv, "BabyAI-OnlyHere-v0", 2, 0, num_workers=2)
    finally:
        del gymnasium.registry["BabyAI-OnlyHere-v0"]


@pytest.mark.parametrize("state", ["idle", "stepping"])
def test_no_worker_survives_a_killed_parent(tmp_path, state):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(script), state]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path, env=environment, text=True
    ) as parent:
        try:
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 2 and all(is_running(pid) for pid in pids)
            time.sleep(0.2)
        finally:
            parent.kill()  # SIGKILL: no handler, no exit function runs
    deadline = time.monotonic() + 20.0
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in pids if is_running(pid)] == []


UNCLOSED = """
import numpy as np
from mop.envs.vector_env import BabyAIVectorEnv

if __name__ == "__main__":
    env = BabyAIVectorEnv("BabyAI-GoToObj-v0", 2, 0, num_workers=2)
    env.reset()
"""


def test_a_script_that_closes_nothing_ends(tmp_path):
    """multiprocessing would wait at the end for workers that leave signals to their parent."""
    (tmp_path / "unclosed.py").write_text(UNCLOSED)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run([sys.executable, "unclosed.py"], cwd=tmp_path, env=environment, timeout=LIMIT_S)
    assert result.returncode == 0
