"""Films of an agent that plays levels of a game: what it sees, what it does, what it expects.

envpool draws a game at 64 by 64 points and in no other size (its `render` enlarges that picture), which is what the
agent sees: films show these points, enlarged. Axis letter: T actions of an episode.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from generative.agents import GameAgent
from generative.films import Film
from generative.games import ACTION_NAMES
from generative.level_play import AgentActor, LevelEpisode, play_levels

STEPS_PER_SECOND = 15
_ENLARGED = 7  # points of a film for one of the frame, in each direction
_HEADING = "what the agent sees (all there is: 64 by 64 points)"


def level_films(
    agent: GameAgent, world: Mapping, levels: range, is_sampled: bool, seed: int, max_steps: int | None = None
) -> Iterator[tuple[str, Film]]:
    """A film of each level, with its name; world, max_steps: as `level_play.play_levels`."""
    how = "sampled" if is_sampled else "argmax"
    for level in levels:
        actor = AgentActor(agent, is_sampled, seed)
        (episode,) = play_levels(world, [level], actor, keeps_frames=True, max_steps=max_steps)
        title = [f"{world['env_name']} ({world['distribution_mode']}), level {level}, {how}"]
        yield f"{world['env_name']}_{world['distribution_mode']}_level_{level}_{how}", level_film(episode, title)


def level_film(episode: LevelEpisode, title: list[str]) -> Film:
    """The film of one episode; its frames must have been kept."""
    pictures = [enlarged(frame) for frame in episode.frames]
    captions = []
    for t, (action, share, value) in enumerate(
        zip(episode.actions, episode.probabilities, episode.values, strict=True)
    ):
        captions.append([f"step {t}: {ACTION_NAMES[action]} ({share:.0%})", f"value {value:.2f}"])
    outcome = "success" if episode.is_success else "out of time" if episode.is_cut else "failure"
    captions.append([f"step {len(captions)}: the end", f"{outcome}, return {episode.reward:g}"])
    return Film(title, [(_HEADING, pictures)], captions, [], pictures[0].shape[0])


def enlarged(frame: np.ndarray) -> np.ndarray:
    """A frame (3, H, W) uint8 as a picture (7 H, 7 W, 3) whose points are squares."""
    return frame.transpose(1, 2, 0).repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)
