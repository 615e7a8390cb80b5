"""The Episodes tab: which episodes to list, the player of one, and what is saved of it."""

import html
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import urlencode

import marimo as mo
import numpy as np

from mop.apps import run_figures
from mop.apps.elements import View, problem, told
from mop.apps.episode_player import player_document
from mop.apps.episode_records import (
    ORDERS,
    OUTCOMES,
    EpisodeFilter,
    episode_labels,
    episode_record,
    find_episodes,
    parse_cell,
)
from mop.apps.flags import RunSettings
from mop.artifacts.routing_cache import RoutingData
from mop.common.cli import setting
from mop.common.errors import InputError
from mop.common.files import write_atomic, write_figure
from mop.plotting.curves import plot_episode_routing

_HEIGHT_PX = 720  # until the player has measured itself
ENDINGS = {"player (html)": "html", "film (gif)": "gif", "still (png)": "png"}  # what can be saved of an episode
_FILTER = ("outcome", "least", "mission", "order", "episode")  # words of the address, beside CELL
CELL = "cell"  # in the address of a page: the cell that listed episodes pass, as "x,y"


def filter_controls(data: RoutingData, view: View):
    """The controls of a filter, in a row, as the address of the page has them."""
    longest = int(np.bincount(data.steps.episode).max())
    words = view.words

    def dropdown(name: str, options: Collection[str], label: str):
        default = next(iter(options))
        chosen, keep = view.pick(name, options, default), view.keep(name, default)
        return mo.ui.dropdown(list(options), chosen, label=label, allow_select_none=False, on_change=keep)

    def text(name: str, label: str, example: str):
        return mo.ui.text(words.get(name, ""), label=label, placeholder=example, on_change=view.keep(name, ""))

    least, keep_least = view.pick_number("least", 1, longest, 1), view.keep("least", 1)
    return mo.md("{outcome} {min_steps} {words} {cell} {order}").batch(
        outcome=dropdown("outcome", OUTCOMES, "Outcome"),
        min_steps=mo.ui.number(1, longest, value=least, label="Least steps", debounce=True, on_change=keep_least),
        words=text("mission", "Mission has", "text"),
        cell=text(CELL, "Passes cell", "x, y"),
        order=dropdown("order", ORDERS, "Order"),
    )


def link_to_episodes(view: View) -> Callable[[Mapping], str]:
    """For `show_figure`: from a cell of a map to all episodes that pass it; what else the address says stays.

    The page opens anew there. A link is what works for every visitor, in a new tab and with the browser's way back.
    """

    def address(values: Mapping) -> str:
        if not {"x", "y"} <= values.keys():
            return ""
        kept = {name: word for name, word in view.words.items() if name not in _FILTER}
        return "?" + urlencode({**kept, "tab": "Episodes", CELL: f"{values['x']},{values['y']}"}, safe=",")

    return address


def list_episodes(data: RoutingData, chosen: Mapping, view: View) -> tuple:
    """A dropdown of the episodes that pass a filter, which says how many they are, and why there is none, or "".

    chosen: the value of `filter_controls`. Where no episode passes, the value of the dropdown is None.
    """
    labels, reason = {}, "no episode passes this filter: ask for fewer things"
    try:
        least, cell = chosen["min_steps"] or 1, parse_cell(chosen["cell"])
        wanted = EpisodeFilter(chosen["outcome"], least, chosen["words"], cell, chosen["order"])
        labels = episode_labels(data, find_episodes(data, wanted))
    except InputError as error:
        reason = str(error)
    label = f"Episode ({len(labels):,} of {len(data.episodes):,})"
    asked = next((name for name, index in labels.items() if str(index) == view.words.get("episode")), None)
    first = asked or next(iter(labels), None)
    keep = view.keep("episode", None)
    dropdown = mo.ui.dropdown(labels, first, label=label, allow_select_none=not labels, on_change=keep)
    return dropdown, "" if labels else reason


def show_player(data: RoutingData, episode: int | None, reason: str = "") -> mo.Html:
    """The player of an episode, or a line that says why there is none: `reason`, where no episode is chosen."""
    try:
        if episode is None:
            raise InputError(reason)
        document = player_document(episode_record(data, episode))
    except InputError as error:
        return problem(error, "warn")
    return frame(document, f"episode {episode}")


def frame(document: str, title: str) -> mo.Html:
    """A player's document within a page.

    It lies in the page itself. `mo.iframe` would make it a file of the session, which can be gone before the browser
    asks for it.
    """
    style = f"width: 100%; height: {_HEIGHT_PX}px; border: 0"
    title, document = html.escape(title), html.escape(document)
    return mo.Html(f'<iframe class="player" title="{title}" style="{style}" srcdoc="{document}"></iframe>')


def write_episode(
    data: RoutingData, episode: int, folder: str | Path, ending: str, first: int = 0, last: int | None = None
) -> Path:
    """Write `<folder>/episode_<N>.<ending>`, one of ENDINGS, and return its path.

    first, last: the states that a film shows, if not all.
    """
    path = Path(folder) / f"episode_{episode}.{ending}"
    if ending == "png":
        return write_figure(path, plot_episode_routing(data, episode))
    if ending == "html":
        content = player_document(episode_record(data, episode)).encode()
    else:
        from mop.apps.episode_player import episode_gif  # what draws films takes a moment to load

        content = episode_gif(data, episode, first=first, last=last)
    write_atomic(path, lambda file: file.write(content))
    return path


@dataclass(frozen=True)
class Settings(RunSettings):
    """The flags of an app of one run, and which single episodes it saves as a script."""

    episode: tuple[int, ...] | None = setting(
        None, "as a script, save these alone: player, film, still", low=0, metavar="N"
    )
    film: tuple[int, int] | None = setting(None, "... the film from and to these steps", low=0, nargs=2, metavar="STEP")


def save_as_script(app: str, args: Settings) -> None:
    """Save the figures of a run, or, with --episode, the player, film and still of some episodes."""
    if args.episode is None:
        run_figures.save_as_script(app, args, run_figures.routing_figures)
        return
    run, data = run_figures.run_of_script(args)
    folder, steps = run.key.artefacts(args.plots_dir), args.film or (0, None)
    for episode, ending in product(args.episode, ENDINGS.values()):
        print(write_episode(data, episode, folder, ending, *steps))


def save_episode(data: RoutingData, episode: int, folder: str | Path, ending: str) -> mo.Html:
    """`write_episode`, and where the file is."""
    try:
        path = write_episode(data, episode, folder, ending)
    except (InputError, OSError) as error:
        return problem(error)
    return told(f"saved: `{path}`")
