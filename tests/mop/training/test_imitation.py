"""The loss by hand, updates against a plain implementation, golden losses, one state that saves, forks and resumes."""

import itertools
import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checks import assert_same, refusal
from scripts import TINY_FLAGS, TINY_TASK
from torch import nn
from training import train_with

from mixture_of_experts import compute_lpc
from mop.artifacts.checkpoints import load_checkpoint, load_training_state, save_training_state
from mop.artifacts.run_paths import RunKey
from mop.common.train_config import BEFORE, KEYS, parse_config
from mop.envs.babyai import NO_LABEL, World, training_seed
from mop.envs.missions import load_encoder
from mop.envs.teacher import FAILURE_KINDS, TeacherFailure
from mop.envs.vector_env import BabyAIVectorEnv, Slots, StepArrays
from mop.fast import autograd
from mop.training.devices import choose_device
from mop.training.episode_stats import RECENT_EPISODES, EpisodeStats
from mop.training.imitation import ImitationRun, stream_seed
from mop.training.imitation_log import reward_for_errors
from mop.training.log import TrainingLog
from mop.training.loss import ComplexityPenalty, imitation_loss
from mop.training.replay import Batch

ENCODER = load_encoder("vocab")

# The first losses of the run below; recorded once. A change of the world, the teacher, a weight's initial value or the
# order of a random stream moves them by far more than the tolerance, another CPU's rounding by far less.
GOLDEN_LOSSES = {
    "plain": [1.978917, 1.934775, 1.986210, 1.911059, 1.906685, 1.845729, 1.749410, 1.778946],
    "everything": [2.121913, 2.127013, 1.957407, 1.953008, 1.864856, 1.802410, 1.718523, 1.586514],
    "residual": [2.938640, 2.802430, 1.883909, 1.604834, 1.463016, 1.407202, 1.233980, 1.298973],
}


# Every setting that draws random numbers or keeps something from one update to the next.
EVERYTHING = {
    "replay": 2, "replay_size": 2, "teacher_mix": 1.0, "lr_decay": True, "obs_encoding": "one_hot",
    "expert_dropout": 0.5, "expert_dropout_below": 0.9, "num_updates": 20,
}  # fmt: skip


FORK_SETTINGS = {"max_steps": 12, **EVERYTHING}


def tiny_config(**changes) -> dict:
    """What `train` makes a tiny run of."""
    config, _ = parse_config("a test", list(TINY_FLAGS))
    assert changes.keys() <= set(KEYS)
    return config | {"policy": "mop", "seed": 0} | changes


@pytest.fixture
def make_run():
    """Tiny runs that are closed at the end of the test."""
    made = []

    def make(**changes) -> ImitationRun:
        made.append(ImitationRun(tiny_config(**changes), ENCODER, choose_device("cpu")))
        return made[-1]

    yield make
    for run in made:
        run.close()


def losses(run: ImitationRun, num_updates: int) -> list[float]:
    return [run.step_update()["loss"] for _ in range(num_updates)]


def weights(run: ImitationRun) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in (*run.policy.parameters(), *run.lang_proj.parameters())])


def toy_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (2, 2, 3) with probabilities known by hand, labels with one gap, LPC with mean 10."""
    probabilities = [[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], [[1 / 3, 1 / 3, 1 / 3], [0.2, 0.2, 0.6]]]
    labels = torch.tensor([[0, 1], [NO_LABEL, 2]])
    return torch.tensor(probabilities, dtype=torch.float64).log(), labels, torch.tensor([[4.0, 8.0], [12.0, 16.0]])


def test_loss_by_hand():
    logits, labels, lpc = toy_batch()
    ce = -(math.log(0.5) + math.log(0.8) + math.log(0.6)) / 3  # the gap is no fourth label
    expected = {
        (0.0, False): ce,
        (0.0, True): ce,
        (0.5, False): ce + 0.5 * 10.0,
        (0.5, True): ce + 0.5 * 10.0 / (ce + 0.25),
    }
    for (alpha, normalize), value in expected.items():
        for detach in (False, True):  # the value is the same, the gradient is not
            price = ComplexityPenalty(alpha, normalize, 0.25, detach)
            loss, cross_entropy = imitation_loss(logits, labels, lpc, price)
            assert loss.item() == pytest.approx(value, abs=1e-6)
            assert cross_entropy.item() == pytest.approx(ce, abs=1e-6)
            assert loss.shape == cross_entropy.shape == ()
    assert len(expected) == 4


def test_positions_without_a_label_have_no_influence():
    logits, labels, lpc = toy_batch()
    for junk in (0.0, 50.0, -3.0):
        changed = logits.clone()
        changed[1, 0] = torch.tensor([junk, 0.0, 1.0])
        changed.requires_grad_()
        loss, _ = imitation_loss(changed, labels, lpc)
        loss.backward()
        assert loss.item() == imitation_loss(logits, labels, lpc)[0].item()
        assert (changed.grad[1, 0] == 0).all() and (changed.grad[labels != NO_LABEL] != 0).all()
    silent = torch.full_like(labels, NO_LABEL)
    for normalize in (False, True):
        logits, lpc = logits.detach().requires_grad_(), lpc.detach().requires_grad_()
        loss, cross_entropy = imitation_loss(logits, silent, lpc, ComplexityPenalty(0.5, normalize, 0.25))
        loss.backward()
        assert cross_entropy.item() == 0.0 and loss.item() == pytest.approx(0.5 * 10.0 / (0.25 if normalize else 1.0))
        assert (logits.grad == 0).all() and torch.isfinite(lpc.grad).all() and (lpc.grad > 0).all()


def test_gradient_of_live_and_detached_denominator():
    """d loss / d logits = (1 - alpha LPC / (CE + eps)^2) d CE / d logits with a live denominator, else d CE alone."""
    alpha, eps = 0.02, 0.25
    logits, labels, lpc = toy_batch()
    logits.requires_grad_()
    _, cross_entropy = imitation_loss(logits, labels, lpc)
    (by_logits,) = torch.autograd.grad(cross_entropy, logits)
    ce = cross_entropy.item()
    factors = {False: 1 - alpha * 10.0 / (ce + eps) ** 2, True: 1.0}
    for detach, factor in factors.items():
        lpc = lpc.detach().requires_grad_()
        loss, _ = imitation_loss(logits, labels, lpc, ComplexityPenalty(alpha, True, eps, detach))
        of_logits, of_lpc = torch.autograd.grad(loss, (logits, lpc))
        assert torch.allclose(of_logits, factor * by_logits, rtol=1e-6, atol=1e-9)
        assert torch.allclose(of_lpc, torch.full_like(of_lpc, alpha / (ce + eps) / 4))
    assert 0.1 < factors[False] < 0.9  # so that the two forms are told apart


class PlainTraining:
    """The same training with nothing shared but weights, worlds and mission vectors.

    The policy is called by its equations, one step at a time; back-propagation is autograd's through the steps that
    were acted on.
    """

    def __init__(self, run: ImitationRun):
        self.config, self.policy, self.lang_proj = run.config, deepcopy(run.policy), deepcopy(run.lang_proj)
        config = self.config
        self.env = BabyAIVectorEnv(config["task_id"], config["num_envs"], config["seed"], config["max_steps"])
        self.env.reset()
        self.parameters = [*self.policy.parameters(), *self.lang_proj.parameters()]
        self.adam = torch.optim.Adam(self.parameters, lr=config["lr"])
        self.hidden = self.policy.initial_hidden(config["num_envs"])
        self.update = self.num_turns = 0

    def act(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, A) and LPC (N,) of one step."""
        lang = self.lang_proj(ENCODER.embed(self.env.missions))
        inputs = self.policy.encode(torch.from_numpy(self.env.arrays.obs.copy()), lang)
        logits, routing, self.hidden = self.policy.step(inputs, self.hidden)
        return logits, compute_lpc(routing, self.policy.expert_hidden_sizes)

    def step_update(self) -> float:
        """The loss of one update."""
        config = self.config
        errors, costs = [], []
        self.hidden = self.hidden.detach()
        rng = np.random.default_rng((stream_seed(config["seed"], "turns"), self.update))
        turns = rng.random((config["unroll_len"], config["num_envs"]))
        progress, mixed = self.update / config["num_updates"], config["teacher_mix"]
        for t in range(config["unroll_len"]):
            logits, lpc = self.act()
            costs.append(lpc)
            for i in range(config["num_envs"]):
                if self.env.arrays.label[i] != NO_LABEL:
                    errors.append(-logits[i].log_softmax(0)[int(self.env.arrays.label[i])])
            actions = logits.argmax(1).numpy()
            for i in range(config["num_envs"]):
                if mixed and turns[t, i] < 1 - progress / mixed and self.env.arrays.label[i] != NO_LABEL:
                    self.num_turns += 1
                    actions[i] = self.env.arrays.label[i]
            self.env.step(actions)
            self.hidden = self.hidden * ~torch.from_numpy(self.env.arrays.done)[:, None]
        ce = torch.stack(errors).mean()
        cost = config["lpc_alpha"] * torch.stack(costs).mean()
        if config["normalize_lpc"]:
            cost = cost / (ce + config["lpc_eps"])
        self.adam.zero_grad()
        (ce + cost).backward()
        if config["grad_clip"]:
            nn.utils.clip_grad_norm_(self.parameters, config["grad_clip"])
        self.adam.param_groups[0]["lr"] = config["lr"] * (1 - progress if config["lr_decay"] else 1)
        self.adam.step()
        self.update += 1
        return (ce + cost).item()


VARIANTS = {
    "mixture": {},
    "residual": {"residual": True, "lpc_alpha": 1e-3},
    "normalised": {"lpc_alpha": 1e-3, "normalize_lpc": True, "expert_hidden_sizes": [[0, 3, 5], [4], [0]]},
    "baseline": {"policy": "gru", "grad_clip": 0.0},
    "one-hot, mixed, decaying": {"obs_encoding": "one_hot", "teacher_mix": 0.5, "lr_decay": True, "num_updates": 6},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_equal_a_plain_implementation(make_run, variant):
    # episodes of at most 5 steps: they end within every unroll, and at different places
    run = make_run(max_steps=5, unroll_len=7, lr=1e-2, **VARIANTS[variant])
    plain = PlainTraining(run)
    own, other = losses(run, 4), [plain.step_update() for _ in range(4)]
    assert own == pytest.approx(other, abs=1e-5)
    assert run.tally.counts["episodes"] >= 4 * 4
    after = torch.cat([p.detach().flatten() for p in plain.parameters])
    assert torch.allclose(weights(run), after, atol=1e-3)  # Adam divides by the gradient's size: rounding shows here
    assert len(set(own)) == 4
    # the bot acts in all steps of update 0, in a third of those of update 2, in none from update 3 on
    low, high = (1.0, 2.5) if "mixed" in variant else (0.0, 0.0)
    assert low <= plain.num_turns / (7 * run.config["num_envs"]) <= high


def test_replay_is_further_steps_on_earlier_unrolls(make_run):
    """The last two unrolls are kept, as they were and with the memory that the student had; which one is at random."""
    settings = {"max_steps": 5, "lr": 1e-2, "num_updates": 8}
    replaying, other = make_run(replay=3, replay_size=2, **settings), make_run(**settings)
    earlier, chosen = [], set()
    for update in range(6):
        replaying.step_update()
        unroll, first_hidden = other.act()
        rng = np.random.default_rng((stream_seed(other.config["seed"], "replay"), update))
        other.learn(unroll, first_hidden)
        for _ in range(3 if earlier else 0):
            which = int(rng.integers(len(earlier)))
            chosen.add((update, which))
            other.fit(earlier[which])
        earlier = [*earlier, deepcopy(Batch.of(unroll, first_hidden))][-2:]
        assert torch.equal(weights(replaying), weights(other))
        assert len(replaying.replay) == min(update + 1, 2)
    assert len(chosen) > 6  # both were chosen in some updates
    assert replaying.env_steps == other.env_steps


def without_labels(monkeypatch, is_silent):
    """Take labels away after each reset and step: `is_silent(t, slot)`, t counting the calls of one environment."""

    def silenced(command):
        def call(slots, *arguments):
            missions, arrays = command(slots, *arguments), slots.arrays
            slots.calls = getattr(slots, "calls", -1) + 1
            for i in range(len(slots.worlds)):
                if is_silent(slots.calls, i):
                    arrays.label[i] = NO_LABEL
            return missions

        return call

    for name in ("reset", "step"):
        monkeypatch.setattr(Slots, name, silenced(getattr(Slots, name)))


def test_states_without_a_label_are_not_trained_on(make_run, monkeypatch):
    without_labels(monkeypatch, lambda t, slot: slot == 1 or (t + slot) % 3 == 0)
    run = make_run(lr=1e-2)
    plain = PlainTraining(run)
    assert losses(run, 3) == pytest.approx([plain.step_update() for _ in range(3)], abs=1e-5)


def test_an_unroll_without_any_label_changes_nothing(make_run, monkeypatch):
    without_labels(monkeypatch, lambda t, slot: True)
    run = make_run()
    before = weights(run)
    measures = run.step_update()
    assert measures["loss"] == measures["cross_entropy"] == measures["grad_norm"] == 0.0
    assert math.isnan(measures["accuracy"])  # of no label
    assert torch.equal(weights(run), before) and run.update == 1


def test_failures_of_the_teacher_are_counted_and_outside_the_success_rate(make_run, monkeypatch):
    """A teacher that fails at the beginning of each third world, and after three steps in each fourth."""
    answer, fresh, later, seen, slots_seen = World.label, [], [], [], []

    def label(world):
        if world.seed % 3 == 0 and world.num_steps == 0:
            fresh.append(world)
            raise TeacherFailure("assertion")
        if world.seed % 4 == 0 and world.num_steps == 3:
            later.append(world)
            raise TeacherFailure("disappeared_box")
        return answer(world)

    step = Slots.step

    def record(slots, actions):
        missions, arrays = step(slots, actions), slots.arrays
        fields = (arrays.done, arrays.failure, arrays.reward, arrays.label != NO_LABEL, arrays.steps)
        seen.extend(zip(*(field.copy() for field in fields), strict=True))
        slots_seen.append(slots)
        return missions

    monkeypatch.setattr(World, "label", label)
    monkeypatch.setattr(Slots, "step", record)
    run = make_run(max_steps=6)
    assert any(training_seed(0, slot, 0) % 3 == 0 for slot in range(4))  # the very first worlds count too
    for _ in range(12):
        run.step_update()
    own = set(map(id, slots_seen[0].worlds))  # not the world in which a success is replayed for the path ratio
    ended = [(failure, reward) for done, failure, reward, *_ in seen if done]
    failed = [failure for failure, _ in ended if failure >= 0]
    assert len(failed) == sum(id(world) in own for world in later) > 0
    assert run.tally.counts["disappeared_box"] == len(failed)
    assert run.tally.counts["bot_plan_failures"] == sum(id(world) in own for world in fresh) > 0
    assert run.tally.counts["episodes"] == len(ended) - len(failed) > 0
    assert sum(run.tally.counts[kind] for kind in FAILURE_KINDS) == len(failed)
    assert all(valid for *_, valid, _ in seen)  # a failed world makes room at once: none of its states is left
    assert all(steps == 3 for done, failure, _, _, steps in seen if failure >= 0)
    summary = run.summary()
    assert summary["failures_disappeared_box"] == len(failed) and summary["episodes"] == run.tally.counts["episodes"]


def test_the_student_s_own_episodes_are_told_from_those_with_the_bot(make_run):
    """Counted by hand, over unrolls that end in the midst of episodes; a resumed run goes on alike."""
    run = make_run(max_steps=5, unroll_len=7, teacher_mix=0.6, num_updates=20)
    begun, has_bot, ended, resumed = np.zeros(4, int), np.zeros(4, bool), [], None
    for update in range(20):
        bot_may_act = run.bot_share > 0
        unroll, first_hidden = run.act()
        has_bot |= bot_may_act
        for t, i in zip(*np.nonzero(unroll.steps.done), strict=True):
            if unroll.steps.failure[t, i] < 0:
                ended.append((begun[i], i, not has_bot[i], float(unroll.steps.reward[t, i] > 0)))
            begun[i], has_bot[i] = 7 * update + t + 1, bot_may_act
        run.learn(unroll, first_hidden)
        if resumed is not None:
            resumed.step_update()
        latest = sorted(episode for episode in ended if episode[0] < begun.min())[-RECENT_EPISODES:]
        own = [success for *_, is_own, success in latest if is_own]
        for of_run in filter(None, (run, resumed)):
            summary = of_run.summary()
            assert summary["student_episodes"] == len(own)
            assert summary["student_success_rate"] == pytest.approx(np.mean(own) if own else math.nan, nan_ok=True)
            successes = [success for *_, success in latest]
            assert summary["success_rate"] == pytest.approx(np.mean(successes) if latest else math.nan, nan_ok=True)
        if update == 8:
            resumed = make_run(max_steps=5, unroll_len=7, teacher_mix=0.6, num_updates=20)
            resumed.load_state(run.state())
    assert 0 < len(own) < sum(is_own for *_, is_own, _ in ended) + RECENT_EPISODES


def test_success_while_training_is_that_of_the_policy_where_failures_take_longer():
    """A policy of known success, 1/2: its successes take 3 steps, its failures 60. A run of 4 updates, many times."""
    rng, early, naive = np.random.default_rng(0), [], []
    for _ in range(300):
        stats, left, success = EpisodeStats(16), np.zeros(16, int), np.zeros(16, bool)
        ended: list[float] = []
        for _ in range(4):
            steps = StepArrays(**{name: np.zeros(*form) for name, form in StepArrays.layout(32, 16).items()})
            steps.failure[:] = -1
            for t in range(32):
                is_new = left == 0
                success[is_new] = rng.random(is_new.sum()) < 0.5
                left[is_new] = np.where(success[is_new], 3, 60)
                left -= 1
                steps.terminated[t], steps.reward[t] = left == 0, success & (left == 0)
                ended += success[left == 0].astype(float).tolist()
            stats.add(steps, bot_may_act=False)
        early.append(stats.summary()["success_rate"])
        naive.append(np.mean(ended[-100:]))
    assert abs(np.mean(early) - 0.5) < 0.03 and np.mean(naive) > 0.55


def test_the_rates_of_an_older_state_begin_anew(make_run):
    run = make_run(max_steps=5, teacher_mix=0.0)
    losses(run, 3)
    state = run.state()
    for name in ("recent", "waiting", "begun", "has_bot"):
        del state[name]
    resumed = make_run(max_steps=5, teacher_mix=0.0)
    resumed.load_state(state)
    assert math.isnan(resumed.summary()["success_rate"]) and resumed.summary()["episodes"] > 0
    assert losses(resumed, 2) == losses(run, 2)


@pytest.mark.parametrize("name", GOLDEN_LOSSES)
def test_golden_losses_and_the_tail_after_a_resume(make_run, tmp_path, name):
    residual = {"residual": True, "lpc_alpha": 1e-3}
    settings = {"plain": {}, "everything": EVERYTHING, "residual": EVERYTHING | residual}[name]
    run = make_run(max_steps=12, **settings)
    first = losses(run, 4)
    save_training_state(tmp_path / "training_state.pt", run.state())
    whole = first + losses(run, 4)
    assert whole == pytest.approx(GOLDEN_LOSSES[name], abs=1e-4)

    state = load_training_state(tmp_path / "training_state.pt")
    for _ in range(2):  # one loaded state serves several runs: training one leaves it as it is
        resumed = make_run(max_steps=12, **settings)
        resumed.load_state(state)
        assert resumed.update == 4 and losses(resumed, 4) == whole[4:]
        assert_same(resumed.state(), run.state())
        assert resumed.summary() == pytest.approx(run.summary(), nan_ok=True)


def test_a_state_before_the_first_update_is_a_state(make_run):
    run, resumed = make_run(), make_run()
    resumed.load_state(run.state())
    assert losses(run, 2) == losses(resumed, 2)


def test_a_copy_goes_on_alike_and_shares_nothing(make_run):
    run = make_run(**FORK_SETTINGS)
    losses(run, 3)
    before, config = run.state(), deepcopy(run.config)
    fork, twin = run.copy(), run.copy()
    assert_same(fork.state(), before)
    fork.config["log_interval"] = 7
    fork.config["expert_hidden_sizes"][0][0] = 99
    assert run.config == config and config.items() >= tiny_config(**FORK_SETTINGS).items()
    of_fork = losses(fork, 4)
    with torch.no_grad():
        for tensor in (*fork.policy.parameters(), *fork.lang_proj.parameters(), fork.hidden):
            tensor.fill_(1.0)
    fork.tally.recent.clear()
    fork.tally.counts["episodes"] = -1
    assert_same(run.state(), before)
    assert losses(run, 4) == losses(twin, 4) == of_fork
    assert_same(run.state(), twin.state())


def test_forks_with_seeds_differ_and_can_be_made_again(make_run):
    run = make_run(**FORK_SETTINGS)
    losses(run, 3)
    before = run.state()
    forks = {name: run.copy(seed) for name, seed in {"none": None, "1": 1, "again": 1, "2": 2, "own": 0}.items()}
    for fork in forks.values():  # they begin alike
        assert torch.equal(weights(fork), weights(run)) and torch.equal(fork.hidden, run.hidden)
        assert fork.state()["env"].keys() == before["env"].keys() and fork.config == run.config
    trained = {name: losses(fork, 5) for name, fork in forks.items()}
    assert_same(run.state(), before)
    assert trained["none"] == losses(run, 5) and trained["again"] == trained["1"]
    assert_same(forks["none"].state(), run.state())
    assert_same(forks["again"].state(), forks["1"].state())
    ends = [weights(forks[name]) for name in ("none", "1", "2", "own")]  # seed 0 is the run's own
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(ends, 2))
    assert all(a["world"].tolist() != [0] * 4 for a in (fork.state()["env"] for fork in forks.values()))


@pytest.mark.parametrize("drawn", ["nothing", "teacher_mix", "replay", "expert_dropout"])
def test_a_fork_with_a_seed_draws_everything_anew(make_run, drawn):
    """One update in worlds that are in progress: it can differ by what is drawn in it only."""
    settings = {"teacher_mix": 1.0, "replay": 2, "expert_dropout": 0.5}
    drawing = {} if drawn == "nothing" else {drawn: settings[drawn]}
    run = make_run(task_id="BabyAI-UnlockPickup-v0", unroll_len=3, expert_dropout_below=0.9, **drawing)
    losses(run, 2)
    fork, num_ended = run.copy(seed=1), run.tally.counts["episodes"]
    losses(run, 1), losses(fork, 1)
    assert run.tally.counts["episodes"] == num_ended, "no world has begun since the fork"
    assert torch.equal(weights(run), weights(fork)) == (drawn == "nothing")


def test_a_fork_with_a_seed_is_saved_and_goes_on(make_run, tmp_path):
    """On disk, and with workers."""
    run = make_run(**FORK_SETTINGS)
    losses(run, 2)
    fork = run.copy(seed=1)
    losses(fork, 1)
    save_training_state(tmp_path / "training_state.pt", fork.state())
    state = load_training_state(tmp_path / "training_state.pt")
    seeds = set(state["env"]["seed"].tolist())
    assert len(seeds) == 2, "some worlds are of the run, some of the fork: or this test shows less than it should"
    rest = losses(fork, 4)
    for num_workers in (0, 2):
        resumed = make_run(**FORK_SETTINGS, num_workers=num_workers)
        losses(resumed, num_workers)  # whatever it did before
        resumed.load_state(state)
        assert_same(resumed.state() | {"config": None}, state | {"config": None})
        assert losses(resumed, 4) == rest
        assert_same(resumed.state() | {"config": None}, fork.state() | {"config": None})


def test_a_fork_on_disk_is_resumed_by_the_same_command(tmp_path):
    command = (*TINY_FLAGS, "--checkpoint_dir", tmp_path, "--resume", "--max_steps", 4)
    final_path = train_with(*command, "--num_updates", 2)
    state_path = final_path.with_name("training_state.pt")
    run = ImitationRun(load_training_state(state_path)["config"] | {"num_updates": 5}, ENCODER, choose_device("cpu"))
    run.load_state(load_training_state(state_path))
    fork = run.copy(seed=3)
    save_training_state(state_path, fork.state())
    losses(run, 3), losses(fork, 3)
    assert train_with(*command, "--num_updates", 5) == final_path
    state = load_training_state(state_path)
    assert_same(state["policy_state_dict"], dict(fork.policy.state_dict()))
    assert not torch.equal(weights(fork), weights(run))
    assert state["stream_seed"] == fork.stream_seed != run.stream_seed == 0


def test_every_key_of_a_run_is_declared(make_run):
    run = make_run()
    assert run.checkpoint()["config"].keys() | {"resume", "overwrite", "name"} == set(KEYS)
    assert run.config["scheduled_updates"] == run.config["num_updates"] and run.config["encoder_dim"] == ENCODER.dim
    with pytest.raises(KeyError, match="does not declare forgotten"):
        ImitationRun(tiny_config() | {"forgotten": 1}, ENCODER, choose_device("cpu"))


def test_the_state_is_plain(make_run, tmp_path):
    run = make_run()
    losses(run, 1)
    state = run.state()
    count = 0

    def check(value):
        nonlocal count
        count += 1
        assert type(value) in (torch.Tensor, int, float, bool, str, list, dict, type(None)), type(value)
        for item in value.items() if type(value) is dict else ():
            assert type(item[0]) in (str, int)
            check(item[1])
        for item in value if type(value) is list else ():
            check(item)

    check(state)
    assert count > 100
    save_training_state(tmp_path / "state.pt", state)
    assert_same(torch.load(tmp_path / "state.pt", weights_only=True), state)
    assert not {"resume", "overwrite"} & state["config"].keys()


def test_schedules_end_and_are_kept_by_a_longer_run(make_run):
    run = make_run(lr_decay=True, teacher_mix=0.5, num_updates=4, lr=0.01)
    seen = [run.step_update() for _ in range(6)]  # two more than planned
    assert [m["bot_share"] for m in seen] == [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert [m["lr"] for m in seen] == pytest.approx([0.01, 0.0075, 0.005, 0.0025, 0.0, 0.0])
    late = make_run(lr_decay=0.5, teacher_mix=2, num_updates=4, lr=0.01)
    seen = [late.step_update() for _ in range(5)]
    assert [m["bot_share"] for m in seen] == [1.0, 0.875, 0.75, 0.625, 0.5]
    assert [m["lr"] for m in seen] == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.0])
    longer, continued = (make_run(teacher_mix=0.5, num_updates=8, **more) for more in ({}, {"scheduled_updates": 4}))
    longer.update = continued.update = 3
    assert longer.bot_share == 0.25 and continued.bot_share == 0.0


def test_a_longer_run_branches_off_before_the_learning_rate_fell(tmp_path, capsys):
    """As if the run had been asked for that many updates when its rate began to fall."""

    def trained(name: str, *more) -> Path:
        flags = (*TINY_FLAGS, "--lr_decay", 0.5, "--teacher_mix", 0.5, "--log_interval", 1, *more)
        return train_with(*flags, "--checkpoint_dir", tmp_path / name).parent

    short = trained("run", "--num_updates", 6)
    end = load_checkpoint(short / "checkpoint_final.pt")
    branch = load_training_state(short / "state_before_decay.pt")
    assert branch["update"] == 3 and branch["config"]["scheduled_updates"] == 6
    trained("run", "--num_updates", 10, "--resume")
    assert "from update 3" in capsys.readouterr().out
    final, log = load_checkpoint(short / "checkpoint_final.pt"), pd.read_csv(short / "training_log.csv")
    assert final["update"] == final["config"]["scheduled_updates"] == 10 and log["update"].tolist() == [*range(1, 11)]
    assert log["lr"].tolist() == pytest.approx([1e-3] * 6 + [1e-3 * share for share in (0.8, 0.6, 0.4, 0.2)])
    assert_same(load_checkpoint(short / "checkpoint_6.pt"), end)
    assert load_training_state(short / "state_before_decay.pt")["update"] == 5

    run = ImitationRun(branch["config"] | {"scheduled_updates": 10}, ENCODER, choose_device("cpu"))
    run.load_state(branch)
    losses(run, 7)
    kept = ("policy_state_dict", "optimizer_state_dict")
    assert_same(*({name: checkpoint[name] for name in kept} for checkpoint in (run.checkpoint(), final)))
    run.close()

    trained("run", "--num_updates", 12, "--resume", "--checkpoint_interval", 2)  # from update 5
    assert load_checkpoint(short / "checkpoint_8.pt")["update"] == 8
    assert_same(load_checkpoint(short / "checkpoint_6.pt"), end)
    assert_same(load_checkpoint(short / "checkpoint_10.pt"), final)
    trained("run", "--num_updates", 14, "--resume")  # from update 6, at which the first run ended
    assert_same(load_checkpoint(short / "checkpoint_6.pt"), end)
    (short / "state_before_decay.pt").unlink()
    assert "state_before_decay" in refusal(trained, "run", "--num_updates", 16, "--resume")
    cut = tmp_path / "cut" / short.relative_to(tmp_path / "run")
    save_training_state(cut / "training_state.pt", branch)  # of a run that was cut off before its rate fell
    early = load_checkpoint(trained("cut", "--num_updates", 3, "--resume") / "checkpoint_final.pt")
    trained("cut", "--num_updates", 10, "--resume")
    assert_same(load_checkpoint(cut / "checkpoint_3.pt"), early)  # it ended before its schedule did
    assert_same(load_checkpoint(cut / "checkpoint_final.pt")["policy_state_dict"], final["policy_state_dict"])


def test_a_state_of_an_earlier_version_goes_on_as_it_was(tmp_path):
    """Without the keys of later settings in its config, without a replay, with a row of fewer measures begun."""
    whole = train_with(*TINY_FLAGS, "--checkpoint_dir", tmp_path / "whole", "--log_interval", 3)
    part = ("--checkpoint_dir", tmp_path / "part", "--log_interval", 3)
    final = train_with(*TINY_FLAGS, *part, "--num_updates", 4)
    path = final.parent / "training_state.pt"
    state = load_training_state(path)
    for name in {*BEFORE, "scheduled_updates"} - {"seed"}:  # runs have always had one
        del state["config"][name]
    for name in ("replay", "recent_alone", "bot_acted"):
        state.pop(name, None)
    state["unfinished_row"] = {"loss": 1.0, "count": 1}
    save_training_state(path, state)
    final.unlink()
    resumed = train_with("--task_id", TINY_TASK, *part, "--resume", "--num_updates", 6)
    assert_same(*(load_checkpoint(path)["policy_state_dict"] for path in (resumed, whole)))
    logs = [pd.read_csv(p.parent / "training_log.csv").iloc[-1] for p in (resumed, whole)]
    assert logs[0]["lr"] == logs[1]["lr"] == state["config"]["lr"]


def test_seed_decides_and_workers_do_not(make_run):
    trained = {}
    for name, changes in {
        "one": {"seed": 5},
        "again": {"seed": 5},
        "workers": {"seed": 5, "num_workers": 2},
        "more workers than slots": {"seed": 5, "num_workers": 9},
        "other": {"seed": 6},
    }.items():
        run = make_run(**FORK_SETTINGS, **changes)
        torch.rand(3), np.random.default_rng().random()  # other random streams have no say
        losses(run, 3)
        trained[name] = run
    for name in ("again", "workers", "more workers than slots"):
        assert torch.equal(weights(trained[name]), weights(trained["one"])), name
        assert torch.equal(trained[name].hidden, trained["one"].hidden)
        state, num_workers = trained[name].state(), trained[name].config["num_workers"]
        assert_same(state, trained["one"].state() | {"config": state["config"]})
        assert num_workers == {"again": 0, "workers": 2}.get(name, 9)
    assert not torch.equal(weights(trained["other"]), weights(trained["one"]))
    fork = trained["workers"].copy()
    try:
        assert losses(fork, 2) == losses(trained["one"], 2)
    finally:
        fork.close()


def test_the_number_of_threads_changes_nothing(make_run, monkeypatch):
    """With as many environments as are learned from in two parts."""
    trained = []
    for num_threads in (1, 2):
        monkeypatch.setattr(autograd, "num_threads", lambda num_threads=num_threads: num_threads)
        trained.append(make_run(num_envs=16, max_steps=12, **EVERYTHING))
        losses(trained[-1], 4)
    assert len(autograd.parts_of(16)) == 2 and len(trained[0].replay) > 0
    assert torch.equal(*map(weights, trained))
    assert_same(*(run.state() for run in trained))


def test_without_a_seed_the_trial_is_the_seed(tmp_path):
    """Trial 3 equals trial 0 with seed 3; both differ from trial 0."""
    saved = {}
    for name, words in {"trial 3": "--trial 3", "seed 3": "--seed 3", "trial 0": "--trial 0"}.items():
        path = train_with(*TINY_FLAGS, "--num_updates", 1, "--checkpoint_dir", tmp_path, *words.split())
        saved[name] = load_checkpoint(path)
    folder = tmp_path / "BabyAI-GoToObj-v0"
    assert [RunKey.from_checkpoint(p) for p in sorted(folder.rglob("*final.pt"))] == [
        RunKey("BabyAI-GoToObj-v0", 0),
        RunKey("BabyAI-GoToObj-v0", 0, 3),
        RunKey("BabyAI-GoToObj-v0", 3),
    ]
    assert [saved[name]["config"]["seed"] for name in saved] == [3, 3, 0]
    for part in ("policy_state_dict", "lang_proj_state_dict"):
        one, two, three = (saved[name][part] for name in ("trial 3", "seed 3", "trial 0"))
        assert all(torch.equal(one[key], two[key]) for key in one)
        assert not any(torch.equal(one[key], three[key]) for key in one)


def test_the_mission_projection_is_trained_or_frozen(make_run):
    for is_trained in (True, False):
        run = make_run(train_lang_proj=is_trained)
        before = deepcopy(run.lang_proj.state_dict())
        policy_before = deepcopy(run.policy.state_dict())
        losses(run, 2)
        after = run.lang_proj.state_dict()
        assert [torch.equal(before[name], after[name]) for name in ("weight", "bias")] == [not is_trained] * 2
        assert not any(torch.equal(policy_before[name], tensor) for name, tensor in run.policy.state_dict().items())
        resumed = make_run(train_lang_proj=is_trained)
        resumed.load_state(run.state())
        assert losses(resumed, 1) == losses(run, 1)


def test_clipping_and_none(make_run):
    def norm(run):
        learned = run.optimizer.param_groups[0]["params"]
        return torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in learned])).item()

    free, wide, narrow = (make_run(grad_clip=value) for value in (0.0, 1e9, 0.01))
    for update in range(3):
        measured = [run.step_update()["grad_norm"] for run in (free, wide, narrow)]
        assert norm(free) == pytest.approx(measured[0], rel=1e-5) and measured[0] > 0.1
        assert norm(narrow) == pytest.approx(0.01, rel=1e-3)
        if update == 0:
            assert measured[2] == pytest.approx(measured[0])  # the measure is taken before clipping
    assert torch.equal(weights(free), weights(wide))
    assert not torch.equal(weights(free), weights(narrow))


def test_a_cost_of_complexity_lowers_it(make_run):
    lpc = {}
    for name, changes in {
        "none": {},
        "plain": {"lpc_alpha": 0.1},
        "normalised": {"lpc_alpha": 0.1, "normalize_lpc": True},
        "detached": {"lpc_alpha": 0.1, "normalize_lpc": True, "lpc_detach": True},
    }.items():
        run = make_run(lr=1e-2, **changes)
        measures = [run.step_update() for _ in range(20)]
        assert 0.0 < measures[0]["lpc"] < 4**2 + 8**2
        lpc[name] = measures[-1]["lpc"]
    assert all(lpc[name] < 0.5 * lpc["none"] for name in ("plain", "normalised", "detached")), lpc


def test_a_gradient_that_is_not_finite_stops_the_run(make_run):
    run = make_run()
    with torch.no_grad():
        run.policy.head.weight[0, 0] = math.nan
    assert "--lr" in refusal(run.step_update)


def test_weights_that_are_not_finite_are_not_saved(make_run):
    for spoil in (
        lambda run: run.policy.head.weight.data.fill_(math.inf),
        lambda run: next(iter(run.optimizer.state.values()))["exp_avg_sq"].fill_(math.inf),
    ):
        run = make_run()
        run.step_update()
        run.checkpoint(), run.state()
        spoil(run)
        for save in (run.checkpoint, run.state):
            assert "--lr" in refusal(save)


def test_the_warning_comes_exactly_where_the_loss_rewards_errors():
    """That is: where the derivative of the loss by the cross-entropy is negative."""
    cases = warned = 0
    for alpha, eps, lpc in itertools.product((0.0, 1e-4, 1e-2), (0.01, 0.5), (0.0, 10.0, 75.0)):
        price = ComplexityPenalty(alpha, normalize=True, eps=eps)
        ce = torch.linspace(0.0, 1.2, 14, dtype=torch.float64, requires_grad=True)  # none of them on the border
        (slopes,) = torch.autograd.grad((ce + alpha * lpc / (ce + eps)).sum(), ce)
        assert (slopes.abs() > 1e-6).all()
        for x, slope in zip(ce.tolist(), slopes.tolist(), strict=True):
            warning = reward_for_errors(x, lpc, price)
            assert (warning is not None) == (slope < 0)
            others = (ComplexityPenalty(alpha), ComplexityPenalty(alpha, True, eps, detach=True))
            assert not any(reward_for_errors(x, lpc, other) for other in others)
            cases, warned = cases + 1, warned + (slope < 0)
    assert cases == 18 * 14 and warned >= 20, warned


def test_a_collapse_is_every_layer_skipping(make_run):
    measures = {"skip_share_0": 0.99, "skip_share_1": 0.985, "lpc": 1.0, "cross_entropy": 1.0}
    run = make_run(expert_hidden_sizes=[[0, 4], [0, 8]])
    assert run.warnings(measures).keys() == {"collapse"}
    assert run.warnings(measures | {"skip_share_0": 0.97}) == {}
    without_skip = make_run(expert_hidden_sizes=[[0, 4], [8]])  # the second layer cannot skip
    assert without_skip.warnings({"skip_share_0": 1.0, "lpc": 64.0, "cross_entropy": 1.0}) == {}
    assert make_run(policy="gru").warnings({"lpc": 1.0, "cross_entropy": 1.0}) == {}
    rewarding = make_run(lpc_alpha=1, normalize_lpc=True)
    assert len(rewarding.warnings(measures | {"skip_share_0": 0.5, "lpc": 80.0, "cross_entropy": 0.1})) == 1


def test_a_log_without_a_state_is_of_another_run(make_run, tmp_path):
    path = tmp_path / "training_log.csv"
    path.write_text("update,seconds,env_steps\n1,1.0,32\n")
    assert TrainingLog(path, make_run()).rows == [] and not path.exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", [{}, EVERYTHING | {"expert_dropout": 0.0}], ids=["plain", "everything"])
def test_a_run_on_a_gpu_learns_as_on_the_cpu_and_resumes_exactly(make_run, settings):
    on_cpu, on_gpu = make_run(**settings), ImitationRun(tiny_config(**settings), ENCODER, choose_device("cuda"))
    for _ in range(3):
        assert on_gpu.step_update()["loss"] == pytest.approx(on_cpu.step_update()["loss"], rel=1e-3)
    fork = on_gpu.copy()
    assert [fork.step_update() for _ in range(2)] == [on_gpu.step_update() for _ in range(2)]
    fork.close()
    on_gpu.close()
