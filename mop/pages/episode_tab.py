"""The Episodes tab: which episodes to list, the player of one, and what is saved of it."""

import html
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from urllib.parse import urlencode

import marimo as mo

from mop.base.configuration import Parser, check_flags, integer, optional
from mop.base.errors import InputError
from mop.base.files import write_atomic, write_figure
from mop.pages.episodes import (
    ORDERS,
    OUTCOMES,
    EpisodeFilter,
    episode_labels,
    episode_record,
    find_episodes,
    parse_cell,
)
from mop.pages.figures import routing_figures, run_of_script, save_figures_of_run
from mop.pages.flags import parse
from mop.pages.parts import as_html, problem
from mop.pages.player import player_document
from mop.store.routing_cache import RoutingCache
from plotting_utils import plot_episode_routing

_HEIGHT_PX = 720  # until the player has measured itself
ENDINGS = {"player (html)": "html", "film (gif)": "gif", "still (png)": "png"}  # what can be saved of an episode
CELL = "cell"  # in the address of a page: the cell that listed episodes pass, as "x,y"


def filter_controls(data: RoutingCache, cell: str = ""):
    """The controls of a filter, in a row; cell: what its field for a cell says at first."""
    longest = max((episode.get("steps") or 1 for episode in data.episodes), default=1)
    return mo.md("{outcome} {min_steps} {words} {cell} {order}").batch(
        outcome=mo.ui.dropdown(list(OUTCOMES), "all", label="Outcome", allow_select_none=False),
        min_steps=mo.ui.number(1, max(longest, 1), value=1, label="Least steps", debounce=True),
        words=mo.ui.text(label="Mission has", placeholder="text"),
        cell=mo.ui.text(cell, label="Passes cell", placeholder="x, y"),
        order=mo.ui.dropdown(list(ORDERS), ORDERS[0], label="Order", allow_select_none=False),
    )


def link_to_episodes(query: Mapping[str, str]) -> Callable[[Mapping], str]:
    """For `show_figure`: from a cell of a map to the episodes that pass it; query: of the page's present address.

    The page opens anew there. A link is what works for every visitor, in a new tab and with the browser's way back.
    """

    def address(values: Mapping) -> str:
        if not {"x", "y"} <= values.keys():
            return ""
        return "?" + urlencode({**query, "tab": "Episodes", CELL: f"{values['x']},{values['y']}"}, safe=",")

    return address


def list_episodes(data: RoutingCache, chosen: Mapping) -> tuple:
    """A dropdown of the episodes that pass a filter, which says how many they are, and why there is none, or "".

    chosen: the value of `filter_controls`. Where no episode passes, the value of the dropdown is None.
    """
    labels, reason = {}, "no episode passes this filter: ask for fewer things"
    try:
        wanted = EpisodeFilter(**{**chosen, "cell": parse_cell(chosen["cell"]), "min_steps": chosen["min_steps"] or 1})
        labels = episode_labels(data, find_episodes(data, wanted))
    except InputError as error:
        reason = str(error)
    label = f"Episode ({len(labels):,} of {len(data.episodes):,})"
    dropdown = mo.ui.dropdown(labels, next(iter(labels), None), label=label, allow_select_none=not labels)
    return dropdown, "" if labels else reason


def show_player(data: RoutingCache, episode: int | None, reason: str = "") -> mo.Html:
    """The player of an episode, or a line that says why there is none: `reason`, where no episode is chosen.

    It lies in the page itself. `mo.iframe` would make it a file of the session, which can be gone before the browser
    asks for it.
    """
    try:
        if episode is None:
            raise InputError(reason)
        document = player_document(episode_record(data, episode))
    except InputError as error:
        return problem(error, "warn")
    style = f"width: 100%; height: {_HEIGHT_PX}px; border: 0"
    return mo.Html(
        f'<iframe class="player" title="episode {episode}" style="{style}" srcdoc="{html.escape(document)}"></iframe>'
    )


def write_episode(
    data: RoutingCache, episode: int, folder: str | Path, ending: str, first: int = 0, last: int | None = None
) -> Path:
    """Write `<folder>/episode_<N>.<ending>`, one of ENDINGS, and return its path.

    first, last: the states that a film shows, if not all. Raises InputError, OSError.
    """
    path = Path(folder) / f"episode_{episode}.{ending}"
    if ending == "png":
        return write_figure(path, plot_episode_routing(data, episode))
    if ending == "html":
        content = player_document(episode_record(data, episode)).encode()
    else:
        from mop.pages.film import episode_gif  # what draws films takes a moment to load

        content = episode_gif(data, episode, first=first, last=last)
    write_atomic(path, lambda file: file.write(content))
    return path


def add_flags(parser: Parser) -> Parser:
    """The same command line, with what a script saves of single episodes."""
    parser.add_argument("--episode", nargs="+", metavar="N", help="as a script, save these alone: player, film, still")
    parser.add_argument("--film", nargs=2, metavar=("FIRST", "LAST"), help="... the film from and to these steps")
    return parser


def save_as_script(parser: Parser) -> None:
    """The app as a script: the figures of a run, or, with --episode, the player, film and still of some episodes.

    parser: with the flags of `add_flags`. Raises InputError as `save_figures_of_run`, or if an episode cannot be shown.
    """
    args = parse(parser)
    several = optional(lambda texts: [integer(0)(text) for text in texts])
    check_flags(args, episode=several, film=several)
    if args.episode is None:
        save_figures_of_run(parser, routing_figures)
        return
    run, data = run_of_script(args)
    for episode, ending in product(args.episode, ENDINGS.values()):
        print(write_episode(data, episode, run.key.artefacts(args.plots_dir), ending, *(args.film or ())))


def save_episode(data: RoutingCache, episode: int, folder: str | Path, ending: str) -> mo.Html:
    """`write_episode`, and where the file is."""
    try:
        path = write_episode(data, episode, folder, ending)
    except (InputError, OSError) as error:
        return problem(error)
    return mo.callout(mo.Html(as_html(f"saved: `{path}`")), kind="success")
