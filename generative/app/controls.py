"""The controls of the page of the simulator; what is chosen with them stands in the address of the page."""

from collections.abc import Callable, Mapping

import marimo as mo

from generative.app import catalog, page
from generative.app.catalog import ALL, Filter, num_steps_of
from generative.app.selection import PageState, cell_names, change_names, target_names
from generative.recordings.format import BEHAVIOURS, SPLITS, Episode, Recording
from generative.simulators.base import EXACT
from mop.apps.elements import absent, choice_dropdown, problem
from mop.apps.view import View

_MOMENT = ("episode", "step")  # words of the address that another recording or another filter takes away
TABS = {
    "Why": "What the things of earlier steps contribute: at this step, remembered, or still in the world.",
    "Imagine": "What the simulator shows from this step on, with the policy inside it, beside what really comes.",
    "Edit": "Change one cell of the world: the real future and the simulated one, as it was and edited.",
}
FIGURES = {"Why": ("why",), "Imagine": ("imagined",), "Edit": ("effect", "edited")}  # of a tab


def recording_dropdown(found: Mapping[str, str], view: View):
    """A dropdown of recordings."""
    names = {name: name for name in found}
    first = next(iter(names))
    chosen = view.pick("recording", names, first)
    return mo.ui.dropdown(
        names, chosen, label="Recording", allow_select_none=False, on_change=_leaving(view, "recording", first)
    )


def filter_controls(view: View):
    """Which episodes are listed."""

    def dropdown(name: str, options, label: str):
        chosen = view.pick(name, [ALL, *options], ALL)
        return mo.ui.dropdown(
            [ALL, *options], chosen, label=label, allow_select_none=False, on_change=_leaving(view, name, ALL)
        )

    least = view.pick_number("least", 1, 10**6, 1)
    return mo.md("{split} {behaviour} {outcome} {least_steps}").batch(
        split=dropdown("split", SPLITS, "Split"),
        behaviour=dropdown("behaviour", BEHAVIOURS, "Who acts"),
        outcome=dropdown("outcome", catalog.OUTCOMES, "Outcome"),
        least_steps=mo.ui.number(
            1, 10**6, value=least, label="Least steps", debounce=True, on_change=_leaving(view, "least", 1)
        ),
    )


def episode_dropdown(recording: Recording, chosen: Mapping, view: View, settings: page.Settings):
    """A dropdown of the episodes that pass a filter, the value of `filter_controls`; None where none does."""
    listed = catalog.list_episodes(recording, Filter(**{**chosen, "least_steps": chosen["least_steps"] or 1}))
    if not len(listed):
        return None
    asked = settings.episode if settings.episode is not None and settings.episode in listed else None
    first = catalog.first_episode(recording, listed) if asked is None else asked
    k = view.pick_number("episode", 0, len(recording) - 1, first)
    labels = catalog.episode_labels(recording, listed, k)
    label = next(name for name, number in labels.items() if number == k)
    return mo.ui.dropdown(
        labels, label, label=f"Episode ({len(listed):,} of {len(recording):,})", allow_select_none=False,
        searchable=True, on_change=_leaving(view, "episode", None, "step"),
    )  # fmt: skip


def step_slider(episode: Episode, view: View, settings: page.Settings):
    """A slider over the steps of an episode; the arrow keys move it."""
    last = num_steps_of(episode) - 1
    first = settings.step if settings.step is not None and settings.step <= last else catalog.first_step(episode)
    return mo.ui.slider(
        0, max(last, 1), value=view.pick_number("step", 0, last, first), label="Step", full_width=True,
        include_input=True,
        on_change=lambda step: view.put("step", min(step, last), None),
    )  # fmt: skip


def target_dropdown(recording: Recording, view: View, settings: page.Settings):
    """What is explained, and followed into the future."""
    sizes = recording.config["encoding"]["expert_hidden_sizes"]
    words = view.words.get("target", settings.target)
    return choice_dropdown(view, "target", target_names(sizes, words), settings.target, "Target")


def number_slider(view: View, name: str, low: int, high: int, default: int, label: str):
    """A slider over numbers, which counts once it is let go."""
    value = view.pick_number(name, low, high, default)
    return mo.ui.slider(
        low, high, value=value, label=label, debounce=True, show_value=True, on_change=view.keep(name, default)
    )


def cell_dropdown(state: PageState, view: View):
    """Which cell is edited: a thing, the hand, or free floor in view."""
    cells = cell_names(state)
    asked = state.choices.edit.split(":")[0]
    default = asked if asked in cells.values() else next(iter(cells.values()))
    return _edit_dropdown(view, "cell", cells, default, "Cell", _leaving(view, "cell", None, "change"))


def change_dropdown(state: PageState, cells, view: View):
    """What is done with the cell of a `cell_dropdown`; None where there is none."""
    if cells is None:
        return None
    cell = cells.value
    changes = change_names(state, cell)
    place, _, change = state.choices.edit.partition(":")
    is_asked = place == cell and change in changes.values()
    default = change if is_asked else next(iter(changes.values()))
    return _edit_dropdown(view, "change", changes, default, "Change", view.keep("change", None))


def edit_row(cells, changes, view: View) -> mo.Html | None:
    """Both of these, below what the address asks for in vain."""
    if cells is None:
        return None
    row = mo.hstack([cells, changes], justify="start", gap=2, wrap=True)
    return mo.vstack([*filter(None, [absent(view)]), row])


def _edit_dropdown(view: View, name: str, options: Mapping[str, str], default: str, label: str, keep: Callable):
    chosen = view.pick(name, options.values(), default)
    first = next(called for called, word in options.items() if word == chosen)
    return mo.ui.dropdown(options, first, label=label, allow_select_none=False, on_change=keep)


def beside_figures(tab: str, state: PageState, view: View) -> dict[str, mo.Html]:
    """What stands above and below the figures of a tab. Raises InputError."""
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


def _leaving(view: View, name: str, default: object, *others: str) -> Callable[[object], None]:
    """What keeps a choice with which others lose their sense: `_MOMENT`, if none are named."""

    def keep(value: object) -> None:
        for other in others or _MOMENT:
            view.put(other, None, None)
        view.put(name, value, default)

    return keep
