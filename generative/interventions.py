"""Moving a policy's memory along directions while it acts in real worlds, and counting what it does.

After each step of the policy, its new memory h becomes h + a u, with an amount a in each world that is read off the
memory; w and c(h) = w . (h - mean) are the dual and the coordinate of a direction (`generative.direction_sets`):

    swap    a = w_from . (h - memory before the step)    u = u_to - u_from      what is added goes elsewhere
    null    a = -c(h)                                    u                      the coordinate is that of the mean
    clamp   a = value - c(h)                             u                      the coordinate is a value
    add     a = value                                    u
    random  a of that run, world and step by step        random, as long        the control

The action of the step is chosen before, so a move acts from the next step on. Axis letters: N environments, W worlds,
T steps, S hidden units.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from minigrid.core.actions import Actions
from minigrid.core.constants import OBJECT_TO_IDX
from torch import Tensor

from generative.direction_sets import Directions, random_unit
from generative.labels import DOOR_STATES, phase_of
from generative.policies import FrozenPolicy
from mixture_of_experts import compute_lpc, reset_hidden
from mop.base.streams import stream_seed
from mop.jobs.evaluation import NUM_ENVS
from mop.kernels import fast
from mop.kernels.grid import EMPTY, code_color, code_kind, code_state
from mop.measures.phases import PHASES
from mop.measures.routing_data import ACTION_NAMES
from mop.worlds.episodes import EvalVectorEnv
from mop.worlds.minigrid_patches import DIRECTIONS
from mop.worlds.world import World

EVENTS = ("pick-ups", "drops", "door toggles")
_PICK_UP, _DROP, _TOGGLE = int(Actions.pickup), int(Actions.drop), int(Actions.toggle)
_DOOR, _KEY, _LOCKED = OBJECT_TO_IDX["door"], OBJECT_TO_IDX["key"], DOOR_STATES.index("locked")
_MOVABLE = {OBJECT_TO_IDX[name] for name in ("key", "ball", "box")}

# memories (N, S) before and after a step, and the state (N,) of `episodes.SLOT_STATE` -> amounts (N,) float32
Amounts = Callable[[Tensor, Tensor, np.ndarray], Tensor]


class Move(NamedTuple):
    """What is done to the memory after a step: h + amount x way."""

    amounts: Amounts
    way: Tensor  # (S,) float32


class Reading(NamedTuple):
    """Amounts that are read off the memory: reads . (h - origin) + offset; origin None: the memory before the step."""

    reads: Tensor  # (S,) float32
    origin: Tensor | None  # (S,) float32
    offset: float

    def __call__(self, before: Tensor, after: Tensor, state: np.ndarray) -> Tensor:
        return (after - (before if self.origin is None else self.origin)) @ self.reads + self.offset


class Replay(NamedTuple):
    """The amounts of another run in the same worlds at the same steps; where that run was shorter, from its start."""

    recorded: np.ndarray  # (W, T) float32
    steps: np.ndarray  # (W,) int64, how many of them each world has

    def __call__(self, before: Tensor, after: Tensor, state: np.ndarray) -> Tensor:
        episode = state["episode"]
        return torch.from_numpy(self.recorded[episode, state["t_step"] % self.steps[episode]])


class Operation(NamedTuple):
    """What is to be done with a direction, given by its number."""

    kind: str  # swap, null, clamp, add
    number: int
    to: int | None = None  # the other direction of a swap
    value: float = 0.0  # of clamp and add, in standard deviations of the coordinate

    def move(self, directions: Directions) -> Move:
        """The move along the direction itself."""
        dual, mean = _tensor(directions.duals[self.number]), _tensor(directions.mean)
        offset = self.value * float(directions.sd[self.number])
        if self.kind == "swap":
            reading = Reading(dual, None, 0.0)
        elif self.kind == "add":
            reading = Reading(torch.zeros_like(dual), mean, offset)
        else:  # null is clamp to 0
            reading = Reading(-dual, mean, offset)
        return Move(reading, _tensor(self._way(directions)))

    def random_move(self, directions: Directions, replay: Replay, seed: int, number: int) -> Move:
        """The same amounts along a random way through the same blocks, as long; each number has a stream of its own."""
        rng = np.random.default_rng(stream_seed(seed, f"random direction {number}"))
        numbers = [self.number] if self.to is None else [self.number, self.to]
        blocks = dict.fromkeys(directions.blocks[numbers].tolist())
        way = sum(random_unit(directions, block, rng) for block in blocks) / len(blocks) ** 0.5
        return Move(replay, _tensor(way * np.linalg.norm(self._way(directions))))

    def _way(self, directions: Directions) -> np.ndarray:
        unit = directions.units[self.number]
        return unit if self.to is None else directions.units[self.to] - unit

    def describe(self, directions: Directions) -> str:
        """In words, for titles."""
        name = directions.names[self.number]
        if self.kind == "swap":
            return f"{name} moved to {directions.names[self.to]}"
        words = {"null": f"{name} nulled", "clamp": f"{name} held at {self.value:g} sd"}
        return words.get(self.kind, f"{self.value:+g} sd of {name} added at each step")


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


# --- episodes ---------------------------------------------------------------------------------------------------------


class Played(NamedTuple):
    """One episode in each of W worlds."""

    table: dict[str, np.ndarray]  # columns (W,) float64
    amounts: np.ndarray  # (W, T) float32, of the move; 0 behind the end of an episode

    def replay(self) -> Replay:
        """The amounts, for another run in the same worlds."""
        return Replay(self.amounts, self.table["steps"].astype(np.int64))


@torch.no_grad()
def play(
    policy: FrozenPolicy,
    task_id: str,
    max_steps: int | None,
    seeds: Sequence[int],
    move: Move | None = None,
    num_envs: int = NUM_ENVS,
    progress: Callable[[int], object] = lambda num_done: None,
) -> Played:
    """One greedy episode in each world, with a move after each step or, without one, as `evaluation.evaluate` has it.

    Columns in the order of the seeds: "seed", "success", "steps", EVENTS, and sums over the steps of "lpc", "moved"
    (length of the moves), "weight <layer>.<expert>", "<phase>: <action>" (how often it was taken).
    progress: called with the number of episodes just finished.
    """
    env, tally = EvalVectorEnv(task_id, list(seeds), num_envs, max_steps), _Tally(policy, len(seeds))
    step, hidden = fast.stepper(policy.policy), policy.initial_hidden(len(env.worlds))
    obs, lang = torch.from_numpy(env.obs), policy.embed(env.missions)  # obs shares the memory of env.obs
    while env.active.any():
        logits, routing, after = step(obs, lang, hidden)
        actions, amounts = logits.numpy().argmax(-1), torch.zeros(len(logits))
        if move is not None:
            amounts = move.amounts(hidden, after, env.state)
            after = after + amounts[:, None] * move.way
        tally.add(env, actions, routing, amounts.numpy(), 0.0 if move is None else float(move.way.norm()))
        done = env.step(actions)
        hidden = reset_hidden(after, torch.from_numpy(done))
        if done.any():
            lang = policy.embed(env.missions)
            progress(int(done.sum()))
    return tally.played(env.episodes)


class _Tally:
    """What happens in each of W worlds, step by step."""

    def __init__(self, policy: FrozenPolicy, num_worlds: int):
        self._sizes = policy.policy.expert_hidden_sizes
        self._names = column_names(self._sizes)
        self._sums, self._moves = np.zeros((num_worlds, len(self._names))), []

    def add(self, env: EvalVectorEnv, actions: np.ndarray, routing: list[Tensor], amounts: np.ndarray, length: float):
        """What the active slots show, and what is about to be done there; length: of the way of the move."""
        slots = np.flatnonzero(env.active)
        state, actions, amounts = env.state[slots], actions[slots], amounts[slots]
        lpc, weights = compute_lpc(routing, self._sizes).numpy(), torch.cat(list(routing), -1).numpy()
        shown = np.column_stack([lpc[slots], np.abs(amounts) * length, weights[slots]])
        episode, first = state["episode"], len(EVENTS)
        self._sums[episode, first : first + shown.shape[1]] += shown
        is_key_held = code_kind(np.array([env.worlds[slot].carried for slot in slots])) == _KEY
        phase = phase_of(state["door_unlocked"], is_key_held)
        self._sums[episode, first + shown.shape[1] + phase * len(ACTION_NAMES) + actions] += 1
        for k in np.flatnonzero(np.isin(actions, (_PICK_UP, _DROP, _TOGGLE))).tolist():
            event = event_of(env.worlds[slots[k]], int(actions[k]))
            if event is not None:
                self._sums[episode[k], event] += 1
        self._moves.append((episode, state["t_step"], amounts))

    def played(self, episodes: Sequence[Mapping]) -> Played:
        """All of it; episodes: those of the environment, all over."""
        told = {
            key: np.array([episode[key] for episode in episodes], np.float64) for key in ("seed", "success", "steps")
        }
        episode, t_step, amounts = (np.concatenate(values) for values in zip(*self._moves, strict=True))
        recorded = np.zeros((len(episodes), t_step.max() + 1), np.float32)
        recorded[episode, t_step] = amounts
        return Played(told | dict(zip(self._names, self._sums.T, strict=True)), recorded)


def column_names(expert_hidden_sizes: Sequence[Sequence[int]]) -> list[str]:
    """What `play` counts, by name."""
    weights = [f"weight {layer}.{e}" for layer, sizes in enumerate(expert_hidden_sizes) for e in range(len(sizes))]
    actions = [_action_name(phase, action) for phase in range(len(PHASES)) for action in range(len(ACTION_NAMES))]
    return [*EVENTS, "lpc", "moved", *weights, *actions]


def _action_name(phase: int, action: int) -> str:
    return f"{PHASES[phase]}: {ACTION_NAMES[action]}"


def event_of(world: World, action: int) -> int | None:
    """Which of EVENTS an action will be in the present state of a world, by Minigrid's rules; None: none of them."""
    if action not in (_PICK_UP, _DROP, _TOGGLE):
        return None
    (x, y), (dx, dy) = world.position, DIRECTIONS[world.direction]
    front, carried = int(world.codes[y + dy, x + dx]), world.carried
    if action == _PICK_UP:
        return 0 if carried == EMPTY and code_kind(front) in _MOVABLE else None
    if action == _DROP:
        return 1 if carried != EMPTY and front == EMPTY else None
    fits = code_kind(carried) == _KEY and code_color(carried) == code_color(front)
    return 2 if code_kind(front) == _DOOR and (code_state(front) != _LOCKED or fits) else None
