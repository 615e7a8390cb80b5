"""A step of a recording, with everything that a page shows of it, computed on demand."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from minigrid.core.actions import Actions

from generative.app.catalog import num_steps_of
from generative.app.figures import Rows, Sizes
from generative.domains.playing import Span
from generative.recordings.format import Recording
from generative.simulators.base import EXACT
from mop.common.cli import as_flags, changes_of, setting
from mop.common.errors import InputError
from mop.plotting.style import expert_names, short_name

if TYPE_CHECKING:
    from generative.domains.babyai.causes import WorldExplanation

TAKEN = "taken"  # the target: the action that was taken
OWN, RECORDED = "own", "recorded"  # actions: the policy's argmax, or the recorded ones
MAX_HORIZON, MAX_STEPS = 16, 24


@dataclass(frozen=True)
class Choices:
    """What a page or a script shows of a recording, in the words of the flags and of the address."""

    episode: int | None = setting(None, "begin with this episode (default: one by argmax)", low=0)
    step: int | None = setting(None, "... at this step (default: where LPC is largest)", low=0)
    target: str = setting(TAKEN, "what is explained: action:forward, routing:2.1, lpc, entropy")
    horizon: int = setting(6, "steps back at most", low=0, high=MAX_HORIZON)
    actions: str = setting(RECORDED, "between a cause and the target, and ahead", choices=(OWN, RECORDED))
    simulator: str = setting(EXACT, "exact, or the folder of a learned one")
    num_sim_steps: int = setting(6, "steps ahead, of a learned simulator", low=1, high=MAX_STEPS)

    @property
    def flags(self) -> list[str]:
        """The flags that choose the same again."""
        return as_flags(changes_of(self))


class PageState:
    """A chosen step of a recording; what is slow is computed on demand, and kept by `computed`."""

    def __init__(self, recording: Recording, choices: Choices, checkpoint: str | None = None):
        """checkpoint: of the policy, where it was moved."""
        k, step = choices.episode, choices.step
        if k is None or not 0 <= k < len(recording):
            raise InputError(f"{recording.folder} has the episodes 0 to {len(recording) - 1}, no {k}")
        self.recording = recording
        self.choices = choices
        self.number = k
        self.episode = recording.episode(k)
        last = num_steps_of(self.episode) - 1
        if step is None or not 0 <= step <= last:
            raise InputError(f"episode {k} has the steps 0 to {last}, no {step}")
        self.step = step
        self.sizes: Sizes = recording.config["encoding"]["expert_hidden_sizes"]
        self._opens = (recording, checkpoint, choices.simulator)

    @property
    def name(self) -> str:
        """The name of the step, in labels."""
        return f"{self.recording.folder.name}: episode {self.number}, step {self.choices.step}"

    @property
    def target_word(self) -> str:
        """The target as `generative.domains.babyai.targets` reads it."""
        if self.choices.target != TAKEN:
            return self.choices.target
        return f"action:{Actions(int(self.episode['action'][self.step])).name}"

    @property
    def is_own(self) -> bool:
        """Whether the policy acts in between, rather than the recorded actions being repeated."""
        return self.choices.actions == OWN

    @property
    def explanation(self) -> "WorldExplanation":
        """The contributions of things to the target, up to `horizon` steps before."""
        from generative.app.computed import Place, find_causes

        place = Place(self.number, self.step, self.choices.horizon)
        return find_causes(*self._opens, place, self.target_word, self.is_own)

    @property
    def futures(self) -> tuple[Rows, Rows]:
        """What was recorded from this step on, and what the learned simulator shows."""
        from generative.app.computed import find_future

        if self.choices.simulator == EXACT:
            raise InputError("the exact simulator shows what really comes: choose a learned one with --simulator")
        stop = self.step + min(self.choices.num_sim_steps, num_steps_of(self.episode) - self.step) + 1
        truth = {name: array[self.step : stop] for name, array in self.episode.items()}
        span = Span(self.step, stop - self.step, self.is_own, "")
        return truth, find_future(*self._opens, self.number, span)

    @functools.cached_property
    def fidelity(self) -> tuple[str, bool]:
        """A line on the fidelity of the simulator, and whether it is high enough."""
        from generative.simulators.evaluation import check_fidelity

        horizon = max(1, self.choices.horizon, self.choices.num_sim_steps)
        sha256 = self.recording.config["checkpoint"]["sha256"]
        try:
            return check_fidelity(self.choices.simulator, horizon, agent_sha256=sha256), True
        except InputError as error:
            return f"do not rely on this: {error}", False


def target_names(sizes: Sizes) -> dict[str, str]:
    """Names of targets in a menu -> their words."""
    names = {"the action that was taken": TAKEN}
    names |= {f"action: {action.name}": f"action:{action.name}" for action in Actions}
    experts = expert_names({"expert_hidden_sizes": sizes}, [np.zeros(len(of_layer)) for of_layer in sizes])
    for layer, of_layer in enumerate(experts):
        for expert, name in enumerate(of_layer if len(of_layer) > 1 else []):
            names[f"layer {layer}: weight of {short_name(name)}"] = f"routing:{layer}.{expert}"
    return names | {"LPC": "lpc", "entropy of the routers": "entropy"}
