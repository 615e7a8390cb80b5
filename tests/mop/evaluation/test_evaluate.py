"""Evaluation against a plain loop over bare Minigrid, the bot's known results, and what results may depend on."""

import functools
import math

import numpy as np
import pytest
import torch
from bare_minigrid import bare_env, bare_reset, bot_episode, observation_vector
from checks import strict_json
from eval_helpers import GOTO, UNLOCK, put, random_checkpoint, taught_checkpoint
from scripts import in_process

import batch_eval
from mixture_of_experts import compute_lpc
from mop.artifacts.run_paths import RunKey, cache_path
from mop.envs.bot_paths import BotPaths
from mop.envs.missions import encode_by_codes, load_encoder
from mop.evaluation.evaluate import evaluate, evaluate_bot
from mop.training.policies import policy_from_checkpoint

DOORS = "BabyAI-OpenTwoDoors-v0"  # none of them locked
NUM_EPISODES = 24  # of each checkpoint in `caches`; in the first 20 worlds the policies were taught
NUM_TAUGHT = 20
EVENTS = ("t_pick", "t_opened", "t_unlocked", "t_drop")
VOCAB = load_encoder("vocab")


@functools.cache
def goto_checkpoint() -> dict:
    """A policy that solves many worlds of GoToObj."""
    return taught_checkpoint(GOTO, NUM_TAUGHT, num_fits=22)


class PlainPolicy:
    """A checkpoint's policy by its equations, in plain torch, one environment a call."""

    def __init__(self, checkpoint: dict):
        self.policy, self.lang_proj = policy_from_checkpoint(checkpoint)
        self.reset()

    def reset(self) -> None:
        self.hidden = self.policy.initial_hidden(1)

    def __call__(self, vector: np.ndarray, mission: str) -> tuple[torch.Tensor, list[torch.Tensor], float]:
        """Logits (7,), router weights of each layer, LPC."""
        lang = self.lang_proj(encode_by_codes(mission)[None])
        inputs = self.policy.encode(torch.from_numpy(vector)[None], lang)
        logits, routing, self.hidden = self.policy.step(inputs, self.hidden)
        lpc = compute_lpc(routing, self.policy.expert_hidden_sizes)
        return logits[0], [weights[0] for weights in routing], lpc.item()


def door_states(env) -> dict[int, tuple[bool, bool]]:
    """Cell -> open, locked."""
    return {k: (c.is_open, c.is_locked) for k, c in enumerate(env.grid.grid) if c is not None and c.type == "door"}


def play(env, seed: int, policy: PlainPolicy) -> tuple[dict, list[dict]]:
    """Outcome and steps of one greedy episode in a bare world."""
    obs = bare_reset(env, seed)
    policy.reset()
    outcome = dict.fromkeys(EVENTS) | {"seed": seed, "mission": obs["mission"], "steps": 0}
    steps, is_over = [], False
    while not is_over:
        logits, routing, lpc = policy(observation_vector(obs, env), obs["mission"])
        action = int(logits.argmax())
        steps.append(
            {
                "t_step": outcome["steps"],
                "position": [int(v) for v in env.agent_pos],
                "direction": int(env.agent_dir),
                "carrying": env.carrying is not None,
                "door_unlocked": outcome["t_unlocked"] is not None,
                "action": action,
                "action_logits": logits.tolist(),
                "routing": [weights.tolist() for weights in routing],
                "lpc": lpc,
            }
        )
        before, held = door_states(env), env.carrying
        obs, reward, terminated, truncated, _ = env.step(action)
        outcome["steps"] += 1
        changes = [(before[at], now) for at, now in door_states(env).items()]
        happened = {
            "t_pick": held is None and env.carrying is not None,
            "t_drop": held is not None and env.carrying is None,
            "t_opened": any(now[0] and not was[0] for was, now in changes),
            "t_unlocked": any(was[1] and not now[1] for was, now in changes),
        }
        for event in EVENTS:
            if happened[event] and outcome[event] is None:
                outcome[event] = outcome["steps"]
        is_over = terminated or truncated
    return outcome | {"success": reward > 0, "truncated": truncated}, steps


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> dict[str, tuple[dict, dict]]:
    """Name -> checkpoint, and the cache that batch_eval.py wrote for it."""
    folder = tmp_path_factory.mktemp("caches")
    checkpoints = {
        "GoToObj mixture": goto_checkpoint(),
        "GoToObj baseline": taught_checkpoint(GOTO, NUM_TAUGHT, num_fits=22, policy="gru"),
        "UnlockPickup mixture": taught_checkpoint(
            UNLOCK, NUM_TAUGHT, num_fits=36, residual=True, obs_encoding="one_hot"
        ),
        "OpenTwoDoors mixture": taught_checkpoint(DOORS, NUM_TAUGHT, num_fits=45, max_steps=100),
    }
    paths = {name: put(folder / "in", c, trial=k) for k, (name, c) in enumerate(checkpoints.items())}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flags = ("--checkpoint_dir", "in", "--num_episodes", NUM_EPISODES, "--num_envs", 5)
        assert in_process(batch_eval.main, *flags) == 0
    keys = {name: RunKey.from_checkpoint(path) for name, path in paths.items()}
    written = {name: strict_json(cache_path(folder / "evaluation_cache", key)) for name, key in keys.items()}
    return {name: (checkpoint, written[name]) for name, checkpoint in checkpoints.items()}


NAMES = ("GoToObj mixture", "GoToObj baseline", "UnlockPickup mixture", "OpenTwoDoors mixture")


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_loop_over_bare_minigrid_finds_the_same(caches, name):
    checkpoint, cache = caches[name]
    task_id, policy = checkpoint["config"]["task_id"], PlainPolicy(checkpoint)
    max_steps = checkpoint["config"]["max_steps"]
    env, by_episode = bare_env(task_id, max_steps), [[] for _ in cache["episodes"]]
    for record in cache["routing_data"]:
        by_episode[record["episode"]].append(record)
    successes, ratios, costs = 0, [], []
    for episode, records in zip(cache["episodes"], by_episode, strict=True):
        outcome, steps = play(env, episode["seed"], policy)
        steps_of_bot = bot_episode(task_id, episode["seed"], max_steps)
        assert {key: episode[key] for key in outcome} == outcome
        assert episode["expert_steps"] == steps_of_bot
        assert len(records) == len(steps) == episode["steps"]
        for record, step in zip(records, steps, strict=True):
            same = ("t_step", "position", "direction", "carrying", "door_unlocked", "action")
            assert {key: record[key] for key in same} == {key: step[key] for key in same}
            assert record["action_logits"] == pytest.approx(step["action_logits"], abs=5e-4)
            assert list(record["layer_routing"]) == [f"layer_{k}" for k in range(len(step["routing"]))]
            for weights, plain in zip(record["layer_routing"].values(), step["routing"], strict=True):
                assert weights == pytest.approx(plain, abs=3e-5)
            assert record["lpc"] == pytest.approx(step["lpc"], rel=1e-5, abs=1e-3)
            costs.append(step["lpc"])
        successes += outcome["success"]
        ratios += [outcome["steps"] / steps_of_bot] if outcome["success"] else []
    metrics, count = cache["metrics"], len(cache["episodes"])
    assert count == NUM_EPISODES and len(costs) == len(cache["routing_data"]) > 5 * count
    assert 0 < successes < count, "both kinds of outcome must be covered"
    assert metrics["success_rate"] == pytest.approx(successes / count, abs=1e-12)
    assert metrics["path_ratio"] == pytest.approx(np.mean(ratios), abs=1e-9)
    assert metrics["mean_lpc"] == pytest.approx(np.mean(costs), abs=1e-3)
    assert metrics["mean_steps"] == pytest.approx(len(costs) / count, abs=1e-9)
    assert metrics["bot_plan_failures"] == 0
    assert [episode["seed"] for episode in cache["episodes"]] == list(range(NUM_EPISODES))
    if task_id == UNLOCK:
        seen = {event: sum(episode[event] is not None for episode in cache["episodes"]) for event in EVENTS}
        assert min(seen.values()) >= 5, seen
        assert all(e["t_opened"] == e["t_unlocked"] for e in cache["episodes"])  # the one door is opened by unlocking
    if task_id == DOORS:
        opened = [e["steps"] - e["t_opened"] for e in cache["episodes"] if e["t_opened"] is not None]
        assert len(opened) >= 5 and max(opened) > 5
        assert all(e["t_unlocked"] is None for e in cache["episodes"])


def test_the_bot_through_our_evaluator():
    evaluation = evaluate_bot(UNLOCK, num_episodes=150)
    steps = [episode["steps"] for episode in evaluation.episodes]
    assert len(steps) == 150 and evaluation.steps is None
    assert [episode["seed"] for episode in evaluation.episodes] == list(range(150))
    assert evaluation.metrics["success_rate"] == 1.0 and evaluation.metrics["path_ratio"] == 1.0
    assert evaluation.metrics["mean_steps"] == pytest.approx(19.6, abs=0.05)
    assert max(steps) == 27
    assert evaluation.metrics["bot_plan_failures"] == 0 and math.isnan(evaluation.metrics["mean_lpc"])


def test_the_bot_fails_a_strict_mission():
    evaluation = evaluate_bot("BabyAI-OpenDoorsOrderN4Debug-v0", num_episodes=150)
    assert sum(episode["success"] for episode in evaluation.episodes) == 46
    assert evaluation.metrics["success_rate"] == pytest.approx(46 / 150, abs=1e-12)
    failed = [episode for episode in evaluation.episodes if not episode["success"]]
    assert len(failed) == 104 and all(episode["expert_steps"] is None for episode in failed)
    assert evaluation.metrics["path_ratio"] == 1.0


def test_a_world_without_a_plan_is_an_episode_of_the_bot_without_success():
    evaluation = evaluate_bot("BabyAI-UnlockToUnlock-v0", num_episodes=1, eval_seed=4)
    (episode,) = evaluation.episodes
    assert not episode["success"] and episode["expert_steps"] is None
    assert episode["steps"] == 1  # it is asked twice in this world
    assert evaluation.metrics["bot_plan_failures"] == 1 and math.isnan(evaluation.metrics["path_ratio"])


def test_a_world_that_the_bot_cannot_solve_is_counted_and_replaced():
    task_id = "BabyAI-UnlockToUnlock-v0"
    solved, failures, seed = {}, 0, 0
    while len(solved) < 5:
        result = bot_episode(task_id, seed)
        solved |= {seed: result} if isinstance(result, int) else {}
        failures += not isinstance(result, int)
        seed += 1
    assert failures >= 1 and 4 not in solved
    evaluation = evaluate(random_checkpoint(task_id=task_id), VOCAB, BotPaths(task_id, None, None), 5)
    assert {e["seed"]: e["expert_steps"] for e in evaluation.episodes} == solved and len(evaluation.episodes) == 5
    assert evaluation.metrics["bot_plan_failures"] == failures


def assert_same(one, other) -> None:
    assert one.metrics.keys() == other.metrics.keys()
    for name, value in one.metrics.items():
        assert other.metrics[name] == pytest.approx(value, abs=1e-5, nan_ok=True), name
    assert one.episodes == other.episodes
    for name in ("episode", "t_step", "position", "direction", "carrying", "door_unlocked", "action"):
        np.testing.assert_array_equal(getattr(one.steps, name), getattr(other.steps, name), name)
    np.testing.assert_allclose(one.steps.action_logits, other.steps.action_logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(one.steps.lpc, other.steps.lpc, rtol=1e-5, atol=0)
    assert len(one.steps.layer_routing) == len(other.steps.layer_routing)
    for weights, other_weights in zip(one.steps.layer_routing, other.steps.layer_routing, strict=True):
        np.testing.assert_allclose(weights, other_weights, rtol=0, atol=1e-5)


def test_results_do_not_depend_on_num_envs():
    checkpoint = taught_checkpoint(UNLOCK, num_worlds=8, num_fits=40)
    bot_paths = BotPaths(UNLOCK, None, None)
    first, cases = evaluate(checkpoint, VOCAB, bot_paths, 10, num_envs=1), 0
    assert 0 < first.metrics["success_rate"] < 1 and len(first.episodes) == 10
    for num_envs in (1, 3, 8, 50):
        assert_same(first, evaluate(checkpoint, VOCAB, bot_paths, 10, num_envs=num_envs))
        cases += 1
    assert cases == 4
    without_steps = evaluate(checkpoint, VOCAB, bot_paths, 10, num_envs=4, record_steps=False)
    assert without_steps.steps is None and without_steps.episodes == first.episodes
    assert without_steps.metrics == pytest.approx(first.metrics, abs=1e-5)


def test_drawn_actions_belong_to_the_world_and_follow_the_probabilities(tmp_path):
    checkpoint, paths = random_checkpoint(), BotPaths(GOTO, None, tmp_path)

    def drawn(temperature, num_envs):
        return evaluate(checkpoint, VOCAB, paths, 24, num_envs=num_envs, temperature=temperature).steps

    steps, alone = drawn(1.0, 24), drawn(1.0, 1)
    assert np.array_equal(steps.action, alone.action)
    probabilities = torch.softmax(torch.from_numpy(steps.action_logits), -1).numpy()
    expected, error = probabilities.sum(0), np.sqrt((probabilities * (1 - probabilities)).sum(0))
    assert (np.abs(np.bincount(steps.action, minlength=7) - expected) < 5 * error).all()
    assert (steps.action != steps.action_logits.argmax(-1)).mean() > 0.5  # an untrained policy has no favourite
    cold = drawn(1e-6, 24)
    greedy = evaluate(checkpoint, VOCAB, paths, 24, num_envs=24).steps
    assert np.array_equal(cold.action, greedy.action)
    assert np.array_equal(greedy.action, greedy.action_logits.argmax(-1))


def test_an_episode_is_its_seed_wherever_the_list_begins():
    checkpoint, bot_paths, finished = goto_checkpoint(), BotPaths(GOTO, None, None), []
    whole = evaluate(checkpoint, VOCAB, bot_paths, 9, num_envs=4, progress=finished.append)
    part = evaluate(checkpoint, VOCAB, bot_paths, 4, eval_seed=5, num_envs=4)
    assert part.episodes == whole.episodes[5:] and len(part.episodes) == 4
    np.testing.assert_array_equal(part.steps.action, whole.steps.action[whole.steps.episode >= 5])
    assert sum(finished) == 9


def test_steps_are_in_episode_order():
    evaluation = evaluate(goto_checkpoint(), VOCAB, BotPaths(GOTO, None, None), 24, num_envs=5)
    steps, lengths = evaluation.steps, [episode["steps"] for episode in evaluation.episodes]
    assert len(steps) == sum(lengths) and len(set(lengths)) > 3
    np.testing.assert_array_equal(steps.episode, np.repeat(np.arange(24), lengths))
    np.testing.assert_array_equal(steps.t_step, np.concatenate([np.arange(length) for length in lengths]))
    starts = np.flatnonzero(steps.t_step == 0)
    assert [list(steps.position[i]) for i in starts] == [e["agent_start_pos"] for e in evaluation.episodes]
    assert [steps.direction[i] for i in starts] == [e["agent_start_dir"] for e in evaluation.episodes]
    dtypes = {"episode": "i4", "t_step": "i4", "position": "i4", "direction": "i1", "action": "i1"}
    dtypes |= {"carrying": "?", "door_unlocked": "?", "lpc": "f4", "action_logits": "f4"}
    columns = {name: getattr(steps, name) for name in dtypes}
    assert {name: values.dtype for name, values in columns.items()} == dtypes
    assert [weights.dtype for weights in steps.layer_routing] == [np.float32] * 2
    assert all(values.flags.c_contiguous for values in [*columns.values(), *steps.layer_routing])
    assert evaluation.metrics["mean_lpc"] == pytest.approx(np.mean(steps.lpc, dtype=np.float64), rel=1e-12)


def test_success_on_the_very_last_step_counts():
    checkpoint, bot_paths = goto_checkpoint(), BotPaths(GOTO, None, None)
    solved = [e for e in evaluate(checkpoint, VOCAB, bot_paths, 12).episodes if e["success"]]
    solved = [e for e in solved if e["steps"] == e["expert_steps"] > 2]
    assert len(solved) >= 3
    for episode in solved:
        limit = episode["steps"]
        last = evaluate(checkpoint, VOCAB, BotPaths(GOTO, limit, None), 1, eval_seed=episode["seed"])
        (outcome,) = last.episodes
        assert outcome["seed"] == episode["seed"] and outcome["steps"] == limit
        assert outcome["success"] and outcome["truncated"] and last.metrics["path_ratio"] == 1.0
        env = bare_env(GOTO, limit)
        bare_reset(env, episode["seed"])
        rewards = [env.step(action)[1:4] for action in last.steps.action.tolist()]
        assert rewards[-1] == (pytest.approx(0.1, abs=1e-9), True, True)
        assert all(reward == (0, False, False) for reward in rewards[:-1])
        too_short = evaluate_bot(GOTO, limit - 1, 1, eval_seed=episode["seed"])
        assert not too_short.episodes[0]["success"] and too_short.episodes[0]["steps"] == limit - 1
