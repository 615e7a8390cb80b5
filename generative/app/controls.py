"""The controls of the page of the simulator; the address of the page has their choices."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import marimo as mo

from generative.app import catalog, page
from generative.app.catalog import num_steps_of
from generative.app.state import MAX_HORIZON, MAX_STEPS, target_names
from generative.recordings.format import Episode, Recording
from generative.simulators.base import EXACT
from mop.apps.elements import View, choice_dropdown, number_slider, table

_STEP = ("episode", "step")  # words of the address that another recording removes


def recording_dropdown(found: Mapping[str, str], view: View):
    """A dropdown of recordings."""
    first = next(iter(found))
    return choice_dropdown(view, "recording", [*found], first, "Recording", view.keep("recording", first, _STEP))


def episode_table(recording: Recording, view: View):
    """A table of the episodes, to be sorted and searched; a row opens its episode."""
    keep = view.keep("episode", None, ["step"])

    def open_it(chosen: Any) -> None:
        if len(chosen):
            keep(int(chosen["episode"].iloc[0]))

    return table(catalog.list_episodes(recording), 5, selection="single", on_change=open_it)


def chosen_episode(recording: Recording, view: View, settings: page.Settings) -> int:
    """The episode of the address, else that of the flags, else the most telling."""
    last, asked = len(recording) - 1, settings.episode
    first = asked if asked is not None and asked <= last else catalog.first_episode(recording)
    return view.pick_number("episode", 0, last, first)


def step_slider(episode: Episode, view: View, settings: page.Settings):
    """A slider over the steps of an episode; the arrow keys move it."""
    last = num_steps_of(episode) - 1
    first = settings.step if settings.step is not None and settings.step <= last else catalog.first_step(episode)
    value = view.pick_number("step", 0, last, first)

    def keep(step: float | None) -> None:
        view.put("step", min(int(step or 0), last), None)

    return mo.ui.slider(0, max(last, 1), value=value, label="Step", full_width=True, include_input=True, on_change=keep)


def step_controls(recording: Recording, view: View, settings: page.Settings):
    """The controls of what is asked about a step, by the names of `Choices`."""
    targets = target_names(recording.config["encoding"]["expert_hidden_sizes"])
    targets |= {} if settings.target in targets.values() else {settings.target: settings.target}
    simulators = catalog.find_simulators(settings.simulator)

    slider = partial(number_slider, view, show_value=True)
    return mo.ui.dictionary(
        {
            "target": choice_dropdown(view, "target", targets, settings.target, "Target"),
            "horizon": slider("horizon", 0, MAX_HORIZON, settings.horizon, "Steps back"),
            "actions": choice_dropdown(view, "actions", page.ACTIONS, settings.actions, "Actions"),
            "simulator": choice_dropdown(view, "simulator", simulators, settings.simulator, "Simulator"),
            "num_sim_steps": slider("steps", 1, MAX_STEPS, settings.num_sim_steps, "Steps ahead"),
        }
    )


def microscope_button(recording: Recording, checkpoint: str | None):
    """A button that makes the microscope of the policy when it is pressed, and gives the file to the browser."""
    return mo.download(
        partial(page.microscope_of, recording, checkpoint),
        f"{recording.folder.name}_microscope.html",
        "text/html",
        label="Edit and play: its microscope",
    )


def shown_controls(controls) -> list:
    """The controls that matter: steps ahead only of a learned simulator."""
    is_exact = controls.value["simulator"] == EXACT
    return [control for name, control in controls.items() if name != "num_sim_steps" or not is_exact]
