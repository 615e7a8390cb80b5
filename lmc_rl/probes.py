"""What is measured along a line besides the return: TD error, how the actions differ from those of the ends, distance.

Axis letters: A places on the line, B transitions, O numbers of an observation, D of an action.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lmc_rl.actors import StackedActor, is_sac, stacked_mlp
from lmc_rl.learners.mujoco import PROBE_SEEDS, EvaluationWorlds, Transition
from lmc_rl.learners.rl import samples_of
from lmc_rl.paths import Weights, distance, interpolate
from mop.common.seeding import stream_seed

NUM_EPISODES = 4  # of each end, that the held-out batch is taken from
NUM_TRANSITIONS = 512  # of the held-out batch


def held_out_batch(config: Mapping, first: Weights, second: Weights) -> Tensor:
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


def measure(config: Mapping, first: Weights, second: Weights, places: np.ndarray) -> dict:
    """Measures of the line between two policies, each a list of A numbers but for the distances.

    config: of their checkpoints, with a number as `ent_coef` where they are of SAC. `td_error`: root mean square of
    r + gamma (1 - d) Q'(s', a') - Q(s, a), where a' is the policy's, as in the loss of the algorithm. `kl_to_first`,
    `kl_to_second`: the mean Kullback-Leibler divergence, in nats, of the policy from that end. Policies of DDPG have no
    distribution; theirs is the one of their exploration, a Gaussian of standard deviation `noise_std`. `distance`,
    `actor_distance`: between the ends, Euclidean.
    """
    rows = held_out_batch(config, first, second)
    weights = interpolate(first, second, places)
    actor = StackedActor(weights)
    obs_dim = weights["actor.latent_pi.0.weight" if is_sac(weights) else "actor.mu.0.weight"].shape[-1]
    batch = samples_of(rows, obs_dim, (rows.shape[1] - 2 * obs_dim - 2))
    with torch.no_grad():
        mean, log_std = _distribution(actor, batch.observations, len(places), config)
        return {
            "places": places.tolist(),
            "td_error": _td_error(actor, weights, batch, config).tolist(),
            "kl_to_first": _divergence(mean, log_std, 0).tolist(),
            "kl_to_second": _divergence(mean, log_std, -1).tolist(),
            "distance": distance(first, second),
            "actor_distance": distance(first, second, lambda name: name.startswith("actor.")),
        }


def _distribution(actor: StackedActor, obs: Tensor, num: int, config: Mapping) -> tuple[Tensor, Tensor]:
    """Mean and logarithm of the standard deviation (A, B, D) of the Gaussian that the actions come from.

    That of SAC is squashed afterwards, which does not change divergences.
    """
    obs = obs.expand(num, *obs.shape)
    if actor.log_std is not None:
        return actor.mean(obs), actor.log_std(obs).clamp(-20, 2)
    mean = actor.mean(obs).tanh()
    return mean, torch.full_like(mean, float(np.log(max(config["noise_std"], 1e-6))))


def _divergence(mean: Tensor, log_std: Tensor, end: int) -> Tensor:
    """KL (A,) in nats of the Gaussians at each place from those at one end; mean over the observations."""
    ratio = (2 * (log_std - log_std[end])).exp()
    squares = ((mean - mean[end]) / log_std[end].exp()).square()
    return ((ratio + squares - 1) / 2 - (log_std - log_std[end])).sum(-1).mean(-1)


def _td_error(actor: StackedActor, weights: Weights, batch, config: Mapping) -> Tensor:
    """Root mean square (A,) of the temporal-difference errors of all critics."""
    num = len(weights["critic.qf0.0.weight"])
    next_obs = batch.next_observations.expand(num, *batch.next_observations.shape)
    mean, log_std = _distribution(actor, batch.next_observations, num, config)
    bonus = torch.zeros(1)
    if actor.log_std is None:
        next_actions = actor_target(weights)(next_obs).tanh()
    else:  # a sample, of the same noise at each place
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


def actor_target(weights: Weights):
    """The target actors of DDPG."""
    return stacked_mlp(weights, "actor_target.mu")


def _values(weights: Weights, network: str, obs: Tensor, actions: Tensor) -> list[Tensor]:
    """The values (A, B, 1) that each critic gives."""
    inputs = torch.cat([obs, actions], dim=-1)
    names = sorted({name.split(".")[1] for name in weights if name.startswith(f"{network}.")})
    return [stacked_mlp(weights, f"{network}.{name}")(inputs) for name in names]
