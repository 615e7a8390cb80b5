"""Agents of games without a game: memory, advantages and updates by brute force, and a task that needs a memory."""

import copy
import os
import signal
import time

import numpy as np
import pytest
import torch
from checks import refusal

from generative.agents.config import Hyperparameters, warn_without_gpu
from generative.agents.networks import GameAgent, make_agent
from generative.agents.ppo import RENEWAL_INTERVAL, AgentRun, RewardScale, Rollout, advantages, learn
from generative.domains.coinrun.games import Moment
from mop.common.cli import as_dict
from mop.training.loop import STATE_NAME, drive

SHAPE = {"encoder": "half-nature", "num_features": 24, "hidden_size": 20, "is_recurrent": True, "actions": [7, 8, 4]}


def agent_of(seed: int = 0, **changes) -> GameAgent:
    torch.manual_seed(seed)
    agent = make_agent(SHAPE | changes)
    with torch.no_grad():  # not small, so that nobody can take zeros for it
        agent.first_hidden += torch.randn_like(agent.first_hidden)
        agent.actor.weight *= 100
    return agent


def frames_of(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 256, (*shape, 3, 64, 64)).astype(np.uint8))


def episodes_of(rng: np.random.Generator, num_steps: int, num_envs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """is_first (T, N), is_last (T + 1, N), is_cut (T + 1, N) of random episodes, some of them in progress."""
    is_last = rng.random((num_steps + 1, num_envs)) < 0.25
    is_last[1:] &= ~is_last[:-1]  # behind a last frame there is a first one
    is_first = np.concatenate([rng.random((1, num_envs)) < 0.5, is_last[:-1]])[:num_steps]
    return is_first, is_last, is_last & (rng.random(is_last.shape) < 0.4)


def by_steps(agent: GameAgent, frames, hidden, is_first) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and values, environment by environment and step by step, the memory begun anew by an `if`."""
    logits, values = [], []
    for n in range(frames.shape[1]):
        h = hidden[n : n + 1]
        for t in range(len(frames)):
            if is_first[t, n]:
                h = agent.first_hidden[None]
            answer = agent.step(frames[t, n : n + 1], h)
            h = answer.hidden
            logits.append(answer.logits[0])
            values.append(answer.value[0])
    shape = (frames.shape[1], len(frames))
    return torch.stack(logits).unflatten(0, shape).transpose(0, 1), torch.stack(values).unflatten(0, shape).t()


def test_a_whole_rollout_is_what_single_steps_are_and_nothing_passes_the_end_of_an_episode():
    rng, agent = np.random.default_rng(1), agent_of()
    is_first, _, _ = episodes_of(rng, 12, 4)
    assert is_first[1:].any() and is_first[0].any() and not is_first[0].all()
    frames, hidden = frames_of(rng, 12, 4), torch.randn(4, 20)
    answer = agent.run(frames, hidden, torch.from_numpy(is_first))
    logits, values = by_steps(agent, frames, hidden, is_first)
    torch.testing.assert_close(answer.logits, logits)
    torch.testing.assert_close(answer.value, values)
    changed = frames.clone()
    column = next(n for n in range(4) if is_first[1:, n].any())
    begin = 1 + int(is_first[1:, column].argmax())
    changed[begin - 1, column] = 255 - changed[begin - 1, column]  # the last frame of an episode
    other = agent.run(changed, hidden, torch.from_numpy(is_first))
    is_same = (other.logits == answer.logits).all(-1)
    assert not is_same[begin - 1, column] and is_same[begin:, column].all()


def test_gradients_reach_the_first_memory_from_every_episode():
    rng, agent = np.random.default_rng(2), agent_of()
    frames, is_first = frames_of(rng, 6, 1), torch.zeros(6, 1, dtype=torch.bool)
    is_first[3] = True
    agent.run(frames, torch.randn(1, 20), is_first).value[:3].sum().backward()
    assert agent.first_hidden.grad is None or not agent.first_hidden.grad.any()  # it began before the rollout
    agent.run(frames, torch.randn(1, 20), is_first).value[5].sum().backward()
    assert agent.first_hidden.grad.abs().min() > 0


def test_an_agent_without_memory_forgets():
    agent = agent_of(is_recurrent=False)
    frames = frames_of(np.random.default_rng(3), 1, 2).expand(5, -1, -1, -1, -1)
    answer = agent.run(frames, agent.initial_hidden(2), torch.zeros(5, 2, dtype=torch.bool))
    assert agent.hidden_size == 0 and torch.allclose(answer.value[0], answer.value[4])


def test_advantages_are_the_weighted_sums_of_all_n_step_estimates():
    rng, gamma, lam = np.random.default_rng(4), 0.9, 0.8
    num_ends = num_cuts = 0
    for _ in range(20):
        _, is_last, is_cut = episodes_of(rng, 15, 3)
        reward, value = rng.normal(size=(15, 3)), rng.normal(size=(16, 3))
        found = advantages(reward, value, is_last, is_cut, gamma, lam)
        for n in range(3):
            for t in range(15):
                if is_last[t, n]:
                    assert found[t, n] == 0
                    continue
                end = t + 1
                while end < 15 and not is_last[end, n]:
                    end += 1
                ahead = np.where(is_last[:, n] & ~is_cut[:, n], 0.0, value[:, n])
                estimates = [
                    sum(gamma**k * reward[t + k, n] for k in range(m)) + gamma**m * ahead[t + m] - value[t, n]
                    for m in range(1, end - t + 1)
                ]
                weights = [(1 - lam) * lam**m for m in range(end - t - 1)] + [lam ** (end - t - 1)]
                assert found[t, n] == pytest.approx(np.dot(weights, estimates))
                num_ends += bool(is_last[end, n])
                num_cuts += bool(is_cut[end, n])
    assert num_ends > 100 and num_cuts > 40


def test_rewards_are_divided_by_the_deviation_of_discounted_sums():
    rng, scale, sums, kept = np.random.default_rng(5), RewardScale(3, 0.9), np.zeros(3), []
    for _ in range(4):
        counts, reward = rng.random((7, 3)) > 0.2, rng.normal(2, 3, (7, 3))
        reward[~counts] = 0
        scaled = scale(reward, counts)
        for t in range(7):
            sums = np.where(counts[t], 0.9 * sums + reward[t], 0)
            kept += sums[counts[t]].tolist()
        assert scaled == pytest.approx(reward / np.std(kept), rel=1e-5)
    other = RewardScale(3, 0.9)
    other.load_state(scale.state())
    assert other.state() == scale.state() and not other.sums.any()
    assert np.abs(other(np.full((1, 3), 1e6), np.ones((1, 3), bool))).max() <= 10


SETTINGS = {"num_epochs": 2, "num_batches": 3}


def rollout_of(agent: GameAgent, num_steps: int = 6, num_envs: int = 5) -> Rollout:
    rng = np.random.default_rng(6)
    is_first, is_last, _ = episodes_of(rng, num_steps, num_envs)
    frames, hidden = frames_of(rng, num_steps, num_envs), torch.randn(num_envs, 20)
    counts = torch.from_numpy(~is_last[:-1])
    assert counts.any() and not counts.all()
    with torch.no_grad():
        answer = agent.run(frames, hidden, torch.from_numpy(is_first))
    action = torch.from_numpy(rng.integers(0, 3, (num_steps, num_envs)))
    log_prob = answer.logits.log_softmax(-1).gather(-1, action[..., None])[..., 0]
    return Rollout(
        frames=frames,
        is_first=torch.from_numpy(is_first),
        counts=counts,
        action=action,
        log_prob=log_prob + 0.3 * torch.randn_like(log_prob),  # an older policy, so that clipping matters
        value=answer.value + 0.3 * torch.randn_like(log_prob),
        advantage=torch.randn(num_steps, num_envs) * counts,
        hidden=hidden,
    )


def learn_plainly(agent, optimizer, rollout: Rollout, settings, rng) -> None:
    """The same update, one step of one environment after the other; nothing is shared with generative.ppo."""
    kept = [rollout.advantage[t, n].item() for t, n in rollout.counts.nonzero().tolist()]
    mean, deviation = np.mean(kept), np.std(kept, ddof=1) + 1e-8
    for _ in range(settings.num_epochs):
        for batch in np.array_split(rng.permutation(rollout.action.shape[1]), settings.num_batches):
            terms = []
            for n in batch:
                h = rollout.hidden[n : n + 1]
                for t in range(len(rollout.action)):
                    h = agent.first_hidden[None] if rollout.is_first[t, n] else h
                    answer = agent.step(rollout.frames[t, n : n + 1], h)
                    h = answer.hidden
                    if not rollout.counts[t, n]:
                        continue
                    policy = torch.distributions.Categorical(logits=answer.logits[0])
                    ratio = (policy.log_prob(rollout.action[t, n]) - rollout.log_prob[t, n]).exp()
                    gain = (rollout.advantage[t, n] - mean) / deviation
                    clipped = max(min(ratio, torch.tensor(1.2)), torch.tensor(0.8))
                    value, old = answer.value[0], rollout.value[t, n]
                    wanted = old + rollout.advantage[t, n]
                    near = old + max(min(value - old, torch.tensor(0.2)), torch.tensor(-0.2))
                    of_value = 0.5 * max((value - wanted) ** 2, (near - wanted) ** 2)
                    terms.append(-min(ratio * gain, clipped * gain) + 0.5 * of_value - 0.01 * policy.entropy())
            optimizer.zero_grad()
            torch.stack(terms).mean().backward()
            torch.nn.utils.clip_grad_norm_(agent.parameters(), settings.grad_clip_norm)
            optimizer.step()


@pytest.mark.parametrize("batch_limit, norm", [(10**6, 0.5), (6, 1e3)])  # a batch at once, or each environment alone
def test_an_update_is_what_a_plain_loop_computes(batch_limit, norm):
    mine, plain = agent_of(), agent_of()
    rollout, before = rollout_of(mine), copy.deepcopy(mine.state_dict())
    settings = Hyperparameters(
        **SETTINGS, batch_limit=batch_limit, grad_clip_norm=norm
    )  # clipping would hide a wrong mean
    for agent, update in ((mine, learn), (plain, learn_plainly)):
        update(agent, torch.optim.SGD(agent.parameters(), 0.1), rollout, settings, np.random.default_rng(7))
    moved = {name: (value - before[name]).abs().max().item() for name, value in mine.state_dict().items()}
    assert all(distance > 1e-5 for distance in moved.values()), moved
    for name, value in mine.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-3, atol=1e-6)


class Recall:
    """A cue for one step, then nothing to see for `gap` steps, and then the answer is asked for: which cue was it?

    Action 7 answers the first cue, 8 the second; 4 answers none. The return is 1 or 0.
    """

    def __init__(self, num_envs: int, seed: int, gap: int = 3):
        self.num_envs, self.gap, self._rng = num_envs, gap, np.random.default_rng(seed)

    def begin(self) -> tuple[np.ndarray, np.ndarray]:
        self._time, self._over = np.zeros(self.num_envs, int), np.zeros(self.num_envs, bool)
        self._cue = self._rng.integers(0, 2, self.num_envs)
        return self._frames(), self._cue

    def _frames(self) -> np.ndarray:
        frames = np.zeros((self.num_envs, 3, 64, 64), np.uint8)
        for n, (t, cue) in enumerate(zip(self._time, self._cue, strict=True)):
            if t == 0:
                frames[n, cue] = 255
            elif t == self.gap:
                frames[n, 2] = 255
        return frames

    def step(self, actions: np.ndarray) -> Moment:
        begins, asked = self._over, self._time == self.gap
        is_right = ~begins & asked & (actions == 7 + self._cue)
        self._time = np.where(begins, 0, self._time + 1)
        self._cue = np.where(begins, self._rng.integers(0, 2, self.num_envs), self._cue)
        self._over = ~begins & asked
        nowhere = np.zeros(self.num_envs, bool)
        return Moment(self._frames(), is_right.astype(np.float32), self._over, nowhere, self._cue, is_right)

    def close(self) -> None:
        pass


def recall_run(num_updates: int, **changes) -> AgentRun:
    values = {"num_envs": 16, "num_steps": 20, "num_val_envs": 2, "num_epochs": 3, "num_batches": 4}
    values |= {"lr": 2e-3, "batch_limit": 10**6, "gamma": 0.95, "reward_divisor": 0}
    values |= {name: value for name, value in changes.items() if name not in SHAPE}
    shape = SHAPE | {name: value for name, value in changes.items() if name in SHAPE}
    settings = as_dict(Hyperparameters(**values)) | {"seed": 0}
    config = {"shape": shape, "settings": settings, "task_id": "recall"}

    def make_envs(kind: str, seed: int) -> Recall:
        return Recall(settings["num_envs" if kind == "training" else "num_val_envs"], seed)

    return AgentRun(config, num_updates, make_envs, torch.device("cpu"))


@pytest.mark.parametrize("is_recurrent", [True, False])
def test_a_task_that_needs_a_memory_is_solved_with_one_and_only_with_one(is_recurrent):
    run = recall_run(60 if is_recurrent else 25, is_recurrent=is_recurrent)
    best = 0.0
    while run.update < run.num_updates and best < 0.95:
        run.step_update()
        best = max(best, run.summary()["success_rate"])
    assert best >= 0.95 if is_recurrent else 0.3 < best < 0.75, run.summary()


def test_no_frame_is_seen_twice_where_one_rollout_ends_and_the_next_begins():
    run = recall_run(3, num_steps=10)  # episodes have five steps with the ignored one: so that this is within some
    run.step_update()
    run.actors[""].step(np.full(16, 4), run.actors[""].hidden)
    parts = [run.collect(), run.collect()]
    frames, is_first, action = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("frames", "is_first", "action")
    )
    assert not is_first[10].any()
    with torch.no_grad():
        logits, values = by_steps(run.agent, frames, parts[0].hidden, is_first)
    torch.testing.assert_close(values, torch.cat([part.value for part in parts]))
    chosen = logits.log_softmax(-1).gather(-1, action[..., None])[..., 0]
    torch.testing.assert_close(chosen, torch.cat([part.log_prob for part in parts]))


def test_a_run_that_went_on_from_its_state_gives_the_same_bytes():
    whole, first, second = (recall_run(RENEWAL_INTERVAL + 3, num_steps=6, num_epochs=1) for _ in range(3))
    for _ in range(RENEWAL_INTERVAL + 3):
        whole.step_update()
    for _ in range(RENEWAL_INTERVAL + 2):  # killed here
        first.step_update()
    state = copy.deepcopy(first.state())
    assert state["update"] == RENEWAL_INTERVAL
    second.load_state(state)
    while second.update < second.num_updates:
        second.step_update()
    one, other = whole.checkpoint()["policy_state_dict"], second.checkpoint()["policy_state_dict"]
    assert all(torch.equal(one[name], other[name]) for name in one) and len(one) == len(other) > 10
    del (mine := whole.summary())["wall_time"], (theirs := second.summary())["wall_time"]
    assert mine == theirs and mine["num_episodes"] > 50


def test_a_run_that_diverged_is_not_saved():
    run = recall_run(2)
    with torch.no_grad():
        run.agent.actor.weight[0, 0] = float("nan")
    assert "diverged: actor" in refusal(run.checkpoint)


def test_a_run_of_days_says_so_and_answers_ctrl_c_within_its_first_update(tmp_path, monkeypatch, capsys):
    """A small one stands in for hard-rec, of which an update takes minutes on a CPU."""
    warn_without_gpu("hard-rec", "cpu")
    assert "days" in capsys.readouterr().out
    monkeypatch.setattr("mop.training.loop._LONG_S", 0.0)
    run, told = recall_run(5), []
    learned = run.step_update

    def slow_update() -> dict[str, float]:
        begun = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
        while not (err := capsys.readouterr().err) or "Ctrl-C" not in err:
            time.sleep(0.05)
        told.append(time.monotonic() - begun)
        return learned()

    run.step_update = slow_update
    with pytest.raises(KeyboardInterrupt):
        drive(run, tmp_path, 5, "a run", log_interval=1, checkpoint_on_interrupt=False)
    assert told[0] < 5 and run.update == 1  # a second where nothing else runs
    out, _ = capsys.readouterr()
    assert "days are left" in out and (tmp_path / STATE_NAME).exists()


def test_what_is_not_known_yet_is_in_words_in_the_bar():
    run = recall_run(1)
    row = {**run.summary(), "steps_per_s": 9.0}
    assert "nan" not in run.columns.bar_text(row) and "no episode" in run.columns.bar_text(row)
