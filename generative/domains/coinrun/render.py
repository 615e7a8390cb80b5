"""Films of an agent of a game: levels that it plays, recorded episodes, simulations next to the truth.

envpool draws a game at 64 by 64 points and in no other size (its `render` enlarges that picture), which is what the
agent sees: films show these points, enlarged. Axis letters: T actions of an episode, N = 1 episode, X numbers of a
view.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from generative.agents.config import check_preset
from generative.agents.level_play import AgentActor, LevelEpisode, play_levels
from generative.agents.networks import load_agent
from generative.attribution.closed_loop import roll_out
from generative.attribution.loop_inputs import LearnedScenes
from generative.domains.coinrun.decoder import WHITE, frame_views
from generative.domains.coinrun.games import ACTION_NAMES, FRAME_SHAPE, MAX_LEVEL
from generative.domains.coinrun.policy import FrozenAgent
from generative.domains.playing import PlaySettings, Span
from generative.figures.film import Film
from generative.recordings.format import Episode
from mop.common.errors import InputError

STEPS_PER_SECOND = 15
_HEIGHT_PX, _SMALL_PX = 448, 256  # of the pictures of a film, and of one of three side by side
_ENLARGED = 7  # points of a film for one of the frame, in each direction
_HEADING = "what the agent sees (all there is: 64 by 64 points)"


def play_films(settings: PlaySettings) -> Iterator[tuple[str, Film]]:
    """Yield films of the levels that the agent of a checkpoint plays now, with their names."""
    path, how = str(settings.checkpoint), settings.policy
    agent, config = load_agent(path, settings.task_id)
    check_preset(settings.param_name, config, path)
    levels = range(settings.world_seed, settings.world_seed + settings.num_eps)
    if levels.stop > MAX_LEVEL:
        raise InputError(f"--world_seed: a game has the levels 0 to {MAX_LEVEL - 1}")
    mode = settings.distribution_mode
    world = config["world"] | ({"distribution_mode": mode} if mode else {})
    for level in levels:
        actor = AgentActor(agent, how == "sampled", settings.seed)
        (episode,) = play_levels(world, [level], actor, keeps_frames=True, max_steps=settings.max_steps)
        title = [f"{world['env_name']} ({world['distribution_mode']}), level {level}, {how}"]
        yield f"{world['env_name']}_{world['distribution_mode']}_level_{level}_{how}", level_film(episode, title)


def level_film(episode: LevelEpisode, title: list[str]) -> Film:
    """The film of one episode; its frames must have been kept."""
    pictures = [enlarged(frame) for frame in episode.frames]
    steps = zip(episode.actions, episode.probabilities, episode.values, strict=True)
    captions = [
        [f"step {t}: {ACTION_NAMES[action]} ({share:.0%})", f"value {value:.2f}"]
        for t, (action, share, value) in enumerate(steps)
    ]
    outcome = "success" if episode.is_success else "out of time" if episode.is_cut else "failure"
    captions.append([f"step {len(captions)}: the end", f"{outcome}, return {episode.reward:g}"])
    return Film(title, [(_HEADING, pictures)], captions, [], pictures[0].shape[0])


def enlarged(frame: np.ndarray) -> np.ndarray:
    """A frame (3, H, W) uint8 as a picture (7 H, 7 W, 3) whose points are squares."""
    return frame.transpose(1, 2, 0).repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)


# --- of recordings ----------------------------------------------------------------------------------------------------


def recorded_film(encoding: Mapping, episode: Episode, title: str) -> Film:
    """The film of a recorded episode; title: which it is."""
    actions = encoding["actions"]
    names, shares = _names(episode["action"], actions), np.exp(episode["log_probs"])
    captions = []
    for t, name in enumerate(names):
        how = "" if episode["action"][t] < 0 else f" ({shares[t, episode['action'][t]]:.0%} by the agent)"
        captions.append([f"step {t}: {name}{how}", f"value {episode['value'][t]:.2f}"])
    pictures = [enlarged(frame) for frame in episode["obs"]]
    return Film([_title(encoding, episode, title)], [(_HEADING, pictures)], captions, [], _HEIGHT_PX)


def _title(encoding: Mapping, episode: Episode, title: str) -> str:
    return f"{encoding['task_id']}, {title}: level {episode.seed}, {episode.behaviour}"


@torch.no_grad()
def simulated_film(
    policy: FrozenAgent, scenes: LearnedScenes, encoding: Mapping, episode: Episode, title: str, span: Span
) -> Film:
    """The film of a simulation next to the truth, and of how far the points are apart."""
    first, num_states, is_own, how = span
    actions = encoding["actions"]
    views = frame_views(np.array(episode["obs"][first : first + 1]))
    state, lang = scenes.start_at(episode, first)(views), torch.zeros(1, 0)
    rows = slice(first, first + num_states)
    executed = torch.from_numpy(np.maximum(episode["action"][rows], 0).astype(np.int64))[None]
    hidden = torch.from_numpy(np.array(episode["hidden"][first]))[None]
    given = None if is_own else executed
    trace = roll_out(policy, scenes.simulator, state, lang, hidden, num_states, given, first_view=views)
    values = policy.run(trace.views, lang, hidden).value[:, 0]
    simulated, truth = _frames(trace.views[:, 0]), np.array(episode["obs"][rows])
    apart = np.abs(simulated.astype(int) - truth).astype(np.uint8)
    names = _names(episode["action"][rows], actions), _names(trace.actions[:, 0].numpy(), actions)
    would = _names(trace.logits[:, 0].argmax(-1).numpy(), actions)
    meant = _names(episode["student"][rows], actions)
    ends = [torch.sigmoid(scenes.simulator.outcome(one))[0, 0].item() for one in trace.states]
    captions = [
        [
            f"step {first + t}, {t} after the simulation began; error {np.square(apart[t] / WHITE).mean():.4f}",
            f"executed: {names[0][t]}, in the simulation: {names[1][t]}",
            f"the agent would: {meant[t]}, in the simulation: {would[t]}",
            f"value {episode['value'][first + t]:.2f}, in the simulation {values[t]:.2f}, the end {ends[t]:.0%}",
        ]
        for t in range(num_states)
    ]
    columns = [("the game", truth), ("the simulation", simulated), ("how far apart", apart)]
    lines = [_title(encoding, episode, title), how]
    return Film(lines, [(name, [enlarged(one) for one in frames]) for name, frames in columns], captions, [], _SMALL_PX)


def _frames(views: Tensor) -> np.ndarray:
    """Views (T, X) as frames (T, 3, 64, 64) uint8."""
    return views.unflatten(-1, FRAME_SHAPE).round().clamp(0, WHITE).to(torch.uint8).numpy()


def _names(chosen: np.ndarray, actions: Sequence[int]) -> list[str]:
    """Actions of an agent in words; -1, where there is none, as a dash."""
    return ["-" if action < 0 else ACTION_NAMES[actions[action]] for action in np.asarray(chosen).tolist()]
