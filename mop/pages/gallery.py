"""Runs as a static site: a page with a card for each, and a page of figures for each; they need no server."""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from mop.base.errors import InputError
from mop.base.files import write_atomic
from mop.pages import comparison, parts
from mop.pages.figures import CHARTS, Figures, action_figures, routing_figures
from mop.pages.routing import describe_metrics, load_routing
from mop.pages.runs import Run
from mop.plotting.style import task_name
from mop.store.routing_cache import RoutingCache
from plotting_utils import GROUPINGS, aggregate_routing_by_position, compute_grid_bounds, render_routing_heatmap

if TYPE_CHECKING:
    import pandas as pd

_CARD_DPI = 90  # of the picture of a card
_ABOUT = {  # file name of a figure -> its title, what it shows; those of CHARTS are there
    "routing_heatmap": ("Dominant expert", "The expert with the largest mean weight in each cell of the grid."),
    "lpc_heatmap": ("Cost", "Mean LPC in each cell, of all layers and of each."),
    "episode": ("An episode", "The router weights at every step."),
    "action_frequency": ("Actions", "How often each action was chosen."),
    "action_entropy_heatmap": ("Uncertainty", "The mean entropy of the policy in each cell, in nats."),
    "success_against_lpc": ("Success against cost", "Each point is a policy in its fixed worlds."),
} | {name: (tab, about) for tab, (name, _, about) in CHARTS.items()}


def write_gallery(found: Sequence[Run], table: "pd.DataFrame", folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Write a page for each run, then index.html; yields the path of each, and what could not be shown there.

    found: runs with routing caches; table: of `comparison.load_table`. A run whose cache cannot be shown has no page.
    Raises InputError if none can be shown.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    macros = template.get_template("gallery.html").module
    links = [{"href": _page_name(run), "name": _name(run)} for run in found]
    cards, unshown = [], []
    for number, run in enumerate(found):
        try:
            data = load_routing(run)
        except InputError as error:
            unshown.append(str(error))
            continue
        figures, reasons = _drawn(routing_figures(data) | action_figures(data))
        text = macros.run(
            title=_name(run), about=_about(run, data), numbers=describe_metrics(data),
            figures=figures, notes=reasons, before=links[number - 1] if number else None,
            after=links[number + 1] if number + 1 < len(found) else None,
        )  # fmt: skip
        yield _write_page(folder / _page_name(run), text), reasons
        cards.append(_card(run, data))
    if not cards:
        raise InputError(unshown[0])
    across, reasons = _drawn(comparison_figures(table))
    index = macros.index(title="Trained policies", cards=cards, figures=across, notes=unshown + reasons)
    yield _write_page(folder / "index.html", index), unshown + reasons


def comparison_figures(table):
    return {
        f"success_against_lpc_by_{name}": lambda name=name: comparison.plot_tradeoff(table, name, None)
        for name in comparison.COLORS
    }


def _drawn(figures: Figures) -> tuple[list[dict[str, str]], list[str]]:
    """What a template shows of each figure, and why the others cannot be drawn."""
    shown, reasons = [], []
    for name, draw in figures.items():
        title, about = about_figure(name)
        try:
            html = parts.show_figure(draw(), title).text
        except InputError as error:
            reasons.append(f"{title}: {error}")
            continue
        shown.append({"name": name, "title": title, "about": about, "html": html})
    return shown, reasons


def about_figure(name: str) -> tuple[str, str]:
    """Title of a figure and what it shows, by the name of its file, which may end in an analysis or a number."""
    stem = max((stem for stem in _ABOUT if name == stem or name.startswith(f"{stem}_")), key=len, default=None)
    if stem is None:
        return name.replace("_", " ").capitalize(), ""
    title, about = _ABOUT[stem]
    analysis = name[len(stem) + 1 :]
    if analysis in GROUPINGS:
        title = f"{title} by {GROUPINGS[analysis].title}"
    elif analysis:
        title = f"{title}: {analysis.replace('_', ' ')}"
    return title, about


def _card(run: Run, data: RoutingCache) -> dict[str, str]:
    """What the front page shows of a run."""
    numbers = {
        name: f"{value} ({remark})" if name == "success" else value for name, value, remark in describe_metrics(data)
    }
    shown = [f"{name} {numbers[name]}" for name in ("success", "mean LPC", "path ratio") if name in numbers]
    return {
        "href": _page_name(run), "name": _name(run), "task": task_name(run.key.task_id), "about": _about(run, data),
        "numbers": " · ".join(shown), "picture": _picture(data),
    }  # fmt: skip


def _picture(data: RoutingCache) -> str:
    """Small maps of the dominant expert in each layer, as the source of an image; empty where there are none."""
    with suppress(InputError):
        averaged = aggregate_routing_by_position(data.steps)
        grid_info = compute_grid_bounds(averaged.cells)
        figure = Figure(figsize=(1.7 * len(averaged.routing or ()), 1.7), layout="constrained")
        for layer, ax in enumerate(figure.subplots(1, len(averaged.routing), squeeze=False)[0]):
            render_routing_heatmap(ax, averaged, grid_info, layer)
            ax.set_axis_off()
        figure.savefig(file := io.BytesIO(), format="png", dpi=_CARD_DPI)
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return ""


def _write_page(path: Path, text: str) -> Path:
    write_atomic(path, lambda file: file.write(text.encode()))
    return path


def _name(run: Run) -> str:
    return f"{task_name(run.key.task_id)} {run.key.label.removeprefix(run.key.task_id).strip()}"


def _about(run: Run, data: RoutingCache) -> str:
    """Which policy it is: its kind, its experts, what computation costs it."""
    row = run.result
    kind = {"mop": "mixture", "gru": "GRU baseline"}.get(data.header.get("policy"), "")
    price = f"lpc_alpha {row['lpc_alpha']:g}" if row.get("lpc_alpha") is not None else ""
    return ", ".join(filter(None, [kind, price, run.key.label.removeprefix(run.key.task_id).strip()]))


def _page_name(run: Run) -> str:
    return run.key.label.replace(" ", "_") + ".html"
