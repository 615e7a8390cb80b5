"""The policy plays in real worlds, whatever state they are in, and what happens is kept as a recording has it.

Axis letters: N worlds, T actions of an episode, S hidden units, A actions, E experts of all layers, H and W height and
width of a grid.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from generative.domains.babyai.policy import Answer, FrozenPolicy
from generative.simulators.relaxation import soften
from mop.envs.babyai import World
from mop.fast.grid import cell_code

Choose = Callable[[Tensor], Tensor]  # logits (N, A) -> actions (N,) int64
Measure = Callable[[Answer], Tensor]  # what a policy says -> (N,), as `Target.of`


def greedy(logits: Tensor) -> Tensor:
    """The likeliest action of each world."""
    return logits.argmax(-1)


def sampler(seed: int) -> Choose:
    """Actions drawn from the policy's distribution, by a random stream of its own."""
    generator = torch.Generator().manual_seed(seed)
    return lambda logits: torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


@torch.no_grad()
def play(
    policy: FrozenPolicy,
    worlds: Sequence[World],
    num_steps: int | None = None,
    choose: Choose = greedy,
    hidden: Tensor | None = None,
    lang: Tensor | None = None,
    measure: Measure | None = None,
) -> list[dict[str, np.ndarray]]:
    """Play each world from where it is, until its episode ends or `num_steps` actions are taken.

    hidden (N, S): the memory to begin with, an empty one by default; lang (N, G): what is given of the missions, by
    default what the policy's encoder makes of them.

    Returns the T + 1 rows of each world under the names of a recording (`generative.recordings`), without the bot's;
    the policy is asked about the last state, too. `action` is -1 there, and `reward` 0. With a measure, also `value`,
    what it is at each row.
    """
    rows: list[list[dict]] = [[] for _ in worlds]
    playing = list(range(len(worlds)))
    hidden = policy.initial_hidden(len(worlds)) if hidden is None else hidden
    lang = policy.embed([world.mission for world in worlds]) if lang is None else lang
    ended = [False] * len(worlds)
    for t_step in range((num_steps or np.iinfo(np.int64).max) + 1):
        obs = torch.from_numpy(np.stack([worlds[n].obs for n in playing]))
        answer = policy.step(soften(obs), lang[playing], hidden)
        columns = {
            "obs": obs.numpy().astype(np.uint8),
            "hidden": hidden.numpy(),
            "log_probs": answer.logits.log_softmax(-1).numpy(),
            "routing": torch.cat(answer.routing, -1).numpy(),
            "lpc": policy.lpc(answer.routing).numpy(),
            "student": answer.logits.argmax(-1).numpy(),
        }
        if measure is not None:
            columns["value"] = measure(answer).numpy()
        actions = choose(answer.logits).tolist()
        for k, n in enumerate(playing):
            is_last = ended[n] or t_step == num_steps
            now = {name: column[k] for name, column in columns.items()} | _state_of(worlds[n])
            reward, terminated, truncated = (0.0, False, False) if is_last else worlds[n].step(actions[k])
            now |= {"action": -1 if is_last else actions[k], "reward": reward}
            rows[n].append(now | {"terminated": terminated, "truncated": truncated})
            ended[n] = terminated or truncated or is_last
        kept = [k for k, n in enumerate(playing) if rows[n][-1]["action"] >= 0]
        playing, hidden = [playing[k] for k in kept], answer.hidden[kept]
        if not playing:
            break
    return [{name: np.stack([row[name] for row in of_world]) for name in of_world[0]} for of_world in rows]


def _state_of(world: World) -> dict[str, np.ndarray]:
    """What a recording holds of a world besides its view."""
    return {
        "position": np.array(world.position, np.int16),
        "grid": world.codes.copy(),
        "carried": np.int32(cell_code(world.env.carrying)),
    }
