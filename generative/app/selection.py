"""What is chosen of a recording, and all that is to be shown of it, computed when it is asked for.

Torch is only loaded once more is asked for than the moment itself: `generative.app.recorded_step`, which computes the
rest.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from minigrid.core.actions import Actions

from generative.app import views
from generative.app.catalog import num_steps_of
from generative.recordings.format import Recording
from generative.simulators.base import EXACT
from mop.common.errors import InputError
from mop.plotting.style import expert_names, short_name

if TYPE_CHECKING:
    from generative.app.recorded_step import Cause, Laboratory, Moment
    from generative.attribution.counterfactuals import Edit
    from generative.domains.base import Target

TAKEN = "taken"  # the target: the action that was taken
OWN, RECORDED = "own", "recorded"  # who acts: the policy by its argmax, or what was recorded is done


@dataclass(frozen=True)
class Choices:
    """What a page or a script shows of a recording; the words are those of the flags and of the address."""

    episode: int
    step: int
    target: str = TAKEN
    horizon: int = 6
    since: str = RECORDED  # what is done between a cause and the target
    simulator: str = EXACT
    num_sim_steps: int = 6
    actions: str = OWN  # what is done in a future
    edit: str = ""  # "" for the first
    pictures: str = views.WORLD

    @property
    def flags(self) -> list[str]:
        """The flags that choose the same again."""
        words = ["--episode", str(self.episode), "--step", str(self.step)]
        for name, default in DEFAULTS.items():
            if getattr(self, name) != default:
                words += [f"--{name}", str(getattr(self, name))]
        return words


DEFAULTS = {
    name: field.default for name, field in Choices.__dataclass_fields__.items() if name not in ("episode", "step")
}


class Exhibit:
    """A moment of a recording with all that is shown of it; what is slow is computed when it is asked for."""

    def __init__(self, recording: Recording, choices: Choices, checkpoint: str | None = None):
        """checkpoint: of the policy, where it was moved. Raises InputError where there is no such episode or step."""
        if not 0 <= choices.episode < len(recording):
            raise InputError(f"{recording.folder} has the episodes 0 to {len(recording) - 1}, no {choices.episode}")
        self.recording, self.choices, self.episode = recording, choices, recording.episode(choices.episode)
        last = num_steps_of(self.episode) - 1
        if not 0 <= choices.step <= last:
            raise InputError(f"episode {choices.episode} has the steps 0 to {last}, no {choices.step}")
        self._checkpoint = checkpoint
        self.sizes = recording.config["encoding"]["expert_hidden_sizes"]

    @property
    def name(self) -> str:
        """What the moment is called, in labels."""
        return f"{self.recording.folder.name}: episode {self.choices.episode}, step {self.choices.step}"

    @property
    def title(self) -> str:
        """The same for a figure."""
        return f"Episode {self.choices.episode}, step {self.choices.step}"

    @property
    def target_word(self) -> str:
        """The target as `generative.domains.babyai.targets` reads it."""
        if self.choices.target != TAKEN:
            return self.choices.target
        return f"action:{Actions(int(self.episode['action'][self.choices.step])).name}"

    @functools.cached_property
    def laboratory(self) -> "Laboratory":
        """Policy and simulator."""
        return _laboratory(self.recording, self.choices.simulator, self._checkpoint)

    @functools.cached_property
    def target(self) -> "Target":
        """What is to be explained, and followed into the future."""
        from generative.domains.babyai.targets import parse_target

        return parse_target(self.target_word, self.laboratory.policy)

    def moment(self, actions: str) -> "Moment":
        """The moment, with these actions before or after it."""
        return _moment(self.laboratory, self.choices.episode, self.choices.step, actions)

    @functools.cached_property
    def causes(self) -> list["Cause"]:
        """What each thing contributes to the target, up to `horizon` steps before."""
        return _causes(self.moment(self.choices.since), self.target_word, self.choices.horizon)

    @functools.cached_property
    def edits(self) -> dict[str, "Edit"]:
        """Every edit that can be made here, by its word."""
        from generative.app.recorded_step import edit_words

        return edit_words(self.moment(self.choices.actions).edits)

    @property
    def edit_word(self) -> str:
        """The word of the chosen edit. Raises InputError where it cannot be made here."""
        if self.choices.edit and self.choices.edit not in self.edits:
            words = ", ".join([*self.edits][:12])
            raise InputError(f"--edit: {self.choices.edit} is not to be had at {self.name}; there are {words}, ...")
        return self.choices.edit or next(iter(self.edits))

    @property
    def edit(self) -> "Edit":
        """The chosen edit. Raises InputError as `edit_word`."""
        return self.edits[self.edit_word]

    def futures(self, is_edited: bool) -> tuple[views.Rows, views.Rows]:
        """What really comes, and what the simulator says."""
        edit = self.edit if is_edited else None
        return _futures(self.moment(self.choices.actions), edit, self.choices.num_sim_steps)

    @property
    def prediction(self) -> np.ndarray:
        """What the gradients of the target predict of the edit, step by step."""
        moment = self.moment(self.choices.actions)
        return _predicted(moment, self.edit, self.target_word, self.choices.num_sim_steps)

    @functools.cached_property
    def fidelity(self) -> tuple[str, bool]:
        """A line on how true the simulator is, and whether that is enough for what it is used for here."""
        from generative.simulators.evaluation import check_fidelity

        horizon = max(1, self.choices.horizon, self.choices.num_sim_steps)
        sha256 = self.recording.config["checkpoint"]["sha256"]
        try:
            return check_fidelity(self.choices.simulator, horizon, agent_sha256=sha256), True
        except InputError as error:
            return f"do not rely on this: {error}", False

    @property
    def agreement(self) -> views.Agreement:
        """How the simulator agrees with what really comes."""
        return views.compare(*self.futures(False))


@functools.lru_cache(maxsize=4)
def _laboratory(recording: Recording, simulator: str, checkpoint: str | None) -> "Laboratory":
    import torch

    from generative.app.recorded_step import Laboratory

    torch.set_num_threads(1)  # matrices are small: more threads wait for each other
    return Laboratory(recording, simulator, checkpoint)


@functools.lru_cache(maxsize=16)
def _moment(laboratory: "Laboratory", k: int, step: int, actions: str) -> "Moment":
    from generative.app.recorded_step import Moment

    return Moment(laboratory, laboratory.recording.episode(k), step, actions == RECORDED)


@functools.lru_cache(maxsize=64)
def _causes(moment: "Moment", target: str, horizon: int) -> list["Cause"]:
    from generative.domains.babyai.targets import parse_target

    return moment.causes(parse_target(target, moment.policy), horizon)


@functools.lru_cache(maxsize=64)
def _futures(moment: "Moment", edit: "Edit | None", num_steps: int) -> tuple[views.Rows, views.Rows]:
    (real,), (simulated,) = moment.real_futures([edit], num_steps), moment.simulated_futures([edit], num_steps)
    return real, simulated


@functools.lru_cache(maxsize=64)
def _predicted(moment: "Moment", edit: "Edit", target: str, num_steps: int) -> np.ndarray:
    from generative.domains.babyai.targets import parse_target

    return moment.predicted(edit, parse_target(target, moment.policy), num_steps)


# --- menus ------------------------------------------------------------------------------------------------------------


def target_names(sizes: views.Sizes, asked: str = TAKEN) -> dict[str, str]:
    """What a target is called in a menu -> its word; asked: one that is in the menu in any case."""
    names = {"the action that was taken": TAKEN}
    names |= {f"action: {action.name}": f"action:{action.name}" for action in Actions}
    experts = expert_names({"expert_hidden_sizes": sizes}, [np.zeros(len(of_layer)) for of_layer in sizes])
    for layer, of_layer in enumerate(experts):
        for expert, name in enumerate(of_layer if len(of_layer) > 1 else []):
            names[f"layer {layer}: weight of {short_name(name)}"] = f"routing:{layer}.{expert}"
    names |= {"LPC": "lpc", "entropy of the routers": "entropy"}
    return names if asked in names.values() else names | {asked: asked}


def cell_names(exhibit: Exhibit) -> dict[str, str]:
    """What can be edited, nearest things first, then free floor -> "x,y"."""
    moment, names = exhibit.moment(exhibit.choices.actions), {}
    for word, edit in exhibit.edits.items():
        cell = word.split(":")[0]
        names.setdefault(cell, f"{moment.cell_name(edit)} ({cell})")
    return {name: cell for cell, name in names.items()}


def change_names(exhibit: Exhibit, cell: str) -> dict[str, str]:
    """What can be done with a cell, in words -> the second half of the word of the edit."""
    from generative.app.recorded_step import describe_edit

    parts = {word: word.split(":") for word in exhibit.edits}
    return {describe_edit(exhibit.edits[word]): change for word, (place, change) in parts.items() if place == cell}
