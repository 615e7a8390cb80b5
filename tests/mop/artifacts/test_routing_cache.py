"""Routing caches of every version: round trips, arrays beside JSON, what is damaged."""

import itertools
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from checks import refusal

from mop.artifacts import routing_cache
from mop.artifacts.routing_cache import RoutingData, Steps, load_cache, write_cache
from mop.artifacts.run_paths import RunKey, cache_path

TASK = "BabyAI-GoToObj-v0"

STEP_COLUMNS = (
    *("t_step", "position", "direction", "lpc", "carrying", "door_unlocked", "action_logits", "action"),
    *("subgoal", "instruction"),
)


def toy_steps(num_steps=6, num_layers=3, num_experts=3) -> Steps:
    rng = np.random.default_rng(0)
    weights = [rng.dirichlet(np.ones(num_experts), num_steps).astype(np.float32) for _ in range(num_layers)]
    return Steps(
        episode=(np.arange(num_steps) // 3).astype(np.int32),
        t_step=(np.arange(num_steps) % 3).astype(np.int32),
        position=rng.integers(0, 25, (num_steps, 2), dtype=np.int32),
        direction=rng.integers(0, 4, num_steps, dtype=np.int8),
        layer_routing=weights,
        lpc=(rng.random(num_steps) * 5000).astype(np.float32),
        carrying=rng.random(num_steps) < 0.5,
        door_unlocked=rng.random(num_steps) < 0.5,
        action_logits=rng.normal(0, 8, (num_steps, 7)).astype(np.float32),
        action=rng.integers(0, 7, num_steps, dtype=np.int8),
        subgoal=(np.arange(num_steps) % 6 - 1).astype(np.int8),
        instruction=(np.arange(num_steps) % 4 - 1).astype(np.int8),
    )


def toy_cache(num_steps=6, **sizes) -> RoutingData:
    header = {"checkpoint_path": f"checkpoints/{TASK}/trial_0/checkpoint_final.pt", "task_id": TASK, "trial": 0}
    header |= {"num_episodes": 2, "metrics": {"success_rate": 0.5, "path_ratio": float("nan")}, "config": {"lr": 0.1}}
    episodes = [{"seed": i, "mission": "go", "goals": [[1, 2, "green"]], "t_drop": None} for i in range(num_steps // 3)]
    return RoutingData(header, episodes, toy_steps(num_steps, **sizes))


def load_both_ways(folder: Path, key: RunKey) -> RoutingData:
    """A cache read from its arrays, after a look whether its JSON alone says the same."""
    path = cache_path(folder, key)
    cache = load_cache(path)
    arrays = path.with_suffix(".npz")
    assert arrays.exists() or not len(cache.steps)
    arrays.unlink(missing_ok=True)
    assert_same_caches(cache, load_cache(path))
    return cache


def assert_same_caches(one: RoutingData, other: RoutingData) -> None:
    assert (one.header, one.episodes) == (other.header, other.episodes)
    count = 0
    for name in (field.name for field in fields(Steps)):
        values = [getattr(cache.steps, name) for cache in (one, other)]
        pairs = zip(*values, strict=True) if name == "layer_routing" and values[0] is not None else [values]
        for first, second in pairs:
            assert (first is None) == (second is None), name
            if first is not None:
                assert (first.dtype, first.shape) == (second.dtype, second.shape), name
                np.testing.assert_array_equal(first, second, name)
        count += 1
    assert count == 12


def test_cache_round_trip_keeps_dtypes_and_decimals(tmp_path):
    key, cache = RunKey(TASK, 0, 5, 100), toy_cache()
    write_cache(tmp_path, key, cache)
    loaded = load_both_ways(tmp_path, key)
    assert loaded.header == cache.header | {
        "schema_version": 5,
        "seed": 5,
        "metrics": {"success_rate": 0.5, "path_ratio": None},
    }
    assert loaded.episodes == cache.episodes and len(loaded.steps) == 6
    for name in ("episode", *STEP_COLUMNS):
        before, after = getattr(cache.steps, name), getattr(loaded.steps, name)
        assert after.dtype == before.dtype and after.shape == before.shape, name
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=0.51e-4 if before.dtype == np.float32 else 0)
    assert len(loaded.steps.layer_routing) == 3
    for before, after in zip(cache.steps.layer_routing, loaded.steps.layer_routing, strict=True):
        assert after.dtype == np.float32
        np.testing.assert_allclose(after, before, rtol=0, atol=0.51e-5)
    first = json.loads(cache_path(tmp_path, key).read_bytes())["routing_data"][0]
    assert list(first) == ["episode", *STEP_COLUMNS[:3], "layer_routing", *STEP_COLUMNS[3:]]
    assert first["layer_routing"]["layer_2"] == [round(float(w), 5) for w in cache.steps.layer_routing[2][0]]
    assert type(first["carrying"]) is bool and type(first["position"][0]) is int


def test_every_step_of_a_long_cache_is_written_and_read(tmp_path):
    key, num_steps = RunKey(TASK, 0), 2 * 1024 + 3  # more than are converted at a time
    cache = toy_cache(num_steps)
    steps = cache.steps
    steps.action_logits = np.asfortranarray(steps.action_logits)
    steps.t_step, steps.lpc = np.repeat(steps.t_step, 2)[::2], steps.lpc.astype(">f4")
    steps.lpc[num_steps - 2], steps.layer_routing[1][1500, 2], steps.action_logits[1024, 0] = np.nan, np.nan, -1e-7
    cache.episodes.append({"seed": 7})  # the last two steps are its
    write_cache(tmp_path, key, cache)

    def number(value, decimals):
        return None if np.isnan(value) else round(float(value), decimals)

    records = json.loads(cache_path(tmp_path, key).read_bytes())["routing_data"]
    assert len(records) == num_steps
    for i, record in enumerate(records):
        assert record == {
            "episode": i // 3,
            "t_step": i % 3,
            "position": steps.position[i].tolist(),
            "direction": int(steps.direction[i]),
            "layer_routing": {f"layer_{k}": [number(x, 5) for x in steps.layer_routing[k][i]] for k in range(3)},
            "lpc": number(steps.lpc[i], 4),
            "carrying": bool(steps.carrying[i]),
            "door_unlocked": bool(steps.door_unlocked[i]),
            "action_logits": [number(x, 4) for x in steps.action_logits[i]],
            "action": int(steps.action[i]),
            "subgoal": (None, "go_next_to", "open", "pick_up", "drop", "explore")[i % 6],
            "instruction": (None, 0, 1, 2)[i % 4],
        }
    loaded = load_both_ways(tmp_path, key).steps
    for name in ("episode", "t_step", "position", "direction", "carrying", "door_unlocked", "action"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(steps, name), name)
    logits = np.array([record["action_logits"] for record in records], np.float32)
    np.testing.assert_array_equal(loaded.action_logits, logits)
    assert np.flatnonzero(np.isnan(loaded.lpc)).tolist() == [num_steps - 2]
    assert np.argwhere(np.isnan(loaded.layer_routing[1])).tolist() == [[1500, 2]]

    steps.action = steps.action[:-1]
    with pytest.raises(ValueError, match="shorter"):
        write_cache(tmp_path, key, cache)
    assert len(load_cache(cache_path(tmp_path, key)).steps) == num_steps, "the old file is still there"


def test_experts_per_layer_may_differ_and_layers_or_steps_may_be_none(tmp_path):
    key, cache = RunKey(TASK, 0), toy_cache(num_layers=12)
    cache.steps.layer_routing[11] = np.ones((6, 1), np.float32)
    write_cache(tmp_path, key, cache)
    assert [w.shape[1] for w in load_both_ways(tmp_path, key).steps.layer_routing] == [3] * 11 + [1]
    write_cache(tmp_path, key, toy_cache(num_layers=0))  # the GRU baseline
    assert load_both_ways(tmp_path, key).steps.layer_routing == []
    write_cache(tmp_path, key, toy_cache(0))
    empty = load_both_ways(tmp_path, key)
    assert len(empty.steps) == 0 and empty.episodes == []
    assert empty.steps.position.shape == (0, 2) and empty.steps.action_logits.shape == (0, 7)


def test_arrays_are_read_only_where_they_are_those_of_the_json(tmp_path, monkeypatch):
    key, cache = RunKey(TASK, 0), toy_cache()
    write_cache(tmp_path, key, cache)
    path = cache_path(tmp_path, key)
    arrays, text = path.with_suffix(".npz"), path.read_bytes()
    expected, whole = load_cache(path, "remake it"), arrays.read_bytes()
    assert expected.remake == "remake it"
    with monkeypatch.context() as patched:
        patched.setattr(routing_cache, "parse_cache", None)
        assert_same_caches(load_cache(path), expected)  # the JSON was not parsed
    half = len(whole) // 2
    broken = (b"", b"nonsense", whole[:half], whole[:half] + b"\0\0\0\0" + whole[half + 4 :], text)
    for content in broken:
        arrays.write_bytes(content)
        assert_same_caches(load_cache(path), expected)
    assert len(broken) == 5
    arrays.write_bytes(whole)
    path.write_bytes(text.replace(b'"mission":"go"', b'"mission":"no"', 1))
    assert load_cache(path).episodes[0]["mission"] == "no", "the file was changed by hand: it counts"
    path.write_bytes(text[:-9])
    assert "routing_data" in refusal(load_cache, path)
    path.write_bytes(text)
    with np.load(arrays) as file:
        np.savez(tmp_path / "later.npz", **file, unknown=np.zeros(6))  # of a later version of this program
    arrays.write_bytes((tmp_path / "later.npz").read_bytes())
    assert_same_caches(load_cache(path), expected)


CONTEXTS = [{"grid_size": [8, 8], "doors": [], "agent_start_pos": [x, 1]} for x in (1, 2, 3)]


def old_step(x: int, **more) -> dict:
    return {"position": [x, 2], "layer_routing": {"layer_0": [0.25, 0.75], "layer_1": [1.0, 0.0]}, "lpc": 3.5} | more


def write_old(tmp_path: Path, **content) -> Path:
    path = tmp_path / "routing_data.json"
    header = {"checkpoint_path": f"modal_checkpoints/{TASK}/trial_4/checkpoint_final.pt", "num_episodes": 3}
    path.write_text(json.dumps(header | {"metrics": {"success_rate": 0.5}} | content))
    return path


def test_v1_cache_makes_an_episode_of_each_stretch_of_one_context(tmp_path):
    sequence = (0, 0, 1, 1, 1, 0, 2)
    path = write_old(tmp_path, routing_data=[old_step(i, env_context=CONTEXTS[c]) for i, c in enumerate(sequence)])
    cache = load_cache(path)
    assert cache.header["schema_version"] == 1 and cache.header["num_episodes"] == 3
    assert cache.episodes == [CONTEXTS[c] for c in (0, 1, 0, 2)]
    assert cache.steps.episode.tolist() == [0, 0, 1, 1, 1, 2, 3] and cache.steps.episode.dtype == np.int32
    assert cache.steps.position.tolist() == [[i, 2] for i in range(7)]
    assert [w.shape for w in cache.steps.layer_routing] == [(7, 2), (7, 2)]
    absent = set(STEP_COLUMNS) - {"position", "lpc"}
    assert {name for name in STEP_COLUMNS if getattr(cache.steps, name) is None} == absent


def test_v2_and_v3_caches_refer_to_shared_contexts(tmp_path):
    names = ("episode", "episode_idx", "episode_index", "context_idx", "env_context_idx", "env_context")
    cases = 0
    for version, name in itertools.product((2, 3), names):
        more = {"action_logits": [0.5] * 7} if version == 3 else {}
        steps = [old_step(i, carrying=i > 1, **{name: c}, **more) for i, c in enumerate((0, 2, 2, 1, 0))]
        cache = load_cache(write_old(tmp_path, schema_version=version, episodes=CONTEXTS, routing_data=steps))
        assert cache.header["schema_version"] == version and cache.episodes == CONTEXTS
        assert cache.steps.episode.tolist() == [0, 2, 2, 1, 0]
        assert cache.steps.carrying.tolist() == [False, False, True, True, True]
        assert cache.steps.t_step is None and cache.steps.action is None
        assert (cache.steps.action_logits is None) == (version == 2)
        cases += 1
    assert cases == 12
    steps = [old_step(i, episode=i, context_idx=0) for i in range(8)]
    cache = load_cache(write_old(tmp_path, schema_version=2, episodes=CONTEXTS[:1], routing_data=steps))
    assert cache.steps.episode.tolist() == [0] * 8, "where a step has both, the context is what `episodes` holds"


def test_an_old_cache_with_nan_tokens_loads_and_can_be_written_anew(tmp_path):
    steps = [old_step(0, episode=0), old_step(1, episode=0, lpc=float("nan"))]
    path = write_old(
        tmp_path, schema_version=2, episodes=CONTEXTS, routing_data=steps, metrics={"path_ratio": float("nan")}
    )
    assert b"NaN" in path.read_bytes()
    cache = load_cache(path)
    assert cache.header["metrics"] == {"path_ratio": None} and np.isnan(cache.steps.lpc).tolist() == [False, True]
    write_cache(tmp_path, RunKey(TASK, 4), cache)
    again = load_cache(cache_path(tmp_path, RunKey(TASK, 4)))
    assert again.header["schema_version"] == 5 and again.episodes == CONTEXTS
    assert again.steps.t_step is None and again.steps.position.tolist() == [[0, 2], [1, 2]]


def test_require_names_the_field_and_the_command(tmp_path):
    cache = toy_cache()
    for name in ("episode", *STEP_COLUMNS, "layer_routing", "mission", "t_drop"):
        cache.require(name)
    old = load_cache(write_old(tmp_path, routing_data=[old_step(0, env_context=CONTEXTS[0])]))
    for name in ("position", "doors"):
        old.require(name)
    for name in ("action_logits", "t_unlocked"):
        line = refusal(old.require, name)
        assert f"'{name}'" in line and f"`python batch_eval.py --force --task {TASK}`" in line
    assert "t_picked" in refusal(cache.require, "t_picked")


def test_broken_caches_name_file_reason_and_way_out(tmp_path):
    good = {"schema_version": 2, "episodes": CONTEXTS, "routing_data": [old_step(i, episode=0) for i in range(3)]}
    text = json.dumps(good)

    def with_step(after: int = 2, **change) -> str:
        steps = [*good["routing_data"][:1] * after, old_step(9, episode=0) | change]
        return json.dumps(good | {"routing_data": steps})

    broken = {
        "empty": "",
        "cut": text[: len(text) // 2],
        "text": "hello",
        "list": "[1, 2]",
        "no steps": json.dumps({"episodes": []}),
        "future": json.dumps(good | {"schema_version": 6}),
        "out of range": with_step(episode=3),
        "negative": with_step(episode=-1),
        "3d": with_step(position=[1, 2, 3]),
        "word": with_step(lpc="high"),
        "ragged": with_step(layer_routing={"layer_0": [1.0], "layer_1": [0.5, 0.5]}),
        "layers": with_step(layer_routing={"layer_0": [0.5, 0.5]}),
        "no routing": with_step(layer_routing=None),
        "late 3d": with_step(3000, position=[1, 2, 3]),
        "late ragged": with_step(3000, layer_routing={"layer_0": [1.0], "layer_1": [0.5, 0.5]}),
        "far away": with_step(position=[10**6, 1]),
        "outside": with_step(position=[-1, 1]),
    }
    for name, value in (
        *(("subgoal", value) for value in ("rest", 0)),
        *(("instruction", value) for value in (-1, 100, 0.5)),
    ):
        steps = [old_step(i, episode=0) | {name: None} for i in range(2)]
        steps[1][name] = value
        broken[f"{name} is {value!r}"] = json.dumps(good | {"routing_data": steps})
    for name, value in (
        *(("grid_size", value) for value in (None, [8], [8, 10**6])),
        *(("agent_start_pos", value) for value in (None, [8, 1])),
        *(("doors", value) for value in (None, [["a", 1]], [[1, 8, "red", True, True]])),
        *(("t_pick", value) for value in (-1, 1.5, 10**20)),
        *(("target_pos", [1, 8]), ("room_bounds", [[0, 0, 7]]), ("instructions", [1])),
        ("mission", 7),
        ("success", None),
    ):
        episodes = [*CONTEXTS[:1], CONTEXTS[1] | {name: value}]
        broken[f"{name} is {value}"] = json.dumps(good | {"episodes": episodes})
    path = tmp_path / "routing_data.json"
    for name, content in broken.items():
        path.write_text(content)
        line = refusal(load_cache, path)
        assert line.startswith(f"{path}: ") and "batch_eval.py --force" in line, name
    assert len(broken) >= 30
    path.write_text(text)
    assert len(load_cache(path).steps) == 3, "the file is good without the faults"
    assert "missing.json" in refusal(load_cache, tmp_path / "missing.json")
