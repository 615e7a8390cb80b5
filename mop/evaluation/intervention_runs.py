"""Interventions on the routing of one checkpoint: the same fixed worlds again, with other weights in place of a
router's, and what differs.

Axis letters: W worlds, S steps, N worlds side by side.
"""

from bisect import bisect
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from mixture_of_experts import MoELayer, RecurrentPolicy
from mop.analysis.groups import PHASE_GROUPINGS, choose_phases, get_available_analyses
from mop.analysis.intervention_effects import exchange, measure_effects, phases_of_both
from mop.analysis.metrics import compute_metrics
from mop.analysis.routing_data import checked_weights
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
from mop.common.intervention_grammar import GATE_ONLY, NONE, SWAP, Intervention
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import EvalVectorEnv
from mop.envs.missions import MissionEncoder
from mop.evaluation.evaluate import NUM_ENVS, Progress, play_solved, prepare
from mop.evaluation.rollout import Answer, Policy, WorldPolicy, rollout
from mop.evaluation.routing_gates import Gates, apply_state_policy, experts_of_units

When = Callable[[np.ndarray, np.ndarray], np.ndarray]  # worlds and steps (N,) -> where an intervention is made, bool


def with_routers_of(policy: RecurrentPolicy, other: RecurrentPolicy) -> RecurrentPolicy:
    """A copy of a policy with the routers of another."""
    changed = deepcopy(policy)
    try:
        if policy.expert_hidden_sizes != other.expert_hidden_sizes or policy.equations != other.equations:
            raise RuntimeError
        for mine, theirs in zip(changed.layers, other.layers, strict=True):
            if not (isinstance(mine, MoELayer) and isinstance(theirs, MoELayer)):
                raise RuntimeError
            mine.router.load_state_dict(theirs.router.state_dict())
    except RuntimeError:
        raise InputError("the routers of the two policies do not fit: their experts or widths differ") from None
    return changed


class RecordedEpisodes:
    """Episodes of an evaluation as environments for `rollout`: they show what was seen then, whatever is done."""

    def __init__(self, data: RoutingData, obs: np.ndarray, num_envs: int):
        """obs (S, I) uint8: of the steps of the data."""
        self._obs, self._missions = obs, [episode["mission"] for episode in data.episodes]
        self._lengths = np.bincount(data.steps.episode)
        self._first_rows = np.cumsum(self._lengths) - self._lengths
        self._waiting = np.argsort(self._lengths, kind="stable").tolist()  # the longest begin
        num_envs = min(num_envs, len(self._waiting))
        self.state: np.ndarray = np.zeros(num_envs, [("episode", np.int64), ("t_step", np.int64)])
        self.active, self.missions = np.ones(num_envs, bool), [""] * num_envs
        self._begin(range(num_envs))

    @property
    def rows(self) -> np.ndarray:
        """The step (N,) int of the data that each environment shows."""
        return self._first_rows[self.state["episode"]] + self.state["t_step"]

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Go on to the next step. Returns (N,) bool: where another episode has begun."""
        self.state["t_step"] += self.active
        is_over = self.active & (self.state["t_step"] == self._lengths[self.state["episode"]])
        self._begin(np.flatnonzero(is_over).tolist())
        return is_over

    def _begin(self, slots: Iterable[int]) -> None:
        for slot in slots:
            self.active[slot] = bool(self._waiting)
            episode = self._waiting.pop() if self._waiting else 0
            self.state[slot], self.missions[slot] = (episode, 0), self._missions[episode]
        self.obs = self._obs[self.rows].astype(np.float32)


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
        progress: Progress | None = None,
    ):
        """Plays the intact episodes. group_by: of GROUPINGS, what is a phase; None: by `choose_phases`;
        progress: called with the number of episodes just finished.
        """
        self.policy, self._missions = prepare(checkpoint, encoder, device)
        self._experts = experts_of_units(self.policy.hidden_layout, self.policy.expert_hidden_sizes)
        self._act = WorldPolicy(self.policy, self._missions)
        self._bot_paths, self._num_envs, self._eval_seed = bot_paths, num_envs, eval_seed
        self._solved, self._bot_plan_failures = bot_paths.solvable(eval_seed, num_episodes)
        seen = []

        def act_and_see(env: EvalVectorEnv, hidden: Tensor) -> Answer:
            seen.append((env.state["episode"][env.active], env.obs[env.active].astype(np.uint8)))
            return self._act(env, hidden)

        self.intact = self._play(act_and_see, np.arange(num_episodes), progress)
        world, obs = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        self._obs = obs[np.argsort(world, kind="stable")]  # (S, I) uint8, in the order of the steps of `intact`
        self.group_by = group_by or choose_phases([get_available_analyses(self.intact, PHASE_GROUPINGS)]) or "overall"
        groups, self._phase, _ = phases_of_both(self.intact, self.intact, self.group_by)
        self.phases: list[str] = groups.labels

    # --- an intervention ----------------------------------------------------------------------------------------------

    def check(self, intervention: Intervention) -> None:
        """Check that this policy and these worlds have what an intervention names."""
        if intervention.phase is not None and intervention.phase not in self.phases:
            raise InputError(
                f"{intervention}: the phases of these worlds ({self.group_by}) are {', '.join(map(repr, self.phases))}"
            )
        Gates(intervention, self.policy.expert_hidden_sizes)

    def run(self, intervention: Intervention, variant: str = GATE_ONLY, routers: RecurrentPolicy | None = None) -> dict:
        """Measure metrics and effects of an intervention: a row of `mop.artifacts.intervention_rows` without its names.

        Arguments and errors as `episodes`.
        """
        changed = self.episodes(intervention, variant, routers)
        metrics = compute_metrics(changed.episodes, changed.steps.lpc, self._bot_plan_failures)
        agrees = self.agrees(intervention, variant, routers)
        return metrics | measure_effects(self.intact, changed, agrees, self.group_by)

    def episodes(
        self, intervention: Intervention, variant: str = GATE_ONLY, routers: RecurrentPolicy | None = None
    ) -> RoutingData:
        """The episodes with an intervention, in the worlds of `intact`.

        routers: for `swap`, the policy whose routers are taken.
        """
        gates, act = self._prepare(intervention, routers)
        if intervention.phase is not None:
            return self._play_in_phase(gates, variant, act)
        return self._play(self._under(act, gates, variant), np.arange(len(self._solved)))

    def agrees(
        self, intervention: Intervention, variant: str = GATE_ONLY, routers: RecurrentPolicy | None = None
    ) -> np.ndarray:
        """Mark the steps (S,) bool of the intact episodes at which the changed policy takes the same action.

        It is shown their observations, step by step, and carries its own memory along, as the intervention makes it;
        but the actions that are taken in the world are those of the intact policy. Arguments and errors as `episodes`.
        """
        gates, act = self._prepare(intervention, routers)
        steps, actions, when = self.intact.steps, self.intact.column("action"), None
        if intervention.phase is not None:
            is_in = self._phase == self.phases.index(intervention.phase)
            first_rows = np.searchsorted(steps.episode, np.arange(len(self._solved)))

            def when(world: np.ndarray, t_step: np.ndarray) -> np.ndarray:
                return is_in[first_rows[world] + t_step]

        envs = RecordedEpisodes(self.intact, self._obs, self._num_envs)
        agrees = np.empty(len(steps), bool)
        hidden = self.policy.initial_hidden(len(envs.active))
        for step in rollout(self._under(act, gates, variant, when=when), envs, hidden):
            rows = envs.rows[envs.active]
            agrees[rows] = step.action[envs.active] == actions[rows]
        return agrees

    def _prepare(self, intervention: Intervention, routers: RecurrentPolicy | None) -> tuple[Gates, WorldPolicy]:
        self.check(intervention)
        gates = Gates(
            intervention, self.policy.expert_hidden_sizes, checked_weights(self.intact.steps), self._eval_seed
        )
        if intervention.kind == SWAP and routers is not None:
            return gates, WorldPolicy(with_routers_of(self.policy, routers), self._missions)
        return gates, self._act

    def _under(
        self, act: WorldPolicy, gates: Gates, variant: str, numbers: np.ndarray | None = None, when: When | None = None
    ) -> Policy:
        """Make the policy for `rollout`, with an intervention.

        numbers (W,) int: of the worlds in the evaluation, None for 0, 1, ...; when: where it is made, None for
        everywhere.
        """
        if gates.intervention.kind in (NONE, SWAP):
            return act

        def changed(envs: EvalVectorEnv, hidden: Tensor) -> Answer:
            world, t_step = envs.state["episode"], envs.state["t_step"]
            world = world if numbers is None else numbers[world]
            is_on = None if when is None else when(world, t_step)
            answer = act(envs, hidden, gates.at(world, t_step, is_on))
            after = apply_state_policy(variant, self._experts, answer.routing, hidden, answer.hidden)
            return answer._replace(hidden=after)

        return changed

    def _play(self, act: Policy, worlds: np.ndarray, progress: Progress | None = None) -> RoutingData:
        """Play the episodes in some of the worlds (W,), in their order."""
        solved = dict(np.array(list(self._solved.items()))[worlds].tolist())
        env, steps = play_solved(self.policy, act, self._bot_paths, solved, self._num_envs, True, progress)
        header = {"task_id": self._bot_paths.task_id, "expert_hidden_sizes": self.policy.expert_hidden_sizes}
        return RoutingData(header, env.episodes, steps)

    # --- in a phase ---------------------------------------------------------------------------------------------------

    def _play_in_phase(self, gates: Gates, variant: str, act: WorldPolicy) -> RoutingData:
        """Play the episodes with an intervention at the steps in a phase, and at no other.

        The phase of a step is known only when its episode is complete. But an episode does not depend on what would be
        done later: each is played again with one more change, at the first step at which the intervention was not made
        in the phase or made outside of it, until there is none. So as many times as the phase begins and ends.
        """
        changed, waiting = self.intact, np.arange(len(self._solved))
        turns: list[list[int]] = [[] for _ in self._solved]  # the steps at which it is turned on, off, on, ...

        def is_on(world: np.ndarray, t_step: np.ndarray) -> np.ndarray:
            pairs = zip(world.tolist(), t_step.tolist(), strict=True)
            return np.array([bisect(turns[k], t) % 2 == 1 for k, t in pairs], bool)

        while True:
            wrong = self._first_wrong(changed, gates.intervention.phase or "", is_on)
            waiting = waiting[wrong[waiting] >= 0]
            if not len(waiting):
                return changed
            for world in waiting.tolist():
                if turns[world] and wrong[world] <= turns[world][-1]:
                    raise InputError(f"{gates.intervention}: {self.group_by} is not known before an action is chosen")
                turns[world].append(int(wrong[world]))
            part = self._play(self._under(act, gates, variant, waiting, is_on), waiting)
            changed = exchange(changed, part, waiting)

    def _first_wrong(self, changed: RoutingData, phase: str, is_on: Callable) -> np.ndarray:
        """Find the first step (W,) int of each world in the phase but not intervened on, or the reverse; or -1."""
        groups, _, of_step = phases_of_both(self.intact, changed, self.group_by)
        episode, t_step = changed.steps.episode, changed.column("t_step")
        is_in = of_step == groups.labels.index(phase)
        rows = np.flatnonzero(is_in != is_on(episode, t_step))
        worlds, first = np.unique(episode[rows], return_index=True)
        wrong = np.full(len(changed.episodes), -1)
        wrong[worlds] = t_step[rows[first]]
        return wrong
