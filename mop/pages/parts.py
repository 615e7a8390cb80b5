"""The pieces of a page that the apps share: marimo around what the other files of this room give."""

import base64
import html
import io
import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

import marimo as mo
from matplotlib.figure import Figure

from mop.base.files import write_figure
from mop.pages.routing import describe_metrics, evaluate_now, load_routing, no_cache, other_checkpoint
from mop.pages.runs import Run
from mop.plotting.hover import Box, boxes_of
from mop.store.routing_cache import RoutingCache

CSS_DPI = 96  # of a page
PICTURE_DPI = 2 * CSS_DPI  # sharp on the screens of most visitors
_STYLE = """
.figure { position: relative; max-width: 100% }
.figure img { display: block; width: 100%; margin: 0 }
.figure i { position: absolute }
.figure i:hover { outline: 2px solid #000 }
.figure i:hover::after {
  content: attr(data-text); position: absolute; left: 60%; top: 105%; z-index: 9; width: max-content; max-width: 22rem;
  padding: 2px 8px; border-radius: 4px; background: #111; color: #fff; font: 13px sans-serif; pointer-events: none }
.figure i.to-left:hover::after { left: auto; right: 40% }
"""


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


def show_figure(figure: Figure, label: str, link: Callable[[Mapping], str] = lambda values: "") -> mo.Html:
    """A figure as a still picture, with its texts under the mouse; label: what it shows of which run, for readers of
    the page that cannot see it.

    link: the numbers of a text -> where a click on it leads, "" for nowhere. It is a plain link to an address of the
    page, which needs no script.

    Not `mo.mpl.interactive`: it keeps a connection for each figure, whose pictures can be those of an earlier choice,
    and whose script a later visitor of the same server does not get.
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=PICTURE_DPI, pil_kwargs={"compress_level": 1})
    spots = "".join(_spot(box, link(box.values)) for box in boxes_of(figure))
    width = round(CSS_DPI * figure.get_figwidth())
    return mo.Html(
        f'<style>{_STYLE}</style><div class="figure" style="width:{width}px">{_image(file, label)}{spots}</div>'
    )


def _image(file: io.BytesIO, label: str) -> str:
    """The element of a PNG with the picture in it: a file of its own could be gone before the browser asks for it."""
    source = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{html.escape(label)}" src="data:image/png;base64,{source}">'


def _spot(box: Box, address: str) -> str:
    """The element over a figure that shows a text under the mouse; to its left where the right is not wide enough.

    A spot with an address is a link, which the Tab key passes over: a map has hundreds of them.
    """
    sides = {"left": box.left, "top": box.top, "width": box.width, "height": box.height}
    style = ";".join(f"{side}:{share:.2%}" for side, share in sides.items())
    side = "to-left" if box.left > 0.6 else "to-right"
    spot = f'<i class="{side}" style="{style}" data-text="{html.escape(box.text)}"></i>'
    return f'<a tabindex="-1" href="{html.escape(address)}">{spot}</a>' if address else spot


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
