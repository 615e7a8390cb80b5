"""Recurrent proximal policy optimisation (Schulman et al. 2017), on frames of any environments.

An update collects a rollout, learns from it, and plays as many steps in validation levels.

After the last frame of an episode there is a step whose action is ignored and that leads to the first frame of the next
episode: it is masked (`counts`). The hidden state is reset at a first frame (`is_first`), in acting and in learning
alike. A rollout begins with the hidden state before its first frame, so no frame is processed twice.

The state of an environment cannot be saved, so all environments are made anew at every RENEWAL_INTERVAL-th update, in
levels from a random stream of their own; the episodes in progress are dropped there, in every run alike. A saved state
is the one of the last renewal: a killed run repeats the updates since then and continues to the same bytes.

Axis letters: N environments, T steps, S hidden units, A actions of the agent.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from generative.agents.config import PPO, Hyperparameters
from generative.agents.networks import GameAgent, make_agent
from generative.domains.base import Answer
from generative.domains.coinrun.games import GameEnvs
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.training.log import Columns, Row
from mop.training.loop import Trainable
from mop.training.states import adam_form, check_form, copied_to_cpu

LARGEST_REWARD = 10.0  # after scaling
RENEWAL_INTERVAL = 16  # updates
NUM_RECENT = 100  # finished episodes that a row of the log summarises
SIDES = {"": "training", "val_": "validation"}  # prefix of columns -> which levels


class EpisodeStats:
    """Returns, lengths and successes of the latest finished episodes, and the number of all."""

    def __init__(self):
        self.count = 0
        self.recent: deque[tuple[float, float, float]] = deque(maxlen=NUM_RECENT)

    def add(self, total: float, length: int, is_success: bool) -> None:
        """Count a finished episode."""
        self.count += 1
        self.recent.append((float(total), float(length), float(is_success)))

    def columns(self, prefix: str) -> dict[str, float]:
        """Columns of the log; NaN before the first episode."""
        rows = np.array(self.recent or [(math.nan,) * 3])
        columns: dict[str, float] = {f"{prefix}num_episodes": self.count}
        for values, name in zip(rows.T, ("episode_rewards", "episode_len"), strict=False):
            columns |= {f"{prefix}{kind}_{name}": float(getattr(values, kind)()) for kind in ("max", "mean", "min")}
        return columns | {f"{prefix}success_rate": float(rows[:, 2].mean())}


class Actors:
    """N environments with an agent in each: the frames they show now, and the hidden states before these."""

    def __init__(self, envs: GameEnvs, agent: GameAgent, device: torch.device, stats: EpisodeStats):
        self.envs = envs
        self.device = device
        self.stats = stats
        self.frames, _ = envs.begin()
        self.hidden = agent.initial_hidden(envs.num_envs).detach().clone()
        self.is_first = np.full(envs.num_envs, True)
        self.is_last = np.full(envs.num_envs, False)
        self.is_cut = np.full(envs.num_envs, False)
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, int)

    def inputs(self, agent: GameAgent) -> tuple[Tensor, Tensor]:
        """Frames and hidden states of the agent's next step."""
        frames = torch.from_numpy(self.frames).to(self.device)
        return frames, agent.reset_hidden(self.hidden, torch.from_numpy(self.is_first).to(self.device))

    def step(self, actions: np.ndarray, hidden: Tensor) -> np.ndarray:
        """Execute the game's actions (N,); hidden: after the frame. Returns the rewards (N,) float32."""
        moment = self.envs.step(actions)
        self._returns += moment.reward
        self._lengths += 1
        self.frames = moment.frames
        self.hidden = hidden
        self.is_first = self.is_last
        self._returns[self.is_first] = 0.0
        self._lengths[self.is_first] = 0
        self.is_last = moment.is_terminal | moment.is_cut
        self.is_cut = moment.is_cut
        for slot in np.flatnonzero(self.is_last):
            self.stats.add(self._returns[slot], self._lengths[slot], moment.is_success[slot])
        return moment.reward


def sample_actions(
    agent: GameAgent, frames: Tensor, hidden: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Answer]:
    """Sample actions (N,) int64 of the agent's A; with their log probabilities (N,), and the agent's answer.

    Arguments of `GameAgent.step`; the generator is on the CPU.
    """
    answer = agent.step(frames, hidden)
    log_probs = answer.logits.log_softmax(-1)
    draws = torch.rand(log_probs.shape, generator=generator).to(log_probs.device)
    action = (log_probs - (-draws.log()).log()).argmax(-1)  # the Gumbel-max trick
    return action, log_probs.gather(-1, action[:, None])[:, 0], answer


class Rollout(NamedTuple):
    """T steps of N environments, all (T, N, ...) but the hidden state before the first step, (N, S)."""

    frames: Tensor  # (T, N, C, H, W) uint8
    is_first: Tensor  # (T, N) bool, the frame is the first of its episode
    counts: Tensor  # (T, N) bool, the frame is not the last of its episode: the action counts
    action: Tensor  # (T, N) int64, of the agent's A
    log_prob: Tensor  # (T, N) of the action when it was sampled
    value: Tensor  # (T, N) at that time
    advantage: Tensor  # (T, N), 0 where the action does not count
    hidden: Tensor  # (N, S)

    def columns(self, chosen: np.ndarray) -> "Rollout":
        """Some of the N environments, at all steps."""
        index = torch.from_numpy(chosen).to(self.action.device)
        *by_step, hidden = self
        return Rollout(*(part[:, index] for part in by_step), hidden[index])


# --- advantages and losses --------------------------------------------------------------------------------------------


def advantages(
    reward: np.ndarray, value: np.ndarray, is_last: np.ndarray, is_cut: np.ndarray, gamma: float, lam: float
) -> np.ndarray:
    """Generalised advantage estimates (T, N) (Schulman et al. 2016, equation 16), 0 at the last frames of episodes.

    reward (T, N) of the action at a frame; value, is_last (T + 1, N) of the frames, with the one after the last step;
    is_cut (T + 1, N): last frames of episodes that a time limit ended, where the value is bootstrapped.
    """
    result = np.zeros_like(reward)
    later = np.zeros(reward.shape[1], reward.dtype)
    for t in reversed(range(len(reward))):
        next_value = value[t + 1] * ~(is_last[t + 1] & ~is_cut[t + 1])
        later = reward[t] + gamma * next_value - value[t] + gamma * lam * ~is_last[t + 1] * later
        later = np.where(is_last[t], 0.0, later).astype(reward.dtype)
        result[t] = later
    return result


class RewardScale:
    """Divides rewards by the running standard deviation of their discounted sum, updated with each rollout."""

    def __init__(self, num_envs: int, gamma: float):
        self.gamma = gamma
        self.sums = np.zeros(num_envs)
        self.count = 0.0  # of all sums so far
        self.mean = 0.0
        self.squares = 0.0  # sum of squared deviations

    def __call__(self, reward: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Scaled rewards (T, N) float32; counts (T, N) bool: an episode is in progress."""
        sums = np.zeros(reward.shape)
        for t in range(len(reward)):
            self.sums = np.where(counts[t], self.gamma * self.sums + reward[t], 0.0)
            sums[t] = self.sums
        self._add(sums[counts])
        deviation = np.sqrt(self.squares / self.count) if self.squares else 1.0
        return np.clip(reward / deviation, -LARGEST_REWARD, LARGEST_REWARD).astype(np.float32)

    def _add(self, values: np.ndarray) -> None:
        """Combine the moments of two samples (Chan et al. 1979, equation 1.5)."""
        if not len(values):
            return
        total = self.count + len(values)
        gap = values.mean() - self.mean
        self.squares += ((values - values.mean()) ** 2).sum() + gap**2 * self.count * len(values) / total
        self.mean += gap * len(values) / total
        self.count = total

    def state(self) -> dict[str, float]:
        """The moments; the running sums end with their episodes."""
        return {"count": float(self.count), "mean": float(self.mean), "squares": float(self.squares)}

    def load_state(self, state: Mapping) -> None:
        """Restore the moments of `state`."""
        self.count, self.mean, self.squares = (state[name] for name in ("count", "mean", "squares"))


def loss_sums(agent: GameAgent, part: Rollout, eps_clip: float, mean: float, deviation: float) -> dict[str, Tensor]:
    """Sums over the steps that count: clipped losses of policy and value, entropy, KL estimate, share of clipped steps.

    mean, deviation: normalise the advantages. Schulman et al. 2017, equations 7 and 9; the value is clipped as the
    policy is (`0.5 max` of both squared errors).
    """
    answer = agent.run(part.frames, part.hidden, part.is_first)
    log_probs = answer.logits.log_softmax(-1)
    log_ratio = log_probs.gather(-1, part.action[..., None])[..., 0] - part.log_prob
    ratio = log_ratio.exp()
    gain = (part.advantage - mean) / deviation
    target = part.value + part.advantage
    clipped = part.value + (answer.value - part.value).clamp(-eps_clip, eps_clip)
    terms = {
        "policy_loss": -torch.minimum(ratio * gain, ratio.clamp(1 - eps_clip, 1 + eps_clip) * gain),
        "value_loss": 0.5 * torch.maximum((answer.value - target) ** 2, (clipped - target) ** 2),
        "entropy": -(log_probs.exp() * log_probs).sum(-1),
        "kl": ratio - 1 - log_ratio,
        "clip_fraction": ((ratio - 1).abs() > eps_clip).float(),
    }
    return {name: (term * part.counts).sum() for name, term in terms.items()}


def learn(
    agent: GameAgent,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    settings: Hyperparameters,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Train several epochs on a rollout; returns the means of `loss_sums` over all steps that count.

    A batch consists of whole environments; its gradient is the one of the mean over its steps, in however many pieces
    it is computed.
    """
    num_steps, num_envs = rollout.action.shape
    counted = rollout.advantage[rollout.counts]
    scale = counted.mean().item(), counted.std().item() + 1e-8
    at_once = max(1, settings.batch_limit // num_steps)
    totals: dict[str, float] = {}
    num_counted = 0
    for _ in range(settings.num_epochs):
        for batch in np.array_split(rng.permutation(num_envs), min(settings.num_batches, num_envs)):
            size = max(int(rollout.counts[:, torch.from_numpy(batch).to(rollout.counts.device)].sum()), 1)
            optimizer.zero_grad(set_to_none=True)
            for first in range(0, len(batch), at_once):
                part = rollout.columns(batch[first : first + at_once])
                sums = loss_sums(agent, part, settings.eps_clip, *scale)
                loss = sums["policy_loss"] + settings.value_coef * sums["value_loss"]
                ((loss - settings.entropy_coef * sums["entropy"]) / size).backward()
                for name, total in sums.items():
                    totals[name] = totals.get(name, 0.0) + total.item()
            clip_grad_norm_(agent.parameters(), settings.grad_clip_norm)
            optimizer.step()
            num_counted += size
    return {name: total / num_counted for name, total in totals.items()}


# --- the run ----------------------------------------------------------------------------------------------------------


class AgentRun(Trainable):
    """Agent, optimiser, environments, statistics and counters of a training, for `mop.training.loop.drive`."""

    update = 0  # updates done

    def __init__(
        self,
        config: dict,
        num_updates: int,
        make_envs: Callable[[str, int], GameEnvs],
        device: torch.device,
        weights: Mapping[str, Tensor] | None = None,
    ):
        """config: with `shape` (`networks.SHAPE`) and `settings` (PPO, seed); weights: None for random ones.

        make_envs: "training" or "validation", and a seed -> environments such as GameEnvs that fit `settings`.
        """
        self.config = config
        self.settings = Hyperparameters(**{name: config["settings"][name] for name in PPO})
        self.seed = config["settings"]["seed"]
        self.num_updates = num_updates
        self.device = device
        self._make_envs = make_envs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.seed, "weights"))
            self.agent = make_agent(config["shape"]).to(device)
        if weights is not None:
            self.agent.load_state_dict(weights)
        self.optimizer = torch.optim.Adam(self.agent.parameters(), self.settings.lr, eps=1e-5, fused=True)
        self.scale = RewardScale(self.settings.num_envs, self.settings.gamma)
        self.stats = {prefix: EpisodeStats() for prefix in SIDES}
        self.actors: dict[str, Actors] = {}
        self.seconds = 0.0  # that its updates took
        self.columns = Columns(("timesteps",), {"steps_per_s": "timesteps"}, _bar_text, _closing_lines)
        self._saved = self._present_state()

    @property
    def timesteps(self) -> int:
        """Steps of all training environments so far."""
        return self.update * self.settings.num_envs * self.settings.num_steps

    def step_update(self) -> dict[str, float]:
        """Collect a rollout, learn from it, and play as many steps in validation levels."""
        if self.update % RENEWAL_INTERVAL == 0:
            self._renew_envs()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * (1 - self.update / self.num_updates)
        start = time.perf_counter()
        rollout = self.collect()
        rng = np.random.default_rng(stream_seed(self.seed, f"batches {self.update}"))
        measures = learn(self.agent, self.optimizer, rollout, self.settings, rng)
        self.validate()
        self.seconds += time.perf_counter() - start
        self.update += 1
        if self.update % RENEWAL_INTERVAL == 0 or self.update == self.num_updates:
            self._saved = self._present_state()
        return measures | {"mean_value": rollout.value[rollout.counts].mean().item()}

    @torch.no_grad()
    def collect(self) -> Rollout:
        """T steps in N training environments."""
        actors, generator, num_steps = self.actors[""], self._generator(""), self.settings.num_steps
        first_hidden = actors.hidden
        frames = torch.empty((num_steps, *actors.frames.shape), dtype=torch.uint8, device=self.device)
        steps = []
        for t in range(num_steps):
            frames[t], hidden = actors.inputs(self.agent)
            chosen, chosen_log_prob, answer = sample_actions(self.agent, frames[t], hidden, generator)
            shown = actors.is_first, actors.is_last, actors.is_cut
            reward = actors.step(self.agent.actions[chosen].cpu().numpy(), answer.hidden)
            steps.append((*shown, reward, chosen, chosen_log_prob, answer.value))
        is_first, is_last, is_cut, reward, action, log_prob, value = zip(*steps, strict=True)
        is_last = np.stack([*is_last, actors.is_last])
        is_cut = np.stack([*is_cut, actors.is_cut])
        # the hidden state after this frame is dropped: the next rollout begins with the frame
        value = torch.stack([*value, self.agent.step(*actors.inputs(self.agent)).value])
        counts = ~is_last[:-1]
        reward, divisor = np.stack(reward), self.settings.reward_divisor
        reward = reward / np.float32(divisor) if divisor else self.scale(reward, counts)
        gamma, lam = self.settings.gamma, self.settings.lam
        advantage = advantages(reward, value.cpu().numpy(), is_last, is_cut, gamma, lam)
        return Rollout(
            frames=frames,
            is_first=torch.from_numpy(np.stack(is_first)).to(self.device),
            counts=torch.from_numpy(counts).to(self.device),
            action=torch.stack(action),
            log_prob=torch.stack(log_prob),
            value=value[:-1],
            advantage=torch.from_numpy(advantage).to(self.device),
            hidden=first_hidden,
        )

    @torch.no_grad()
    def validate(self) -> None:
        """T steps in validation levels, for the statistics of episodes alone."""
        if "val_" not in self.actors:
            return
        actors, generator = self.actors["val_"], self._generator("val_")
        for _ in range(self.settings.num_steps):
            chosen, _, answer = sample_actions(self.agent, *actors.inputs(self.agent), generator)
            actors.step(self.agent.actions[chosen].cpu().numpy(), answer.hidden)

    def _generator(self, prefix: str) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(self.seed, f"{prefix}actions {self.update}"))

    def _renew_envs(self) -> None:
        self.close()
        self.scale.sums[:] = 0.0
        for prefix, kind in SIDES.items():
            if kind == "training" or self.settings.num_val_envs:
                envs = self._make_envs(kind, stream_seed(self.seed, f"{kind} levels {self.update}"))
                self.actors[prefix] = Actors(envs, self.agent, self.device, self.stats[prefix])

    def close(self) -> None:
        """Close the environments."""
        for actors in self.actors.values():
            actors.envs.close()
        self.actors = {}

    def summary(self) -> dict[str, float]:
        """Time so far, statistics of the latest episodes in training and validation levels, learning rate."""
        columns = {"wall_time": self.seconds}
        for prefix, stats in self.stats.items():
            columns |= stats.columns(prefix)
        return columns | {"lr": self.optimizer.param_groups[0]["lr"]}

    def checkpoint(self) -> dict:
        """The agent and its config; refused where the training has diverged."""
        weights = copied_to_cpu(self.agent.state_dict())
        broken = next((name for name, value in weights.items() if not torch.isfinite(value).all()), None)
        if broken is not None:
            raise InputError(f"the training diverged: {broken} is not finite; try a smaller --lr")
        return {"policy_state_dict": weights, "update": self.update, "config": self.config}

    def state(self) -> dict:
        """The state at the last renewal of the environments, from which the rest of the run follows."""
        return self._saved

    def _present_state(self) -> dict:
        return self.checkpoint() | {
            "optimizer": copied_to_cpu(self.optimizer.state_dict()),
            "scale": self.scale.state(),
            "finished": {prefix: [s.count, [list(row) for row in s.recent]] for prefix, s in self.stats.items()},
            "seconds": {"updates": self.seconds},
        }

    def load_state(self, state: Mapping) -> None:
        """Continue where `state()` was taken: the same updates follow, bit for bit on the same CPU."""
        form = {"policy_state_dict": copied_to_cpu(self.agent.state_dict()), "scale": self.scale.state(), "update": 0}
        form |= {"optimizer": adam_form(self.agent.parameters(), state["optimizer"])}
        form |= {"finished": {}, "seconds": dict.fromkeys(state["seconds"], 0.0)}
        check_form(state, form, "state")
        self.agent.load_state_dict(state["policy_state_dict"])
        self.optimizer.load_state_dict(copied_to_cpu(state["optimizer"]))
        self.scale.load_state(state["scale"])
        for prefix, (count, rows) in state["finished"].items():
            self.stats[prefix].count = count
            self.stats[prefix].recent = deque(map(tuple, rows), maxlen=NUM_RECENT)
        self.seconds = sum(state["seconds"].values())
        self.update = state["update"]
        self.close()
        self._saved = self._present_state()


def _bar_text(row: Row) -> str:
    unseen = "" if math.isnan(row["val_mean_episode_rewards"]) else f" unseen {row['val_mean_episode_rewards']:.2f}"
    mean = row["mean_episode_rewards"]
    seen = "no episode has ended" if math.isnan(mean) else f"return {mean:.2f}"
    return f"{seen}{unseen} {row['steps_per_s']:.0f} steps/s"


def _closing_lines(row: Row) -> dict[str, str]:
    lines = {"steps": f"{row['timesteps']:,.0f} ({row['seconds']:.0f} s)"}
    for prefix, kind in SIDES.items():
        mean, share = row[f"{prefix}mean_episode_rewards"], row[f"{prefix}success_rate"]
        known = f"return {mean:.2f}, success {share:.0%} in the last episodes, actions sampled"
        lines[kind] = "no episode has ended" if math.isnan(mean) else known
    return lines
