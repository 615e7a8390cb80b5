"""MuJoCo environments: one for a learner, which can be saved at any step, and many side by side for evaluation.

Actions are numbers from -1 to 1 everywhere in this package; here they become actions of the environment, its
bounds included. Time limits are kept here too, so that an episode cut off by time never ends in a terminal state.
Axis letters: A policies, E episodes, O numbers of an observation, D of an action.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.common.values import shown

EVALUATION_SEEDS = 1_000_000  # episode k of an evaluation along a path begins with this seed plus k
PROGRESS_SEEDS = 2_000_000  # the same of evaluations during training
PROBE_SEEDS = 3_000_000  # the same of the episodes that give a held-out batch


class Transition(NamedTuple):
    """What one step of an environment gives to learn from."""

    obs: np.ndarray  # (O,) float32
    action: np.ndarray  # (D,) float32, from -1 to 1
    reward: float
    next_obs: np.ndarray  # (O,) float32
    is_terminal: bool  # False where the time limit alone ended the episode: then the state after it has a value


class Body:
    """One environment: bare, with its bounds of actions and its time limit."""

    def __init__(self, env_id: str, max_episode_steps: int):
        """Refuses what is no MuJoCo environment."""
        spec = _spec(env_id)
        try:
            _redirect_warnings()
            self.env = gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True).unwrapped
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{env_id} needs MuJoCo: pip install -r requirements.txt ({reason})") from None
        except gymnasium.error.Error as error:
            raise InputError(f"--env {env_id} cannot be made: {str(error).splitlines()[0]}") from None
        seen, acted = self.env.observation_space, self.env.action_space
        is_vector = isinstance(seen, Box) and isinstance(acted, Box) and len(seen.shape) == len(acted.shape) == 1
        if not hasattr(self.env, "data") or not is_vector:
            raise InputError(f"--env {env_id} is no MuJoCo environment with vectors as observations and actions")
        (self.obs_dim,), (self.action_dim,) = seen.shape, acted.shape
        self.low, self.high = acted.low, acted.high
        self.limit = min(max_episode_steps, spec.max_episode_steps or max_episode_steps)

    def reset(self, seed: int) -> np.ndarray:
        """Begin the episode of a seed; its first observation (O,) float32."""
        return self.env.reset(seed=seed)[0].astype(np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Observation (O,) float32, reward, and whether the state is terminal; action: (D,) from -1 to 1."""
        obs, reward, is_terminal, _, _ = self.env.step(self.scaled(action))
        return obs.astype(np.float32), float(reward), bool(is_terminal)

    def scaled(self, action: np.ndarray) -> np.ndarray:
        """An action (D,) from -1 to 1 as one of the environment: -1 is its lower bound, 1 its upper one."""
        return np.clip(self.low + 0.5 * (action + 1) * (self.high - self.low), self.low, self.high, dtype=np.float32)


def _redirect_warnings() -> None:
    """Turn MuJoCo's warnings into warnings of Python. Raises ImportError without MuJoCo."""
    import mujoco

    def warn(message: str) -> None:
        if "deprecated" not in message:  # of Gymnasium's own files, once for each environment
            warnings.warn(f"MuJoCo: {message}", stacklevel=2)

    mujoco.set_mju_user_warning(warn)


def _spec(env_id: str):
    try:
        return gymnasium.spec(env_id)
    except gymnasium.error.Error as error:
        raise InputError(f"--env {shown(env_id)} is unknown: {str(error).splitlines()[0]}") from None


class TrainingWorld:
    """The environment of a learner. Its k-th episode begins with a seed drawn from a named stream, for each k."""

    def __init__(self, env_id: str, max_episode_steps: int, stream: int):
        """stream: the seed of the stream that the episodes come from; it may be replaced, for later episodes."""
        self._body = Body(env_id, max_episode_steps)
        self.stream, self.episode = stream, -1
        self.obs_dim, self.action_dim = self._body.obs_dim, self._body.action_dim
        self.finished: list[float] = []  # returns of the latest 20 episodes
        self._begin()

    def _begin(self) -> None:
        self.episode += 1
        self._seed = stream_seed(self.stream, f"episode {self.episode}")
        self.obs, self.t_step, self.total = self._body.reset(self._seed), 0, 0.0

    def step(self, action: np.ndarray) -> Transition:
        """Act once, and begin the next episode if this one has ended; action: (D,) float32 from -1 to 1."""
        self._physics, self._action = _physics(self._body.env), action
        obs, (next_obs, reward, is_terminal) = self.obs, self._body.step(action)
        self.obs, self.t_step, self.total = next_obs, self.t_step + 1, self.total + reward
        if is_terminal or self.t_step >= self._body.limit:
            self.finished = [*self.finished, self.total][-20:]
            self._begin()
        return Transition(obs, action, reward, next_obs, is_terminal)

    def state(self) -> dict:
        """Where the episode stands, as numbers and lists."""
        state = {"episode": self.episode, "seed": self._seed, "t_step": self.t_step, "total": self.total}
        state |= {"finished": list(self.finished), "obs": self.obs.tolist()}
        if self.t_step > 0:
            state |= {"physics": self._physics.tolist(), "action": self._action.tolist()}
        return state

    def load_state(self, state: Mapping) -> None:
        """Continue where `state()` was taken: equal actions lead to equal numbers, bit for bit.

        Rewards read positions and forces that MuJoCo's own state leaves out. They follow from the state before the last
        step and the action of that step, so that step is made once more.
        """
        self.episode, self._seed, self.t_step = state["episode"], state["seed"], state["t_step"]
        self.total, self.finished = state["total"], list(state["finished"])
        self._body.reset(self._seed)
        self.obs = np.array(state["obs"], np.float32)
        if self.t_step > 0:
            self._physics, self._action = np.array(state["physics"]), np.array(state["action"], np.float32)
            _set_physics(self._body.env, self._physics)
            self._body.step(self._action)


def _physics(env) -> np.ndarray:
    """The whole state that MuJoCo integrates, with the solver's warm start, as float64."""
    import mujoco

    whole = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(env.model, whole))
    mujoco.mj_getState(env.model, env.data, state, whole)
    return state


def _set_physics(env, state: np.ndarray) -> None:
    import mujoco

    mujoco.mj_setState(env.model, env.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)


class RolloutReturns(NamedTuple):
    """Episodes of several policies in the same worlds."""

    returns: np.ndarray  # (A, E) float64, sums of rewards, not discounted
    lengths: np.ndarray  # (A, E) int64, steps


class EvaluationWorlds:
    """Environments of their own for evaluations: one for each policy and episode; they are made once and kept."""

    def __init__(self, env_id: str, max_episode_steps: int):
        self._arguments, self._bodies = (env_id, max_episode_steps), [Body(env_id, max_episode_steps)]
        self.action_dim = self._bodies[0].action_dim

    def play(
        self,
        act: Callable[[np.ndarray], np.ndarray],
        num_policies: int,
        seeds: Sequence[int],
        record: Callable[[int, int, Transition], object] | None = None,
    ) -> RolloutReturns:
        """Play an episode of each policy from each seed, all of them at once.

        act: observations (A, E, O) float32 -> actions (A, E, D) from -1 to 1, ignored where an episode has ended.
        record: called with policy, episode and transition at each step.
        """
        shape = (num_policies, len(seeds))
        while len(self._bodies) < num_policies * len(seeds):
            self._bodies.append(Body(*self._arguments))
        bodies = dict(zip(np.ndindex(shape), self._bodies, strict=False))
        obs = np.stack([body.reset(seeds[place[1]]) for place, body in bodies.items()])
        obs = obs.reshape(*shape, -1)
        returns, lengths = np.zeros(shape), np.zeros(shape, np.int64)
        while bodies:
            actions = act(obs)
            for place, body in list(bodies.items()):
                next_obs, reward, is_terminal = body.step(actions[place])
                if record is not None:
                    transition = Transition(obs[place].copy(), actions[place], reward, next_obs, is_terminal)
                    record(*place, transition)
                obs[place] = next_obs
                returns[place] += reward
                lengths[place] += 1
                if is_terminal or lengths[place] >= body.limit:
                    del bodies[place]
        return RolloutReturns(returns, lengths)
