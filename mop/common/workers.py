"""Processes that work for a command: over one block of shared memory, or at one piece of a long list after another.

What they do is given to them as functions. They end with the command, however it ends, and Ctrl-C is for the command
alone: see `mop.common.interruption`. Only the error messages of `WorkerPool` name its one use, the environments of a
training run.
"""

import atexit
import contextlib
import itertools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, cast

import numpy as np

from mop.common.errors import InputError
from mop.common.interruption import LIFELINE, repeat_swallowed, without_signal

_METHOD = "forkserver" if sys.platform == "linux" else "spawn"

_STOP_S = 60.0  # for a training to finish its update and save its state
_LOOK_S = 0.1  # how often commands are looked at

Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # name -> shape and dtype of an array


def num_bytes(layout: Layout) -> int:
    """Bytes of a buffer that `carve` can lay these arrays out in."""
    return 63 + sum(_padded(shape, dtype) for shape, dtype in layout.values())


def carve(buffer, layout: Layout) -> dict[str, np.ndarray]:
    """The arrays of a layout one after the other in a writable buffer, each at the beginning of a cache line."""
    arrays, offset = {}, -np.frombuffer(buffer, np.uint8).ctypes.data % 64
    for name, (shape, dtype) in layout.items():
        arrays[name] = np.ndarray(shape, dtype, buffer, offset)
        offset += _padded(shape, dtype)
    return arrays


def _padded(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // 64) * 64


class WorkerPool:
    """Processes that carry out commands by name, and that read and write one shared buffer.

    An InputError of a worker is raised again here; a worker that dies is reported at once, not waited for. Workers end
    when this process ends, however it ends.
    """

    def __init__(self, num_bytes: int, preload: Sequence[str] = ()):
        """preload: modules that are imported once, by the process that workers are forked from: they start sooner."""
        self._context = multiprocessing.get_context(_METHOD)
        if _METHOD == "forkserver":
            self._context.set_forkserver_preload(list(preload))
        self._memory = self._context.RawArray("B", num_bytes)  # anonymous: nothing is left behind by a kill
        self._processes: list[BaseProcess] = []
        self._pipes: list[connection.Connection] = []
        # before multiprocessing's own, which would wait for ever for workers that ignore its SIGTERM
        atexit.register(_close, weakref.ref(self))

    @property
    def buffer(self) -> memoryview:
        """The shared memory, writable."""
        return memoryview(self._memory).cast("B")

    def start(self, make: Callable, arguments: tuple) -> None:
        """Start a worker; `make(buffer, ask, *arguments)` in the worker returns its commands: name -> function.

        ask(question) in the worker returns what the `answer` of the pending `call` makes of the question.
        """
        here, there = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(there, self._memory, make, arguments), daemon=True)
        with without_signal():
            process.start()
        there.close()
        self._processes.append(process)
        self._pipes.append(here)

    def call(self, command: str, arguments: Sequence | None = None, answer: Callable | None = None) -> list:
        """Send one command to every worker, each with its own argument; returns their answers in order.

        answer: makes the replies to the questions that workers ask while they carry the command out. Raises as
        `collect`.
        """
        for index, pipe in enumerate(self._pipes):
            self._send(index, pipe, (command, arguments[index] if arguments is not None else None))
        return self.collect(answer)

    def collect(self, answer: Callable | None = None) -> list:
        """Wait for the pending answer of every worker.

        Where one of them fails, all are ended: a late answer to this command would pass for one to the next. An
        exception that is a bug becomes a RuntimeError with its traceback.
        """
        try:
            return self._collect(answer)
        except BaseException:
            self.close()
            raise

    def _collect(self, answer: Callable | None) -> list:
        answers: dict[int, tuple[str, Any]] = {}
        pending = {pipe: index for index, pipe in enumerate(self._pipes)}
        while pending:
            for pipe in cast("list[connection.Connection]", connection.wait(list(pending))):
                index = pending[pipe]
                try:
                    kind, value = pipe.recv()
                except (EOFError, OSError):  # OSError: it ended in the middle of a message
                    raise self._death(index) from None
                if kind == "question":
                    assert answer is not None, f"{value} is asked, and nobody answers"
                    self._send(index, pipe, answer(value))
                else:
                    answers[index] = (kind, value)
                    del pending[pipe]
        in_order = [answers[index] for index in range(len(self._pipes))]
        for kind, value in in_order:
            if kind == "input_error":
                raise InputError(value)
            if kind == "bug":
                raise RuntimeError(f"in an environment worker:\n{value}")
        return [value for _, value in in_order]

    def _send(self, index: int, pipe, message) -> None:
        try:
            pipe.send(message)
        except (BrokenPipeError, OSError):
            raise self._death(index) from None

    def close(self) -> None:
        """End the workers."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()

    def _death(self, index: int) -> InputError:
        self._processes[index].join(timeout=5)
        code = self._processes[index].exitcode
        return InputError(
            f"environment worker {index} ended with exit code {code} (out of memory, or killed?); "
            "the last checkpoint is whole: continue with --resume, perhaps with fewer --num_workers"
        )


def _close(reference: weakref.ref) -> None:
    if (pool := reference()) is not None:
        pool.close()


def end_with_parent() -> None:
    """End this process of `multiprocessing` as soon as the one that started it is gone, in the midst of its work."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is no process of multiprocessing"

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)  # nobody is there who could be told why

    threading.Thread(target=watch, daemon=True).start()


def _serve(pipe, memory, make: Callable, arguments: tuple) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whoever signals the process group means the parent:
        signal.signal(number, signal.SIG_IGN)  # it saves first, then closes the pipes, as does its death

    def ask(question):
        pipe.send(("question", question))
        return pipe.recv()

    try:
        commands = make(memoryview(memory).cast("B"), ask, *arguments)
        pipe.send(("ok", None))
        while True:
            command, argument = pipe.recv()
            pipe.send(("ok", commands[command](argument)))
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return  # the parent has gone
    except InputError as error:
        pipe.send(("input_error", str(error)))
    except Exception:
        pipe.send(("bug", traceback.format_exc()))


# --- pieces of work ---------------------------------------------------------------------------------------------------


class Died(NamedTuple):
    """What a piece of work has in place of a result where its process died."""

    exit_code: int | None


class JobPool:
    """Processes that take one piece of work after another; they begin with the first piece and end with the block.

    Where the block ends with an exception, such as KeyboardInterrupt, no further piece is begun and the workers get
    SIGTERM: a training saves its state, all else is cut off. A second Ctrl-C meanwhile kills them.
    """

    def __init__(self, jobs: int, prepare: Callable[[], object] | None = None):
        """prepare: called first in each process."""
        self._jobs, self._prepare = jobs, prepare
        self._context = multiprocessing.get_context("spawn")  # fork and torch's threads do not go together
        self._workers: dict[connection.Connection, BaseProcess] = {}

    def __enter__(self) -> "JobPool":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        for pipe, process in self._workers.items():
            if kind is not None:
                process.terminate()
            pipe.close()  # one that waits for work ends
        end = time.monotonic() + _STOP_S
        try:
            for process in self._workers.values():
                process.join(timeout=max(0.0, end - time.monotonic()))
        finally:
            for process in self._workers.values():
                process.kill()
                process.join()

    def run(self, function: Callable, pieces: Sequence) -> Iterator[tuple[int, Any]]:
        """Number and result of each piece, as they come; `Died` in place of a result where the process died.

        An exception of the function is raised again here.
        """
        waiting, busy = deque(enumerate(pieces)), {}
        while waiting or busy:
            while waiting and len(busy) < self._jobs:
                pipe = next((pipe for pipe in self._workers if pipe not in busy), None) or self._start()
                busy[pipe], piece = waiting.popleft()
                with contextlib.suppress(OSError):  # it is dead already, as is noticed below
                    pipe.send((function, piece))
            for pipe in cast("list[connection.Connection]", connection.wait(list(busy))):
                try:
                    error, result = pipe.recv()
                except (EOFError, OSError):
                    process = self._workers.pop(pipe)
                    process.join(timeout=5)
                    error, result = None, Died(process.exitcode)
                if error is not None:
                    raise error
                yield busy.pop(pipe), result

    def _start(self) -> connection.Connection:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_do_pieces, args=(there, self._prepare))
        with without_signal():
            process.start()
        there.close()
        self._workers[here] = process
        return here


def _do_pieces(pipe: connection.Connection, prepare: Callable[[], object] | None) -> None:
    end_with_parent()
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError):  # to stop; the pool is closed
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        repeat_swallowed(signal.SIGTERM)
        if prepare is not None:
            prepare()
        while True:
            function, piece = pipe.recv()
            try:
                answer = None, function(piece)
            except Exception as error:
                error.add_note(f"in a worker process:\n{traceback.format_exc()}")
                answer = error, None
            pipe.send(answer)


def run_command(command: Sequence[str], **options: Any) -> int:
    """Run a command as `run_commands` does; its exit code. options: of `subprocess.Popen`."""
    ((_, code),) = run_commands([(command, options)], 1)
    return code


def run_commands(commands: Iterable[tuple[Sequence[str], dict[str, Any]]], jobs: int) -> Iterator[tuple[int, int]]:
    """Run commands of this repository, `jobs` at a time; number and exit code of each, as they end.

    commands: with options of `subprocess.Popen`. They do not hear Ctrl-C: where it comes to this process they get
    SIGTERM, and are waited for while they save. A second one kills them. They end with this process, however it ends.
    """
    watched, held = os.pipe()  # this process alone has the second end
    waiting, running = enumerate(commands), {}
    try:
        while True:
            for number, (command, options) in itertools.islice(waiting, jobs - len(running)):
                environment = options.pop("env", os.environ) | {LIFELINE: str(watched)}
                options |= {"env": environment, "pass_fds": [watched], "process_group": 0}
                running[number] = subprocess.Popen(command, **options)
            if not running:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                next(iter(running.values())).wait(_LOOK_S)
            for number in [number for number, process in running.items() if process.poll() is not None]:
                yield number, running.pop(number).returncode
    finally:
        _end(list(running.values()))
        os.close(watched)
        os.close(held)


def _end(processes: Sequence[subprocess.Popen]) -> None:
    try:
        for process in processes:
            process.terminate()
        end = time.monotonic() + _STOP_S
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.wait()
