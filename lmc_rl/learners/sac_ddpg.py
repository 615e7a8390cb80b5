"""SAC and DDPG as runs that `mop.training.loop.drive` can train: an `RLRun` is the whole state of one.

Networks, losses and optimisers come from stable-baselines3. Random numbers come from named streams, each number from
the seed of its stream and the number of the update, so that no generator has a state that could be forgotten.
Axis letters: O numbers of an observation, D of an action.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3 import DDPG, SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from lmc_rl.config import NOISES, RLConfig
from lmc_rl.interpolation import StackedActor
from lmc_rl.learners.mujoco import PROGRESS_SEEDS, EvaluationWorlds, TrainingWorld
from lmc_rl.learners.replay_buffer import ReplayBuffer
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.training.log import Columns, Row
from mop.training.states import copied_to_cpu

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

OF_THE_POLICY = ("algo", "hidden_sizes", "max_episode_steps", "gamma", "noise_std", "ent_coef")  # what evaluation needs


class _Spaces(gymnasium.Env):
    """An environment that is never played: stable-baselines3 reads the shapes from it."""

    def __init__(self, obs_dim: int, action_dim: int):
        self.observation_space = Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = Box(-1.0, 1.0, (action_dim,), np.float32)


def build_model(config: RLConfig, obs_dim: int, action_dim: int, device: torch.device) -> SAC | DDPG:
    """The networks and optimisers of a learner, with weights drawn from torch's present generator."""
    shared: dict[str, Any] = {name: getattr(config, name) for name in ("learning_rate", "batch_size", "tau", "gamma")}
    shared |= {"buffer_size": 1, "device": device}  # the buffer is replaced
    networks: dict[str, Any] = {"net_arch": list(config.hidden_sizes)}
    if device.type == "cpu":
        networks["optimizer_kwargs"] = {"fused": True}
    spaces = _Spaces(obs_dim, action_dim)
    kind, own = (SAC, {"ent_coef": config.ent_coef}) if config.algo == "SAC" else (DDPG, {})
    model = kind("MlpPolicy", spaces, policy_kwargs=networks, **shared, **own)
    model.set_logger(Logger(None, []))  # one of `configure` would leave a folder in /tmp
    return model


class RLRun:
    """A run of SAC or DDPG. An update is `train_freq` environment steps, and then a gradient step.

    There is no gradient step while the buffer is filled and holds fewer than `learning_starts` transitions, and actions
    are random in the first `learning_starts` steps of the run. `streams` holds the seed of each random stream:
    `exploration` of the noise on actions, `replay` of what a gradient step samples (transitions, and the actions in the
    losses of SAC), `environment` of the worlds in which episodes begin.
    """

    def __init__(self, config: RLConfig, device: torch.device, streams: Mapping[str, int] | None = None):
        """config: with an integer `seed`; streams: seed of each random stream, None: drawn from that seed."""
        self.config, self.device = config, device
        self.streams = dict(streams or {name: stream_seed(config.drawn_seed, name) for name in NOISES})
        self.world = TrainingWorld(config.env, config.max_episode_steps, self.streams["environment"])
        sizes = (self.world.obs_dim, self.world.action_dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(config.drawn_seed, "weights"))
            self.model = build_model(config, *sizes, device)
        self.model.replay_buffer = cast(Any, self)  # it is asked for a `sample`
        self.buffer = ReplayBuffer(*sizes, config.buffer_size)
        self.update = self.env_steps = self.gradient_steps = 0
        self.collects = True  # whether it acts; with a frozen buffer it only learns
        self.eval_return = self.eval_std = math.nan
        self._evaluation = EvaluationWorlds(config.env, config.max_episode_steps)
        self.columns = _columns()

    @property
    def policy(self):
        """The networks, as one module."""
        return self.model.policy

    # --- an update ---------------------------------------------------------------------------------------------------

    def step_update(self) -> dict[str, float]:
        """Act, learn, and evaluate the policy where that is due. Returns the losses, NaN without a gradient step."""
        if self.collects:
            self.collect()
        losses = self.learn()
        self.update += 1
        self.after_update()
        return losses

    def collect(self) -> None:
        """Take `train_freq` environment steps."""
        rng = self._rng("exploration")
        for _ in range(self.config.train_freq):
            if self.env_steps < self.config.learning_starts:
                action = rng.uniform(-1, 1, self.world.action_dim).astype(np.float32)
            else:
                action = self.explore(self.world.obs, rng.standard_normal(self.world.action_dim, np.float32))
            self.buffer.add(self.world.step(action))
            self.env_steps += 1

    def explore(self, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The action (D,) float32 for an observation (O,), with noise (D,) of a standard normal distribution."""
        with torch.no_grad():
            observation = torch.from_numpy(obs).to(self.device).unsqueeze(0)
            if isinstance(self.model, SAC):
                mean, log_std, _ = self.model.actor.get_action_dist_params(observation)
                raw = mean.cpu().numpy()[0] + np.exp(log_std.cpu().numpy()[0]) * noise
                return np.tanh(raw)
            action = self.model.actor(observation).cpu().numpy()[0]
        return np.clip(action + np.float32(self.config.noise_std) * noise, -1, 1)

    def learn(self) -> dict[str, float]:
        """A gradient step of stable-baselines3; its losses."""
        names = ("critic_loss", "actor_loss") + (("ent_coef",) if self.config.algo == "SAC" else ())
        if self.collects and len(self.buffer) < self.config.learning_starts:
            return dict.fromkeys(names, math.nan)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(stream_seed(self.streams["replay"], f"actions {self.update}"))
            self.model.train(gradient_steps=1, batch_size=self.config.batch_size)
        self.gradient_steps += 1
        return {name: float(self.model.logger.name_to_value[f"train/{name}"]) for name in names}

    def sample(self, batch_size: int, env=None) -> ReplayBufferSamples:
        """Transitions of the buffer, drawn with replacement; stable-baselines3 asks for them."""
        numbers = self._rng("replay").integers(self.buffer.first, self.buffer.end, batch_size)
        rows = torch.from_numpy(self.buffer.rows(numbers)).to(self.device)
        return samples_of(rows, self.world.obs_dim, self.world.action_dim)

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng((self.streams[name], self.update))

    def after_update(self) -> None:
        """Evaluate the policy in separate environments, every `eval_freq` steps."""
        every = self.config.eval_freq // self.config.train_freq
        if every and self.update % every == 0:
            seeds = range(PROGRESS_SEEDS, PROGRESS_SEEDS + self.config.eval_episodes)
            actor = StackedActor.of_policies([self.policy.state_dict()], self.device)
            returns = self._evaluation.play(actor, 1, seeds).returns
            self.eval_return, self.eval_std = float(returns.mean()), float(returns.std())

    # --- what the loop asks for --------------------------------------------------------------------------------------

    def summary(self) -> dict[str, float]:
        """Episodes so far, the mean return of the latest 20, and the last evaluation; NaN where there was none."""
        finished = self.world.finished
        return {
            "episodes": self.world.episode,
            "recent_return": float(np.mean(finished)) if finished else math.nan,
            "eval_return": self.eval_return,
            "eval_std": self.eval_std,
        }

    def warnings(self, measures: Mapping[str, float]) -> dict[str, str]:
        """Nothing: a learner that diverges is refused where it is saved."""
        return {}

    def checkpoint(self) -> dict:
        """The networks, and the settings without which they cannot be evaluated.

        Refuses a training that has diverged.
        """
        weights = {name: value.detach().cpu().clone() for name, value in self.policy.state_dict().items()}
        broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
        if broken:
            raise InputError(f"the training diverged: {broken[0]} is not finite; try a smaller --learning_rate")
        known = self.config.recorded()
        config = {name: known[name] for name in OF_THE_POLICY if name in known}
        config |= {"task_id": self.config.env, "lmc_seed": self.config.seed}
        if self._log_ent_coef is not None:  # learned: as it is now
            config["ent_coef"] = float(self._log_ent_coef.detach().exp())
        return {"policy_state_dict": weights, "update": self.update, "config": config}

    def state(self) -> dict:
        """The whole run: networks, targets, optimisers, buffer, simulator, counters, and seeds of its random streams.

        Refuses a training that has diverged, as `checkpoint` does.
        """
        return {
            "policy_state_dict": self.checkpoint()["policy_state_dict"],
            "optimizers": {
                name: copied_to_cpu(optimizer.state_dict()) for name, optimizer in self.optimizers().items()
            },
            "log_ent_coef": None if self._log_ent_coef is None else self._log_ent_coef.detach().cpu().clone(),
            "memory": self.buffer.state(),
            "world": self.world.state(),
            "streams": dict(self.streams),
            "update": self.update,
            "env_steps": self.env_steps,
            "gradient_steps": self.gradient_steps,
            "evaluated": [self.eval_return, self.eval_std],
        }

    def load_state(self, state: Mapping) -> None:
        """Continue where `state()` was taken: the same updates follow, bit for bit on the same machine."""
        self.buffer.load_state(state["memory"])
        self.load_all_but_buffer(state)

    def load_all_but_buffer(self, state: Mapping) -> None:
        """`load_state` without the transitions."""
        self.policy.load_state_dict(state["policy_state_dict"])
        for name, optimizer in self.optimizers().items():
            optimizer.load_state_dict(copied_to_cpu(state["optimizers"][name]))  # a copy: Adam changes it in place
        if self._log_ent_coef is not None:
            with torch.no_grad():
                self._log_ent_coef.copy_(state["log_ent_coef"])
        self.streams = dict(state["streams"])
        self.world.stream = self.streams["environment"]
        self.world.load_state(state["world"])
        self.update, self.env_steps = state["update"], state["env_steps"]
        self.gradient_steps = state["gradient_steps"]
        self.eval_return, self.eval_std = state["evaluated"]

    def draw_from(self, streams: Mapping[str, int]) -> None:
        """Take random numbers from other streams from now on; the episode in progress goes on as it is."""
        self.streams |= streams
        self.world.stream = self.streams["environment"]

    @property
    def _log_ent_coef(self) -> Tensor | None:
        return getattr(self.model, "log_ent_coef", None)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By the names of what they change."""
        found = {"actor": self.model.actor.optimizer, "critic": self.model.critic.optimizer}
        of_entropy = getattr(self.model, "ent_coef_optimizer", None)
        return found if of_entropy is None else found | {"ent_coef": of_entropy}


def samples_of(rows: Tensor, obs_dim: int, action_dim: int) -> ReplayBufferSamples:
    """Rows (B, W) of a `ReplayBuffer` as stable-baselines3 takes them; `dones` are terminal states, not time limits."""
    obs, next_obs, action, reward, terminal = rows.split([obs_dim, obs_dim, action_dim, 1, 1], dim=1)
    return ReplayBufferSamples(obs, action, next_obs, terminal, reward)


# --- how its log is shown -------------------------------------------------------------------------------------------


def _columns() -> Columns:
    counters = ("env_steps", "gradient_steps")
    return Columns(counters, {"steps_per_s": "env_steps"}, _bar_text, _closing_lines, _plot)


def _plot(table: "pd.DataFrame", label: str) -> "Figure":
    from lmc_rl.analysis.training_figures import plot_training  # here: matplotlib takes most of a second to load

    return plot_training({label: table})


def _bar_text(row: Row) -> str:
    loss = "warm-up" if math.isnan(row["critic_loss"]) else f"critic loss {row['critic_loss']:.3g}"
    shown = {"return": row["eval_return"], "training": row["recent_return"]}
    returns = "".join(f"{name} {value:.1f} " for name, value in shown.items() if not math.isnan(value))
    return f"{returns}{loss} {row['steps_per_s']:.0f} steps/s"


def _closing_lines(row: Row) -> dict[str, str]:
    return {
        "steps": f"{row['env_steps']:,.0f} ({row['gradient_steps']:,.0f} gradient steps, {row['seconds']:.0f} s)",
        "return": f"{row['eval_return']:.1f} in the last evaluation",
    }
