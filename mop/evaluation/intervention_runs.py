"""Interventions on the routing of one checkpoint: the same fixed worlds again, with other weights in place of a
router's, and what differs.

Axis letters: W worlds, S steps, N worlds side by side.
"""

from bisect import bisect
from collections.abc import Callable, Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from mixture_of_experts import RecurrentPolicy
from mop.analysis.intervention_effects import exchange, measure_effects, phase_grouping, phases_of_both
from mop.analysis.metrics import compute_metrics
from mop.artifacts.routing_cache import RoutingCache, RoutingSteps
from mop.common.errors import InputError
from mop.common.routing_edits import GATE_ONLY, NONE, SWAP, Intervention
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import EvalVectorEnv
from mop.envs.missions import MissionEncoder
from mop.evaluation.evaluate import NUM_ENVS, Progress, play, prepare
from mop.evaluation.routing_gates import Gates, experts_of_units, hold_memory
from mop.fast import dispatch

_BLOCK = 1024  # worlds side by side where a policy is only asked

# obs (N, I), lang (N, G), hidden (N, S), which world and which of its steps (N,) -> logits, routing, hidden
_Answer = Callable[[Tensor, Tensor, Tensor, np.ndarray, np.ndarray], tuple[Tensor, list[Tensor], Tensor]]


def with_routers_of(policy: RecurrentPolicy, other: RecurrentPolicy) -> RecurrentPolicy:
    """A copy of a policy with the routers of another. Raises InputError where they do not fit."""
    copy = deepcopy(policy)
    try:
        if policy.expert_hidden_sizes != other.expert_hidden_sizes or policy.equations != other.equations:
            raise RuntimeError
        for mine, theirs in zip(copy.layers, other.layers, strict=True):
            mine.router.load_state_dict(theirs.router.state_dict())
    except (RuntimeError, AttributeError):
        raise InputError("the routers of the two policies do not fit: their experts or widths differ") from None
    return copy


class Actor:
    """The policy of a checkpoint, which acts with or without an intervention on its routing."""

    def __init__(
        self,
        checkpoint: Mapping,
        encoder: MissionEncoder,
        device: torch.device | str = "cpu",
        path: str | None = None,
    ):
        """path: see `dispatch.stepper`. Raises InputError where checkpoint and encoder do not fit together."""
        self.policy, self.missions = prepare(checkpoint, encoder, device)
        self._experts = experts_of_units(self.policy.hidden_layout, self.policy.expert_hidden_sizes).to(device)
        self._path, self._step = path, dispatch.stepper(self.policy, path)

    def stepper(self, routers: RecurrentPolicy | None = None) -> Callable:
        """What steps the policy, with the routers of another one if given. Raises InputError if they do not fit."""
        return self._step if routers is None else dispatch.stepper(with_routers_of(self.policy, routers), self._path)

    def answers(
        self,
        gates: Gates,
        variant: str = GATE_ONLY,
        step: Callable | None = None,
        when: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> _Answer:
        """What the policy answers with an intervention.

        step: of `stepper`; when: worlds and steps (N,) -> where it is made (N,) bool, None for everywhere.
        """
        is_idle, step = gates.intervention.kind in (NONE, SWAP), step or self._step

        @torch.no_grad()
        def answer(obs: Tensor, lang: Tensor, hidden: Tensor, world: np.ndarray, t_step: np.ndarray):
            if is_idle:
                return step(obs, lang, hidden)
            is_on = None if when is None else when(world, t_step)
            logits, routing, after = step(obs, lang, hidden, gates.at(world, t_step, is_on))
            return logits, routing, hold_memory(variant, self._experts, routing, hidden, after)

        return answer

    def play(
        self,
        answer: _Answer,
        env: EvalVectorEnv,
        worlds: np.ndarray,
        progress: Progress | None = None,
        seen: list[tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> RoutingSteps:
        """The steps of the greedy episodes in the worlds of `env`, whose numbers are `worlds` (W,) int.

        progress: called with the number of episodes just finished; seen: gets which episodes and observations there
        are at each vector step.
        """

        def act(env: EvalVectorEnv, obs: Tensor, lang: Tensor, hidden: Tensor):
            if seen is not None:
                seen.append((env.state["episode"][env.active], env.obs[env.active].astype(np.uint8)))
            return answer(obs, lang, hidden, worlds[env.state["episode"]], env.state["t_step"])

        return play(self.policy, self.missions, env, act, progress)


class Study:
    """One policy in fixed worlds: its intact episodes, and what becomes of them under interventions."""

    def __init__(
        self,
        checkpoint: Mapping,
        encoder: MissionEncoder,
        bot_paths: BotPaths,
        num_episodes: int = 1000,
        eval_seed: int = 0,
        num_envs: int = NUM_ENVS,
        device: torch.device | str = "cpu",
        group_by: str | None = None,
        path: str | None = None,
        progress: Progress | None = None,
    ):
        """Plays the intact episodes. group_by: of GROUPINGS, what is a phase; None: `phase_grouping`; path: see
        `dispatch.stepper`; progress: called with the number of episodes just finished.

        Raises InputError where checkpoint, encoder, task and grouping do not fit together.
        """
        self._actor = Actor(checkpoint, encoder, device, path)
        self.policy = self._actor.policy
        self._bot_paths, self._num_envs, self._eval_seed = bot_paths, num_envs, eval_seed
        self._solved, self._bot_plan_failures = bot_paths.solvable(eval_seed, num_episodes)
        self._seen: list[tuple[np.ndarray, np.ndarray]] = []  # the worlds and observations of each vector step
        intact = self._actor.answers(Gates(Intervention(NONE), self.policy.expert_hidden_sizes))
        self.intact = self._play(intact, np.arange(num_episodes), progress, self._seen)
        world, obs = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
        self._obs = obs[np.argsort(world, kind="stable")]  # (S, I) uint8, in the order of the steps of `intact`
        self._seen = []
        self.group_by = group_by or phase_grouping(self.intact)
        groups, self._phase, _ = phases_of_both(self.intact, self.intact, self.group_by)
        self.phases: list[str] = groups.labels

    # --- an intervention ----------------------------------------------------------------------------------------------

    def check(self, intervention: Intervention) -> None:
        """Raises InputError where this policy or these worlds have not what an intervention names."""
        if intervention.phase is not None and intervention.phase not in self.phases:
            raise InputError(
                f"{intervention}: the phases of these worlds ({self.group_by}) are {', '.join(map(repr, self.phases))}"
            )
        Gates(intervention, self.policy.expert_hidden_sizes)

    def run(
        self,
        intervention: Intervention,
        variant: str = GATE_ONLY,
        routers: RecurrentPolicy | None = None,
        progress: Progress | None = None,
    ) -> dict:
        """Metrics and effects of an intervention, a row of `mop.artifacts.intervention_rows` without its names.

        Arguments and errors as `episodes`.
        """
        changed = self.episodes(intervention, variant, routers, progress)
        metrics = compute_metrics(changed.episodes, changed.steps.lpc, self._bot_plan_failures)
        agrees = self.agrees(intervention, variant, routers)
        return metrics | measure_effects(self.intact, changed, agrees, self.group_by)

    def episodes(
        self,
        intervention: Intervention,
        variant: str = GATE_ONLY,
        routers: RecurrentPolicy | None = None,
        progress: Progress | None = None,
    ) -> RoutingCache:
        """The episodes with an intervention, in the worlds of `intact`.

        routers: for `swap`, the policy whose routers are taken; progress: called with the number of episodes just
        finished, more than there are worlds where they are played several times. Raises InputError as `check`.
        """
        gates, step = self._prepare(intervention, routers)
        if intervention.phase is not None:
            return self._play_in_phase(gates, variant, step, progress)
        return self._play(self._actor.answers(gates, variant, step), np.arange(len(self._solved)), progress)

    def agrees(
        self, intervention: Intervention, variant: str = GATE_ONLY, routers: RecurrentPolicy | None = None
    ) -> np.ndarray:
        """Where the policy with an intervention takes the intact policy's action, on the intact episodes: (S,) bool.

        It is shown their observations, step by step, and carries its own memory along, as the intervention makes it;
        but the actions that are taken in the world are those of the intact policy. Arguments and errors as `episodes`.
        """
        (gates, step), episode = self._prepare(intervention, routers), self.intact.steps.episode
        when, starts = None, np.searchsorted(episode, np.arange(len(self._solved)))
        if intervention.phase is not None:
            is_in = self._phase == self.phases.index(intervention.phase)

            def when(world: np.ndarray, t_step: np.ndarray) -> np.ndarray:
                return is_in[starts[world] + t_step]

        return self._ask(self._actor.answers(gates, variant, step, when), starts) == self.intact.steps.action

    def _prepare(self, intervention: Intervention, routers: RecurrentPolicy | None) -> tuple[Gates, Callable]:
        """What changes the weights, and what steps the policy."""
        self.check(intervention)
        gates = Gates(intervention, self.policy.expert_hidden_sizes, self.intact.steps.layer_routing, self._eval_seed)
        return gates, self._actor.stepper(routers if intervention.kind == SWAP else None)

    def _play(
        self, answer: _Answer, worlds: np.ndarray, progress: Progress | None, seen: list | None = None
    ) -> RoutingCache:
        """The episodes in some of the worlds, in their order; `seen` gets what they show."""
        seeds = np.array(list(self._solved))[worlds].tolist()
        env = EvalVectorEnv(self._bot_paths.task_id, seeds, self._num_envs, self._bot_paths.max_steps, True)
        steps = self._actor.play(answer, env, worlds, progress, seen)
        for episode in env.episodes:
            episode["expert_steps"] = self._solved[episode["seed"]]
        header = {"task_id": self._bot_paths.task_id, "expert_hidden_sizes": self.policy.expert_hidden_sizes}
        return RoutingCache(header, env.episodes, steps)

    # --- in a phase ---------------------------------------------------------------------------------------------------

    def _play_in_phase(self, gates: Gates, variant: str, step: Callable, progress: Progress | None) -> RoutingCache:
        """The episodes with an intervention at the steps in a phase, and at no other.

        The phase of a step is known only when its episode is complete. But an episode does not depend on what would be
        done later: each is played again with one more change, at the first step at which the intervention was not made
        in the phase or made outside of it, until there is none. So as many times as the phase begins and ends.
        Raises InputError if the phase of a step depends on what comes after.
        """
        changed, waiting = self.intact, np.arange(len(self._solved))
        turns: list[list[int]] = [[] for _ in self._solved]  # the steps at which it is turned on, off, on, ...

        def is_on(world: np.ndarray, t_step: np.ndarray) -> np.ndarray:
            pairs = zip(world.tolist(), t_step.tolist(), strict=True)
            return np.array([bisect(turns[k], t) % 2 == 1 for k, t in pairs], bool)

        while True:
            wrong = self._first_wrong(changed, gates.intervention.phase, is_on)
            waiting = waiting[wrong[waiting] >= 0]
            if not len(waiting):
                return changed
            for world in waiting.tolist():
                if turns[world] and wrong[world] <= turns[world][-1]:
                    raise InputError(f"{gates.intervention}: {self.group_by} is not known before an action is chosen")
                turns[world].append(int(wrong[world]))
            part = self._play(self._actor.answers(gates, variant, step, is_on), waiting, progress)
            changed = exchange(changed, part, waiting)

    def _first_wrong(self, changed: RoutingCache, phase: str, is_on: Callable) -> np.ndarray:
        """The first step (W,) int of each world that is in the phase without the intervention or the reverse, or -1."""
        groups, _, of_step = phases_of_both(self.intact, changed, self.group_by)
        steps = changed.steps
        is_in = of_step == groups.labels.index(phase)
        rows = np.flatnonzero(is_in != is_on(steps.episode, steps.t_step))
        worlds, first = np.unique(steps.episode[rows], return_index=True)
        wrong = np.full(len(changed.episodes), -1)
        wrong[worlds] = steps.t_step[rows[first]]
        return wrong

    # --- on the intact episodes ---------------------------------------------------------------------------------------

    def _ask(self, answer: _Answer, starts: np.ndarray) -> np.ndarray:
        """The greedy action (S,) at each step of the intact episodes, which begin at rows `starts`."""
        episode, device = self.intact.steps.episode, self.policy.head.weight.device
        lengths, actions = np.bincount(episode), np.empty(len(episode), np.int64)
        order = np.argsort(-lengths, kind="stable")
        for worlds in np.split(order, range(_BLOCK, len(order), _BLOCK)):
            lang = self._actor.missions.lang([self.intact.episodes[world]["mission"] for world in worlds])
            hidden = self.policy.initial_hidden(len(worlds))
            for t in range(lengths[worlds[0]]):
                worlds = worlds[lengths[worlds] > t]  # the longest are in front
                rows, count = starts[worlds] + t, len(worlds)
                obs = torch.from_numpy(self._obs[rows].astype(np.float32)).to(device)
                times = np.full(count, t)
                logits, _, hidden = answer(obs, lang[:count], hidden[:count], worlds, times)
                actions[rows] = logits.argmax(-1).cpu().numpy()
        return actions
