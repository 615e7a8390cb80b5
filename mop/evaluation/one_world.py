"""Single worlds of an evaluation, played again with interventions on the routing: for a page.

The episodes are those of `mop.evaluation.intervention_runs.Study` in the same worlds, bit for bit, without playing all
of them.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mop.artifacts.routing_cache import RoutingCache
from mop.common.routing_edits import GATE_ONLY, Intervention
from mop.envs.episodes import EvalVectorEnv
from mop.evaluation.evaluate import encoder_for, load_for_evaluation, play
from mop.evaluation.intervention_runs import Actor
from mop.evaluation.routing_gates import Gates

_NUM_KEPT = 256  # episodes


class OneWorld:
    """The policy of a checkpoint in worlds of its evaluation, intact or changed; it keeps what it played."""

    def __init__(self, path: str | Path, data: RoutingCache, lang_encoder: str | None = None):
        """data: the whole intact evaluation, whose worlds these are; `mean` and `shuffle` take weights from its steps.

        Raises InputError where the checkpoint cannot be used, or an episode of the data lacks its seed.
        """
        data.require("seed")
        checkpoint = load_for_evaluation(path)
        self._data, self._max_steps = data, checkpoint["config"]["max_steps"]
        self._actor = Actor(checkpoint, encoder_for(checkpoint, lang_encoder))
        self._kept: dict[tuple[Intervention, str, int], RoutingCache] = {}

    def check(self, intervention: Intervention) -> None:
        """Raises InputError where the policy has not what an intervention names."""
        self._gates(intervention)

    def episode(self, number: int, intervention: Intervention, variant: str = GATE_ONLY) -> RoutingCache:
        """Episode `number` of the evaluation, with an intervention that is in no phase, as data of one episode.

        Raises InputError as `check`.
        """
        (found,) = self.episodes([number], intervention, variant)
        return found

    def episodes(
        self, numbers: Sequence[int], intervention: Intervention, variant: str = GATE_ONLY
    ) -> list[RoutingCache]:
        """The same of several episodes, side by side."""
        names = [(intervention, variant, number) for number in numbers]
        missing = [name for name in names if name not in self._kept]
        if missing:
            played = self._play([number for *_, number in missing], intervention, variant)
            self._kept |= dict(zip(missing, played, strict=True))
        found = [self._kept[name] for name in names]
        for name in list(self._kept)[: max(0, len(self._kept) - _NUM_KEPT)]:
            del self._kept[name]
        return found

    def _gates(self, intervention: Intervention) -> Gates:
        pool, seed = self._data.steps.layer_routing, self._data.header.get("eval_seed") or 0
        return Gates(intervention, self._actor.policy.expert_hidden_sizes, pool, seed)

    def _play(self, numbers: Sequence[int], intervention: Intervention, variant: str) -> list[RoutingCache]:
        header, known = self._data.header, [self._data.episodes[number] for number in numbers]
        act = self._actor.under(self._gates(intervention), variant, np.asarray(numbers))
        seeds = [episode["seed"] for episode in known]
        env = EvalVectorEnv(header["task_id"], seeds, len(seeds), self._max_steps, with_phases=True)
        steps = play(self._actor.policy, act, env)
        for episode, of_data in zip(env.episodes, known, strict=True):
            episode["expert_steps"] = of_data.get("expert_steps")
        sizes = self._actor.policy.expert_hidden_sizes
        whole = RoutingCache(header | {"expert_hidden_sizes": sizes}, env.episodes, steps)
        return [_one_of(whole, place) for place in range(len(seeds))]


def _one_of(data: RoutingCache, episode: int) -> RoutingCache:
    """One episode of some data, as data of their own."""
    rows = np.flatnonzero(data.steps.episode == episode)
    steps = data.steps.take(rows)
    steps.episode = np.zeros_like(steps.episode)
    return RoutingCache(data.header, [data.episodes[episode]], steps)


@functools.lru_cache(maxsize=2)  # visitors of one server share them
def open_world(path: Path, data: RoutingCache, *version: int) -> OneWorld:
    """`OneWorld`, once for a file as it is; version: of the file."""
    return OneWorld(path, data)
