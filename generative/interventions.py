"""Moving a policy's memory along directions while it acts in real worlds, and counting what it does.

After each step of the policy, its new memory h becomes h + a u, with an amount a in each world that is read off the
memory; w and c(h) = w . (h - mean) are the dual and the coordinate of a direction (`generative.direction_sets`):

    swap    a = w_from . (h - memory before the step)    u = u_to - u_from      what is added goes elsewhere
    null    a = -c(h)                                    u                      the coordinate is that of the mean
    clamp   a = value - c(h)                             u                      the coordinate is a value
    add     a = value                                    u

The action of the step is chosen before, so a move acts from the next step on. Axis letters: N environments, W worlds,
S hidden units, E experts of all layers, K directions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from minigrid.core.actions import Actions
from minigrid.core.constants import OBJECT_TO_IDX
from torch import Tensor

from generative.direction_sets import Directions, RandomSpace, random_stream, spread
from generative.labels import DOOR_STATES, phase_of
from generative.policies import FrozenPolicy
from mixture_of_experts import compute_lpc, reset_hidden
from mop.jobs.evaluation import NUM_ENVS
from mop.kernels import fast
from mop.kernels.grid import EMPTY, code_color, code_kind, code_state
from mop.measures.phases import PHASES
from mop.measures.routing_data import ACTION_NAMES
from mop.worlds.episodes import EvalVectorEnv
from mop.worlds.minigrid_patches import DIRECTIONS
from mop.worlds.world import World

EVENTS = ("pick-ups", "drops", "door toggles")
_DOOR, _KEY, _LOCKED = OBJECT_TO_IDX["door"], OBJECT_TO_IDX["key"], DOOR_STATES.index("locked")
_MOVABLE = {OBJECT_TO_IDX[name] for name in ("key", "ball", "box")}


class Move(NamedTuple):
    """h + a way, where a = reads . (h - origin) + offset; origin None: the memory before the step."""

    reads: Tensor  # (S,) float32
    way: Tensor  # (S,) float32
    origin: Tensor | None  # (S,) float32
    offset: float

    def __call__(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Memories (N, S) before and after a step -> the moved ones (N, S), and how far each was moved (N,)."""
        amount = (after - (before if self.origin is None else self.origin)) @ self.reads + self.offset
        return after + amount[:, None] * self.way, amount.abs() * self.way.norm()


class Operation(NamedTuple):
    """What is to be done with a direction, given by its number."""

    kind: str  # swap, null, clamp, add
    number: int
    to: int | None = None  # the other direction of a swap
    value: float = 0.0  # of clamp and add, in standard deviations of the coordinate

    def move(self, directions: Directions) -> Move:
        """The move along the direction itself."""
        unit, dual = directions.units[self.number], directions.duals[self.number]
        other = None if self.to is None else directions.units[self.to]
        return self._move(directions, unit, dual, other)

    def random_move(self, directions: Directions, seed: int, number: int) -> Move:
        """The same along a random direction of the block, of the same length, whose coordinate varies as much.

        Of a swap, the other direction is random too, at the same angle to the first; what must vary as much is what a
        step adds to the coordinate. Each number has a random stream of its own.
        """
        rng, size = random_stream(seed, number), len(directions.mean)
        moment = directions.change_moment if self.kind == "swap" else directions.covariance

        def space(k: int) -> RandomSpace:
            return RandomSpace(moment, directions.columns(directions.blocks[k]), size)

        sd = spread(directions.duals[self.number][None], moment)[0]
        unit, dual = space(self.number).draw(sd, rng)
        other = None
        if self.to is not None:
            cosine = float(np.clip(directions.units[self.number] @ directions.units[self.to], -1.0, 1.0))
            other = unit if self.to == self.number else space(self.to).draw_unit(rng, unit, cosine)
        return self._move(directions, unit, dual, other)

    def _move(self, directions: Directions, unit: np.ndarray, dual: np.ndarray, other: np.ndarray | None) -> Move:
        mean, offset = _tensor(directions.mean), self.value * float(directions.sd[self.number])
        if self.kind == "swap":
            return Move(_tensor(dual), _tensor(other - unit), None, 0.0)
        if self.kind == "add":
            return Move(torch.zeros_like(mean), _tensor(unit), mean, offset)
        return Move(_tensor(-dual), _tensor(unit), mean, offset)  # null is clamp to 0

    def describe(self, directions: Directions) -> str:
        """In words, for titles."""
        name = directions.names[self.number]
        if self.kind == "swap":
            return f"{name} moved to {directions.names[self.to]}"
        return {"null": f"{name} nulled", "clamp": f"{name} held at {self.value:g} sd"}.get(
            self.kind, f"{self.value:+g} sd of {name} added at each step"
        )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


# --- episodes ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def play(
    policy: FrozenPolicy,
    task_id: str,
    max_steps: int | None,
    seeds: Sequence[int],
    move: Move | None = None,
    num_envs: int = NUM_ENVS,
    progress: Callable[[int], object] = lambda num_done: None,
) -> dict[str, np.ndarray]:
    """One greedy episode in each world, with a move after each step or, without one, as `evaluation.evaluate` has it.

    Columns (W,) float64 in the order of the seeds: "seed", "success", "steps", EVENTS, and sums over the steps of
    "lpc", "moved" (length of the moves), "weight <layer>.<expert>", "<phase>: <action>" (how often it was taken).
    progress: called with the number of episodes just finished.
    """
    env, inner = EvalVectorEnv(task_id, list(seeds), num_envs, max_steps), policy.policy
    step, hidden = fast.stepper(inner), policy.initial_hidden(len(env.worlds))
    obs, lang = torch.from_numpy(env.obs), policy.embed(env.missions)  # obs shares the memory of env.obs
    names = column_names(inner.expert_hidden_sizes)
    sums, first_action = np.zeros((len(seeds), len(names))), names.index(_action_name(0, 0))
    while env.active.any():
        logits, routing, after = step(obs, lang, hidden)
        actions, moved = logits.numpy().argmax(-1), torch.zeros(len(logits))
        if move is not None:
            after, moved = move(hidden, after)
        shown = torch.cat([compute_lpc(routing, inner.expert_hidden_sizes)[:, None], moved[:, None], *routing], -1)
        slots = np.flatnonzero(env.active)
        episode = env.state["episode"][slots]
        sums[episode, len(EVENTS) : len(EVENTS) + shown.shape[1]] += shown.numpy()[slots]
        is_key_held = code_kind(np.array([env.worlds[slot].carried for slot in slots])) == _KEY
        phase = phase_of(env.state["door_unlocked"][slots], is_key_held)
        sums[episode, first_action + phase * len(ACTION_NAMES) + actions[slots]] += 1
        for slot, number in zip(slots.tolist(), episode.tolist(), strict=True):
            event = event_of(env.worlds[slot], actions[slot])
            if event is not None:
                sums[number, event] += 1
        done = env.step(actions)
        hidden = reset_hidden(after, torch.from_numpy(done))
        if done.any():
            lang = policy.embed(env.missions)
            progress(int(done.sum()))
    outcomes = {
        key: np.array([episode[key] for episode in env.episodes], float) for key in ("seed", "success", "steps")
    }
    return outcomes | dict(zip(names, sums.T, strict=True))


def column_names(expert_hidden_sizes: Sequence[Sequence[int]]) -> list[str]:
    """What `play` counts, by name."""
    weights = [f"weight {layer}.{e}" for layer, sizes in enumerate(expert_hidden_sizes) for e in range(len(sizes))]
    actions = [_action_name(phase, action) for phase in range(len(PHASES)) for action in range(len(ACTION_NAMES))]
    return [*EVENTS, "lpc", "moved", *weights, *actions]


def _action_name(phase: int, action: int) -> str:
    return f"{PHASES[phase]}: {ACTION_NAMES[action]}"


def event_of(world: World, action: int) -> int | None:
    """Which of EVENTS an action will be in the present state of a world, by Minigrid's rules; None: none of them."""
    if action not in (Actions.pickup, Actions.drop, Actions.toggle):
        return None
    (x, y), (dx, dy) = world.position, DIRECTIONS[world.direction]
    front, carried = int(world.codes[y + dy, x + dx]), world.carried
    if action == Actions.pickup:
        return 0 if carried == EMPTY and code_kind(front) in _MOVABLE else None
    if action == Actions.drop:
        return 1 if carried != EMPTY and front == EMPTY else None
    fits = code_kind(carried) == _KEY and code_color(carried) == code_color(front)
    return 2 if code_kind(front) == _DOOR and (code_state(front) != _LOCKED or fits) else None
