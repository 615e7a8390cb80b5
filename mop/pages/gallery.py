"""Runs as a static site: a page with a card for each, and a page of figures and episodes for each.

The pages need no server and ask nobody for anything: pictures and players are in them.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from mop.base.errors import InputError
from mop.base.files import write_atomic
from mop.pages import comparison, parts
from mop.pages.captions import Shown, caption_of
from mop.pages.episodes import episode_record
from mop.pages.export import Export
from mop.pages.figures import CHARTS, Drawing, action_figures, routing_figures
from mop.pages.player import player_document
from mop.pages.routing import describe_metrics, load_routing
from mop.pages.runs import Run
from mop.plotting.style import task_name
from mop.store.routing_cache import RoutingCache
from plotting_utils import (
    GROUPINGS,
    aggregate_routing_by_position,
    compute_grid_bounds,
    expert_hues,
    render_routing_heatmap,
)

if TYPE_CHECKING:
    import pandas as pd

_CARD_DPI = 90  # of the picture of a card
_TITLES = {  # file name of a figure -> its title; an analysis is added to it
    "routing_heatmap": "Dominant expert",
    "lpc_heatmap": "Cost",
    "action_frequency": "Actions",
    "action_entropy_heatmap": "Entropy of the action",
} | {name: tab for tab, (name, *_) in CHARTS.items()}


def write_gallery(found: Sequence[Run], table: "pd.DataFrame", folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Write a page for each run, then index.html; yields the path of each, and what could not be shown there.

    found: runs with routing caches; table: of `comparison.load_table`. A run whose cache cannot be read has no page.
    Raises InputError if none has one.
    """
    cards, unread = [], []
    for run in found:
        try:
            data = load_routing(run)
        except InputError as error:
            unread.append(str(error))
            continue
        text, missing = _page_of_run(run, data, found)
        yield _write(folder / _file_name(run), text), missing
        cards.append(_card(run, data))
    if not cards:
        raise InputError(unread[0])
    figures, missing = _shown(_figures_of_all(table), lambda name, about: about)
    text = _template("index", title="Trained policies", cards=cards, figures=figures, notes=unread + missing)
    yield _write(folder / "index.html", text), unread + missing


def _page_of_run(run: Run, data: RoutingCache, found: Sequence[Run]) -> tuple[str, list[str]]:
    """The page of a run, and what could not be shown on it."""

    def captioned(app: str, drawings: Mapping[str, Drawing]) -> tuple[list[dict[str, str]], list[str]]:
        shown = Shown(run)
        return _shown(drawings, lambda name, about: caption_of(app, shown, data, name, about, Export()))

    routing = {name: draw for name, draw in routing_figures(data).items() if not name.startswith("episode_")}
    figures, missing = captioned("routing_viz.py", routing)
    of_actions, also_missing = captioned("logit_viz.py", action_figures(data))
    others = [other for other in found if other.key.task_id == run.key.task_id and other != run]
    return _template(
        "run",
        title=run.name,
        numbers=describe_metrics(data),
        episodes=[_player(data, number) for number in _examples(data)],
        figures=figures + of_actions,
        notes=missing + also_missing,
        others=[{"href": _file_name(other), "name": other.name} for other in others],
    ), missing + also_missing


def _template(macro: str, **values: object) -> str:
    """One of the pages of gallery.html."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return getattr(environment.get_template("gallery.html").module, macro)(**values)


def _shown(
    drawings: Mapping[str, Drawing], caption: Callable[[str, str], str]
) -> tuple[list[dict[str, str]], list[str]]:
    """What a page shows of each figure, and why others cannot be drawn; caption: name and subject -> its lines."""
    figures, missing = [], []
    for name, drawing in drawings.items():
        title = _title(name)
        try:
            picture = parts.show_figure(drawing(), title).text
        except InputError as error:
            missing.append(f"{title}: {error}")
            continue
        about, *more = caption(name, drawing.about).split("\n")
        figures.append({"name": name, "title": title, "about": about, "more": "\n".join(more), "picture": picture})
    return figures, missing


def _title(name: str) -> str:
    """The title of a figure by the name of its file, which may end in an analysis."""
    stem = next((stem for stem in _TITLES if name == stem or name.startswith(f"{stem}_by_")), None)
    if stem is None:
        return name.replace("_", " ").capitalize()
    analysis = name[len(stem) + 1 :]
    return f"{_TITLES[stem]} by {GROUPINGS[analysis].title}" if analysis in GROUPINGS else _TITLES[stem]


def _figures_of_all(table: "pd.DataFrame") -> dict[str, Drawing]:
    about = "Worlds that a policy fails in, with 95 % intervals"
    return {
        "tasks": Drawing(f"{about}, task by task.", lambda: comparison.plot_tasks(table, "failures")),
        "success_against_cost": Drawing(
            f"{about}, against its mean LPC.", lambda: comparison.plot_tradeoff(table, "lpc_alpha", None)
        ),
    }


def _examples(data: RoutingCache) -> list[int]:
    """Up to three episodes to play: the first that succeeds, the longest that does, and the first that fails."""
    lengths = np.bincount(data.steps.episode, minlength=len(data.episodes))
    present = [number for number in range(len(data.episodes)) if lengths[number]]
    good = [number for number in present if data.episodes[number].get("success")]
    bad = [number for number in present if data.episodes[number].get("success") is False]
    chosen = [*good[:1], *sorted(good, key=lambda number: -lengths[number])[:1], *bad[:1]] or present[:1]
    return list(dict.fromkeys(chosen))


def _player(data: RoutingCache, number: int) -> dict[str, str]:
    """What a page shows of an episode."""
    record = episode_record(data, number)
    return {"title": record.title, "document": player_document(record)}


def _card(run: Run, data: RoutingCache) -> dict[str, str]:
    """What the front page shows of a run."""
    values = {name: (value, remark) for name, value, remark in describe_metrics(data)}
    numbers = [f"{name} {values[name][0]}" for name in ("success", "mean LPC", "path ratio") if name in values]
    return {
        "href": _file_name(run),
        "name": run.name,
        "task": task_name(run.key.task_id),
        "numbers": " · ".join(numbers),
        "interval": values.get("success", ("", ""))[1],
        "picture": _picture(data),
    }


def _picture(data: RoutingCache) -> str:
    """Small maps of the dominant expert in each layer, as the source of an image; "" where there are none."""
    with suppress(InputError):
        averaged = aggregate_routing_by_position(data.steps)
        hues = expert_hues(data.header, averaged.routing or ())
        figure = Figure(figsize=(1.7 * len(hues), 1.7), layout="constrained")
        for layer, ax in enumerate(figure.subplots(1, len(hues), squeeze=False)[0] if hues else ()):
            render_routing_heatmap(ax, averaged, compute_grid_bounds(averaged.cells), layer, hues=hues[layer])
            ax.set_axis_off()
        figure.savefig(file := io.BytesIO(), format="png", dpi=_CARD_DPI)
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return ""


def _write(path: Path, text: str) -> Path:
    write_atomic(path, lambda file: file.write(text.encode()))
    return path


def _file_name(run: Run) -> str:
    return run.key.label.replace(" ", "_") + ".html"
