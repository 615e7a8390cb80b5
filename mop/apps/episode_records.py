"""Single episodes: what happens in one of them, as captions, pictures and files.

Axis letters: T steps of the episode, L layers, E experts, A actions.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mop.analysis.actions import action_probabilities, find_loop
from mop.analysis.groups import group_routing_data
from mop.analysis.routing import EpisodeRouting, select_episode
from mop.analysis.routing_data import whole_of
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_names import run_name
from mop.common.conventions import ACTION_NAMES, SUBGOALS
from mop.common.errors import InputError
from mop.common.files import write_atomic, write_figure
from mop.plotting.curves import plot_episode_routing
from mop.plotting.film import Film, film_bytes, layer_strips
from mop.plotting.style import counted

_WORLD_PX = 300  # height of a world in a film


def describe_states(
    num_steps: int,
    outcome: str,
    lpc: np.ndarray | None,
    action: np.ndarray | None,
    probabilities: np.ndarray | None,
    carrying: Sequence[str] | None,
    subgoals: Sequence[str] | None = None,
) -> list[list[str]]:
    """The lines of a caption for each of the states 0 to T of an episode of T actions; None: unknown.

    outcome: "success", "failure", or "" if it is unknown; lpc: (T,) float; action: (T,) int; probabilities: (T, A)
    float; carrying: T or more, what the agent holds, "" for nothing; subgoals: T, the bot's.
    """
    captions = [[f"step {t} of {num_steps}"] for t in range(num_steps)]
    for t, lines in enumerate(captions):
        if action is not None:
            share = "" if probabilities is None else f" (p = {probabilities[t, action[t]]:.2f})"
            lines.append(f"next action: {ACTION_NAMES[action[t]]}{share}")
        if subgoals is not None:
            lines.append(f"sub-goal: {subgoals[t]}")
        if carrying is not None:
            article = "" if carrying[t] == "something" else "the "
            lines.append(f"carrying {article}{carrying[t]}" if carrying[t] else "hands empty")
        if lpc is not None and math.isfinite(lpc[t]):
            lines.append(f"LPC {lpc[t]:,.0f}")
    last = f"after the last action ({counted(num_steps, 'step')})"
    return [*captions, [last, outcome] if outcome else [last]]


def captions_of(data: RoutingData, episode: int, carrying: list[str] | None = None) -> list[list[str]]:
    """`describe_states` of an episode; carrying: as there, where it is known better than by the data."""
    rows, steps, context = episode_rows(data, episode), data.steps, data.episodes[episode]
    if carrying is None and steps.carrying is not None:
        carrying = ["something" if held else "" for held in steps.carrying[rows]]
    outcome = {True: "success", False: "failure"}.get(context.get("success"), "")
    is_known = steps.action_logits is not None and np.isfinite(steps.action_logits[rows]).all()
    return describe_states(
        len(rows),
        f"{outcome}: out of steps" if outcome == "failure" and context.get("truncated") else outcome,
        None if steps.lpc is None else np.asarray(steps.lpc)[rows],
        None if steps.action is None else np.asarray(steps.action)[rows],
        action_probabilities(steps.action_logits[rows]) if is_known else None,
        carrying,
        _subgoals(data, episode, rows),
    )


def episode_rows(data: RoutingData, episode: int) -> np.ndarray:
    """The rows (T,) of an episode's steps, in their order."""
    rows = np.flatnonzero(data.steps.episode == episode)
    return rows[np.argsort(data.column("t_step")[rows], kind="stable")]


def _subgoals(data: RoutingData, episode: int, rows: np.ndarray) -> list[str] | None:
    """The bot's sub-goal at each step in words, with its instruction where the mission has several; None in old caches.

    Where the bot is silent it is "unknown".
    """
    steps, count = data.steps, len(data.episodes[episode].get("instructions") or ())
    if steps.subgoal is None:
        return None
    words = ["unknown" if goal < 0 else SUBGOALS[goal].replace("_", " ") for goal in steps.subgoal[rows].tolist()]
    if steps.instruction is None or count < 2:
        return words
    numbers = steps.instruction[rows].tolist()
    return [
        word if number < 0 else f"{word}, instruction {number + 1} of {count}"
        for word, number in zip(words, numbers, strict=True)
    ]


# --- pictures of single steps -----------------------------------------------------------------------------------------


def episode_frame(data: RoutingData, episode: int, t_step: int, tile_size: int = 32) -> np.ndarray:
    """A picture (height, width, 3) uint8 of the world of an episode before action `t_step`, made from its seed."""
    from mop.envs.render import replay_world

    _require_pictures(data)
    data = whole_of(data)
    rows, seed = episode_rows(data, episode), data.episodes[episode]["seed"]
    world = replay_world(data.header["task_id"], seed, data.column("action")[rows[:t_step]].tolist())
    if t_step < len(rows) and list(map(int, world.agent_pos)) != data.column("position")[rows[t_step]].tolist():
        raise _other_world(data, seed)
    return world.get_frame(tile_size=tile_size)


def episode_frames(data: RoutingData, episode: int) -> tuple[list[np.ndarray], list[str]]:
    """The world in every state of an episode: pictures (height, width, 3) uint8, and what the agent holds."""
    from mop.envs.render import play_again

    _require_pictures(data)
    rows, seed = episode_rows(data, episode), data.episodes[episode]["seed"]
    states = play_again(data.header["task_id"], seed, data.column("action")[rows].tolist())
    pictures, places, held = zip(*states, strict=True)
    if not np.array_equal(places[:-1], data.column("position")[rows]):
        raise _other_world(data, seed)
    return list(pictures), list(held)


def _other_world(data: RoutingData, seed: int) -> InputError:
    made_with = data.header.get("minigrid_version")
    return InputError(f"world {seed} is another one here than where the cache was made (with Minigrid {made_with})")


@functools.lru_cache(maxsize=4)  # of the runs and analyses that were shown last
def example_images(data: RoutingData, group_by: str, max_groups: int = 16) -> dict[str, np.ndarray]:
    """A picture of the first step of each group, of the largest if there are more: label -> (height, width, 3) uint8.

    Empty if the cache lacks what is needed, as figures can do without.
    """
    try:
        groups = group_routing_data(data, group_by)
        _require_pictures(data)
        first = {groups.labels[group]: groups.first_steps[group] for group in groups.largest(max_groups)}
        return {
            label: episode_frame(data, data.steps.episode[step], data.column("t_step")[step], tile_size=16)
            for label, step in first.items()
        }
    except InputError:
        return {}


def _require_pictures(data: RoutingData) -> None:
    """Refuse data that lacks what a picture of a world at some step is made from."""
    for field in ("seed", "action", "t_step", "position"):
        data.require(field)


# --- an episode as files ----------------------------------------------------------------------------------------------


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
    events = _events(data, episode, chosen)
    title = [f"{run_name(data.header)}, episode {episode}, world {context['seed']}", context.get("mission", "")]
    return Film(
        title=[line for line in title if line],
        columns=[("", pictures)],
        captions=[
            [*lines, ", ".join(text for time, text in events if time == t)]
            for t, lines in enumerate(captions_of(data, episode, held))
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
