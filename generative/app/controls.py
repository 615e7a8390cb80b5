"""The controls of the page of the simulator; the address of the page has their choices."""

from collections.abc import Iterable, Mapping
from typing import Any

import marimo as mo

from generative.app import catalog, page
from generative.app.catalog import ALL, Filter, num_steps_of
from generative.app.selection import MAX_HORIZON, MAX_STEPS, PageState, cell_names, change_names, target_names
from generative.recordings.format import BEHAVIOURS, SPLITS, Episode, Recording
from generative.simulators.base import EXACT
from mop.apps.elements import View, absent, choice_dropdown, problem

_STEP = ("episode", "step")  # words of the address that another recording or another filter removes
TABS = {
    "Why": "What the things of earlier steps contribute: at this step, remembered, or still in the world.",
    "Imagine": "What the simulator shows from this step on, with the policy inside it, beside what really comes.",
    "Edit": "Change one cell of the world: the real future and the simulated one, as it was and edited.",
}
FIGURES = {"Why": ("why",), "Imagine": ("imagined",), "Edit": ("effect", "edited")}  # of a tab


def recording_dropdown(found: Mapping[str, str], view: View):
    """A dropdown of recordings."""
    first, names = next(iter(found)), {name: name for name in found}
    return choice_dropdown(view, "recording", names, first, "Recording", view.keep("recording", first, _STEP))


def filter_controls(view: View):
    """Which episodes are listed."""

    def dropdown(name: str, options: Iterable[str], label: str):
        words = {word: word for word in (ALL, *options)}
        return choice_dropdown(view, name, words, ALL, label, view.keep(name, ALL, _STEP))

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
    listed = catalog.list_episodes(recording, Filter(**dict[str, Any](chosen, least_steps=chosen["least_steps"] or 1)))
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
    sizes = recording.config["encoding"]["expert_hidden_sizes"]
    targets = target_names(sizes, view.words.get("target", settings.target))
    simulators, actions = catalog.find_simulators(settings.simulator), page.ACTIONS
    return mo.ui.dictionary(
        {
            "target": choice_dropdown(view, "target", targets, settings.target, "Target"),
            "simulator": choice_dropdown(view, "simulator", simulators, settings.simulator, "Simulator"),
            "since": choice_dropdown(view, "since", actions, settings.since, "Actions in between"),
            "actions": choice_dropdown(view, "actions", actions, settings.actions, "Actions"),
            "pictures": choice_dropdown(view, "pictures", page.PICTURES, settings.pictures, "Pictures"),
            "horizon": number_slider(view, "horizon", 0, MAX_HORIZON, settings.horizon, "Steps back"),
            "num_sim_steps": number_slider(view, "steps", 1, MAX_STEPS, settings.num_sim_steps, "Steps ahead"),
        }
    )


CONTROLS = {  # of a tab
    "Why": ("target", "horizon", "since", "simulator"),
    "Imagine": ("num_sim_steps", "actions", "simulator"),
    "Edit": ("target", "num_sim_steps", "actions", "simulator", "pictures"),
}


def number_slider(view: View, name: str, low: int, high: int, default: int, label: str):
    """A slider over numbers, which counts once it is let go."""
    value = view.pick_number(name, low, high, default)
    return mo.ui.slider(
        low, high, value=value, label=label, debounce=True, show_value=True, on_change=view.keep(name, default)
    )


def cell_dropdown(state: PageState, view: View):
    """A dropdown of cells to edit: things, the hand, free floor in view."""
    cells = cell_names(state)
    asked = state.choices.edit.split(":")[0]
    default = asked if asked in cells.values() else next(iter(cells.values()))
    return choice_dropdown(view, "cell", cells, default, "Cell", view.keep("cell", None, ["change"]))


def change_dropdown(state: PageState, cells, view: View):
    """A dropdown of changes of a cell; None without a `cell_dropdown`."""
    if cells is None:
        return None
    cell = cells.value
    changes = change_names(state, cell)
    place, _, change = state.choices.edit.partition(":")
    is_asked = place == cell and change in changes.values()
    default = change if is_asked else next(iter(changes.values()))
    return choice_dropdown(view, "change", changes, default, "Change", view.keep("change", None))


def edit_row(cells, changes, view: View) -> mo.Html | None:
    """Both dropdowns, below a note on what the address asks for in vain."""
    if cells is None:
        return None
    row = mo.hstack([cells, changes], justify="start", gap=2, wrap=True)
    return mo.vstack([*filter(None, [absent(view)]), row])


def around_figures(tab: str, state: PageState, view: View) -> dict[str, mo.Html]:
    """Elements above and below the figures of a tab."""
    above, below = mo.Html(""), mo.Html("")
    notes = []
    if state.choices.simulator != EXACT:
        line, is_enough = state.fidelity
        notes.append(problem(line, "info" if is_enough else "warn"))
    if tab == "Why":
        below = mo.Html(page.causes_table(state, view))
    if tab == "Imagine":
        stats = [mo.stat(value, name, remark, bordered=True) for value, name, remark in page.facts(state)]
        above = mo.hstack(stats, justify="start", align="stretch", wrap=True)
    return {"above": mo.vstack([*notes, above]) if notes else above, "below": below}
