"""Rollouts in BabyAI: from given states of worlds, as a recording has them, and with the hidden state moved.

Axis letters: N environments, W worlds, T steps, S hidden units, A actions, L layers, E experts.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from minigrid.core.actions import Actions
from minigrid.core.constants import OBJECT_TO_IDX
from torch import Tensor

from generative.domains.babyai.labels import DOOR_STATES, phase_of
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.base import Target
from generative.representations.steering import ArenaSettings, Measure, Move, Played, Ratio, Table, compare_ratios
from generative.simulators.relaxation import to_simplex
from mixture_of_experts import compute_lpc
from mop.analysis.groups import PHASES
from mop.common.conventions import ACTION_NAMES
from mop.envs.babyai import World
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import EvalVectorEnv
from mop.envs.geometry import DIRECTIONS, EMPTY, code_color, code_kind, code_state
from mop.evaluation.evaluate import NUM_ENVS
from mop.evaluation.rollout import Answer, Choose, WorldPolicy, greedy, rollout

EVENTS = ("pick-ups", "drops", "door toggles")
MAIN = ("success", "path ratio", "steps", *EVENTS, "LPC", "moved")
_PICK_UP, _DROP, _TOGGLE = int(Actions.pickup), int(Actions.drop), int(Actions.toggle)
_DOOR, _KEY, _LOCKED = OBJECT_TO_IDX["door"], OBJECT_TO_IDX["key"], DOOR_STATES.index("locked")
_MOVABLE = {OBJECT_TO_IDX[name] for name in ("key", "ball", "box")}


def sampler(seed: int) -> Choose:
    """Choose actions drawn from the policy's distribution, by a random stream of its own."""
    generator = torch.Generator().manual_seed(seed)
    return lambda _, answer: torch.multinomial(answer.logits.softmax(-1), 1, generator=generator)[:, 0].numpy()


class _Worlds:
    """N worlds from where they are, as environments for `rollout`, which asks about their last observations, too."""

    def __init__(self, worlds: Sequence[World], num_steps: int | None):
        self.rows: list[list[dict]] = [[] for _ in worlds]  # `play` adds what is shown, `step` what came of it
        self.active, self._is_over = np.ones(len(worlds), bool), np.zeros(len(worlds), bool)
        self._worlds, self._num_steps = worlds, num_steps

    @property
    def obs(self) -> np.ndarray:
        """(N, I) float32."""
        return np.stack([world.obs for world in self._worlds])

    def step(self, actions: np.ndarray) -> np.ndarray:
        for n in np.flatnonzero(self.active).tolist():
            is_last = self._is_over[n] or len(self.rows[n]) - 1 == self._num_steps
            outcome = (0.0, False, False) if is_last else self._worlds[n].step(int(actions[n]))
            now = {"action": -1 if is_last else actions[n]}
            now |= dict(zip(("reward", "terminated", "truncated"), outcome, strict=True))
            self.rows[n][-1] |= now
            self._is_over[n], self.active[n] = any(outcome[1:]), not is_last
        return np.zeros(len(actions), bool)


def play(
    policy: FrozenPolicy,
    worlds: Sequence[World],
    num_steps: int | None = None,
    choose: Choose = greedy,
    hidden: Tensor | None = None,
    lang: Tensor | None = None,
    measure: Target | None = None,
) -> list[dict[str, np.ndarray]]:
    """Roll out the policy in each world from where it is, until its episode ends or `num_steps` actions are taken.

    hidden (N, S): the memory to begin with, an empty one by default; lang (N, G): what is given of the missions, by
    default what the policy's encoder makes of them.

    Returns the T + 1 rows of each world under the names of a recording (`generative.recordings`), without the bot's;
    the policy is asked about the last state, too. `action` is -1 there, and `reward` 0. With a measure, also `value`,
    what it is at each row.
    """
    hidden = policy.initial_hidden(len(worlds)) if hidden is None else hidden
    given = policy.embed([world.mission for world in worlds]) if lang is None else lang
    envs = _Worlds(worlds, num_steps)
    steps = rollout(lambda _, hidden: policy.step(to_simplex(envs.obs), given, hidden), envs, hidden, choose=choose)
    for before, answer, _ in steps:
        columns = {
            "obs": envs.obs.astype(np.uint8),
            "hidden": before.numpy(),
            "log_probs": answer.logits.log_softmax(-1).numpy(),
            "routing": torch.cat(answer.routing, -1).numpy(),
            "lpc": policy.lpc(answer.routing).numpy(),
            "student": answer.logits.argmax(-1).numpy(),
        }
        if measure is not None:
            columns["value"] = measure(answer).numpy()
        for n in np.flatnonzero(envs.active).tolist():
            world = worlds[n]
            state = {"position": np.array(world.position, np.int16), "grid": world.codes.copy()}
            state["carried"] = np.array(world.carried, np.int32)
            envs.rows[n].append({name: column[n] for name, column in columns.items()} | state)
    return [{name: np.stack([row[name] for row in of_world]) for name in of_world[0]} for of_world in envs.rows]


# --- with the hidden state moved --------------------------------------------------------------------------------------


class BabyAIArena:
    """The `steering.Arena` of a policy that acts greedily in worlds that the bot solves."""

    main = MAIN

    def __init__(self, policy: FrozenPolicy, config: Mapping, settings: ArenaSettings):
        """config: of the policy's checkpoint."""
        self._policy = policy
        self._task = (config["task_id"], config.get("max_steps"))
        self._how = settings
        self.num_worlds = settings.num_worlds
        self.settings = {}
        self.words = f"{config['task_id']}, {self.num_worlds} worlds"

    @cached_property
    def _bot_steps(self) -> dict[int, int]:
        """Seed of each world -> steps of the bot's episode."""
        return BotPaths(*self._task, self._how.cache_dir).solvable(self._how.eval_seed, self.num_worlds)[0]

    def play(self, move: Move | None, progress: Callable[[int], object]) -> Played:
        played = play_moved(self._policy, *self._task, list(self._bot_steps), move, self._how.num_envs, progress)
        outcomes = {name: played.table[name] for name in ("seed", "success", "steps")}
        outcomes["bot_steps"] = np.array(list(self._bot_steps.values()), np.float64)
        return played._replace(table=outcomes | played.table)

    def measures(self, plain: Table, moved: Table) -> list[Measure]:
        return measures_of(plain, moved)


@torch.no_grad()
def play_moved(
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
    env = EvalVectorEnv(task_id, list(seeds), num_envs, max_steps, progress=progress)
    tally = _Tally(policy, len(seeds))

    def modify(env: EvalVectorEnv, hidden: Tensor, answer: Answer) -> Tensor:
        amounts = torch.zeros(len(hidden)) if move is None else move.amounts(hidden, answer.hidden, env.state)
        tally.add(env, greedy(env, answer), answer.routing, amounts.numpy(), move)
        return answer.hidden if move is None else answer.hidden + amounts[:, None] * move.way

    hidden = policy.initial_hidden(len(env.worlds))
    for _ in rollout(WorldPolicy(policy.policy, policy.missions), env, hidden, modify=modify):
        pass
    return tally.played(env.episodes)


class _Tally:
    """What happens in each of W worlds, step by step."""

    def __init__(self, policy: FrozenPolicy, num_worlds: int):
        self._sizes = policy.policy.expert_hidden_sizes
        self._names = column_names(self._sizes)
        self._sums, self._moves = np.zeros((num_worlds, len(self._names))), []

    def add(self, env: EvalVectorEnv, actions: np.ndarray, routing: Sequence[Tensor], amounts: np.ndarray, move):
        """Count what the active slots show, and what is about to be done there; amounts (N,): of the move."""
        length = 0.0 if move is None else float(move.way.norm())
        slots = np.flatnonzero(env.active)
        state: Any = env.state[slots]
        actions, amounts = actions[slots], amounts[slots]
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
        outcomes = {
            key: np.array([episode[key] for episode in episodes], np.float64) for key in ("seed", "success", "steps")
        }
        episode, t_step, amounts = (np.concatenate(values) for values in zip(*self._moves, strict=True))
        recorded = np.zeros((len(episodes), t_step.max() + 1), np.float32)
        recorded[episode, t_step] = amounts
        return Played(outcomes | dict(zip(self._names, self._sums.T, strict=True)), recorded)


def column_names(expert_hidden_sizes: Sequence[Sequence[int]]) -> list[str]:
    """What `play` counts, by name."""
    weights = [f"weight {layer}.{e}" for layer, sizes in enumerate(expert_hidden_sizes) for e in range(len(sizes))]
    actions = [f"{phase}: {action}" for phase in PHASES for action in ACTION_NAMES]
    return [*EVENTS, "lpc", "moved", *weights, *actions]


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


# --- measures ---------------------------------------------------------------------------------------------------------


def measures_of(plain: Table, moved: Table) -> list[Measure]:
    """All measures of two runs in the same worlds: those of MAIN, then weights, then actions by phase.

    Per episode: success, steps, events. Per step: LPC, weights of the experts, and moved, how far the memory is moved:
    no effect, but a check, as it is to be as far in the random runs.
    path ratio: mean of steps / the bot's steps over the worlds that both runs solve. Actions: share of the steps of a
    phase.
    """
    both = (plain["success"] > 0) & (moved["success"] > 0)
    return compare_ratios(_ratios(plain, both), _ratios(moved, both), MAIN, ["success"])


def _ratios(table: Table, both: np.ndarray) -> dict[str, Ratio]:
    """both (W,) bool: the worlds that both runs solve."""
    each, steps = np.ones(len(both)), table["steps"]
    ratios = {name: (table[name], each) for name in ("success", "steps", *EVENTS)}
    ratios["path ratio"] = both * steps / table["bot_steps"], both.astype(float)
    ratios["LPC"], ratios["moved"] = (table["lpc"], steps), (table["moved"], steps)
    ratios |= {name: (table[name], steps) for name in table if name.startswith("weight ")}
    for phase in PHASES:
        actions = {f"{phase}: {action}": table[f"{phase}: {action}"] for action in ACTION_NAMES}
        in_phase = np.sum(list(actions.values()), axis=0)
        ratios |= {name: (count, in_phase) for name, count in actions.items()}
    return ratios
