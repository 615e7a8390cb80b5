"""Calls of Modal's functions: one for each piece of work, asked for until it answers.

Which call does which work is kept in a `modal.Dict`, so that a command that is given again finds the calls of the first
one and waits for them in place of starting second ones. Nothing keeps apart two commands of the same second.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import modal
import modal.exception
from grpclib.exceptions import StreamTerminatedError

from mop.common.errors import InputError

# What Modal's client raises where it cannot ask how a call is doing: that says nothing about the call.
NO_ANSWER = (
    modal.exception.ConnectionError, modal.exception.ServiceError, modal.exception.InternalError,
    modal.exception.AuthError, modal.exception.ClientClosed, modal.exception.ResourceExhaustedError,
    StreamTerminatedError,
)  # fmt: skip
POLL_S = 2.0  # longest wait for one call while others are waited for
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # between attempts while there is no answer
PATIENCE_S = 15 * 60.0  # without any answer


@dataclass(frozen=True)
class Unanswered:
    """What is known of a call that could not be asked about: why. It may still be running."""

    error: Exception


class Running:
    """What a call answers that has not ended."""


def ask(call: modal.FunctionCall, timeout_s: float) -> Any:
    """What a call returned, or the exception that it raised; Running, or Unanswered."""
    try:
        return call.get(timeout=timeout_s)
    except NO_ANSWER as error:
        return Unanswered(error)
    except TimeoutError as error:
        return error if error.args else Running()  # that of the client says nothing; one of the function's own does
    except Exception as error:
        return error


def answers(calls: Mapping[str, modal.FunctionCall]) -> Iterator[tuple[str, Any]]:
    """Each call's label with what it returned or the exception that it raised, as they come.

    While there is no answer to any, it is asked again after longer and longer pauses; after PATIENCE_S without one,
    the calls that are left are Unanswered.
    """
    waiting, heard_at, pause_s = dict(calls), time.monotonic(), FIRST_PAUSE_S
    while waiting:
        timeout_s = POLL_S
        for label in list(waiting):
            answer = ask(waiting[label], timeout_s)
            if isinstance(answer, Unanswered):
                waiting[label] = waiting.pop(label)  # to the end: another may have an answer
                break
            heard_at, pause_s, timeout_s = time.monotonic(), FIRST_PAUSE_S, 0.0
            if not isinstance(answer, Running):
                del waiting[label]
                yield label, answer
        else:
            continue
        if time.monotonic() - heard_at > PATIENCE_S:
            yield from ((label, answer) for label in waiting)
            return
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def start(
    work: str, spawn: Callable[..., modal.FunctionCall], arguments: tuple, register: modal.Dict, app_id: str | None
) -> tuple[modal.FunctionCall, bool]:
    """The call that does a piece of work, and whether it is new: if one that is registered is running, it is that one.

    work: its name in the register; spawn: starts a call with `arguments`. Raises InputError where a call with other
    arguments is running, and what Modal's client raises where it cannot tell.
    """
    settings = hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]
    known = register.get(work)
    if known is not None:
        call = modal.FunctionCall.from_id(known["call"])
        answer = ask(call, 0.0)
        if isinstance(answer, Unanswered):
            raise answer.error
        if isinstance(answer, Running):
            if known["settings"] != settings:
                raise InputError(
                    f"call {known['call']} is at work on it with other settings; wait for it, or end it: "
                    f"modal app stop {known['app']}"
                )
            return call, False
    call = spawn(*arguments)
    try:
        register[work] = {"call": call.object_id, "settings": settings, "app": app_id}
    except Exception as error:  # the call runs all the same
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: {work}: call {call.object_id} could not be noted ({reason}); start no second one meanwhile")
    return call, True
