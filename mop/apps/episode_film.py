"""An episode as files: an animated GIF, which slides, issues and READMEs play without a click, and a still."""

from pathlib import Path

import numpy as np

from mop.analysis.actions import find_loop
from mop.analysis.routing import EpisodeRouting, select_episode
from mop.analysis.routing_data import whole_of
from mop.apps.episode_records import episode_frames, episode_rows, steps_of
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_names import run_name
from mop.common.errors import InputError
from mop.common.files import write_atomic, write_figure
from mop.plotting.curves import plot_episode_routing
from mop.plotting.film import Film, film_bytes, layer_strips
from mop.plotting.style import counted

_WORLD_PX = 300


def write_episode(
    data: RoutingData, episode: int, folder: str | Path, first: int = 0, last: int | None = None
) -> list[Path]:
    """Write `episode_<N>.gif` and `.png`, and return their paths; first, last: the states that the film shows."""
    film, still = (Path(folder) / f"episode_{episode}.{ending}" for ending in ("gif", "png"))
    content = film_bytes(episode_film(data, episode).part(first, last), "gif")
    write_atomic(film, lambda file: file.write(content))
    return [film, write_figure(still, plot_episode_routing(data, episode))]


def episode_film(data: RoutingData, episode: int) -> Film:
    """The film of an episode: the state before each action, and the one after the last."""
    data = whole_of(data)
    chosen, context = select_episode(data, episode), data.episodes[episode]
    if not np.array_equal(chosen.t_step, np.arange(len(chosen.t_step))):
        raise InputError(
            f"the steps of episode {episode} are not those of one whole episode: it cannot be shown step by step"
        )
    pictures, held = episode_frames(data, episode)
    steps, events = steps_of(data, episode, held), _events(data, episode, chosen)
    title = [f"{run_name(data.header)}, episode {episode}, world {context['seed']}", context.get("mission", "")]
    return Film(
        title=[line for line in title if line],
        columns=[("", pictures)],
        captions=[
            [*steps.caption(t).split(" · "), ", ".join(text for time, text in events if time == t)]
            for t in range(len(pictures))
        ],
        strips=layer_strips([np.concatenate([weights, weights[-1:]]) for weights in chosen.routing], data.header),
        height_px=_WORLD_PX,
    )


def _events(data: RoutingData, episode: int, chosen: EpisodeRouting) -> list[tuple[int, str]]:
    """What happened, by the number of actions after which it was first true; a loop in which the episode ends."""
    events, steps = [(time, what) for what, time in chosen.events.items()], data.steps
    if steps.position is not None and steps.direction is not None and steps.action is not None:
        rows = episode_rows(data, episode)
        loop = find_loop(steps.position[rows], steps.direction[rows], steps.action[rows])
        events += [] if loop is None else [(loop.start, f"repeats {counted(loop.period, 'action')} from here on")]
    return events
