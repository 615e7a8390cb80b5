"""The controls of the page of the simulator; the address of the page has their choices."""

from collections.abc import Iterable, Mapping
from functools import partial

import marimo as mo

from generative.app import catalog, page
from generative.app.catalog import ALL, num_steps_of
from generative.app.state import MAX_HORIZON, MAX_STEPS, target_names
from generative.recordings.format import BEHAVIOURS, SPLITS, Episode, Recording
from generative.simulators.base import EXACT
from mop.apps.elements import View, choice_dropdown, number_slider

_STEP = ("episode", "step")  # words of the address that another recording or another filter removes


def recording_dropdown(found: Mapping[str, str], view: View):
    """A dropdown of recordings."""
    first = next(iter(found))
    return choice_dropdown(view, "recording", [*found], first, "Recording", view.keep("recording", first, _STEP))


def filter_controls(view: View):
    """Which episodes are listed: the arguments of `catalog.list_episodes`."""

    def dropdown(name: str, options: Iterable[str], label: str):
        return choice_dropdown(view, name, [ALL, *options], ALL, label, view.keep(name, ALL, _STEP))

    least = view.pick_number("least", 1, 10**6, 1)
    return mo.md("{split} {behaviour} {outcome} {least_steps}").batch(
        split=dropdown("split", SPLITS, "Split"),
        behaviour=dropdown("behaviour", BEHAVIOURS, "Who acts"),
        outcome=dropdown("outcome", catalog.OUTCOMES, "Outcome"),
        least_steps=mo.ui.number(
            1, 10**6, value=least, label="Least steps", debounce=True, on_change=view.keep("least", 1, _STEP)
        ),
    )


def episode_dropdown(recording: Recording, chosen: Mapping, view: View, settings: page.Settings):
    """A dropdown of the episodes that pass a filter, the value of `filter_controls`; None where none does."""
    listed = catalog.list_episodes(recording, **chosen)
    if not len(listed):
        return None
    asked = settings.episode if settings.episode is not None and settings.episode in listed else None
    first = catalog.first_episode(recording, listed) if asked is None else asked
    k = view.pick_number("episode", 0, len(recording) - 1, first)
    labels = catalog.episode_labels(recording, listed, k)
    label = next(name for name, number in labels.items() if number == k)
    count, keep = f"Episode ({len(listed):,} of {len(recording):,})", view.keep("episode", None, ["step"])
    return mo.ui.dropdown(labels, label, label=count, allow_select_none=False, searchable=True, on_change=keep)


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
