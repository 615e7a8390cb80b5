"""Proximal policy optimisation with a memory (Schulman et al. 2017), on frames of any environments.

A rollout has T steps of N environments. After the last frame of an episode there is a step whose action is ignored and
that leads to the first frame of the next one: it counts for nothing (`counts`). The memory begins anew at a first frame
(`is_first`), in acting and in learning alike; a rollout begins with the memory before its first frame, so no frame is
seen twice.

Axis letters: N environments, T steps, S hidden units, A actions of the agent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from generative.agents.networks import Answer, GameAgent

LARGEST_REWARD = 10.0  # after scaling


@dataclass(frozen=True)
class Rollout:
    """What was seen and done, all (T, N, ...) but the memory before the first step, (N, S)."""

    frames: Tensor  # (T, N, C, H, W) uint8
    is_first: Tensor  # (T, N) bool, the frame is the first of its episode
    counts: Tensor  # (T, N) bool, the frame is not the last of its episode: the action counts
    action: Tensor  # (T, N) int64, of the agent's A
    log_prob: Tensor  # (T, N) of the action when it was chosen
    value: Tensor  # (T, N) when it was chosen
    advantage: Tensor  # (T, N), 0 where the action does not count
    hidden: Tensor  # (N, S)

    def columns(self, chosen: np.ndarray) -> "Rollout":
        """Some of the N environments, at all steps."""
        index = torch.from_numpy(chosen).to(self.action.device)
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Rollout(**{name: x[index] if name == "hidden" else x[:, index] for name, x in parts.items()})


class Choice(NamedTuple):
    """What an agent chose in N environments, and what it thought of it."""

    action: Tensor  # (N,) int64, of the agent's A
    log_prob: Tensor  # (N,)
    answer: Answer


def choose(agent: GameAgent, frames: Tensor, hidden: Tensor, generator: torch.Generator) -> Choice:
    """A random action in each environment. Arguments of `GameAgent.step`; the generator is on the CPU."""
    answer = agent.step(frames, hidden)
    log_probs = answer.logits.log_softmax(-1)
    draws = torch.rand(log_probs.shape, generator=generator).to(log_probs.device)
    action = (log_probs - (-draws.log()).log()).argmax(-1)  # the Gumbel-max trick
    return Choice(action, log_probs.gather(-1, action[:, None])[:, 0], answer)


def advantages(
    reward: np.ndarray, value: np.ndarray, is_last: np.ndarray, is_cut: np.ndarray, gamma: float, lam: float
) -> np.ndarray:
    """Generalised advantage estimates (T, N) (Schulman et al. 2016, equation 16), 0 at the last frames of episodes.

    reward (T, N) of the action at a frame; value, is_last (T + 1, N) of the frames, with the one after the last step;
    is_cut (T + 1, N): last frames of episodes that a time limit ended, behind which the value goes on.
    """
    result = np.zeros_like(reward)
    later = np.zeros(reward.shape[1], reward.dtype)
    for t in reversed(range(len(reward))):
        ahead = value[t + 1] * ~(is_last[t + 1] & ~is_cut[t + 1])
        later = reward[t] + gamma * ahead - value[t] + gamma * lam * ~is_last[t + 1] * later
        later = np.where(is_last[t], 0.0, later).astype(reward.dtype)
        result[t] = later
    return result


class RewardScale:
    """Divides rewards by the running standard deviation of the discounted sum of rewards, as it is after a rollout.

    gamma: that of the returns that are learned.
    """

    def __init__(self, num_envs: int, gamma: float):
        self.gamma = gamma
        self.count, self.mean, self.squares = 0.0, 0.0, 0.0  # of all sums so far: number, mean, squared deviations
        self.sums = np.zeros(num_envs)

    def __call__(self, reward: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Scaled rewards (T, N) float32; counts (T, N): where there is a reward; elsewhere an episode is over."""
        seen = np.zeros(reward.shape)
        for t in range(len(reward)):
            self.sums = np.where(counts[t], self.gamma * self.sums + reward[t], 0.0)
            seen[t] = self.sums
        self._add(seen[counts])
        deviation = np.sqrt(self.squares / self.count) if self.squares else 1.0
        return np.clip(reward / deviation, -LARGEST_REWARD, LARGEST_REWARD).astype(np.float32)

    def _add(self, values: np.ndarray) -> None:
        """Chan et al. 1979, equation 1.5: the moments of two samples together."""
        if not len(values):
            return
        total, gap = self.count + len(values), values.mean() - self.mean
        self.squares += ((values - values.mean()) ** 2).sum() + gap**2 * self.count * len(values) / total
        self.mean += gap * len(values) / total
        self.count = total

    def state(self) -> dict[str, float]:
        """The moments; the running sums end with their episodes."""
        return {"count": float(self.count), "mean": float(self.mean), "squares": float(self.squares)}

    def load_state(self, state: Mapping) -> None:
        """Go on with the moments of `state`, at the beginning of new episodes."""
        self.count, self.mean, self.squares = (state[name] for name in ("count", "mean", "squares"))
        self.begin()

    def begin(self) -> None:
        """New episodes begin everywhere."""
        self.sums[:] = 0.0


def loss_sums(agent: GameAgent, part: Rollout, eps_clip: float, mean: float, deviation: float) -> dict[str, Tensor]:
    """Sums over the steps that count: clipped losses of policy and value, entropy, and how far the policy has moved.

    mean, deviation: of the advantages of the whole rollout, by which they are normalised. Schulman et al. 2017,
    equations 7 and 9; the value is clipped as the policy is (`0.5 max` of both squared errors).
    """
    answer = agent.run(part.frames, part.hidden, part.is_first)
    log_probs = answer.logits.log_softmax(-1)
    log_ratio = log_probs.gather(-1, part.action[..., None])[..., 0] - part.log_prob
    ratio = log_ratio.exp()
    gain = (part.advantage - mean) / deviation
    wanted = part.value + part.advantage
    near = part.value + (answer.value - part.value).clamp(-eps_clip, eps_clip)
    terms = {
        "policy_loss": -torch.minimum(ratio * gain, ratio.clamp(1 - eps_clip, 1 + eps_clip) * gain),
        "value_loss": 0.5 * torch.maximum((answer.value - wanted) ** 2, (near - wanted) ** 2),
        "entropy": -(log_probs.exp() * log_probs).sum(-1),
        "kl": ratio - 1 - log_ratio,
        "clip_fraction": ((ratio - 1).abs() > eps_clip).float(),
    }
    return {name: (term * part.counts).sum() for name, term in terms.items()}


def learn(
    agent: GameAgent, optimizer: torch.optim.Optimizer, rollout: Rollout, settings: Mapping, rng: np.random.Generator
) -> dict[str, float]:
    """Several epochs over a rollout; the means of `loss_sums` over all of its steps that count.

    settings: num_epochs, num_batches (optimiser steps of an epoch), batch_limit (steps computed at once), eps_clip,
    value_coef, entropy_coef, grad_clip_norm. A batch is of whole environments; its gradient is that of the mean over
    its steps, in however many pieces it is computed.
    """
    num_steps, num_envs = rollout.action.shape
    scale = rollout.advantage[rollout.counts]
    scale = scale.mean().item(), scale.std().item() + 1e-8
    at_once = max(1, settings["batch_limit"] // num_steps)
    totals: dict[str, float] = {}
    num_counted = 0
    for _ in range(settings["num_epochs"]):
        for batch in np.array_split(rng.permutation(num_envs), min(settings["num_batches"], num_envs)):
            size = max(int(rollout.counts[:, torch.from_numpy(batch).to(rollout.counts.device)].sum()), 1)
            optimizer.zero_grad(set_to_none=True)
            for first in range(0, len(batch), at_once):
                part = rollout.columns(batch[first : first + at_once])
                sums = loss_sums(agent, part, settings["eps_clip"], *scale)
                loss = sums["policy_loss"] + settings["value_coef"] * sums["value_loss"]
                ((loss - settings["entropy_coef"] * sums["entropy"]) / size).backward()
                for name, total in sums.items():
                    totals[name] = totals.get(name, 0.0) + total.item()
            clip_grad_norm_(agent.parameters(), settings["grad_clip_norm"])
            optimizer.step()
            num_counted += size
    return {name: total / num_counted for name, total in totals.items()}
