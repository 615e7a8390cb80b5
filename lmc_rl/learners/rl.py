"""SAC and DDPG in an experiment: their runs and forks, and what is measured on the lines between their policies.

Axis letters: A alphas, E episodes, B transitions, O numbers of an observation, D of an action, W of a row.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmc_rl.analysis.table import ROWS_NAME, LineKey
from lmc_rl.config import RLConfig
from lmc_rl.forking import LockStep, child_of
from lmc_rl.interpolation import (
    StackedActor,
    Weights,
    alphas_of,
    check_same_shapes,
    distance,
    interpolate,
    is_sac,
    stacked_mlp,
)
from lmc_rl.learners.base import Learner, Line, SnapshotsAtForks, WorkItem
from lmc_rl.learners.mujoco import EVALUATION_SEEDS, PROBE_SEEDS, Body, EvaluationWorlds, Transition
from lmc_rl.learners.sac_ddpg import OF_THE_POLICY, RLRun, samples_of
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.cli import check_values
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.training.devices import choose_device

NUM_EPISODES = 4  # of each end, that the held-out batch is taken from
NUM_TRANSITIONS = 512  # of the held-out batch
_MAX_WORLDS = 256  # environments side by side


class Parent(SnapshotsAtForks, RLRun):
    """A run that is forked."""


class RLLearner(Learner[RLConfig, RLRun | LockStep]):
    """SAC or DDPG."""

    PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "stable-baselines3")
    DRAWN = ("parent", "independent")

    @classmethod
    def prepare(cls, config: RLConfig) -> RLConfig:
        Body(config.env, config.max_episode_steps)
        choose_device(config.device)
        return config

    @property
    def trains_forks_together(self) -> bool:
        return self.config.fork_buffer_strategy == "shared"

    def parent(self) -> Parent:
        return Parent(self.config, self._device)

    def independent(self) -> RLRun:
        seed = stream_seed(self.config.drawn_seed, "independent run")
        return RLRun(dataclasses.replace(self.config, seed=seed), self._device)

    def fork(self, fork: int, child: int) -> RLRun:
        step = self.config.fork_steps[fork]
        return self.continued(fork, lambda state: child_of(self.config, state, step, child - 1, self._device))

    def fork_together(self, fork: int) -> LockStep:
        step = self.config.fork_steps[fork]
        return self.continued(fork, lambda state: LockStep(self.config, state, step, self._device))

    @property
    def _device(self) -> torch.device:
        return choose_device(self.config.device)

    @property
    def log_interval(self) -> int:
        steps = self.config.eval_freq or self.config.total_steps // 100
        return max(1, steps // self.config.train_freq)

    def report(self, run: RLRun | LockStep) -> str:
        """The last evaluation."""
        return f"return {run.summary()['eval_return']:.1f} after {run.env_steps:,} steps"

    def measures(self, lines: Sequence[Line]) -> Iterator[tuple[str, Any]]:
        (line,) = lines
        first, second = map(load_policy, line.ends)
        config, alphas = common_config(first, second), alphas_of(self.config.alpha_points)
        return measures_of_line(config, first.weights, second.weights, alphas)

    def work(self, lines: Sequence[Line]) -> dict[str, Sequence["PathSegment"]]:
        """The returns of all policies of all lines, and of the policy that acts at random.

        Lines are cut by these settings alone: results depend neither on processes nor on interruptions.
        """
        config = self.config
        segments: list[PathSegment] = []
        for line in (Line(LineKey("random")), *lines):
            size = max(1, _MAX_WORLDS // (1 if line.key.kind == "random" else config.alpha_points))
            for start in range(0, config.num_eval_episodes, size):
                episodes = range(start, min(start + size, config.num_eval_episodes))
                segments.append(PathSegment(line, config.alpha_points, episodes, config.env, config.max_episode_steps))
        return {ROWS_NAME: segments}


# --- policies ---------------------------------------------------------------------------------------------------------


class RLPolicy(NamedTuple):
    """A trained policy."""

    weights: Weights  # of all networks
    config: dict[str, Any]  # what evaluation needs; `task_id` is the environment
    update: int


def load_policy(path: str | Path) -> RLPolicy:
    """Read a checkpoint of SAC or DDPG."""
    checkpoint = load_checkpoint(path)
    known = {name: checkpoint["config"][name] for name in OF_THE_POLICY if name in checkpoint["config"]}
    needed = {"algo", "hidden_sizes", "max_episode_steps", "gamma"}
    if not needed <= known.keys() or not any(name.startswith("actor.") for name in checkpoint["policy_state_dict"]):
        raise InputError(f"{path}: it is no policy of lmc_rl (a checkpoint of SAC or DDPG)")
    config = check_values(RLConfig, known, str(path)) | {"task_id": checkpoint["config"]["task_id"]}
    return RLPolicy(checkpoint["policy_state_dict"], config, checkpoint.get("update", 0))


def common_config(first: RLPolicy, second: RLPolicy) -> dict[str, Any]:
    """The config under which two policies are compared; of entropy coefficients that differ it has the mean."""
    for name in ("task_id", "algo", "max_episode_steps"):
        if first.config[name] != second.config[name]:
            raise InputError(f"the policies differ in {name}: {first.config[name]} and {second.config[name]}")
    check_same_shapes(first.weights, second.weights)
    if "ent_coef" not in first.config:
        return first.config
    return first.config | {"ent_coef": (first.config["ent_coef"] + second.config["ent_coef"]) / 2}


# --- returns ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PathSegment(WorkItem):
    """Some episodes of all policies of a line, which are played at once, in the same worlds."""

    line: Line
    alpha_points: int
    episodes: range
    env: str
    max_episode_steps: int

    @property
    def alphas(self) -> list[float | None]:
        """The policies of the line; the random policy has no alpha."""
        return [None] if self.line.key.kind == "random" else alphas_of(self.alpha_points).tolist()

    def places(self) -> list[dict[str, Any]]:
        """By alpha, then by episode."""
        return [
            self.line.key.of_pair | {"alpha": alpha, "episode": episode, "seed": EVALUATION_SEEDS + episode}
            for alpha in self.alphas
            for episode in self.episodes
        ]

    def rows(self) -> list[dict[str, Any]]:
        """The rows, by alpha, then by episode."""
        measured = {name: values.ravel() for name, values in self.measures()}
        return [
            place | {name: values[k].item() for name, values in measured.items()}
            for k, place in enumerate(self.places())
        ]

    def measures(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and values (A, E) of what is measured of each episode."""
        worlds = _worlds(self.env, self.max_episode_steps)
        seeds = [EVALUATION_SEEDS + episode for episode in self.episodes]
        if self.line.key.kind == "random":
            actor = random_actions(worlds.action_dim, seeds)
        else:
            actor = _actor(self.line, self.alpha_points)
        played = worlds.play(actor, len(self.alphas), seeds)
        yield "return", played.returns
        yield "length", played.lengths


def random_actions(action_dim: int, seeds: Sequence[int]):
    """A policy (1, E, O) -> (1, E, D) of actions drawn evenly from all; each episode has a stream of its own."""
    rngs = [np.random.default_rng(stream_seed(seed, "random policy")) for seed in seeds]
    return lambda obs: np.stack([rng.uniform(-1, 1, action_dim) for rng in rngs])[None].astype(np.float32)


@lru_cache(maxsize=1)
def _worlds(env: str, max_episode_steps: int) -> EvaluationWorlds:
    """The environments of this process, which serve one segment after the other."""
    return EvaluationWorlds(env, max_episode_steps)


@lru_cache(maxsize=1)
def _actor(line: Line, alpha_points: int) -> StackedActor:
    first, second = map(load_policy, line.ends)
    common_config(first, second)
    return StackedActor(interpolate(first.weights, second.weights, alphas_of(alpha_points)))


# --- other measures ---------------------------------------------------------------------------------------------------


def measures_of_line(
    config: Mapping[str, Any], first: Weights, second: Weights, alphas: np.ndarray
) -> Iterator[tuple[str, Any]]:
    """Name and value of each measure of the line between two policies, a list of A numbers but for the distances.

    config: of their checkpoints, with a number as `ent_coef` where they are of SAC. `td_error`: root mean square of
    r + gamma (1 - d) Q'(s', a') - Q(s, a), where a' is the policy's, as in the loss of the algorithm. `kl_to_first`,
    `kl_to_second`: the mean Kullback-Leibler divergence, in nats, of the policy from that end. Policies of DDPG have no
    distribution; theirs is the one of their exploration, a Gaussian of standard deviation `noise_std`. `distance`,
    `actor_distance`: between the ends, Euclidean.
    """
    rows, weights = held_out_batch(config, first, second), interpolate(first, second, alphas)
    actor = StackedActor(weights)
    obs_dim = weights["actor.latent_pi.0.weight" if is_sac(weights) else "actor.mu.0.weight"].shape[-1]
    batch = samples_of(rows, obs_dim, rows.shape[1] - 2 * obs_dim - 2)
    yield "places", alphas.tolist()
    with torch.no_grad():
        mean, log_std = _distribution(actor, batch.observations, len(alphas), config)
        yield "td_error", _td_error(actor, weights, batch, config).tolist()
        yield "kl_to_first", _gaussian_kl(mean, log_std, 0).tolist()
        yield "kl_to_second", _gaussian_kl(mean, log_std, -1).tolist()
    yield "distance", distance(first, second)
    yield "actor_distance", distance(first, second, lambda name: name.startswith("actor."))


def held_out_batch(config: Mapping[str, Any], first: Weights, second: Weights) -> Tensor:
    """Transitions (B, W) that no learner has seen, float32: half of the steps are of either end's policy."""
    rows: list[list[np.ndarray]] = [[], []]

    def record(policy: int, episode: int, transition: Transition) -> None:
        obs, action, reward, next_obs, is_terminal = transition
        rows[policy].append(np.concatenate([obs, next_obs, action, [reward, is_terminal]], dtype=np.float32))

    actor = StackedActor.of_policies([first, second])
    worlds = EvaluationWorlds(config["task_id"], config["max_episode_steps"])
    worlds.play(actor, 2, range(PROBE_SEEDS, PROBE_SEEDS + NUM_EPISODES), record)
    rng = np.random.default_rng(stream_seed(0, "held-out batch"))
    chosen = [rng.choice(len(of_end), min(NUM_TRANSITIONS // 2, len(of_end)), replace=False) for of_end in rows]
    return torch.from_numpy(np.stack([of_end[k] for of_end, index in zip(rows, chosen, strict=True) for k in index]))


def _distribution(actor: StackedActor, obs: Tensor, num: int, config: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean and logarithm of the standard deviation (A, B, D) of the Gaussian that the actions come from.

    The actions of SAC are squashed afterwards, which does not change divergences.
    """
    obs = obs.expand(num, *obs.shape)
    if actor.log_std is not None:
        return actor.mean(obs), actor.log_std(obs).clamp(-20, 2)
    mean = actor.mean(obs).tanh()
    return mean, torch.full_like(mean, float(np.log(max(config["noise_std"], 1e-6))))


def _gaussian_kl(mean: Tensor, log_std: Tensor, end: int) -> Tensor:
    """KL (A,) in nats of the Gaussians at each alpha from those at one end; mean over the observations."""
    ratio = (2 * (log_std - log_std[end])).exp()
    squares = ((mean - mean[end]) / log_std[end].exp()).square()
    return ((ratio + squares - 1) / 2 - (log_std - log_std[end])).sum(-1).mean(-1)


def _td_error(actor: StackedActor, weights: Weights, batch, config: Mapping[str, Any]) -> Tensor:
    """Root mean square (A,) of the temporal-difference errors of all critics."""
    num = len(weights["critic.qf0.0.weight"])
    next_obs = batch.next_observations.expand(num, *batch.next_observations.shape)
    mean, log_std = _distribution(actor, batch.next_observations, num, config)
    bonus = torch.zeros(1)
    if actor.log_std is None:
        next_actions = stacked_mlp(weights, "actor_target.mu")(next_obs).tanh()
    else:  # a sample, of the same noise at each alpha
        noise = torch.randn(mean.shape[1:], generator=torch.Generator().manual_seed(0))
        next_actions = (mean + log_std.exp() * noise).tanh()
        log_density = (-0.5 * noise.square() - log_std - 0.5 * np.log(2 * np.pi)).sum(-1, keepdim=True)
        log_density -= (1 - next_actions.square() + 1e-6).log().sum(-1, keepdim=True)
        bonus = -config["ent_coef"] * log_density
    values = torch.cat(_values(weights, "critic_target", next_obs, next_actions), dim=-1).amin(-1, keepdim=True)
    target = batch.rewards + (1 - batch.dones) * config["gamma"] * (values + bonus)
    inputs = [part.expand(num, *part.shape) for part in (batch.observations, batch.actions)]
    errors = torch.cat([target - value for value in _values(weights, "critic", *inputs)], dim=-1)
    return errors.square().mean(dim=(1, 2)).sqrt()


def _values(weights: Weights, network: str, obs: Tensor, actions: Tensor) -> list[Tensor]:
    """The values (A, B, 1) that each critic gives."""
    inputs = torch.cat([obs, actions], dim=-1)
    names = sorted({name.split(".")[1] for name in weights if name.startswith(f"{network}.")})
    return [stacked_mlp(weights, f"{network}.{name}")(inputs) for name in names]
