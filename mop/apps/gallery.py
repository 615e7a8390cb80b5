"""Runs as a static site: a page with a card for each, and for each a page of figures beside the policy itself.

The pages need no server and ask nobody for anything.
"""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from mop.analysis.cells import aggregate_routing_by_position, compute_grid_bounds
from mop.apps import comparison_page, elements
from mop.apps.run_figures import Shown, page_of, routing_figures
from mop.apps.runs import Run, describe_metrics, load_routing
from mop.apps.template import Export, Page
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_names import run_name
from mop.common.errors import InputError
from mop.common.files import write_atomic
from mop.common.task_mix import task_name
from mop.plotting.heatmaps import render_routing_heatmap
from mop.plotting.style import Figure, expert_hues

if TYPE_CHECKING:
    import pandas as pd

INDEX_NAME = "index.html"
_MAX_NAME = 150  # characters; a file system takes 255
_NUM_WORLDS = 100  # in which a policy runs in its page
_CARD_DPI = 90  # of the picture of a card
_TITLES = {  # figures that pages of runs and the front page show -> their titles; the apps have them all
    "routing_heatmap": "Dominant expert",
    "routing_heatmap_by_key_phase": "Dominant expert by key phase",
    "specialisation": "Specialisation",
    "routing_over_progress": "Temporal",
    "pathways": "Pathways",
    "failures_by_task": "Failures by task",
    "failures_against_lpc_by_lpc_alpha": "Failures against cost",
}


def write_gallery(found: Sequence[Run], table: "pd.DataFrame", folder: Path) -> Iterator[str | None]:
    """Write a page for each run, then index.html; yields None for each page, and why a run can have none.

    found: runs with routing caches; table: of `comparison_page.load_table`.
    """
    reasons = {run: reason for run in found if (reason := _unreadable(run)) is not None}
    shown, cards = [run for run in found if run not in reasons], []
    if not shown:
        raise InputError(next(iter(reasons.values())))
    yield from reasons.values()
    pages = page_names(shown)
    for run, name in pages.items():
        data = load_routing(run)
        microscope, missing = _write_microscope(run, folder, name)
        _write(folder / name, _page_of_run(run, data, pages, microscope, missing))
        cards.append({"href": name, "microscope": microscope} | _card(run, data))
        yield None
    asked = comparison_page.complete(comparison_page.Settings(), table)
    figures, missing = _shown(comparison_page.page_of(asked, table), has_captions=False)
    notes = [*reasons.values(), *missing]
    _write(folder / INDEX_NAME, _page("index", title="Trained policies", cards=cards, figures=figures, notes=notes))
    yield None


def page_names(found: Sequence[Run]) -> dict[Run, str]:
    """The name of each run's file, which is its address: of plain letters, and no two alike, in capitals or not."""
    names: dict[Run, str] = {}
    taken = {INDEX_NAME}
    for run in found:
        stem = re.sub(r"[^\w.-]", "_", run.key.label, flags=re.ASCII)[:_MAX_NAME]
        name = next(name for k in count(1) if (name := f"{stem}{f'_{k}' * (k > 1)}.html").lower() not in taken)
        taken.add(name.lower())
        names[run] = name
    return names


def _unreadable(run: Run) -> str | None:
    try:
        load_routing(run)
    except InputError as error:
        return str(error)
    return None


def _write_microscope(run: Run, folder: Path, name: str) -> tuple[str, list[str]]:
    """Write the policy of a run as a page in which it runs; its name, "" where there is none, and why.

    name: of the run's page.
    """
    if run.checkpoint is None:
        return "", []
    from mop.evaluation.evaluate import load_for_evaluation
    from mop.microscope.document import microscope_document

    try:
        page = microscope_document(
            [load_for_evaluation(run.checkpoint)], run.key.task_id, _NUM_WORLDS, cache_dir=run.cache_dir
        )
    except InputError as error:
        return "", [f"Microscope: {error}"]
    _write(folder / (file_name := f"{name.removesuffix('.html')}_microscope.html"), page)
    return file_name, []


def _page_of_run(run: Run, data: RoutingData, pages: Mapping[Run, str], microscope: str, missing: list[str]) -> str:
    """The HTML of a run's page, of `write_gallery`; microscope, missing: of `_write_microscope`."""
    page = page_of("routing_viz.py", Shown(run), data, routing_figures)
    figures, notes = _shown(page)
    others = [other for other in pages if other.key.task_id == run.key.task_id and other != run]
    return _page(
        "run",
        title=run.name,
        microscope=microscope,
        numbers=describe_metrics(data),
        figures=figures,
        notes=[*missing, *notes],
        others=[{"href": pages[other], "name": other.name} for other in others],
    )


def _page(macro: str, **values: object) -> str:
    """The HTML of one of the macros of gallery.html."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return getattr(environment.get_template("gallery.html").module, macro)(**values)


def _shown(page: Page, has_captions: bool = True) -> tuple[list[dict[str, str]], list[str]]:
    """What the site shows of the figures of a page, and why others cannot be drawn."""
    figures, missing = [], []
    for name, title in _TITLES.items():
        if (figure := page.figures.get(name)) is None:
            continue
        try:
            picture = elements.show_figure(figure.draw(), title, page.about(name)).text
        except InputError as error:
            missing.append(f"{title}: {error}")
            continue
        caption = page.caption(name, Export()) if has_captions else figure.about
        about, *more = caption.split("\n")
        figures.append({"name": name, "title": title, "about": about, "more": "\n".join(more), "picture": picture})
    return figures, missing


def _card(run: Run, data: RoutingData) -> dict[str, object]:
    """What the front page shows of a run, and what it is sorted by, besides the task."""
    metrics = data.header.get("metrics") or {}
    values = {name: (value, remark) for name, value, remark in describe_metrics(data)}
    numbers = [f"{name} {values[name][0]}" for name in ("success", "mean LPC", "path ratio") if name in values]
    return {
        "task": task_name(run.key.task_id),
        "name": run_name(run.about, with_task=False),
        "numbers": " · ".join(numbers),
        "interval": values.get("success", ("", ""))[1],
        "picture": _picture(data),
        "order": {"success": -(metrics.get("success_rate") or 0), "cost": metrics.get("mean_lpc") or 0},
    }


def _picture(data: RoutingData) -> str:
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


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))
