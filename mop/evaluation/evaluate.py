"""Evaluate one checkpoint, or the bot itself, on a fixed list of worlds."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mixture_of_experts import RecurrentPolicy, compute_lpc, reset_hidden
from mop.analysis.metrics import compute_metrics
from mop.artifacts.checkpoints import load_checkpoint
from mop.artifacts.routing_cache import RoutingSteps
from mop.common.configuration import MAX_INTEGER, shown
from mop.common.errors import InputError
from mop.envs.babyai import OBS_DIM
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import GIVE_UP, EvalVectorEnv
from mop.envs.missions import DEFAULT_MODEL, MissionEncoder, load_encoder
from mop.envs.teacher import TeacherFailure
from mop.fast import dispatch
from mop.training.policies import policy_from_checkpoint

NUM_ENVS = 64

Progress = Callable[[int], None]  # called with the number of episodes just finished


@dataclass
class Evaluation:
    """metrics: of `compute_metrics`; episodes: context and outcome of each; steps: None if not recorded.

    bot_failures: kind -> episodes in which the bot fell silent while it followed the policy; None if it did not follow.
    """

    metrics: dict[str, float]
    episodes: list[dict]
    steps: RoutingSteps | None
    expert_hidden_sizes: list[list[int]] | None = None  # of the policy; the bot has none
    bot_failures: dict[str, int] | None = None


class _Recorder:
    """Collects what the active slots show and what the policy answers at every vector step."""

    def __init__(self):
        self._states: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []

    def add(self, active: np.ndarray, state: np.ndarray, outputs: np.ndarray) -> None:
        """active (N,) bool; state (N,) of the worlds; outputs (N, A + sum of E_l) float32: logits, then weights."""
        self._states.append(state[active])
        self._outputs.append(outputs[active])

    def steps(self, num_actions: int, expert_hidden_sizes: Sequence[Sequence[int]]) -> RoutingSteps:
        """Everything, in the order of episodes and steps."""
        state, outputs = np.concatenate(self._states), np.concatenate(self._outputs)
        order = np.argsort(state["episode"], kind="stable")  # the steps of an episode came in their order
        state, outputs = state[order], outputs[order]
        ends = np.cumsum([num_actions, *map(len, expert_hidden_sizes)])[:-1]
        logits, *routing = map(np.ascontiguousarray, np.split(outputs, ends, axis=1))
        return RoutingSteps(
            **{name: np.ascontiguousarray(state[name]) for name in state.dtype.names},
            layer_routing=routing,
            lpc=compute_lpc(list(map(torch.from_numpy, routing)), expert_hidden_sizes).numpy(),
            action_logits=logits,
            action=logits.argmax(-1).astype(np.int8),
        )


class Missions:
    """What a policy is told of missions; each is embedded and projected once, alone, so that no batch changes it."""

    def __init__(self, encoder: MissionEncoder, lang_proj: nn.Linear):
        self._encoder, self._lang_proj, self._known = encoder, lang_proj, {}

    @torch.no_grad()
    def lang(self, missions: Sequence[str]) -> Tensor:
        """(N, G), on the device of the projection."""
        for mission in set(missions) - self._known.keys():
            embedding = self._encoder.embed([mission]).to(self._lang_proj.weight.device)
            self._known[mission] = self._lang_proj(embedding)
        return torch.cat([self._known[mission] for mission in missions])


# (the worlds, obs (N, I), lang (N, G), hidden (N, S)) -> logits (N, A), router weights L x (N, E_l), hidden (N, S)
Act = Callable[[EvalVectorEnv, Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor], Tensor]]


def prepare(
    checkpoint: Mapping, encoder: MissionEncoder, device: torch.device | str = "cpu"
) -> tuple[RecurrentPolicy, Missions]:
    """The policy of a checkpoint, ready to act. Raises InputError where checkpoint and encoder do not fit together."""
    policy, lang_proj = policy_from_checkpoint(checkpoint)
    if lang_proj.in_features != encoder.dim:
        raise InputError(
            f"the checkpoint projects {lang_proj.in_features} numbers of a mission, encoder {encoder.name!r} gives "
            f"{encoder.dim}; name the one it was trained with: --lang_encoder FOLDER"
        )
    if policy.input_dim != OBS_DIM:
        raise InputError(f"the checkpoint's input_dim is {policy.input_dim}, observations have {OBS_DIM} numbers")
    return policy.to(device), Missions(encoder, lang_proj.to(device))


@torch.no_grad()
def play(
    policy: RecurrentPolicy, missions: Missions, env: EvalVectorEnv, act: Act, progress: Progress | None = None
) -> RoutingSteps:
    """The greedy episodes of a policy in the worlds of `env`, which holds them then; returns their steps."""
    device = policy.head.weight.device
    obs, lang = torch.from_numpy(env.obs), missions.lang(env.missions)  # obs shares the memory of env.obs
    hidden, recorder = policy.initial_hidden(len(env.worlds)), _Recorder()
    while env.active.any():
        logits, routing, hidden = act(env, obs.to(device), lang, hidden)
        outputs = torch.cat([logits, *routing], -1).cpu().numpy()
        recorder.add(env.active, env.state, outputs)
        done = env.step(outputs[:, : policy.num_actions].argmax(-1))
        if done.any():
            hidden = reset_hidden(hidden, torch.from_numpy(done).to(device))
            lang = missions.lang(env.missions)
            if progress is not None:
                progress(int(done.sum()))
    return recorder.steps(policy.num_actions, policy.expert_hidden_sizes)


def evaluate(
    checkpoint: Mapping,
    encoder: MissionEncoder,
    bot_paths: BotPaths,
    num_episodes: int = 1000,
    eval_seed: int = 0,
    num_envs: int = NUM_ENVS,
    record_steps: bool = True,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    with_phases: bool = True,
) -> Evaluation:
    """One greedy episode of a checkpoint's policy in each of the first `num_episodes` worlds that the bot solves.

    checkpoint: of `load_checkpoint`, mixture or baseline; encoder: of `encoder_for`; bot_paths: results of the task and
    step limit to evaluate on; with_phases: recorded steps have `subgoal` and `instruction` of the bot, which follows
    the policy. Raises InputError where checkpoint, encoder and task do not fit together.
    """
    policy, missions = prepare(checkpoint, encoder, device)
    solved, bot_plan_failures = bot_paths.solvable(eval_seed, num_episodes)
    with_phases = with_phases and record_steps
    env = EvalVectorEnv(bot_paths.task_id, list(solved), num_envs, bot_paths.max_steps, with_phases)
    step = dispatch.stepper(policy)
    steps = play(policy, missions, env, lambda env, *given: step(*given), progress)
    for episode in env.episodes:
        episode["expert_steps"] = solved[episode["seed"]]
    metrics = compute_metrics(env.episodes, steps.lpc, bot_plan_failures)
    failures = dict(Counter(env.bot_failures.values())) if with_phases else None
    return Evaluation(metrics, env.episodes, steps if record_steps else None, policy.expert_hidden_sizes, failures)


def evaluate_bot(
    bot_paths: BotPaths, num_episodes: int = 1000, eval_seed: int = 0, num_envs: int = NUM_ENVS
) -> Evaluation:
    """The bot's own episodes in exactly the worlds eval_seed ... eval_seed + num_episodes - 1; none is replaced.

    Its failures to plan are episodes without success here, and are counted in bot_plan_failures.
    """
    seeds = list(range(eval_seed, eval_seed + num_episodes))
    env = EvalVectorEnv(bot_paths.task_id, seeds, num_envs, bot_paths.max_steps)
    failures = 0
    while env.active.any():
        actions = np.zeros(len(env.worlds), np.int64)
        for slot in np.flatnonzero(env.active):
            try:
                actions[slot] = env.worlds[slot].label()
            except TeacherFailure:
                actions[slot] = GIVE_UP
                failures += 1
        env.step(actions)
    for episode in env.episodes:
        result = bot_paths.ask(episode["seed"])
        episode["expert_steps"] = result if isinstance(result, int) else None
    bot_paths.save()
    return Evaluation(compute_metrics(env.episodes, None, failures), env.episodes, None)


def load_for_evaluation(path: str | Path) -> dict:
    """A checkpoint with its number of updates, None if the file does not tell.

    Raises InputError, naming the file, where it cannot be used.
    """
    checkpoint = load_checkpoint(path)
    kind = checkpoint["config"].get("kind")  # of what is made in generative/, such as world_model; a policy has none
    if kind is not None:
        what = kind.replace("_", " ") if isinstance(kind, str) else "something else"
        raise InputError(f"{path} is a checkpoint of a {what}, not of a policy; name one of those")
    update = checkpoint.get("update", checkpoint["config"].get("num_updates"))
    if update is not None and (type(update) is not int or not 0 <= update <= MAX_INTEGER):
        raise InputError(f"{path}: 'update' must be a number of updates, not {shown(update)}")
    return checkpoint | {"update": update}


def encoder_for(checkpoint: Mapping, location: str | None = None) -> MissionEncoder:
    """The mission encoder that a checkpoint was trained with; `location`: where it lies on this machine.

    Checkpoints made elsewhere name none and used DistilBERT. Raises InputError where it cannot be had.
    """
    config = checkpoint["config"]
    encoder = _load_encoder_once(config.get("lang_encoder", DEFAULT_MODEL), location)
    encoder.check_fingerprint(config.get("encoder_fingerprint"))
    return encoder


_load_encoder_once = functools.lru_cache(load_encoder)
