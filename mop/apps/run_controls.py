"""The controls of a page of one run: which run and checkpoint, cached or evaluated now, and what of it is shown."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import marimo as mo

from mop.apps import use_and_need
from mop.apps.elements import View, choice_dropdown, in_a_line, in_a_row, number_slider, problem, stop
from mop.apps.flags import ALL_STEPS, SCALES, RunSettings
from mop.apps.microscope_tab import STEP, WORLD
from mop.apps.run_figures import ACTIONS, AND, analyses, maps_of, part_of, selections, words_of
from mop.apps.runs import (
    FINAL,
    Run,
    Runs,
    choose_run,
    describe_metrics,
    evaluate_now,
    find_runs,
    label_of,
    last_cached,
    load_routing,
    no_cache,
    other_checkpoint,
)
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
from mop.common.values import MAX_ENVS, MAX_EPISODES
from mop.plotting.measures import Measure, experts_of

MAX_MIN_STEPS = 1000

# --- which run --------------------------------------------------------------------------------------------------------


def choose_from_runs(args: RunSettings, view: View, refresh) -> tuple:
    """The runs on this machine, and their dropdown; the cell stops at the reason if there is none.

    refresh: the button that looks again, which is shown beside the reason.
    """
    try:
        found = find_runs(args.checkpoint_dir, args.cache_dir)
        return found, run_dropdown(found, view, args)
    except InputError as error:
        stop(error, "danger", refresh)


def run_dropdown(found: Runs, view: View, args: RunSettings):
    """A dropdown of the runs, with the run of the address, else the one that the flags ask for."""
    labels, first = {label_of(runs): folder for folder, runs in found.items()}, choose_run(found, args).folder
    chosen = view.pick("run", found, first)
    if not view.absent:
        view.put("run", chosen, None)  # a link is to show this run when there are others too
    keep = view.keep("run", None, ["update"])
    return choice_dropdown(view, "run", labels, first, "Run", keep, searchable=True)


def evaluation_controls(runs: Sequence[Run], view: View, args: RunSettings):
    """A slider over the checkpoints of a run, a checkbox for its cache, and sliders of a fresh evaluation."""
    words = [run.word for run in runs]
    asked = FINAL if args.update is None else str(args.update)
    default = asked if args.update is not None and asked in words else last_cached(runs).word
    usual = "no" if args.fresh else "yes"
    return mo.ui.dictionary(
        {
            "update": mo.ui.slider(
                0,
                max(len(runs) - 1, 1),
                value=words.index(view.pick("update", words, default)),
                label="Training",
                debounce=True,
                on_change=lambda number: view.put("update", words[min(int(number or 0), len(words) - 1)], None),
            ),
            "cached": mo.ui.checkbox(
                view.pick("cached", ("yes", "no"), usual) == "yes",
                label="Use cached routing data",
                on_change=lambda value: view.put("cached", "yes" if value else "no", usual),
            ),
            "episodes": number_slider(
                view, "episodes", 1, 1000, args.num_episodes, "Episodes", MAX_EPISODES, include_input=True
            ),
            "environments": number_slider(
                view, "environments", 1, 128, args.num_envs, "Environments", MAX_ENVS, include_input=True
            ),
        }
    )


def chosen_run(runs: Sequence[Run], controls) -> Run:
    """The checkpoint of a run at which its slider stands."""
    return runs[min(controls.value["update"], len(runs) - 1)]


def controls_row(runs: Sequence[Run], dropdown, controls, refresh) -> mo.Html:
    """The controls of a run: the slider only of several checkpoints, those of an evaluation if there will be one."""
    run, shown = chosen_run(runs, controls), []
    if len(runs) > 1:
        update, number = run.about.get("update"), runs.index(run) + 1
        place = "final" if update is None else f"update {update}"
        text = mo.md(f"**{place}** ({number} of {len(runs)})")
        shown = [mo.hstack([controls["update"], text], justify="start")]
    is_fresh = not (controls.value["cached"] and run.has_cache)
    names = ("cached", "episodes", "environments") if is_fresh else ("cached",)
    return in_a_row(dropdown, *shown, *(controls[name] for name in names), refresh)


def load_or_evaluate(run: Run, controls) -> tuple[int | None, RoutingData]:
    """The routing data that the controls ask for, and the number of episodes evaluated now; None: the cache is shown.

    A fresh evaluation shows a progress bar. The cell stops at the reason where there is no data.
    """
    chosen = controls.value
    try:
        if chosen["cached"] and run.has_cache:
            return None, load_routing(run)
        count = chosen["episodes"]
        with mo.status.progress_bar(
            total=count,
            title=f"Evaluating {run.name}",
            subtitle="after the bot's own paths; a new installation compiles for a minute first",
            remove_on_exit=True,
        ) as bar:
            return count, evaluate_now(run, count, chosen["environments"], lambda done: bar.update(increment=done))
    except (InputError, OSError) as error:
        stop(error)


def metrics_row(run: Run, data: RoutingData, is_fresh: bool) -> mo.Html:
    """What was measured in a line, below a note if the run has no cache or one of another checkpoint."""
    note = None if is_fresh else other_checkpoint(run)
    if not run.has_cache:
        note = f"{no_cache(run)}. Shown are fresh episodes."
    notes = [] if note is None else [problem(note, "warn")]
    return mo.vstack([*notes, in_a_line(describe_metrics(data))])


# --- what of it -------------------------------------------------------------------------------------------------------


class FigureControls(NamedTuple):
    """All that a map or a chart can be asked for.

    A page holds each by a name of its own: in one `mo.ui.dictionary`, the second of two quick choices was lost.
    """

    map: Any
    expert: Any
    analysis: Any
    scale: Any
    min_steps: Any
    steps: Any

    @property
    def value(self) -> dict[str, Any]:
        """What is chosen, by name."""
        return {name: control.value for name, control in self._asdict().items()}


def figure_controls(view: View, args: RunSettings, data: RoutingData) -> FigureControls:
    """Which figure of a run is shown, of which steps."""
    experts = {name: str(number) for number, name in enumerate(experts_of(data))} or {"expert": "0"}
    steps = {f"{name} ({count:,})": name for name, count in selections(data).items()}
    for asked in (args.steps, view.words.get("steps", ALL_STEPS)):
        with suppress(InputError):  # another run has no such steps
            if asked not in steps.values():
                steps[f"{asked} ({len(part_of(data, asked).steps):,})"] = asked
    first_steps = args.steps if args.steps in steps.values() else ALL_STEPS
    keep_steps = view.keep("steps", first_steps, (WORLD, STEP))
    maps, least = maps_of(data), view.pick_number("min_steps", 1, MAX_MIN_STEPS, args.min_steps)
    keep = view.keep("min_steps", args.min_steps)
    return FigureControls(
        choice_dropdown(view, "map", maps, maps[0], "Map"),
        choice_dropdown(view, "expert", experts, "0", "Expert"),
        choice_dropdown(view, "analysis", analyses(data), "overall", "Analysis"),
        choice_dropdown(view, "scale", SCALES, args.scale, "Scale"),
        mo.ui.number(1, MAX_MIN_STEPS, 1, least, debounce=True, label="Least steps in a cell", on_change=keep),
        choice_dropdown(view, "steps", steps, first_steps, "Steps", keep_steps),
    )


def of_tab(controls: FigureControls, tab: str, measure: Measure | None) -> list:
    """Those that matter on a tab; measure: of the map on it."""
    matters = {
        "map": measure is not None,
        "expert": measure is not None and measure.of_expert,
        "analysis": measure is not None or tab == ACTIONS,
        "scale": measure is not None and measure.parts is not None,
        "min_steps": measure is not None,
        "steps": tab != use_and_need.TAB,
    }
    return [control for name, control in controls._asdict().items() if matters[name]]


def link_to_steps(view: View, now: str, **more: object) -> Callable[[Mapping], str]:
    """For `drawn`: from a cell, a group or an interval to this page with its steps alone, in every figure.

    now: the steps that are shown, of which it is a part; more: other words of the address that change. The microscope
    then opens at the first of these steps.
    """

    def address(values: Mapping) -> str:
        words = words_of(values)
        if not words:
            return ""
        within = [] if now == ALL_STEPS else now.split(AND)
        steps = AND.join(dict.fromkeys([*within, *words.split(AND)]))
        return view.here({**more, "steps": steps, WORLD: None, STEP: None})

    return address
