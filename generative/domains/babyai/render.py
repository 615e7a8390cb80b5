"""Films of episodes and simulations in BabyAI: the world and what the agent sees, the router's gates over time below.

Axis letters: T actions of an episode, which has the states 0 to T; L layers, E experts.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from generative.attribution.closed_loop import roll_out
from generative.attribution.loop_inputs import Scenes
from generative.domains.babyai.causes import code_of, thing_name
from generative.domains.babyai.pictures import action_names, framed, view_pictures, world_pictures, wrong_cells
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.rollouts import play, sampler
from generative.domains.playing import PlaySettings, Span
from generative.figures.film import Film, gate_strips
from generative.recordings.format import Episode
from generative.simulators.relaxation import discretise
from mop.common.conventions import ACTION_NAMES
from mop.common.seeding import stream_seed
from mop.common.task_mix import task_name
from mop.envs.babyai import World
from mop.envs.geometry import EMPTY, code_kind
from mop.evaluation.rollout import greedy
from mop.plotting.style import counted


def play_films(settings: PlaySettings) -> Iterator[tuple[str, Film]]:
    """Yield films of the worlds that the policy of a checkpoint plays now, with their names."""
    policy, config = FrozenPolicy.load(str(settings.checkpoint), settings.lang_encoder)
    task_id, how = settings.task_id or config["task_id"], settings.policy
    world = World(task_id, settings.max_steps or config.get("max_steps"))
    for world_seed in range(settings.world_seed, settings.world_seed + settings.num_eps):
        world.reset(world_seed)
        seed = stream_seed(settings.seed, f"actions in world {world_seed}")
        (rows,) = play(policy, [world], choose=sampler(seed) if how == "sampled" else greedy)
        title = [f"{task_name(task_id)}, world {world_seed}, {how}", f"mission: {world.mission}"]
        film = episode_film(rows, title, policy.expert_hidden_sizes)
        yield f"{task_name(task_id)}_world_{world_seed}_{how}", film


def recorded_film(encoding: Mapping, episode: Episode, title: str) -> Film:
    """The film of a recorded episode; title: which it is."""
    return episode_film(episode, _title(encoding, episode, title), encoding["expert_hidden_sizes"])


def _title(encoding: Mapping, episode: Episode, title: str) -> list[str]:
    of = f"{task_name(encoding['task_id'])}, {title}: world {episode.seed}, {episode.behaviour}"
    return [of, f"mission: {episode.mission}"]


def simulated_film(
    policy: FrozenPolicy, scenes: Scenes, encoding: Mapping, episode: Episode, title: str, span: Span
) -> Film:
    """The film of a simulation next to the truth; wrong cells of the simulated view have a red frame."""
    truth = {name: array[span.first : span.first + span.num_states] for name, array in episode.items()}
    simulated = simulate(policy, scenes, episode, span)
    lines = [*_title(encoding, episode, title), span.how]
    is_wrong = wrong_cells(truth["obs"], simulated["obs"])
    names = action_names(truth["action"]), action_names(simulated["action"])
    captions = []
    for t, (wrong, *chosen) in enumerate(zip(is_wrong, *names, strict=True)):
        captions.append(
            [
                f"step {span.first + t}, {t} after the simulation began",
                f"action in truth: {chosen[0]}, in the simulation: {chosen[1]}",
                f"{wrong.sum()} of {wrong.size} cells are wrong (red)",
            ]
        )
    views = view_pictures(simulated["obs"])
    columns = [
        ("the world", world_pictures(truth)),
        ("what the agent sees", view_pictures(truth["obs"])),
        ("what it sees in the simulation", [framed(view, wrong) for view, wrong in zip(views, is_wrong, strict=True)]),
    ]
    strips = zip(
        gate_strips(truth["routing"], policy.expert_hidden_sizes, ", truth"),
        gate_strips(simulated["routing"], policy.expert_hidden_sizes, ", simulation"),
        strict=True,
    )
    return Film(lines, columns, captions, [strip for pair in strips for strip in pair])


@torch.no_grad()
def simulate(policy: FrozenPolicy, scenes: Scenes, episode: Episode, span: Span) -> dict[str, np.ndarray]:
    """The rows of a simulation: obs, routing, lpc, and as action what the policy would do."""
    first, num_states, is_own, _ = span
    rows = slice(first, first + num_states)
    scene = scenes.at(episode, first, scenes.kinds[0])
    state, first_view = scene.begin(scene.inputs)
    actions = torch.from_numpy(episode["action"][rows].astype(np.int64)).clamp(0)[None]  # in the last state, none is
    hidden = torch.from_numpy(episode["hidden"][first : first + 1].copy())
    lang = torch.from_numpy(np.asarray(episode.lang))[None]
    given = None if is_own else actions
    trace = roll_out(policy, scenes.simulator, state, lang, hidden, num_states, given, first_view=first_view)
    return {
        "obs": discretise(trace.views[:, 0]).numpy().astype(np.uint8),
        "routing": torch.cat(trace.routing, -1)[:, 0].numpy(),
        "lpc": policy.lpc(trace.routing)[:, 0].numpy(),
        "action": trace.logits[:, 0].argmax(-1).numpy(),
    }


def episode_film(rows: Mapping[str, np.ndarray], title: Sequence[str], expert_hidden_sizes) -> Film:
    """The film of an episode; rows: its T + 1 rows, arrays as a recording has them."""
    return Film(
        title=list(title),
        columns=[("the world", world_pictures(rows)), ("what the agent sees", view_pictures(rows["obs"]))],
        captions=_captions(rows, has_routers=max(map(len, expert_hidden_sizes)) > 1),
        strips=gate_strips(rows["routing"], expert_hidden_sizes),
    )


def _captions(rows: Mapping[str, np.ndarray], has_routers: bool) -> list[list[str]]:
    """The lines of each of the states 0 to T."""
    num_steps, captions = len(rows["action"]) - 1, []
    for t, action in enumerate(rows["action"][:-1].tolist()):
        carried = rows["carried"][t]
        lines = [f"step {t} of {num_steps}"]
        lines += [f"next action: {ACTION_NAMES[action]} (p = {np.exp(float(rows['log_probs'][t, action])):.2f})"]
        lines += ["hands empty" if code_kind(carried) == EMPTY else f"carrying the {thing_name(code_of(carried))}"]
        captions.append(lines + ([f"LPC {rows['lpc'][t]:,.0f}"] if has_routers else []))
    if rows["reward"].max() > 0:
        outcome = "success"
    elif rows["terminated"].any():
        outcome = "failure"
    else:
        outcome = "failure: out of steps" if rows["truncated"].any() else "not over yet"
    return [*captions, [f"after the last action ({counted(num_steps, 'step')})", outcome]]
