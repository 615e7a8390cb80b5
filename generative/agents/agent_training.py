"""An agent of a game in training, as a run that `mop.training.loop.drive` brings to its last checkpoint.

An update is a rollout and what is learned of it. The state of an environment cannot be saved, so all of them are made
anew at every RENEWAL_INTERVAL-th update, in levels from a stream of their own; the episodes in progress are dropped
there, in every run alike. A state on disk is that of the last renewal: a run that is killed repeats what came after it,
and goes on as if nothing had happened, to the same bytes.

Axis letters: N environments, T steps of a rollout.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from generative.agents.networks import GameAgent, make_agent
from generative.agents.ppo import RewardScale, Rollout, advantages, choose, learn
from generative.domains.coinrun.games import Moment
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.training.copies import copied_to_cpu
from mop.training.log import Columns, Row

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RENEWAL_INTERVAL = 16  # updates
RECENT = 100  # finished episodes whose returns and lengths a row of the log sums up
SIDES = {"": "training", "val_": "validation"}  # prefix of columns -> which levels


class Envs(Protocol):
    """What is played: `games.GameEnvs` offers it."""

    num_envs: int

    def begin(self) -> tuple[np.ndarray, np.ndarray]:
        """The first frames (N, C, H, W) uint8 and the levels (N,)."""

    def step(self, actions: np.ndarray) -> Moment:
        """Execute the actions (N,); where an episode has ended, begin another one instead."""

    def close(self) -> None:
        """End them."""


class Finished:
    """The latest finished episodes: their returns, lengths and successes, and how many there were."""

    def __init__(self):
        self.count = 0
        self.recent: deque[tuple[float, float, float]] = deque(maxlen=RECENT)

    def add(self, total: float, length: int, is_success: bool) -> None:
        """An episode is over."""
        self.count += 1
        self.recent.append((float(total), float(length), float(is_success)))

    def columns(self, prefix: str) -> dict[str, float]:
        """For the log; NaN before the first."""
        rows = np.array(self.recent or [(math.nan,) * 3])
        parts = {}
        for column, name in enumerate(("episode_rewards", "episode_len")):
            for kind in ("max", "mean", "min"):
                parts[f"{prefix}{kind}_{name}"] = float(getattr(rows[:, column], kind)())
        return {f"{prefix}num_episodes": self.count, **parts, f"{prefix}success_rate": float(rows[:, 2].mean())}


class Players:
    """N environments in which an agent acts: what they show now, and its memory before that."""

    def __init__(self, envs: Envs, agent: GameAgent, device: torch.device, finished: Finished):
        self.envs, self.device, self.finished = envs, device, finished
        self.frames, _ = envs.begin()
        self.hidden = agent.initial_hidden(envs.num_envs).detach().clone()
        self.is_first, self.is_last, self.is_cut = (np.full(envs.num_envs, first) for first in (True, False, False))
        self._totals, self._lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, int)

    def seen(self, agent: GameAgent) -> tuple[Tensor, Tensor]:
        """Frames and memory for the next step of the agent."""
        frames = torch.from_numpy(self.frames).to(self.device)
        return frames, agent.began(self.hidden, torch.from_numpy(self.is_first).to(self.device))

    def step(self, actions: np.ndarray, hidden: Tensor) -> np.ndarray:
        """Execute the game's actions (N,); hidden: the memory after the frame. Returns the rewards (N,) float32."""
        moment = self.envs.step(actions)
        self._totals += moment.reward
        self._lengths += 1
        self.frames, self.hidden, self.is_first = moment.frames, hidden, self.is_last
        self._totals[self.is_first], self._lengths[self.is_first] = 0.0, 0
        self.is_last, self.is_cut = moment.is_terminal | moment.is_cut, moment.is_cut
        for slot in np.flatnonzero(self.is_last):
            self.finished.add(self._totals[slot], self._lengths[slot], moment.is_success[slot])
        return moment.reward


class AgentRun:
    """Agent, optimiser, environments, statistics and counters of one run."""

    def __init__(
        self, config: dict, num_updates: int, make_envs: Callable[[str, int], Envs], device: torch.device,
        weights: Mapping[str, Tensor] | None = None,
    ):  # fmt: skip
        """config: with `shape` (`agents.SHAPE`) and `settings`; weights: to begin with, None for random ones.

        make_envs: "training" or "validation", and a seed -> environments, any that fit `settings`.
        """
        self.config, self.settings, self.num_updates, self.device = config, config["settings"], num_updates, device
        self._make_envs, self.seed = make_envs, config["settings"]["seed"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.seed, "weights"))
            self.agent = make_agent(config["shape"]).to(device)
        if weights is not None:
            self.agent.load_state_dict(weights)
        self.optimizer = torch.optim.Adam(self.agent.parameters(), self.settings["lr"], eps=1e-5, fused=True)
        self.scale = RewardScale(self.settings["num_envs"], self.settings["gamma"])
        self.finished = {prefix: Finished() for prefix in SIDES}
        self.update, self.players = 0, {}
        self.seconds = dict.fromkeys(("environment", "acting", "validation", "learning"), 0.0)
        self.columns = Columns(("timesteps",), {"steps_per_s": "timesteps"}, _bar_text, _closing_lines, _plot)
        self._renewed = self._present_state()

    @property
    def timesteps(self) -> int:
        """Steps of all training environments so far."""
        return self.update * self.settings["num_envs"] * self.settings["num_steps"]

    # --- an update ----------------------------------------------------------------------------------------------------

    def step_update(self) -> dict[str, float]:
        """A rollout, what is learned of it, and as many steps in validation levels."""
        if self.update % RENEWAL_INTERVAL == 0:
            self._renew()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings["lr"] * (1 - self.update / self.num_updates)
        rollout = self.collect()
        with self._timed("learning"):
            rng = np.random.default_rng(stream_seed(self.seed, f"batches {self.update}"))
            measures = learn(self.agent, self.optimizer, rollout, self.settings, rng)
        with self._timed("validation"):
            self.validate()
        self.update += 1
        if self.update % RENEWAL_INTERVAL == 0 or self.update == self.num_updates:
            self._renewed = self._present_state()
        return measures | {"mean_value": rollout.value[rollout.counts].mean().item()}

    @torch.no_grad()
    def collect(self) -> Rollout:
        """T steps in N training environments."""
        num_steps, players, generator = self.settings["num_steps"], self.players[""], self._generator("")
        shape, begun = (num_steps, players.envs.num_envs), players.hidden
        kept: dict[str, list] = {name: [] for name in ("is_first", "is_last", "is_cut", "reward", "action", "log_prob")}
        frames = torch.empty((*shape, *players.frames.shape[1:]), dtype=torch.uint8, device=self.device)
        values = []
        for t in range(num_steps):
            with self._timed("acting"):
                frames[t], hidden = players.seen(self.agent)
                chosen = choose(self.agent, frames[t], hidden, generator)
                actions = self.agent.actions[chosen.action].cpu().numpy()
            flags = (players.is_first, players.is_last, players.is_cut)
            with self._timed("environment"):
                reward = players.step(actions, chosen.answer.hidden)
            of_step = (*flags, reward, chosen.action, chosen.log_prob)
            for name, value in zip(kept, of_step, strict=True):
                kept[name].append(value)
            values.append(chosen.answer.value)
        values.append(self.agent.step(*players.seen(self.agent)).value)  # its memory is not kept: the frame comes again
        is_first, reward = np.stack(kept["is_first"]), np.stack(kept["reward"])
        is_last = np.stack([*kept["is_last"], players.is_last])
        is_cut = np.stack([*kept["is_cut"], players.is_cut])
        value = torch.stack(values)
        advantage = advantages(
            self._scaled(reward, ~is_last[:-1]), value.cpu().numpy(), is_last, is_cut,
            self.settings["gamma"], self.settings["lam"],
        )  # fmt: skip
        return Rollout(
            frames=frames,
            is_first=torch.from_numpy(is_first).to(self.device),
            counts=torch.from_numpy(~is_last[:-1]).to(self.device),
            action=torch.stack(kept["action"]),
            log_prob=torch.stack(kept["log_prob"]),
            value=value[:-1],
            advantage=torch.from_numpy(advantage).to(self.device),
            hidden=begun,
        )

    def _scaled(self, reward: np.ndarray, counts: np.ndarray) -> np.ndarray:
        divisor = self.settings["reward_divisor"]
        return reward / np.float32(divisor) if divisor else self.scale(reward, counts)

    @torch.no_grad()
    def validate(self) -> None:
        """T steps in validation levels, of which only the outcomes of episodes are kept."""
        players, generator = self.players.get("val_"), self._generator("val_")
        for _ in range(self.settings["num_steps"] if players else 0):
            chosen = choose(self.agent, *players.seen(self.agent), generator)
            players.step(self.agent.actions[chosen.action].cpu().numpy(), chosen.answer.hidden)

    def _generator(self, prefix: str) -> torch.Generator:
        """Draws the actions of the present update."""
        return torch.Generator().manual_seed(stream_seed(self.seed, f"{prefix}actions {self.update}"))

    def _renew(self) -> None:
        """New environments, in which new episodes begin."""
        self.close()
        self.scale.begin()
        for prefix, kind in SIDES.items():
            if kind == "training" or self.settings["num_val_envs"]:
                envs = self._make_envs(kind, stream_seed(self.seed, f"{kind} levels {self.update}"))
                self.players[prefix] = Players(envs, self.agent, self.device, self.finished[prefix])

    def close(self) -> None:
        """End the environments."""
        for players in self.players.values():
            players.envs.close()
        self.players = {}

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start

    # --- what the loop asks for ---------------------------------------------------------------------------------------

    def summary(self) -> dict[str, float]:
        """Time so far, the latest episodes in training and validation levels, learning rate."""
        parts = {"wall_time": sum(self.seconds.values())}
        for prefix, finished in self.finished.items():
            parts |= finished.columns(prefix)
        return parts | {"lr": self.optimizer.param_groups[0]["lr"]}

    def warnings(self, measures: Mapping[str, float]) -> dict[str, str]:
        """Nothing: a run that diverges is refused where it is saved."""
        return {}

    def checkpoint(self) -> dict:
        """The agent. Raises InputError where the training has diverged."""
        weights = {name: value.detach().cpu().clone() for name, value in self.agent.state_dict().items()}
        broken = next((name for name, value in weights.items() if not torch.isfinite(value).all()), None)
        if broken is not None:
            raise InputError(f"the training diverged: {broken} is not finite; try a smaller --lr")
        return {"policy_state_dict": weights, "update": self.update, "config": self.config}

    def state(self) -> dict:
        """All that the rest of the run depends on, as it was at the last renewal."""
        return self._renewed

    def _present_state(self) -> dict:
        checkpoint = self.checkpoint()
        return checkpoint | {
            "optimizer": copied_to_cpu(self.optimizer.state_dict()),
            "scale": self.scale.state(),
            "finished": {prefix: [f.count, [list(row) for row in f.recent]] for prefix, f in self.finished.items()},
            "seconds": dict(self.seconds),
        }

    def load_state(self, state: Mapping) -> None:
        """Continue where `state()` was taken: the same updates follow, bit for bit on the same CPU."""
        self.agent.load_state_dict(state["policy_state_dict"])
        self.optimizer.load_state_dict(copied_to_cpu(state["optimizer"]))
        self.scale.load_state(state["scale"])
        for prefix, (count, rows) in state["finished"].items():
            self.finished[prefix].count = count
            self.finished[prefix].recent = deque(map(tuple, rows), maxlen=RECENT)
        self.seconds, self.update = dict(state["seconds"]), state["update"]
        self.close()
        self._renewed = self._present_state()


# --- how its log is shown ---------------------------------------------------------------------------------------------


def _plot(table: "pd.DataFrame", label: str) -> "Figure":
    from generative.figures.training_curves import plot_log  # here: matplotlib takes most of a second to load

    return plot_log(table, label)


def _bar_text(row: Row) -> str:
    unseen = "" if math.isnan(row["val_mean_episode_rewards"]) else f" unseen {row['val_mean_episode_rewards']:.2f}"
    return f"{row['steps_per_s']:.0f} steps/s return {row['mean_episode_rewards']:.2f}{unseen}"


def _closing_lines(row: Row) -> dict[str, str]:
    lines = {"steps": f"{row['timesteps']:,.0f} ({row['seconds']:.0f} s)"}
    for prefix, kind in SIDES.items():
        mean, share = row[f"{prefix}mean_episode_rewards"], row[f"{prefix}success_rate"]
        lines[kind] = f"return {mean:.2f}, success {share:.0%} in the last episodes, actions sampled"
    return lines
