"""Evaluation against a plain loop over bare Minigrid, the bot's known results, and the command line."""

import functools
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from bare_minigrid import bare_env, bare_reset, bot_episode, observation_vector
from eval_helpers import (
    GOTO,
    UNLOCK,
    in_process,
    put,
    random_checkpoint,
    start,
    taught_checkpoint,
    the_error_line,
)
from tiny_encoder import build_tiny_encoder
from torch import nn

import batch_eval
import eval_mop
from mop.base.errors import InputError
from mop.jobs.evaluation import encoder_for, evaluate, evaluate_bot
from mop.measures.metrics import compute_metrics, wilson_interval
from mop.store.run_keys import RunKey, bot_paths_file, cache_path
from mop.worlds import bot_paths
from mop.worlds.bot_paths import BotPaths
from mop.worlds.episodes import EvalVectorEnv, episode_context
from mop.worlds.missions import encode_by_codes, load_encoder
from mop.worlds.world import MINIGRID_VERSION, World, babyai_task_ids

DOORS = "BabyAI-OpenTwoDoors-v0"  # none of them locked
NUM_EPISODES = 24  # of each checkpoint in `caches`; in the first 20 worlds the policies were taught
NUM_TAUGHT = 20
EVENTS = ("t_pick", "t_opened", "t_unlocked", "t_drop")
VOCAB = load_encoder("vocab")


@functools.cache
def goto_checkpoint() -> dict:
    """A policy that solves many worlds of GoToObj."""
    return taught_checkpoint(GOTO, NUM_TAUGHT, num_fits=22)


# --- the independent check ------------------------------------------------------------------------------------------


class PlainPolicy:
    """A checkpoint's policy from its documented parameter names and PyTorch's own modules, one environment a call."""

    def __init__(self, checkpoint: dict):
        self.config = checkpoint["config"]
        self.parameters = checkpoint["policy_state_dict"] | {
            f"lang_proj.{name}": value for name, value in checkpoint["lang_proj_state_dict"].items()
        }
        self.used, self.modules = set(), {}
        self.reset()

    def reset(self) -> None:
        self.hidden = {}

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        self.used |= {f"{name}.weight", f"{name}.bias"}
        return weight @ x + bias

    def gru(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if name not in self.modules:
            weights = {k.removeprefix(f"{name}."): v for k, v in self.parameters.items() if k.startswith(f"{name}.")}
            self.modules[name] = nn.GRU(weights["weight_ih_l0"].shape[1], weights["weight_hh_l0"].shape[1])
            self.modules[name].load_state_dict(weights)
            self.used |= {f"{name}.{key}" for key in weights}
        _, self.hidden[name] = self.modules[name](x[None], self.hidden.get(name))
        return self.hidden[name][0]

    @torch.no_grad()
    def __call__(self, vector: np.ndarray, mission: str) -> tuple[torch.Tensor, list[torch.Tensor], float]:
        """Logits (7,), router weights of each layer, LPC."""
        lang = self.linear("lang_proj", encode_by_codes(mission))
        obs = torch.from_numpy(vector)
        if self.config.get("obs_encoding") == "one_hot":
            columns = [i for channel in (11, 6, 3) for i in [channel] * 49]
            ones = [nn.functional.one_hot(obs[k].long(), columns[k]) for k in range(147)]
            obs = torch.cat([*ones, obs[147:]])
        x = self.linear("input_projection", torch.cat([obs, lang]))
        if self.config["policy"] == "gru":
            size = self.config["gru_hidden_size"]
            return self.linear("head", self.gru("gru", x)), [torch.ones(1)], float(size**2)
        routing, lpc = [], 0.0
        for layer, sizes in enumerate(self.config["expert_hidden_sizes"]):
            name = f"moe_layers.{layer}"
            weights = torch.softmax(self.linear(f"{name}.router.fc", self.gru(f"{name}.router.gru", x)), 0)
            mixed = torch.zeros_like(x)
            for e, size in enumerate(sizes):
                expert = f"{name}.experts.{e}"
                y = x if size == 0 else self.linear(f"{expert}.projection", self.gru(f"{expert}.gru", x))
                mixed = mixed + weights[e] * y
                lpc += float(weights[e]) * size**2
            if self.config["residual"]:
                mixed = x + mixed
                mixed = (mixed - mixed.mean()) / torch.sqrt(mixed.var(unbiased=False) + 1e-5)
                mixed = mixed * self.parameters[f"{name}.norm.weight"] + self.parameters[f"{name}.norm.bias"]
                self.used |= {f"{name}.norm.weight", f"{name}.norm.bias"}
            routing.append(weights)
            x = mixed
        return self.linear("head", x), routing, lpc


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


def strict_json(path: Path) -> dict:
    def refuse(token):
        raise AssertionError(f"{path} holds {token}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> dict[str, tuple[dict, dict]]:
    """Name -> checkpoint and the cache that batch_eval wrote for it."""
    folder = tmp_path_factory.mktemp("caches")
    checkpoints = {
        "GoToObj MoE": goto_checkpoint(),
        "GoToObj baseline": taught_checkpoint(GOTO, NUM_TAUGHT, num_fits=22, policy="gru"),
        "UnlockPickup MoE": taught_checkpoint(UNLOCK, NUM_TAUGHT, num_fits=36, residual=True, obs_encoding="one_hot"),
        "UnlockPickup baseline": taught_checkpoint(UNLOCK, NUM_TAUGHT, num_fits=36, policy="gru"),
        "OpenTwoDoors MoE": taught_checkpoint(DOORS, NUM_TAUGHT, num_fits=45, max_steps=100),
    }
    paths = {name: put(folder / "in", c, trial=k) for k, (name, c) in enumerate(checkpoints.items())}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flags = ("--checkpoint_dir", "in", "--num_episodes", NUM_EPISODES, "--num_envs", 5)
        assert in_process(batch_eval.main, *flags) == 0
    keys = {name: RunKey.from_checkpoint(path) for name, path in paths.items()}
    written = {name: strict_json(cache_path(folder / "evaluation_cache", key)) for name, key in keys.items()}
    return {name: (checkpoint, written[name]) for name, checkpoint in checkpoints.items()}


NAMES = ("GoToObj MoE", "GoToObj baseline", "UnlockPickup MoE", "UnlockPickup baseline", "OpenTwoDoors MoE")


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
    assert policy.used == set(policy.parameters), "the plain policy must use every parameter of the checkpoint"
    if task_id == UNLOCK:
        seen = {event: sum(episode[event] is not None for episode in cache["episodes"]) for event in EVENTS}
        assert min(seen.values()) >= 5, seen
        assert all(e["t_opened"] == e["t_unlocked"] for e in cache["episodes"])  # the one door is opened by unlocking
    if task_id == DOORS:
        opened = [e["steps"] - e["t_opened"] for e in cache["episodes"] if e["t_opened"] is not None]
        assert len(opened) >= 5 and max(opened) > 5
        assert all(e["t_unlocked"] is None for e in cache["episodes"])


# --- the bot --------------------------------------------------------------------------------------------------------


def test_the_bot_through_our_evaluator():
    evaluation = evaluate_bot(BotPaths(UNLOCK, None, None), num_episodes=150)
    steps = [episode["steps"] for episode in evaluation.episodes]
    assert len(steps) == 150 and evaluation.steps is None
    assert [episode["seed"] for episode in evaluation.episodes] == list(range(150))
    assert evaluation.metrics["success_rate"] == 1.0 and evaluation.metrics["path_ratio"] == 1.0
    assert evaluation.metrics["mean_steps"] == pytest.approx(19.6, abs=0.05)
    assert max(steps) == 27
    assert evaluation.metrics["bot_plan_failures"] == 0 and math.isnan(evaluation.metrics["mean_lpc"])


def test_the_bot_fails_a_strict_mission():
    evaluation = evaluate_bot(BotPaths("BabyAI-OpenDoorsOrderN4Debug-v0", None, None), num_episodes=150)
    assert sum(episode["success"] for episode in evaluation.episodes) == 46
    assert evaluation.metrics["success_rate"] == pytest.approx(46 / 150, abs=1e-12)
    failed = [episode for episode in evaluation.episodes if not episode["success"]]
    assert len(failed) == 104 and all(episode["expert_steps"] is None for episode in failed)
    assert evaluation.metrics["path_ratio"] == 1.0


def test_a_world_without_a_plan_is_an_episode_of_the_bot_without_success():
    evaluation = evaluate_bot(BotPaths("BabyAI-UnlockToUnlock-v0", None, None), num_episodes=1, eval_seed=4)
    (episode,) = evaluation.episodes
    assert not episode["success"] and episode["truncated"] and episode["expert_steps"] is None
    assert episode["steps"] == 1  # it is asked twice in this world
    assert evaluation.metrics["bot_plan_failures"] == 1 and math.isnan(evaluation.metrics["path_ratio"])


# --- what results may depend on -------------------------------------------------------------------------------------


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
    teacher = BotPaths(UNLOCK, None, None)
    first, cases = evaluate(checkpoint, VOCAB, teacher, 10, num_envs=1), 0
    assert 0 < first.metrics["success_rate"] < 1 and len(first.episodes) == 10
    for num_envs in (1, 3, 8, 50):
        assert_same(first, evaluate(checkpoint, VOCAB, teacher, 10, num_envs=num_envs))
        cases += 1
    assert cases == 4
    without_steps = evaluate(checkpoint, VOCAB, teacher, 10, num_envs=4, record_steps=False)
    assert without_steps.steps is None and without_steps.episodes == first.episodes
    assert without_steps.metrics == pytest.approx(first.metrics, abs=1e-5)


def test_an_episode_is_its_seed_wherever_the_list_begins():
    checkpoint, teacher, finished = goto_checkpoint(), BotPaths(GOTO, None, None), []
    whole = evaluate(checkpoint, VOCAB, teacher, 9, num_envs=4, progress=finished.append)
    part = evaluate(checkpoint, VOCAB, teacher, 4, eval_seed=5, num_envs=4)
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


# --- the teacher's results ------------------------------------------------------------------------------------------


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


def test_a_task_that_the_bot_cannot_solve_at_all_is_one_clear_line():
    with pytest.raises(InputError, match=r"cannot teach BabyAI-KeyInBox-v0.*100 worlds"):
        BotPaths("BabyAI-KeyInBox-v0", None, None).solvable(0, 1)
    with pytest.raises(InputError, match="did you mean BabyAI-GoToObj"):
        BotPaths("BabyAI-GoToObject-v0", None, None)


def test_the_bot_is_asked_once_per_task_and_step_limit(tmp_path, monkeypatch):
    made, asked = [], []
    bot_steps = bot_paths.bot_steps
    monkeypatch.setattr(bot_paths, "World", lambda *arguments: made.append(arguments) or World(*arguments))
    monkeypatch.setattr(bot_paths, "bot_steps", lambda w, seed: asked.append(seed) or bot_steps(w, seed))

    def solvable(max_steps: int | None, count: int) -> tuple[dict, int]:
        made.clear()
        asked.clear()
        return BotPaths(GOTO, max_steps, tmp_path).solvable(0, count)

    first = solvable(None, 8)
    assert len(made) == 1 and asked == list(range(8)) and list(first[0]) == asked and first[1] == 0
    assert solvable(None, 8) == first and not made and not asked
    longer = solvable(None, 10)
    assert asked == [8, 9] and {seed: longer[0][seed] for seed in first[0]} == first[0]

    limit = sorted(first[0].values())[3]  # some worlds need more steps than this
    short = solvable(limit, 8)
    assert len(made) == 1 and short[1] > 0 and max(short[0].values()) <= limit
    expected = [bot_episode(GOTO, seed, limit) for seed in asked]
    assert {seed: n for seed, n in zip(asked, expected, strict=True) if isinstance(n, int)} == short[0]
    paths = [bot_paths_file(tmp_path, GOTO, max_steps) for max_steps in (None, limit)]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(paths)
    assert solvable(limit, 8) == short and not made

    content, cases = json.loads(paths[0].read_text()), 0
    assert content["minigrid_version"] == MINIGRID_VERSION
    broken = [b"", b"\xff\xfe", b"[]", b"{}", b"null", json.dumps(content).encode()[:-9]]
    broken += [json.dumps(content | {"results": changed}).encode() for changed in ([], None, {"x": 1}, {"0": None})]
    broken += [json.dumps(content | {"results": {"0": value}}).encode() for value in (True, 0, 2.5, [3])]
    broken += [json.dumps(content | {"minigrid_version": "2.5.0", "results": {"0": 999}}).encode()]
    for data in broken:
        paths[0].write_bytes(data)
        assert solvable(None, 8) == first and asked == list(range(8)), data
        assert json.loads(paths[0].read_text())["results"] == {str(seed): n for seed, n in first[0].items()}
        cases += 1
    assert cases == 15


# --- metrics --------------------------------------------------------------------------------------------------------


def test_wilson_interval_of_known_cases():
    known = {(8, 10): (0.4902, 0.9433), (0, 10): (0.0, 0.2775), (10, 10): (0.7225, 1.0), (1, 1): (0.2065, 1.0)}
    known |= {(50, 100): (0.4038, 0.5962), (0, 1): (0.0, 0.7935)}
    for (successes, trials), interval in known.items():
        assert wilson_interval(successes, trials) == pytest.approx(interval, abs=5e-5)
    assert len(known) == 6
    cases = 0
    for trials in (1, 2, 7, 1000):
        for successes in range(0, trials + 1, max(1, trials // 7)):
            low, high = wilson_interval(successes, trials)
            mirrored = wilson_interval(trials - successes, trials)
            assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)
            assert 0.0 <= low <= successes / trials <= high <= 1.0
            # both ends are where the distance to the observed rate is 1.96 standard deviations of that end
            for p in (low, high):
                assert (p - successes / trials) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / trials, abs=1e-6)
            cases += 1
    assert cases == 2 + 3 + 8 + 8


def test_metrics_by_hand():
    episodes = [
        {"success": True, "steps": 12, "expert_steps": 10},
        {"success": False, "steps": 64, "expert_steps": 1},
        {"success": True, "steps": 6, "expert_steps": 8},
        {"success": True, "steps": 10, "expert_steps": 10},
    ]
    metrics = compute_metrics(episodes, np.array([100.0, 300.0, 800.0], np.float32), 7)
    low, high = wilson_interval(3, 4)
    assert metrics == {
        "success_rate": 0.75,
        "success_low": low,
        "success_high": high,
        "path_ratio": pytest.approx((1.2 + 0.75 + 1.0) / 3, abs=1e-12),
        "mean_lpc": pytest.approx(400.0, abs=1e-9),
        "mean_steps": 23.0,
        "bot_plan_failures": 7,
    }
    none = compute_metrics(episodes[1:2], None, 0)
    assert none["success_rate"] == 0.0 and none["mean_steps"] == 64.0
    assert math.isnan(none["path_ratio"]) and math.isnan(none["mean_lpc"])
    large = np.full(200_001, 3072.0, np.float32)  # a float32 sum of these would be off
    assert compute_metrics(episodes, large, 0)["mean_lpc"] == pytest.approx(3072.0, abs=1e-9)


# --- the step limit -------------------------------------------------------------------------------------------------


def test_success_on_the_very_last_step_counts():
    checkpoint, teacher = goto_checkpoint(), BotPaths(GOTO, None, None)
    solved = [e for e in evaluate(checkpoint, VOCAB, teacher, 12).episodes if e["success"]]
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
        too_short = evaluate_bot(BotPaths(GOTO, limit - 1, None), 1, eval_seed=episode["seed"])
        assert not too_short.episodes[0]["success"] and too_short.episodes[0]["steps"] == limit - 1


def test_the_step_limit_is_the_checkpoints_unless_a_flag_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    limits = []
    evaluate_ = evaluate

    def spy(*arguments, **options):
        evaluation = evaluate_(*arguments, **options)
        limits.append(max(episode["steps"] for episode in evaluation.episodes))
        return evaluation

    monkeypatch.setattr(eval_mop, "evaluate", spy)
    still = random_checkpoint()
    still["policy_state_dict"]["head.bias"][6] = 100.0  # "done", which does nothing: no episode ends early
    own, without = put(tmp_path / "a", still | {"config": still["config"] | {"max_steps": 15}}), put(tmp_path, still)
    cases = {(own,): 15, (own, "--max_steps", 20): 20, (without,): 64, (without, "--max_steps", 20): 20}
    cases |= {(own, "--task_id", UNLOCK, "--max_steps", 30): 30}
    for flags, _ in cases.items():
        assert in_process(eval_mop.main, "--num_episodes", 2, "--checkpoint", *flags) == 0
    assert limits == list(cases.values()) and len(limits) == 5
    assert capsys.readouterr().out.count("success rate       0.0%") == 5


# --- the context of an episode --------------------------------------------------------------------------------------


def plain_types(value) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and plain_types(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(plain_types, value))
    return type(value) in (int, str, bool, type(None))


def context_of(task_id: str, seed: int) -> tuple[dict, str]:
    world = World(task_id)
    world.reset(seed)
    return episode_context(world), world.mission


def test_context_of_every_task_against_bare_minigrid():
    cases = 0
    for task_id in babyai_task_ids():
        context, mission = context_of(task_id, 1)
        env = bare_env(task_id)
        obs = bare_reset(env, 1)
        assert mission == obs["mission"]
        assert plain_types(context) and json.loads(json.dumps(context)) == context
        cells = [(x, y, env.grid.get(x, y)) for y in range(env.grid.height) for x in range(env.grid.width)]
        for kind in ("goal", "key", "ball", "box"):
            expected = [[x, y, c.color] for x, y, c in cells if c is not None and c.type == kind]
            assert sorted(context["boxes" if kind == "box" else f"{kind}s"]) == sorted(expected)
        doors = [[x, y, c.color, c.is_open, c.is_locked] for x, y, c in cells if c is not None and c.type == "door"]
        assert sorted(context["doors"]) == sorted(doors)
        assert context["grid_size"] == [env.grid.width, env.grid.height]
        assert context["agent_start_pos"] == list(env.agent_pos) and context["agent_start_dir"] == env.agent_dir
        rooms = [room for row in env.room_grid for room in row]
        bounds = [[*r.top, r.top[0] + r.size[0] - 1, r.top[1] + r.size[1] - 1] for r in rooms]
        assert context["room_bounds"] == bounds
        assert context["room_grid_shape"] == [len(env.room_grid[0]), len(env.room_grid)]
        column, row = context["agent_start_room"]
        assert env.room_grid[row][column] is env.room_from_pos(*env.agent_pos)
        target = env.grid.get(*context["target_pos"]) or env.carrying
        assert target.type in mission and (target.color in mission or f"a {target.type}" in mission or "the" in mission)
        cases += 1
    assert cases == 96


def test_context_of_known_worlds():
    context, mission = context_of(UNLOCK, 0)
    assert mission == "pick up the purple box"
    assert context == {
        "grid_size": [11, 6],
        "agent_start_pos": [3, 3],
        "agent_start_dir": 3,
        "agent_start_room": [0, 0],
        "room_grid_shape": [2, 1],
        "room_bounds": [[0, 0, 5, 5], [5, 0, 10, 5]],
        "goals": [],
        "doors": [[5, 4, "green", False, True]],
        "keys": [[4, 3, "green"]],
        "balls": [],
        "boxes": [[8, 1, "purple"]],
        "target_pos": [8, 1],
    }
    context, mission = context_of("BabyAI-GoTo-v0", 0)
    assert mission == "go to the blue ball" and context["target_pos"] == [10, 6]
    assert context["grid_size"] == [22, 22] and context["room_grid_shape"] == [3, 3]
    assert context["agent_start_pos"] == [12, 11] and context["agent_start_room"] == [1, 1]
    assert context["room_bounds"][0] == [0, 0, 7, 7] and context["room_bounds"][5] == [14, 7, 21, 14]
    assert len(context["room_bounds"]) == 9 and len(context["doors"]) == 10
    assert context["balls"][0] == [10, 6, "blue"] and len(context["balls"]) == 6


def test_target_is_the_nearest_object_of_the_clause_that_comes_first():
    boss = "BabyAI-BossLevel-v0"
    cases = {  # world: its mission, and what stands first in it
        ("BabyAI-PutNextLocal-v0", 0): ("put the green ball next to the green key", "balls", "green"),
        (boss, 0): (
            "put the red box next to a grey door and open a purple door after you pick up a key and go to the yellow "
            "box",
            "keys",
            None,
        ),
        (boss, 13): (
            "pick up a grey key after you pick up the yellow box and open a door in front of you", "boxes", "yellow",
        ),
        (boss, 7): ("pick up a blue key, then open a green door and go to the purple door", "keys", "blue"),
        (boss, 10): ("go to a yellow door and pick up a key", "doors", "yellow"),
        (boss, 58): ("pick up a ball", "balls", None),
    }  # fmt: skip
    several = 0
    for (task_id, seed), (text, kind, color) in cases.items():
        context, mission = context_of(task_id, seed)
        assert mission == text
        x, y = context["agent_start_pos"]
        named = [item for item in context[kind] if color in (None, item[2])]
        distances = {tuple(item[:2]): abs(item[0] - x) + abs(item[1] - y) for item in named}
        target = tuple(context["target_pos"])
        assert distances[target] == min(distances.values())
        several += len(named) > 1
    assert len(cases) == 6 and several >= 3


def test_slots_take_the_next_seed_and_stop_at_the_end_of_the_list():
    env = EvalVectorEnv(UNLOCK, [7, 3, 11], num_envs=8, max_steps=2)
    assert len(env.worlds) == 3 and env.state["episode"].tolist() == [0, 1, 2]
    env = EvalVectorEnv(UNLOCK, [7, 3, 11], num_envs=2, max_steps=2)
    done = [env.step(np.array([6, 6])).tolist() for _ in range(4)]
    assert done == [[False, False], [True, True], [False, False], [True, False]]
    assert env.active.tolist() == [False, False]
    assert [(e["seed"], e["steps"], e["success"]) for e in env.episodes] == [(s, 2, False) for s in (7, 3, 11)]


# --- checkpoints made elsewhere, encoders ---------------------------------------------------------------------------

DOCUMENTED_CONFIG = {
    "task_id": GOTO, "trial": 2, "input_dim": 152, "intermediate_dim": 20, "expert_hidden_sizes": [[0, 4], [8, 0, 6]],
    "router_hidden_size": 5, "num_actions": np.int64(7), "lang_dim": 32, "lr": 1e-3, "lpc_alpha": 1e-4,
    "num_updates": 5000, "unroll_len": 32, "max_steps": None,
}  # fmt: skip


def foreign_checkpoint(encoder_dim: int = 32) -> dict:
    """A checkpoint as earlier programs wrote them: the documented keys and parameter names, nothing of ours."""
    width, weights = 20, {}

    def random(name: str, *shape: int) -> None:
        weights[name] = torch.randn(*shape, generator=generator) * 0.3

    def gru(name: str, size: int) -> None:
        for side, columns in (("ih", width), ("hh", size)):
            random(f"{name}.weight_{side}_l0", 3 * size, columns)
            random(f"{name}.bias_{side}_l0", 3 * size)

    generator = torch.Generator().manual_seed(0)
    random("input_projection.weight", width, 152 + 32)
    random("input_projection.bias", width)
    for layer, sizes in enumerate(DOCUMENTED_CONFIG["expert_hidden_sizes"]):
        gru(f"moe_layers.{layer}.router.gru", 5)
        random(f"moe_layers.{layer}.router.fc.weight", len(sizes), 5)
        random(f"moe_layers.{layer}.router.fc.bias", len(sizes))
        for e, size in enumerate(sizes):
            if size:
                gru(f"moe_layers.{layer}.experts.{e}.gru", size)
                random(f"moe_layers.{layer}.experts.{e}.projection.weight", width, size)
                random(f"moe_layers.{layer}.experts.{e}.projection.bias", width)
    random("head.weight", 7, width)
    random("head.bias", 7)
    return {
        "policy_state_dict": weights,
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "update": 5000,
        "config": dict(DOCUMENTED_CONFIG),
        "lang_proj_state_dict": {"weight": torch.randn(32, encoder_dim, generator=generator), "bias": torch.zeros(32)},
    }


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    return build_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


def test_a_checkpoint_made_elsewhere_is_evaluated_with_a_named_encoder(tmp_path, tiny_folder):
    path = tmp_path / "made_elsewhere.pt"
    torch.save(foreign_checkpoint(), path)
    assert isinstance(torch.load(path, weights_only=False)["config"]["num_actions"], np.int64)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "nothing")}
    flags = ("--checkpoint", path, "--num_episodes", 3, "--device", "cpu")
    with_folder = start("eval_mop.py", *flags, "--lang_encoder", tiny_folder, cwd=tmp_path, **offline)
    without = start("eval_mop.py", *flags, cwd=tmp_path, **offline)
    out, err = with_folder.communicate()
    assert with_folder.returncode == 0, err
    assert out.startswith(f"{path} on {GOTO}\nsuccess rate ") and "mean LPC" in out and "3 episodes" in out
    out, err = without.communicate()
    assert without.returncode == 2 and out == ""
    line = the_error_line(err)
    assert "distilbert-base-uncased" in line and "HF_HUB_OFFLINE" in line and "--lang_encoder FOLDER" in line


def test_an_encoder_that_does_not_fit_is_one_clear_line(tmp_path, tiny_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(foreign_checkpoint(encoder_dim=768), tmp_path / "wide.pt")
    checkpoint = foreign_checkpoint()
    other = load_encoder(str(build_tiny_encoder(tmp_path / "other", seed=1)))
    checkpoint["config"] |= {"encoder_fingerprint": other.fingerprint(), "lang_encoder": "some/model"}
    torch.save(checkpoint, tmp_path / "recorded.pt")
    cases = {
        ("wide.pt", "--lang_encoder", tiny_folder): ("768 numbers", "gives 32", "--lang_encoder FOLDER"),
        ("recorded.pt", "--lang_encoder", tiny_folder): ("fingerprint", "some/model", "--lang_encoder FOLDER"),
        ("recorded.pt", "--lang_encoder", tmp_path / "none"): ("does not exist", "--lang_encoder"),
        ("recorded.pt", "--lang_encoder", "vocab"): ("'vocab' cannot stand in",),
    }
    for flags, parts in cases.items():
        assert in_process(eval_mop.main, "--num_episodes", 1, "--checkpoint", *flags) == 2
        captured = capsys.readouterr()
        line = the_error_line(captured.err)
        assert captured.out == "" and all(part in line for part in parts), line
    assert len(cases) == 4
    assert in_process(eval_mop.main, "--num_episodes", 1, "--checkpoint", "recorded.pt", "--lang_encoder", "other") == 0
    assert encoder_for(checkpoint, "other").name == "some/model"


# --- the command line -----------------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good, marker = put(tmp_path, random_checkpoint()), tmp_path / "marker"
    Path("cut.pt").write_bytes(good.read_bytes()[:-2000])
    Path("empty.pt").write_bytes(b"")
    Path("text.pt").write_text("no checkpoint")
    torch.save({"policy_state_dict": {}, "config": Malicious(marker)}, "malicious.pt")
    Path("pickle.pt").write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    torch.save({"update": 3}, "other.pt")
    mismatch = random_checkpoint()
    torch.save(mismatch | {"config": mismatch["config"] | {"intermediate_dim": 25}}, "mismatch.pt")
    incomplete = {key: value for key, value in mismatch["config"].items() if key != "router_hidden_size"}
    torch.save(mismatch | {"config": incomplete}, "incomplete.pt")
    torch.save({k: v for k, v in mismatch.items() if k != "lang_proj_state_dict"}, "no_projection.pt")
    torch.save(random_checkpoint(input_dim=150), "narrow.pt")
    cases = {
        (): ("--checkpoint", "--bot", "--task_id"),
        ("--bot",): ("--bot with --task_id",),
        ("--task_id", GOTO): ("--checkpoint PATH",),
        ("--bot", "--checkpoint", good): ("--checkpoint PATH, or --bot",),
        ("--bot", "--task_id", GOTO, "--checkpoint", good): ("--checkpoint PATH, or --bot",),
        ("--bot", "--task_id", "BabyAI-GoToObject-v0"): ("unknown task id", "BabyAI-GoToObj-v0"),
        ("--checkpoint", good, "--task_id", "GoToObj"): ("unknown task id",),
        ("--bot", "--task_id", "BabyAI-KeyInBox-v0", "--unknown", "1"): ("--unknown",),
        ("--checkpoint", "missing.pt"): ("missing.pt", "No such file"),
        ("--checkpoint", tmp_path): ("directory",),
        ("--checkpoint", "cut.pt"): ("cut.pt", "cut short"),
        ("--checkpoint", "empty.pt"): ("empty.pt", "empty"),
        ("--checkpoint", "text.pt"): ("text.pt", "no checkpoint"),
        ("--checkpoint", "malicious.pt"): ("malicious.pt", "nothing of it was loaded"),
        ("--checkpoint", "pickle.pt"): ("pickle.pt",),
        ("--checkpoint", "other.pt"): ("other.pt", "policy_state_dict"),
        ("--checkpoint", "mismatch.pt"): ("weights and config",),
        ("--checkpoint", "incomplete.pt"): ("router_hidden_size",),
        ("--checkpoint", "no_projection.pt"): ("lang_proj_state_dict",),
        ("--checkpoint", "narrow.pt"): ("narrow.pt: input_dim must be 152, not 150",),
        ("--checkpoint", good, "--num_episodes", "0"): ("--num_episodes must be at least 1", "'0'"),
        ("--checkpoint", good, "--num_episodes", "ten"): ("--num_episodes must be an integer",),
        ("--checkpoint", good, "--num_episodes", "1.5"): ("--num_episodes must be an integer",),
        ("--checkpoint", good, "--num_envs", "-3"): ("--num_envs must be at least 1",),
        ("--checkpoint", good, "--eval_seed", "-1"): ("--eval_seed must be from 0",),
        ("--checkpoint", good, "--eval_seed", str(2**32)): ("--eval_seed must be from 0",),
        ("--checkpoint", good, "--max_steps", "0"): ("--max_steps must be at least 1",),
        ("--checkpoint", good, "--device", "abacus"): ("device 'abacus'",),
        ("--checkpoint",): ("--checkpoint",),
    }
    for flags, parts in cases.items():
        assert in_process(eval_mop.main, *flags) == 2, flags
        captured = capsys.readouterr()
        line = the_error_line(captured.err)
        assert captured.out == "" and all(part in line for part in parts), line
    assert len(cases) == 29
    assert not marker.exists()
    torch.load("malicious.pt", weights_only=False)
    assert marker.exists(), "the file must be harmful to whoever trusts it"


def test_help_and_a_run_of_the_bot(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert in_process(eval_mop.main, "--help") == 0
    text = capsys.readouterr().out
    flags = [
        "checkpoint",
        "bot",
        "task_id",
        "num_episodes",
        "num_envs",
        "max_steps",
        "eval_seed",
        "lang_encoder",
        "device",
        "cache_dir",
    ]
    assert all(f"--{flag}" in text for flag in flags)
    assert in_process(eval_mop.main, "--bot", "--task_id", GOTO, "--num_episodes", 4) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"the BabyAI bot on {GOTO}"
    assert "success rate       100.0%  (95 % interval 51.0% to 100.0%, 4 episodes)" in out
    assert "path ratio         1.000" in out and "bot plan failures  0" in out
