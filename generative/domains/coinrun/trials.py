"""Fidelity in games: trials in real levels, baselines of simulators, and what is measured.

A trial begins in a recorded level, which is played again up to there, as envpool cannot save one.
Axis letters: N trials, I frames that are shown, T frames that follow, A actions of the agent, X numbers of a view, S
hidden units.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from generative.agents.level_play import AgentActor, Levels
from generative.domains.base import FidelityProtocol, Sums, explained, masked_sums
from generative.domains.coinrun.decoder import WHITE, frame_views
from generative.domains.coinrun.games import FRAME_SHAPE, RIGHT_AND_JUMP, check_playable
from generative.domains.coinrun.policy import FrozenAgent
from generative.recordings.format import NOTHING, Recording
from generative.simulators.evaluation import COPY, Forecast, Moments, Trials
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.evaluation.rollout import Choose, greedy, rollout
from mop.statistics.information import kl_divergence

ACTORS = ("trained", "random", "constant")
MEASURES = {
    "error": "squared error of a point of the frame, from 0 (black) to 1 (white)",
    "picture_r2": "share of the variance of frames that is explained, around their mean at that horizon",
    "nearer": "frames that are nearer to the truth than the last one shown",
    "action": "steps in which the agent's likeliest action is the same",
    "action_kl": "KL of the agent's actions, the true from the simulated, in nats",
    "hidden_r2": "share of the variance of the agent's memory that is explained",
    "value_r2": "share of the variance of the agent's value that is explained",
    "done": "surprise at whether the episode ends, in nats",
    "reward": "squared error of the reward",
}
_NUM_ROWS = 5000  # of training levels, of which the mean picture is taken


@dataclass(frozen=True)
class GameTrials(Trials):
    """Trials in a game; frames (I + T, N, 3, 64, 64) uint8, zeros after the end of the episode."""

    is_end: np.ndarray  # (T, N) bool: the episode was over with this frame, not for its length
    reward: np.ndarray  # (T, N) float32, on arrival at the frame

    def views(self, which: int | slice) -> Tensor:
        return frame_views(self.frames[which])


@torch.no_grad()
def run_trials(moments: Moments, actor: str, policy: FrozenAgent, num_steps: int, seed: int) -> GameTrials:
    """Let one of ACTORS act on in real levels for `num_steps` = T steps; policy: the watcher.

    The trained actor takes the likeliest action, the random one any, the constant one goes right and jumps. Raises
    InputError where that is no action of the agent, or the game cannot be had.
    """
    names, encoding = policy.agent.actions.tolist(), moments.recording.config["encoding"]
    check_playable(encoding["env_name"], encoding["distribution_mode"])  # before a bar of progress is drawn
    if actor == "constant" and RIGHT_AND_JUMP not in names:
        raise InputError("the agent cannot go right and jump at once: leave the actor `constant` out of --actors")
    rng = np.random.default_rng(stream_seed(seed, f"actor {actor}"))
    choose = {
        "trained": greedy,
        "random": lambda *_: np.array([rng.integers(len(names))]),
        "constant": lambda *_: np.array([names.index(RIGHT_AND_JUMP)]),
    }[actor]
    pairs = list(zip(moments.numbers.tolist(), moments.rows.tolist(), strict=True))
    trials = [
        _run_trial(moments, number, row, choose, policy, num_steps)
        for number, row in tqdm(pairs, desc=f"actor: {actor}", leave=False, dynamic_ncols=True)
    ]
    frames, actions, mask, is_end, reward, hidden = zip(*trials, strict=True)
    return GameTrials(
        frames=torch.from_numpy(np.stack(frames, 1)),
        actions=torch.from_numpy(np.stack(actions, 1)),
        mask=np.stack(mask, 1),
        lang=torch.zeros(len(trials), 0),
        policy=policy,
        hidden=torch.cat(hidden),
        is_end=np.stack(is_end, 1),
        reward=np.stack(reward, 1),
    )


def _run_trial(moments: Moments, number: int, row: int, choose: Choose, policy: FrozenAgent, num_steps: int) -> tuple:
    """What `GameTrials` says of one trial."""
    episode, num_shown = moments.recording.episode(number), moments.num_shown
    done, watcher = np.array(episode["action"][:row], np.int64), AgentActor(policy.agent, False)
    encoding = moments.recording.config["encoding"]
    envs = Levels(encoding, [episode.seed], watcher.actions, max_steps=row + num_steps, keeps_frames=True)
    for action in done:
        envs.step(action[None])
    hidden = torch.from_numpy(np.array(episode["hidden"][row]))[None]
    steps = list(rollout(watcher, envs, hidden, choose=choose))
    frames = np.zeros((num_shown + num_steps, *FRAME_SHAPE), np.uint8)
    actions, mask = np.zeros(num_shown + num_steps - 1, np.int64), np.arange(num_steps) < len(steps)
    is_end, reward = np.zeros(num_steps, bool), np.zeros(num_steps, np.float32)
    frames[: num_shown + len(steps)] = envs.frames[0][row + 1 - num_shown :]
    actions[: num_shown - 1 + len(steps)] = [*done[row + 1 - num_shown :], *(step.action[0] for step in steps)]
    is_end[mask] = [moment.is_terminal[0] for moment in envs.moments[0][row:]]
    reward[mask] = [moment.reward[0] for moment in envs.moments[0][row:]]
    return frames, actions, mask, is_end, reward, steps[0].answer.hidden


# --- forecasts --------------------------------------------------------------------------------------------------------


def usual_forecasts(recording: Recording) -> dict[str, Callable[[GameTrials], Forecast]]:
    """Forecasts of the last frame shown again and again, and of the mean picture of the training levels of a recording.

    Both say of each step that it ends an episode as often as steps of these levels do, and their mean reward.
    """
    rows = recording.windows(1, "train")
    chosen = np.random.default_rng(stream_seed(0, "mean picture")).permutation(len(rows))[:_NUM_ROWS]
    parts = [
        rows.batch(some, ["obs", "action", "terminated", "reward"]) for some in np.array_split(np.sort(chosen), 20)
    ]
    total = sum(part["obs"].sum((0, 1), dtype=np.float64) for part in parts) / max(len(chosen), 1)
    is_step = np.concatenate([part["action"] for part in parts]) != NOTHING  # a terminal row is none
    ends, rewards = (np.concatenate([part[name] for part in parts])[is_step] for name in ("terminated", "reward"))
    share = np.clip(ends.mean(), 1e-4, 1 - 1e-4)
    outcomes = torch.tensor([float(np.log(share / (1 - share))), float(rewards.mean())])
    picture = frame_views(torch.from_numpy(total))

    def forecast(trials: GameTrials, view: Tensor) -> Forecast:
        shape = trials.mask.shape
        return Forecast(view.expand(*shape, view.shape[-1]), outcomes.expand(*shape, 2))

    return {
        COPY: lambda trials: forecast(trials, trials.views(trials.num_shown - 1)),
        "mean_picture": lambda trials: forecast(trials, picture),
    }


# --- measures ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sums_of(trials: GameTrials, forecast: Forecast) -> Sums:
    """Of each measure what each trial brings, and of how many: two arrays (T, N) float64, 0 after an episode's end."""
    last = trials.views(trials.num_shown - 1)
    true_hidden = own_hidden = trials.hidden
    steps: list[Mapping[str, tuple[Tensor, Tensor]]] = []
    assert forecast.outcomes is not None
    for t, (view, outcomes) in enumerate(zip(forecast.views, forecast.outcomes, strict=True)):
        (end, reward), true_view = outcomes.unbind(-1), trials.views(trials.num_shown + t)
        mask = torch.from_numpy(trials.mask[t])
        true, own = (
            trials.policy.step(seen, trials.lang, hidden)
            for seen, hidden in ((true_view, true_hidden), (view, own_hidden))
        )
        true_hidden, own_hidden = true.hidden, own.hidden
        errors, of_last = ((seen - true_view).div(WHITE).square().mean(-1) for seen in (view, last))
        logs, own_logs = (answer.logits.double().log_softmax(-1) for answer in (true, own))
        is_end, came = torch.from_numpy(trials.is_end[t]).float(), torch.from_numpy(trials.reward[t])
        one = torch.ones(len(mask))
        steps.append(
            {
                "error": (errors, one),
                "picture_r2": explained(true_view / WHITE, view / WHITE, mask),
                "nearer": ((errors < of_last).float(), one),
                "action": ((logs.argmax(-1) == own_logs.argmax(-1)).float(), one),
                "action_kl": (kl_divergence(logs, own_logs).clamp(min=0), one),
                "hidden_r2": explained(true.hidden, own.hidden, mask),
                "value_r2": explained(true.value[:, None], own.value[:, None], mask),
                "done": (F.binary_cross_entropy_with_logits(end, is_end, reduction="none"), one),
                "reward": ((reward - came).square(), one),
            }
        )
    pairs = {name: zip(*(step[name] for step in steps), strict=True) for name in MEASURES}
    return masked_sums({name: [torch.stack(part).double() for part in of] for name, of in pairs.items()}, trials.mask)


PROTOCOL = FidelityProtocol(MEASURES, ACTORS, run_trials, usual_forecasts, None, sums_of)
