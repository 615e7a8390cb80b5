"""The selection of a page: a step of a recording, with everything that is shown of it, computed on demand."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from minigrid.core.actions import Actions

from generative.app import future_figures
from generative.app.catalog import num_steps_of
from generative.app.future_figures import FUTURES, VIEW, WORLD, Agreement
from generative.app.sheets import Rows, Sizes
from generative.recordings.format import Recording
from generative.simulators.base import EXACT
from mop.common.cli import as_flags, changes_of, setting
from mop.common.errors import InputError
from mop.plotting.style import expert_names, short_name

if TYPE_CHECKING:
    from generative.app.recorded_step import Cause, RecordedStep, RecordingContext
    from generative.attribution.counterfactuals import Edit

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
    since: str = setting(RECORDED, "actions between a cause and the target", choices=(OWN, RECORDED))
    simulator: str = setting(EXACT, "exact, or the folder of a learned one")
    num_sim_steps: int = setting(6, "steps ahead", low=1, high=MAX_STEPS)
    actions: str = setting(OWN, "actions ahead", choices=(OWN, RECORDED))
    edit: str = setting("", "such as 3,4:remove, 3,4:blue, 3,4:ball, 3,4:open, 3,4:red_key (default: the first)")
    pictures: str = setting(WORLD, "pictures of futures", choices=(WORLD, VIEW))

    @property
    def flags(self) -> list[str]:
        """The flags that choose the same again."""
        return as_flags(changes_of(self))


class PageState:
    """A chosen step of a recording; everything slow is computed on demand, and cached by `recorded_step`."""

    def __init__(self, recording: Recording, choices: Choices, checkpoint: str | None = None):
        """checkpoint: of the policy, where it was moved."""
        k, step = choices.episode, choices.step
        if k is None or not 0 <= k < len(recording):
            raise InputError(f"{recording.folder} has the episodes 0 to {len(recording) - 1}, no {k}")
        self.recording = recording
        self.choices = choices
        self.episode = recording.episode(k)
        last = num_steps_of(self.episode) - 1
        if step is None or not 0 <= step <= last:
            raise InputError(f"episode {k} has the steps 0 to {last}, no {step}")
        self.step = step
        self._checkpoint = checkpoint
        self.sizes = recording.config["encoding"]["expert_hidden_sizes"]

    @property
    def name(self) -> str:
        """The name of the step, in labels."""
        return f"{self.recording.folder.name}: episode {self.choices.episode}, step {self.choices.step}"

    @property
    def title(self) -> str:
        """The name of the step, in figures."""
        return f"Episode {self.choices.episode}, step {self.choices.step}"

    @property
    def target_word(self) -> str:
        """The target as `generative.domains.babyai.targets` reads it."""
        if self.choices.target != TAKEN:
            return self.choices.target
        return f"action:{Actions(int(self.episode['action'][self.choices.step])).name}"

    @functools.cached_property
    def context(self) -> "RecordingContext":
        """Policy and simulator."""
        return _steps().open_context(self.recording, self.choices.simulator, self._checkpoint)

    def at(self, actions: str) -> "RecordedStep":
        """The step, with these actions before or after it."""
        return _steps().open_step(self.context, self.choices.episode, self.choices.step, actions == RECORDED)

    @property
    def here(self) -> "RecordedStep":
        """The step, with the actions of its futures."""
        return self.at(self.choices.actions)

    @property
    def causes(self) -> list["Cause"]:
        """The contributions of things to the target, up to `horizon` steps before."""
        return _steps().find_causes(self.at(self.choices.since), self.target_word, self.choices.horizon)

    @functools.cached_property
    def edits(self) -> dict[str, "Edit"]:
        """All legal edits, by their words."""
        return _steps().edits_at(self.here)

    @property
    def edit_word(self) -> str:
        """The word of the chosen edit, which must be legal."""
        if self.choices.edit and self.choices.edit not in self.edits:
            words = ", ".join([*self.edits][:12])
            raise InputError(f"--edit: {self.choices.edit} is not to be had at {self.name}; there are {words}, ...")
        return self.choices.edit or next(iter(self.edits))

    @property
    def edit(self) -> "Edit":
        """The chosen edit."""
        return self.edits[self.edit_word]

    def futures(self, is_edited: bool) -> tuple[Rows, Rows]:
        """The real and the simulated future."""
        return _steps().find_futures(self.here, self.edit if is_edited else None, self.choices.num_sim_steps)

    @property
    def all_futures(self) -> dict[str, Rows]:
        """The four of FUTURES."""
        real, simulated = self.futures(False)
        real_edited, simulated_edited = self.futures(True)
        return dict(zip(FUTURES, (real, real_edited, simulated, simulated_edited), strict=True))

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The target in each of FUTURES, (T,) each; NaN after the end of an episode."""
        policy, target = self.context.policy, self.target_word
        return {name: _steps().target_values(policy, rows, target) for name, rows in self.all_futures.items()}

    @property
    def effects(self) -> dict[str, np.ndarray]:
        """The effects of the edit on the target, step by step: EFFECTS, (T,) each."""
        values = self.values
        return {
            future_figures.MEASURED: _difference(values["real_edited"], values["real"]),
            future_figures.SIMULATED: _difference(values["simulated_edited"], values["simulated"]),
            future_figures.PREDICTED: self.prediction,
        }

    @property
    def prediction(self) -> np.ndarray:
        """The effect of the edit on the target that gradients predict, step by step."""
        return _steps().predict_effect(self.here, self.edit, self.target_word, self.choices.num_sim_steps)

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

    @property
    def agreement(self) -> Agreement:
        """How the simulated future agrees with the real one."""
        return future_figures.compare(*self.futures(False))


def _steps():
    """The module that computes: it loads torch, which the page of a step alone does not need."""
    from generative.app import recorded_step

    return recorded_step


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    num_steps = min(len(one), len(other))
    return one[:num_steps] - other[:num_steps]


# --- menus ------------------------------------------------------------------------------------------------------------


def target_names(sizes: Sizes, asked: str = TAKEN) -> dict[str, str]:
    """Names of targets in a menu -> their words; asked: one that is in the menu in any case."""
    names = {"the action that was taken": TAKEN}
    names |= {f"action: {action.name}": f"action:{action.name}" for action in Actions}
    experts = expert_names({"expert_hidden_sizes": sizes}, [np.zeros(len(of_layer)) for of_layer in sizes])
    for layer, of_layer in enumerate(experts):
        for expert, name in enumerate(of_layer if len(of_layer) > 1 else []):
            names[f"layer {layer}: weight of {short_name(name)}"] = f"routing:{layer}.{expert}"
    names |= {"LPC": "lpc", "entropy of the routers": "entropy"}
    return names if asked in names.values() else names | {asked: asked}


def cell_names(state: PageState) -> dict[str, str]:
    """Names of the cells that can be edited, nearest things first, then free floor -> "x,y"."""
    names: dict[str, str] = {}
    for word, edit in state.edits.items():
        cell = word.split(":")[0]
        if cell not in names.values():
            names[f"{_steps().cell_name(state.here, edit)} ({cell})"] = cell
    return names


def change_names(state: PageState, cell: str) -> dict[str, str]:
    """Changes of a cell in words -> the second half of the word of the edit."""
    parts = {word: word.split(":") for word in state.edits}
    return {
        _steps().describe_edit(state.edits[word]): change for word, (place, change) in parts.items() if place == cell
    }
