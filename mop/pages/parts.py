"""The pieces of a page that the apps share: marimo around what the other files of this room give."""

import html
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import marimo as mo
from matplotlib.figure import Figure

from mop.base.errors import InputError
from mop.base.files import write_figure
from mop.pages import episodes
from mop.pages.routing import describe_metrics, evaluate_now, load_routing, no_cache, other_checkpoint
from mop.pages.runs import Run
from mop.store.routing_cache import RoutingCache


def problem(error: Exception | str, kind: str = "danger") -> mo.Html:
    """What cannot be shown, and the way out."""
    return mo.callout(mo.Html(as_html(str(error))), kind=kind)


def as_html(message: str) -> str:
    """A message for a page: `...` is code, nothing else is markup."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(message))


def run_controls(found_runs: Mapping[str, Run], first_run: str, args: Namespace) -> tuple:
    """A dropdown of the runs, a checkbox for the cache, sliders of a fresh evaluation's episodes and environments."""
    return (
        mo.ui.dropdown(list(found_runs), first_run, label="Run", allow_select_none=False),
        mo.ui.checkbox(not args.fresh, label="Use cached routing data"),
        _count_slider("Episodes", args.num_episodes, 1000),
        _count_slider("Environments", args.num_envs, 128),
    )


def controls_row(run: Run, dropdown, toggle, *sliders) -> mo.Html:
    """The `run_controls` in a row; the sliders only if the chosen run will be evaluated."""
    shown = [] if toggle.value and run.has_cache else sliders
    return mo.hstack([dropdown, toggle, *shown], justify="start", gap=2, wrap=True)


def load_or_evaluate(run: Run, use_cache: bool, num_episodes: int, num_envs: int) -> RoutingCache:
    """Cached routing data, or those of a fresh evaluation with a progress bar; a run without a cache is evaluated.

    Raises InputError as `load_routing` and `evaluate_now`.
    """
    if use_cache and run.has_cache:
        return load_routing(run)
    with mo.status.progress_bar(
        total=num_episodes,
        title=f"Evaluating {run.key.label}",
        subtitle="after the bot's own paths; a new installation compiles for a minute first",
        remove_on_exit=True,
    ) as bar:
        return evaluate_now(run, num_episodes, num_envs, lambda num_done: bar.update(increment=num_done))


def metrics_row(run: Run, data: RoutingCache, use_cache: bool) -> mo.Html:
    """What was measured, below a note if the run has no cache or one of another checkpoint."""
    note = other_checkpoint(run) if use_cache else None
    if not run.has_cache:
        note = f"{no_cache(run)}. Shown are fresh episodes."
    notes = [] if note is None else [problem(note, "warn")]
    stats = [mo.stat(value, name, remark, bordered=True) for name, value, remark in describe_metrics(data)]
    return mo.vstack([*notes, mo.hstack(stats, justify="start", align="stretch", wrap=True)])


def episode_frame(data: RoutingCache, episode: int, t_step: int) -> mo.Html:
    """The world at a step of an episode, and what happens there."""
    try:
        picture = mo.image(episodes.episode_frame(data, episode, t_step), alt="the world")
        caption = mo.md(episodes.step_caption(data, episode, t_step))
    except InputError as error:
        return problem(error, "warn")
    return mo.vstack([picture, caption])


def show_figure(figure: Figure) -> mo.Html:
    """A figure to zoom into, with the values under the mouse."""
    if figure.get_layout_engine() is not None:  # lay it out once, not at every draw
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return mo.mpl.interactive(figure)


def save_figure(figure: Figure, folder: str | Path, name: str) -> mo.Html:
    """Write a figure as `<folder>/<name>.png`, and say where it is."""
    try:
        path = write_figure(Path(folder) / f"{name}.png", figure)
    except OSError as error:
        return problem(error)
    return mo.callout(mo.Html(as_html(f"saved: `{path}`")), kind="success")


def _count_slider(label: str, value: int, stop: int):
    """A slider from 1 to `stop`, or to `value` if that is more; it only counts once it is let go."""
    return mo.ui.slider(1, max(stop, value), value=value, label=label, debounce=True, include_input=True)
