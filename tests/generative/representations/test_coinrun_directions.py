"""Directions and interventions of an agent of CoinRun: labels, runs, what is counted, and both commands.

What plays is skipped where envpool or the Qt that it needs is missing (`make coinrun`).
"""

import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from checks import refusal
from generative_data import tiny_checkpoint
from generative_game_data import flags, record_agent, skip_without_games, tiny_agent
from scripts import REPOSITORY, check_refused, in_process, refused, script_environment

from generative import directions, intervene
from generative.agents.level_play import AgentActor, LevelEpisode, play_levels
from generative.agents.networks import load_agent, make_agent
from generative.domains.coinrun import labels, rollouts
from generative.domains.coinrun.games import ACTION_NAMES, RIGHT, RIGHT_AND_JUMP, UNSEEN_LEVELS
from generative.domains.coinrun.labels import (
    AGENT_COLUMNS,
    AGENT_ROWS,
    AHEAD,
    BESIDE,
    ON_GROUND,
    PROPERTIES,
    labels_of,
    touches,
)
from generative.domains.coinrun.objects import KINDS, objects_of
from generative.domains.coinrun.policy import FrozenAgent
from generative.domains.coinrun.rollouts import JUMPS, MAIN, RATES, GameArena, count_episode, measures_of
from generative.recordings.format import open_recording
from generative.representations import decompositions
from generative.representations.steering import ArenaSettings, Move, Operation, Replay, effect_rows
from generative.representations.storage import load_directions

RNG = np.random.default_rng
KIND = {kind: number for number, kind in enumerate(KINDS)}
LEVELS = 6
WORLD = {"env_name": "coinrun", "distribution_mode": "easy", "use_backgrounds": False}
TINY = {
    "encoder": "half-nature", "num_features": 4, "hidden_size": 4, "actions": list(range(9)), "is_recurrent": True,
}  # fmt: skip


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory):
    return tiny_agent(tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def recording(model, tmp_path_factory):
    skip_without_games()
    folder = tmp_path_factory.mktemp("recording") / "tiny"
    of_many_levels = {"num_steps": 4200, "max_steps": 30, "num_levels": 0, "num_envs": 16, "policies": "sampled"}
    return open_recording(record_agent(model, folder, **of_many_levels))


@pytest.fixture(scope="module")
def studied(recording, tmp_path_factory):
    """The folder that generative.directions writes of it."""
    out = tmp_path_factory.mktemp("studied")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decompositions, "_NUM_UPDATES", 20)
        words = flags(data_dir=recording.folder, out=out, num_seeds=2, num_components=3)
        assert in_process(directions.main, *words) == 0
    return out


def arena_of(model, num_worlds: int = LEVELS, **changes) -> GameArena:
    agent, config = load_agent(model)
    how = {"num_envs": 4, "policy": "argmax", "max_steps": 40} | changes
    return GameArena(FrozenAgent(agent), config, ArenaSettings(num_worlds=num_worlds, **how))


def play(arena: GameArena, move: Move | None = None):
    return arena.play(move, lambda num_done: None)


def frame(*things: tuple[str, int, int]) -> np.ndarray:
    """A frame with the agent and points (kind, row, column)."""
    drawn = np.zeros((1, 64, 64), np.uint8)
    drawn[0, AGENT_ROWS, AGENT_COLUMNS] = KIND["agent"]
    for kind, row, column in things:
        drawn[0, row, column] = KIND[kind]
    return drawn


def test_labels_by_hand():
    top, bottom, left, right = AGENT_ROWS.start, AGENT_ROWS.stop - 1, AGENT_COLUMNS.start, AGENT_COLUMNS.stop - 1
    cases = [((), set())]
    for kind in ("saw", "enemy", "lava", "crate"):
        ahead = {f"{kind} ahead"}
        cases += [(((kind, top, right + 1),), ahead), (((kind, bottom, right + AHEAD),), ahead)]
        cases += [(((kind, top - BESIDE, 40),), ahead), (((kind, bottom + BESIDE, 40),), ahead)]
        cases += [(((kind, top, right + AHEAD + 1),), set()), (((kind, top, left - 1),), set())]
        cases += [(((kind, top - BESIDE - 1, 40),), set()), (((kind, bottom + BESIDE + 1, 40),), set())]
    cases += [
        ((("coin", 0, 0),), {"coin in view"}),
        ((("coin", 63, 63), ("saw", 30, 50)), {"coin in view", "saw ahead"}),
    ]
    for kind in ("ground", "crate"):
        cases += [(((kind, bottom + 1, left),), {ON_GROUND}), (((kind, bottom + 1, right),), {ON_GROUND})]
        cases += [(((kind, bottom + 2, left),), set()), (((kind, bottom + 1, left - 1),), set())]
    cases += [((("saw", bottom + 1, left),), set())]
    for things, true in cases:
        found = labels_of(frame(*things))
        assert tuple(found) == PROPERTIES and all(values.dtype == np.int8 for values in found.values())
        assert {name for name, values in found.items() if values.tolist() == [1]} == true, things
    assert len(cases) == 1 + 4 * 8 + 2 + 2 * 4 + 1


def test_what_is_touched():
    for row, column, is_near in ((AGENT_ROWS.start - 1, 31, True), (30, AGENT_COLUMNS.stop, True), (30, 35, False)):
        assert touches(frame(("saw", row, column)), ["saw", "enemy"]).tolist() == [is_near]
    assert not touches(frame(("saw", 30, 31)), ["lava"])[0]


def test_the_agent_is_where_it_is_looked_for_and_jumps_off_the_ground_and_dies_of_what_is_there(games):
    num_frames, num_jumps, num_off, ends = 0, 0, 0, []
    for mode in ("easy", "hard"):
        world = WORLD | {"distribution_mode": mode}
        for episode in play_levels(world, range(25), _Runner(), max_steps=120):
            objects = objects_of(world, episode.level, episode.actions)
            is_agent = objects[:-1] == KIND["agent"]  # a saw is drawn over it at the end
            inside = is_agent[:, AGENT_ROWS, AGENT_COLUMNS]
            assert inside.mean() > 0.99 and is_agent.sum() == inside.sum()
            is_on_ground = labels_of(objects)[ON_GROUND] > 0
            begins = is_on_ground[:-2] & np.isin(episode.actions[:-1], JUMPS)
            num_frames, num_jumps = num_frames + len(objects), num_jumps + begins.sum()
            num_off += (begins & ~is_on_ground[1:-1]).sum()
            row = count_episode(world, episode, range(9))
            assert row["jumps"] >= begins.sum() and sum(row[name] for name in RATES) == 1, episode.level
            ends.append(next(name for name in RATES if row[name]))
    assert num_frames > 1500 and num_jumps > 100 and num_off > 0.75 * num_jumps
    assert {"success", "touched"} <= set(ends) and ends.count("touched") > 5


class _Runner(AgentActor):
    """Somebody who runs to the right, and jumps now and then."""

    def __init__(self):
        super().__init__(make_agent(TINY), True)

    def choose(self, envs, answer):
        return np.array([RIGHT_AND_JUMP if rng.random() < 0.15 else RIGHT for rng in envs.rngs])


def test_episodes_are_labelled_by_their_level_and_actions(recording):
    label, num_true = labels.labeller(recording.config["encoding"]), dict.fromkeys(PROPERTIES, 0)
    for k in range(0, len(recording), 10):
        episode = recording.episode(k)
        found = label(episode)
        objects = objects_of(recording.config["encoding"], episode.seed, episode["action"][:-1])
        is_air = np.asarray(episode["obs"]).max(1) == 0
        assert (objects[is_air] != KIND["ground"]).mean() > 0.99, "these are the frames that were recorded"
        for name, values in labels_of(objects).items():
            assert np.array_equal(found[name], values) and len(values) == len(episode["action"])
            num_true[name] += values.sum()
    assert min(num_true[name] for name in (ON_GROUND, "crate ahead")) > 20
    assert labels.labeller({"env_name": "caveflyer", "task_id": "caveflyer", "actions": [0]})(None) == {}


def test_probes_of_what_is_on_screen_have_directions(studied, recording, model):
    found = load_directions(studied / "directions.npz")
    assert set(found.blocks) == {"memory"} and found.mean.shape == (8,)
    probes = pd.read_csv(studied / "probes.csv").set_index("property")
    assert {"crate ahead", ON_GROUND} <= set(probes.index) <= set(PROPERTIES)
    assert (probes["accuracy"] > 0.4).all() and not probes["best"].str.contains("probe").any()
    names = [f"memory.probe.{name}" for name in probes.index]
    assert found.names[found.methods == "probe"].tolist() == names
    for name in probes.index:
        assert found.number(f"probe.{name}") == found.names.tolist().index(f"memory.probe.{name}")
    rows, label = [], labels.labeller(recording.config["encoding"])
    for k in recording.episodes("train").tolist():
        episode = recording.episode(k)
        rows += zip(np.asarray(episode["hidden"])[1:], label(episode)["crate ahead"][:-1], strict=True)
    hidden, is_ahead = (np.array(column) for column in zip(*rows, strict=True))
    difference = hidden[is_ahead > 0].mean(0) - hidden[is_ahead == 0].mean(0)
    number = found.number("probe.crate ahead")
    np.testing.assert_allclose(found.units[number], difference / np.linalg.norm(difference), atol=1e-4)
    assert found.units[number] @ found.duals[number] == pytest.approx(1.0, abs=1e-4)
    table = pd.read_csv(studied / "directions.csv")
    coordinates = found.coordinates(hidden)[:, number, None] * found.units[number]
    nulled = hidden - coordinates
    assert np.abs(nulled[is_ahead > 0].mean(0) - nulled[is_ahead == 0].mean(0)).max() < 1e-4, (
        "no linear reading is left"
    )
    assert table["name"].tolist() == found.names.tolist() and table["stability"].between(0, 1 + 1e-6).all()


def test_without_a_move_a_run_is_plain_play_bit_for_bit(model, studied):
    found = load_directions(studied / "directions.npz")
    agent, config = load_agent(model)
    levels = range(UNSEEN_LEVELS, UNSEEN_LEVELS + LEVELS)
    for policy, is_sampled in (("argmax", False), ("sampled", True)):
        arena = arena_of(model, policy=policy)
        episodes = play_levels(config["world"], levels, AgentActor(agent, is_sampled, 0), max_steps=40, num_at_once=4)
        plain = play(arena)
        assert plain.table["seed"].tolist() == list(levels) and not plain.amounts.any()
        expected = [count_episode(config["world"], episode, range(9)) for episode in episodes]
        for name in expected[0]:
            assert plain.table[name].tolist() == [row[name] for row in expected], name
        number = found.number("probe.crate ahead")
        same = play(arena, Operation("swap", number, to=number).move(found))
        assert same.amounts.any(), "what would be moved is told, and moved nowhere"
        assert all(np.array_equal(same.table[name], plain.table[name]) for name in plain.table)
    assert not np.array_equal(play(arena_of(model, policy="sampled", seed=1)).table["jumps"], plain.table["jumps"])


def test_the_memory_of_each_level_is_moved_by_what_is_said(model, studied, monkeypatch):
    found, seen = load_directions(studied / "directions.npz"), []
    real = rollouts._Mover.__call__

    def spy(mover, envs, before, answer):
        seen.append((answer.hidden, real(mover, envs, before, answer)))
        return seen[-1][1]

    monkeypatch.setattr(rollouts._Mover, "__call__", spy)
    number, arena = found.number("probe.crate ahead"), arena_of(model, policy="sampled", max_steps=100)
    nulled = play(arena, Operation("null", number).move(found))
    for after, moved in seen:
        np.testing.assert_allclose(found.coordinates(moved.numpy())[:, number], 0, atol=1e-5)
        across = (moved - after) - (moved - after) @ torch.tensor(found.units[number])[:, None] * found.units[number]
        assert across.abs().max() < 1e-6 and not torch.equal(moved, after)
    steps = nulled.table["steps"].astype(int)
    assert len(seen) == steps[:4].max() + steps[4:].max() and len(set(steps)) > 1
    for row, num in zip(nulled.amounts, steps, strict=True):
        assert (row[:num] != 0).all() and not row[num:].any()
    first, operation = seen[0], Operation("add", number, value=2.0)
    pushed = play(arena, operation.move(found))
    length = 2 * float(found.sd[number])
    np.testing.assert_allclose(pushed.table["moved"], length * pushed.table["steps"], rtol=1e-4)
    replay = Replay(nulled.amounts, nulled.table["steps"].astype(int))
    copied = play(arena, Move(replay, Operation("null", number).move(found).way))
    assert all(np.array_equal(copied.table[name], nulled.table[name]) for name in nulled.table)
    assert first[0].shape == (4, 8)


def test_what_happens_is_counted(monkeypatch):
    """Three steps: a jump at a saw, a jump in the air, none at a crate; then the end, at lava and beside an enemy."""
    ground = ("ground", AGENT_ROWS.stop, 31)
    frames = [frame(ground, ("saw", 30, 40)), frame(("saw", 30, 40)), frame(ground, ("crate", 30, 40))]
    actions = np.array([RIGHT_AND_JUMP, JUMPS[0], RIGHT])

    def counted(last: np.ndarray, **outcome) -> dict:
        objects = np.concatenate([*frames, last])
        monkeypatch.setattr(rollouts, "objects_of", lambda world, level, done: objects)
        end = {"reward": 0.0, "is_success": False, "is_cut": False} | outcome
        return count_episode({}, LevelEpisode(7, actions, None, None, frames=None, **end), range(9))

    row = counted(frame(("lava", 30, 30)))
    assert (row["seed"], row["steps"], row["jumps"]) == (7, 3, 1)
    assert (row["stands at a saw"], row["jumps at a saw"]) == (1, 1)
    assert (row["stands at a crate"], row["jumps at a crate"], row["stands elsewhere"]) == (1, 0, 0)
    taken = {name: row[f"action: {name}"] for name in ACTION_NAMES[:9]}
    assert sum(taken.values()) == 3 and taken["right and jump"] == taken["right"] == taken["left and jump"] == 1
    outcomes = [
        (frame(("lava", 30, 30)), {}, "fell"),
        (frame(("saw", 30, 29)), {}, "touched"),
        (frame(("enemy", 28, 30), ("lava", 35, 30)), {}, "touched"),
        (frame(("lava", 30, 30)), {"is_cut": True}, "out of time"),
        (frame(("saw", 30, 30)), {"is_success": True, "reward": 10.0}, "success"),
        (frame(), {}, None),
    ]
    for last, outcome, name in outcomes:
        row = counted(last, **outcome)
        assert [rate for rate in RATES if row[rate]] == ([] if name is None else [name])
    assert len(outcomes) == 6 and row["return"] == 0


def test_measures_are_ratios_of_sums_and_rates_have_intervals(monkeypatch):
    """Of levels that differ in length, steps count alike."""
    rng, num = RNG(0), 40
    stands = rng.integers(1, 30, num).astype(float)
    table = {"seed": np.arange(num), "success": (np.arange(num) < 30) * 1.0, "steps": 2 * stands}
    zero = {"touched", "fell", "out of time", "return", "moved"}
    table |= {name: np.zeros(num) for name in zero} | {"jumps": np.ones(num), "action: right": stands}
    for place in rollouts.PLACES:
        table |= {
            f"stands {place}": stands * (place == "at a saw"),
            f"jumps {place}": np.ones(num) * (place == "at a saw"),
        }
    moved = table | {"success": (np.arange(num) < 20) * 1.0, "jumps at a saw": np.minimum(stands, 2.0)}
    rows = {row["measure"]: row for row in effect_rows(table, moved, [table, moved], measures_of)}
    assert list(rows)[: len(MAIN) - 2] == [n for n in MAIN if n not in ("jumps at a crate", "jumps elsewhere")]
    assert rows["jumps at a saw"]["plain"] == pytest.approx(num / stands.sum())
    assert rows["jumps at a saw"]["moved"] == pytest.approx(np.minimum(stands, 2).sum() / stands.sum())
    assert rows["jumps"]["plain"] == pytest.approx(num / (2 * stands).sum()) and rows["action: right"]["plain"] == 0.5
    assert rows["success"]["low"] < rows["success"]["difference"] == -0.25 < rows["success"]["high"] < 0
    assert rows["fell"]["low"] < 0 < rows["fell"]["high"], "a rate has an interval where nothing changes"
    assert rows["success"]["stronger"] == 1 and rows["success"]["p"] == pytest.approx(2 / 3)
    assert "jumps at lava" not in rows
    seen = moved | {"stands at lava": np.ones(num), "jumps at lava": np.ones(num)}  # nowhere in the other runs
    row = {row["measure"]: row for row in effect_rows(table, seen, [table, table], measures_of)}["jumps at lava"]
    assert row["random"] == 0 and np.isnan([row[name] for name in ("plain", "random_low", "random_high", "p")]).all()


def words_of(model, studied, out, *operation: str, **changes) -> list[str]:
    values = {"checkpoint": model, "directions": studied / "directions.npz", "out": out} | changes
    return [*operation, *flags(**({"num_worlds": 5, "num_random": 20, "max_steps": 10} | values))]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(model, studied, tmp_path, capsys):
    operation = ("--add", "probe.crate ahead=3", "--policy", "sampled")
    assert in_process(intervene.main, *words_of(model, studied, tmp_path / "whole", *operation)) == 0
    shown = capsys.readouterr().out
    assert "+3 sd of memory.probe.crate ahead" in shown and "jumps elsewhere" in shown and "of 20" in shown
    words = words_of(model, studied, tmp_path / "cut", *operation)
    quiet, tables = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}, tmp_path / "cut" / "episodes"
    environment = script_environment({"OMP_NUM_THREADS": "1"})
    command = [sys.executable, "-m", "generative.intervene", *words]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, **quiet) as process:
        deadline = time.monotonic() + 100
        while len(list(tables.glob("random*"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and len(list(tables.glob("*.csv"))) < 22
    assert in_process(intervene.main, *words) == 0
    names = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file())
    assert len(names) == 22 + 1 + 3
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    table = pd.read_csv(tmp_path / "whole" / "effects.csv").set_index("measure")
    assert table.loc["moved", "moved"] > 0 == table.loc["moved", "plain"]
    assert table.loc["moved", "random_low"] > 0.5 * table.loc["moved", "moved"]


def test_bad_input_is_one_line_with_exit_code_2(recording, model, studied, tmp_path, monkeypatch, capsys):
    words = words_of(model, studied, tmp_path / "out", "--null", "0")
    cases = {
        ("--checkpoint", tiny_agent(tmp_path / "other", seed=1)): "--directions",
        ("--checkpoint", tiny_checkpoint(tmp_path / "babyai")): "--directions",
        ("--null", "probe.goal in view"): "probe.goal in view",
        ("--eval_seed", 2**30 - 3): "--eval_seed",
    }
    check_refused(capsys, intervene.main, cases, *words)
    monkeypatch.setitem(sys.modules, "envpool", None)
    assert "make coinrun" in refused(capsys, intervene.main, *words) and not (tmp_path / "out").exists()
    lost = ("--data_dir", recording.folder, "--out", tmp_path / "found")
    assert "make coinrun" in refused(capsys, directions.main, *lost)


def test_agents_and_games_of_which_nothing_can_be_told_are_refused():
    refusal(GameArena, FrozenAgent(make_agent(TINY)), {"world": WORLD | {"env_name": "caveflyer"}}, ArenaSettings())
