"""Directions of the memory: labels, methods, probes, files, and the command; on planted memories and a recording."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from checks import refusal
from generative_data import record_tiny, tiny_checkpoint
from scripts import check_refused, in_process

from generative import directions as command
from generative.domains.babyai.labels import CARRIED, DOOR_STATES, PROPERTIES, UNKNOWN, label_episode, labeller
from generative.figures.representations import plot_probes, plot_stability
from generative.recordings.format import SPLITS
from generative.representations import decompositions, study
from generative.representations.decompositions import METHODS, matched_cosines, train_sparse_autoencoder
from generative.representations.probes import (
    Probe,
    balanced_accuracy,
    class_differences,
)
from generative.representations.storage import Directions, load_directions, random_unit
from generative.representations.study import (
    Rows,
    StudySettings,
    _duals_of,
    join_parts,
    known_properties,
    read_rows,
    study_block,
    variance_explained,
)
from generative.representations.tables import method_rows, probe_rows
from mop.analysis.groups import key_phases
from mop.artifacts.records import write_record
from mop.common.cli import as_flags
from mop.envs.babyai import World
from mop.envs.geometry import code_color, code_kind, code_state
from mop.plotting.hover import values_of

RNG = np.random.default_rng


@pytest.fixture
def hasty(monkeypatch):
    """Sparse autoencoders that hardly learn, where nothing depends on what they learn."""
    monkeypatch.setattr(decompositions, "_NUM_UPDATES", 60)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A recording of an untrained policy with a dozen episodes in the smallest splits."""
    folder = tmp_path_factory.mktemp("recorded")
    return record_tiny(
        tiny_checkpoint(folder), folder / "recording", num_steps=5000, num_envs=16, policies="bot,epsilon,random"
    )


@pytest.mark.parametrize("task_id", ["BabyAI-UnlockPickup-v0", "BabyAI-KeyCorridorS3R2-v0"])
def test_labels_are_what_minigrid_says(task_id):
    world, rng, seen = World(task_id), RNG(0), {name: set() for name in PROPERTIES}
    for seed in range(6):
        world.reset(seed)
        rows, truth = {name: [] for name in ("obs", "grid", "position", "carried")}, []
        for t in range(60):
            rows["obs"].append(world.obs.astype(np.uint8))
            rows["grid"].append(world.codes.copy())
            rows["position"].append(world.position)
            rows["carried"].append(world.carried)
            truth.append(_truth(world))
            is_over = any(world.step(world.label() if t < 20 else int(rng.integers(7)))[1:])
            if is_over:
                break
        labels = label_episode({k: np.array(v) for k, v in rows.items()}, world.mission, world.env.room_size)
        for name, values in labels.items():
            assert values.dtype == np.int8 and values.tolist() == [row[name] for row in truth], (seed, name)
            seen[name] |= set(values.tolist())
    assert all(len(found) >= 2 for found in seen.values()), seen


def _truth(world: World) -> dict[str, int]:
    """The labels, by Minigrid's own objects."""
    env, (x, y) = world.env, world.position
    cells = [(i % env.width, i // env.width, cell) for i, cell in enumerate(env.grid.grid) if cell is not None]
    doors = [(abs(i - x) + abs(j - y), j, i, cell) for i, j, cell in cells if cell.type == "door"]
    door = min(doors, key=lambda found: found[:3])[3]
    is_held, held = env.carrying is not None, getattr(env.carrying, "type", "nothing")
    unlocked = world.t_unlocked is not None
    _, mask = env.gen_obs_grid()
    goal = env.instrs.desc
    wanted = [(i, j) for i, j, cell in cells if cell.type == goal.type and goal.color in (None, cell.color)]
    places = [env.relative_coords(i, j) for i, j in wanted if (i, j) != (x, y)]
    in_hand = is_held and held == goal.type and goal.color in (None, env.carrying.color)
    columns = env.num_cols
    return {
        "door": DOOR_STATES.index("locked" if door.is_locked else "open" if door.is_open else "closed"),
        "carrying": CARRIED.index(held),
        "goal in view": int(in_hand or any(place is not None and mask[place] for place in places)),
        "phase": (2 if held == "key" else 3) if unlocked else (1 if held == "key" else 0),
        "room": y // (env.room_size - 1) * columns + x // (env.room_size - 1),
    }


def test_phases_are_those_of_the_measures(recording):
    phases = set()
    for k in recording.episodes(behaviours=["bot"]).tolist():
        episode = recording.episode(k)
        grid, obs = np.asarray(episode["grid"]), np.asarray(episode["obs"])
        is_locked = (code_kind(grid) == 4) & (code_state(grid) == 2)
        opened = np.flatnonzero(~is_locked.any((1, 2)))
        cells = {kind: np.argwhere(code_kind(grid[0]) == kind)[:, ::-1].tolist() for kind in (4, 5)}
        colors = {(x, y): "c" + str(code_color(grid[0, y, x])) for of_kind in cells.values() for x, y in of_kind}
        about = {"t_unlocked": int(opened[0]) if len(opened) else None}
        about["keys"] = [[x, y, colors[x, y]] for x, y in cells[5]]
        about["doors"] = [[x, y, colors[x, y], False, True] for x, y in cells[4]]
        where = {"episode": np.zeros(len(grid), int), "t_step": np.arange(len(grid)), "carrying": obs[:, -1] > 0}
        steps = SimpleNamespace(
            **where, position=np.asarray(episode["position"]), direction=obs[:, 147:151].argmax(1), door_unlocked=None
        )
        found = label_episode(episode, episode.mission, 6)["phase"]
        assert found.tolist() == key_phases(steps, [about]).tolist()
        phases |= set(found.tolist())
    assert phases == {0, 1, 2, 3}


def planted(
    num_rows: int = 3000, num_units: int = 12, num: int = 4, mean: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Memories of sparse, independent coordinates along directions that are not orthogonal; and these directions."""
    rng, num = RNG(1), 4
    units = rng.standard_normal((num, num_units))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    codes = rng.exponential(size=(num_rows, num)) * (rng.random((num_rows, num)) < 0.3) * np.array([3.0, 2.5, 2.0, 1.5])
    return codes @ units + mean + 0.01 * rng.standard_normal((num_rows, num_units)), units


@pytest.mark.parametrize("method", METHODS)
def test_a_method_gives_unit_vectors_and_their_duals(method, hasty):
    x, _ = planted()
    fit = METHODS[method](x, 4, 0)
    again = METHODS[method](x, 4, 0)
    np.testing.assert_allclose(np.linalg.norm(fit.units, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose((fit.units * fit.duals).sum(1), 1.0, atol=1e-6)
    assert np.array_equal(fit.units, again.units)
    if method != "sae":
        np.testing.assert_allclose(fit.duals @ fit.units.T, np.eye(4), atol=1e-6)
        assert variance_explained(fit, x.mean(0), x, np.arange(len(x)) // 20).value > 0.95
    else:
        assert 4 <= len(fit.units) <= 8


@pytest.mark.parametrize("method", METHODS)
def test_no_mean_gets_into_a_direction(method, hasty):
    """Where all memories are moved by a constant, the directions stay what they are."""
    fit, moved = (METHODS[method](planted(mean=mean)[0], 4, 0) for mean in (0.0, 7.0))
    assert len(fit.units) == len(moved.units)
    assert matched_cosines(fit.units, moved.units).min() > 0.999
    assert matched_cosines(fit.duals, moved.duals).max() > 0.999


def test_planted_directions_are_found_where_they_are_not_orthogonal():
    x, units = planted()
    assert matched_cosines(units, METHODS["ica"](x, 4, 0).units).min() > 0.98
    model = train_sparse_autoencoder(x - x.mean(0), 4, 0, num_active=2)
    assert matched_cosines(units, model.units.numpy()).min() > 0.95
    codes = model.encode(torch.from_numpy((x - x.mean(0)).astype(np.float32)))
    assert (codes >= 0).all() and (codes > 0).sum(1).max() == 2
    assert matched_cosines(units, METHODS["pca"](x, 4, 0).units).min() < 0.95  # what an orthogonal basis cannot do


@pytest.mark.parametrize("method", METHODS)
def test_units_that_never_move_and_blocks_of_one_unit_are_no_trouble(method, hasty):
    x, _ = planted(num_rows=400)
    for still, num in ((np.where(np.arange(12) == 5, 1.0, x), 12), (x[:, :1], 1)):
        fit = METHODS[method](still, num, 0)
        assert 1 <= len(fit.units) <= 2 * num and fit.units.shape == fit.duals.shape
        assert np.isfinite(fit.units).all() and np.abs(fit.duals).max() < 1e6
        assert np.isfinite(fit.reconstruct(still)).all()


def test_variance_explained_is_that_of_other_worlds():
    rng, episode = RNG(2), np.repeat(np.arange(50), 10)
    train, test = rng.standard_normal((2, 500, 40))
    fit = METHODS["pca"](train, 10, 0)
    in_sample, held_out = (variance_explained(fit, train.mean(0), x, episode) for x in (train, test))
    assert in_sample.value > held_out.value + 0.05 and held_out.low < 0.25 < held_out.high < in_sample.value
    whole = METHODS["pca"](train, 40, 0)
    assert variance_explained(whole, train.mean(0), test, episode).value == pytest.approx(1.0)


def test_partners_are_those_of_the_largest_sum():
    rng = RNG(3)
    units, others = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.standard_normal((2, 4, 6)))
    cosines = np.abs(units @ others.T)
    best = max(sum(cosines[range(4), order]) for order in itertools.permutations(range(4)))
    assert matched_cosines(units, others).sum() == pytest.approx(best)
    np.testing.assert_allclose(matched_cosines(units, -units[[2, 0, 3, 1]]), 1.0)
    assert (matched_cosines(units, units[:2]) > 0).sum() == 2


def test_balanced_accuracy_by_hand():
    labels, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    few = balanced_accuracy(predicted, labels, np.zeros(6, int))
    assert few.value == pytest.approx((3 / 4 + 1 / 2) / 2) and np.isnan(few.low)
    many = balanced_accuracy(np.tile(predicted, 50), np.tile(labels, 50), np.repeat(np.arange(50), 6))
    assert many.value == few.value and many.low == pytest.approx(many.value) == many.high  # all episodes alike
    mixed = np.where(RNG(0).random(3000) < 0.7, labels.repeat(500), 1 - labels.repeat(500))
    found = balanced_accuracy(mixed, labels.repeat(500), RNG(1).integers(100, size=3000))
    assert found.low < 0.7 < found.high and found.high - found.low < 0.08


def synthetic(split: int, num_episodes: int = 60, length: int = 20) -> Rows:
    """Memories of which one direction tells the door and nothing tells the hand."""
    rng, (units, _) = RNG(split), np.linalg.qr(RNG(9).standard_normal((10, 10)))
    episode, t_step = np.repeat(np.arange(num_episodes), length), np.tile(np.arange(length), num_episodes)
    door, carrying = rng.integers(2, size=(2, len(episode)))
    codes = rng.standard_normal((len(episode), 10)) * np.linspace(1.5, 0.5, 10)
    codes[:, 3] += 6.0 * door
    labels = {name: np.full(len(episode), UNKNOWN, np.int8) for name in PROPERTIES}
    labels |= {"door": door.astype(np.int8), "carrying": carrying.astype(np.int8)}
    hidden = (codes @ units.T).astype(np.float32)
    return Rows(hidden, labels, episode, t_step)


def test_the_direction_that_tells_is_found_and_what_nothing_tells_is_not(hasty):
    rows = {split: synthetic(k) for k, split in enumerate(SPLITS)}
    settings, blocks = StudySettings(num_components=6, num_seeds=1), {"memory": slice(0, 10)}
    properties = known_properties(rows)
    assert properties == {"door": [0, 1], "carrying": [0, 1]}
    pieces = []
    part = study_block(rows, properties, "memory", blocks["memory"], settings, lambda: pieces.append(1))
    assert len(pieces) == len(METHODS) * 2 + 2
    directions = join_parts({"memory": part}, blocks, rows["train"], "digest")
    door, carrying = probe_rows({"memory": part}, directions)
    assert door["accuracy"] > 0.98 and door["best_accuracy"] > 0.98 and door["selectivity"] > 0.8
    assert door["shuffled_low"] < 0.5 < door["shuffled_high"]
    planted_unit = np.linalg.qr(RNG(9).standard_normal((10, 10)))[0][:, 3]
    assert abs(directions.units[door["best_number"]] @ planted_unit) > 0.95
    assert "probe" not in door["best"]
    number = directions.number("probe.door")
    assert (
        directions.names[-2:].tolist() == ["memory.probe.door", "memory.probe.carrying"]
        and number == len(directions) - 2
    )
    assert directions.units[number] @ planted_unit > 0.99 and part["door singles"][number, 1] > 0.98
    assert part["probe stability"][0] > 0.99
    for key in ("accuracy", "shuffled", "best_accuracy"):
        assert 0.44 < carrying[key] < 0.56, key
    shown = values_of(plot_probes(pd.DataFrame([door, carrying])))
    of_figure = {(row["panel"], row["measure"]): row["value"] for row in shown}
    assert of_figure["door", "whole block"] == door["accuracy"] and len(of_figure) == 6
    assert of_figure["carrying", "labels of other episodes"] == carrying["shuffled"]
    methods = method_rows({"memory": part})
    shown = values_of(plot_stability(pd.DataFrame(methods)))
    assert [row["explained"] for row in shown] == [row["explained"] for row in methods] and len(methods) == 4
    assert part["pca stability"][0] > 0.99 > 0.9 > float(part["pca chance"])


def test_a_probe_of_several_classes_has_a_direction_for_each(hasty):
    """Units lead from the mean of the others to that of the class, duals tell it: to null it makes the means equal."""
    centers = np.array([[3.0, 0, 0, 0, 0], [0, 3, 0, 0, 0], [-3, 0, 3, 0, 0]])
    spread = np.linalg.cholesky(np.eye(5) + 0.8 * np.outer([1, -1, 1, 0, 2], [1, -1, 1, 0, 2]))
    rows = {}
    for k, split in enumerate(SPLITS):
        rng, episode = RNG(k), np.repeat(np.arange(60), 20)
        labels = rng.integers(3, size=len(episode))
        hidden = centers[labels] + rng.standard_normal((len(episode), 5)) @ spread.T
        shown = np.where(rng.random(len(episode)) < 0.1, UNKNOWN, 2 * labels).astype(np.int8)  # classes 0, 2, 4
        rows[split] = Rows(hidden.astype(np.float32), {"room": shown}, episode, np.tile(np.arange(20), 60))
    settings = StudySettings(num_components=3, num_seeds=2)
    part = study_block(rows, known_properties(rows), "memory", slice(0, 5), settings, lambda: None)
    directions = join_parts({"memory": part}, {"memory": slice(0, 5)}, rows["train"], "digest")
    numbers = [directions.number(f"probe.room:{room}") for room in (0, 2, 4)]
    assert numbers == list(range(len(directions) - 3, len(directions))) and part["room classes"].tolist() == [0, 2, 4]
    x, labels = rows["train"].hidden[rows["train"].labels["room"] != UNKNOWN], rows["train"].labels["room"]
    labels = labels[labels != UNKNOWN]
    for room, number in zip((0, 2, 4), numbers, strict=True):
        unit, dual = directions.units[number], directions.duals[number]
        others = np.mean([centers[other] for other in range(3) if 2 * other != room], axis=0)
        planted_unit = (centers[room // 2] - others) / np.linalg.norm(centers[room // 2] - others)
        assert unit @ planted_unit > 0.98 and unit @ dual == pytest.approx(1.0, abs=1e-5)
        coordinates = directions.coordinates(x)[:, number]
        assert np.linalg.norm(dual) <= 2.0001
        assert np.std(coordinates) < np.std(x @ unit), "weights read it with less noise than the unit itself"
        nulled = x - coordinates[:, None] * unit
        assert np.abs(nulled[labels == room].mean(0) - nulled[labels != room].mean(0)).max() < 1e-4
    assert directions.names.tolist().count("memory.probe.room:2") == 1 and (part["probe stability"] > 0.98).all()


def test_duals_of_probes_read_by_the_weights_and_are_short():
    units = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
    weights = np.array([[2.0, 1, 0], [2, 0, 200], [3, -1, 0], [0, 5, 0]])
    duals = _duals_of(units, weights)
    np.testing.assert_allclose(duals, [[1, 0.5, 0], [1, 0, np.sqrt(3)], [0, 1, 0], [0, 1, 0]])
    np.testing.assert_allclose((duals * units).sum(1), 1.0)
    rng = RNG(0)
    labels = rng.integers(2, size=500)
    x = np.stack([labels + rng.standard_normal(500), 1e-6 * (labels + rng.standard_normal(500)), np.zeros(500)], 1)
    own, shared = (np.abs(Probe(x, labels, 0.01, is_one).contrasts[0]) for is_one in (False, True))
    assert own[1] > 1e4 * own[0] and shared[1] < 1e-4 * shared[0], "a unit that hardly moves"


def test_differences_of_classes_by_hand():
    x = np.array([[0.0, 1], [2, 1], [4, 1], [10, 5]])
    assert class_differences(x, np.array([0, 0, 1, 1]), [0, 1]).tolist() == [[6.0, 2.0]]
    by_class = class_differences(x, np.array([0, 0, 1, 2]), [0, 1, 2])
    assert by_class.tolist() == [[-6.0, -2.0], [0.0, pytest.approx(-4 / 3)], [8.0, 4.0]]
    assert not class_differences(x, np.zeros(4), [0, 1]).any(), "a class that is not there"
    assert Probe(x, np.array([0, 0, 1, 1])).contrasts[0, 0] > 0 and Probe(
        x, np.array([0, 0, 1, 2])
    ).contrasts.shape == (3, 2)


def test_rows_pair_the_memory_after_a_step_with_what_it_saw(recording):
    seeds, label = {}, labeller(recording.config["encoding"])
    for split in SPLITS:
        rows = read_rows(recording, split, None, 10**6, 0, label)
        episodes = np.sort(recording.episodes(split))
        assert len(np.unique(rows.episode)) == len(episodes)
        for number in (0, len(episodes) - 1):
            episode, here = recording.episode(int(episodes[number])), rows.episode == number
            hidden = np.asarray(episode["hidden"])
            assert np.array_equal(rows.hidden[here], hidden[1:])
            assert rows.t_step[here].tolist() == list(range(len(hidden) - 1))
            for name, labels in label_episode(episode, episode.mission, 6).items():
                assert np.array_equal(rows.labels[name][here], labels[:-1])
        seeds[split] = set(recording.index["seed"][episodes].tolist())
    assert not seeds["train"] & seeds["test"] and not seeds["train"] & seeds["validation"]
    few = read_rows(recording, "train", ["epsilon"], 200, 0, label)
    assert 100 < len(few.hidden) <= 200
    assert not np.array_equal(
        few.hidden, read_rows(recording, "train", ["epsilon"], 200, 1, label).hidden[: len(few.hidden)]
    )
    assert "too few" in refusal(read_rows, recording, "train", ["epsilon"], 30, 0, label)
    assert read_rows(recording, "train", None, 500, 0, lambda episode: {}).labels == {}


def some_directions(num_units: int = 12) -> Directions:
    """The PCA and ICA of planted memories as a set of two blocks, in a memory of `num_units` and 3 other units."""
    x, _ = planted(num_units=num_units)
    fits = [METHODS[name](x, 4, 0) for name in ("pca", "ica")]
    whole = np.concatenate([x, RNG(5).standard_normal((len(x), 3))], 1)
    units, duals = (
        np.pad(np.concatenate([getattr(fit, name) for fit in fits]), ((0, 0), (0, 3))).astype(np.float32)
        for name in ("units", "duals")
    )
    return Directions(
        units, duals,
        names=np.array([f"first.{name}.{k}" for name in ("pca", "ica") for k in range(4)]),
        blocks=np.array(["first"] * 8), methods=np.repeat(["pca", "ica"], 4),
        mean=whole.mean(0).astype(np.float32), covariance=np.cov(whole.T).astype(np.float32),
        block_names=np.array(["first", "second", "all"]),
        block_columns=np.array([[0, num_units], [num_units, num_units + 3], [0, num_units + 3]]),
        checkpoint=np.array("digest"),
    )  # fmt: skip


def test_directions_round_trip_and_are_found_by_number_or_name(tmp_path):
    directions = some_directions()
    write_record(tmp_path / "d.npz", directions)
    read = load_directions(tmp_path / "d.npz")
    assert all(np.array_equal(getattr(read, name), value) for name, value in vars(directions).items())
    assert (read.number("5"), read.number("first.ica.1"), len(read)) == (5, 5, 8)
    assert (read.number("ica.1"), read.number("pca.3")) == (5, 3), "the end of a name"
    x, _ = planted()
    whole = np.concatenate([x, np.zeros((len(x), 3))], 1)
    np.testing.assert_allclose(read.coordinates(whole).std(0), read.sd, rtol=1e-3)
    np.testing.assert_allclose(read.coordinates(whole).mean(0), 0, atol=1e-3)
    for text in ("8", "first.ica.9", "-1", "²", "", ".1", "irst.ica.1", "ca.1"):
        refusal(read.number, text)
    assert "first.ica" in refusal(read.number, "first.ica.9")


def test_a_damaged_file_of_directions_is_refused(tmp_path):
    path = tmp_path / "d.npz"
    refusal(load_directions, path)
    write_record(path, some_directions())
    content = path.read_bytes()
    for damaged in (b"", content[:200], content[:-60], b"x" * 500):
        path.write_bytes(damaged)
        refusal(load_directions, path)


def test_random_directions_lie_where_the_memory_varies():
    directions = some_directions()
    draws = np.array([random_unit(directions, "first", RNG(k)) for k in range(200)])
    np.testing.assert_allclose(np.linalg.norm(draws, axis=1), 1.0)
    assert not draws[:, 12:].any() and np.array_equal(draws[3], random_unit(directions, "first", RNG(3)))
    shares = (draws @ directions.units[:4].T) ** 2  # of the four components that hold nearly all of the variance
    np.testing.assert_allclose(shares.mean(0), 1 / 8, atol=0.03)  # eight are taken at least
    whole = random_unit(directions, "all", RNG(0))
    assert whole[:12].any() and whole[12:].any()
    assert not random_unit(directions, "second", RNG(0))[:12].any()


def flags_of(recording, out, **flags) -> list[str]:
    flags = {"data_dir": recording.folder, "out": out, "num_components": 3, "num_seeds": 1, "max_rows": 600} | flags
    return as_flags(flags)


@pytest.mark.slow
def test_the_command_goes_on_where_it_was_cut_off_with_the_same_bytes(recording, tmp_path, capsys, hasty):
    blocks = {"blocks": "router_0,expert_1_0"}
    assert in_process(command.main, *flags_of(recording, tmp_path / "whole", **blocks)) == 0
    told = capsys.readouterr().out
    assert "expert_1_0" in told and "carrying" in told and "directions.npz" in told
    real, calls = study.write_part, []

    def cut_off(path, part):
        calls.append(path)
        if len(calls) == 2:
            raise OSError("the disk is full")
        real(path, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "write_part", cut_off)
        assert in_process(command.main, *flags_of(recording, tmp_path / "cut", **blocks)) == 2
    first = tmp_path / "cut" / "parts" / "router_0.npz"
    written = first.stat().st_mtime_ns
    assert in_process(command.main, *flags_of(recording, tmp_path / "cut", **blocks)) == 0
    assert first.stat().st_mtime_ns == written
    assert load_directions(tmp_path / "whole" / "directions.npz").number("expert_1_0.probe.goal in view") > 12
    names = ["directions.npz", "methods.csv", "probes.csv", "directions.csv", "stability.png", "probes.png"]
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    directions = load_directions(tmp_path / "whole" / "directions.npz")
    assert set(directions.blocks.tolist()) == set(blocks["blocks"].split(","))
    assert directions.mean.shape == (60,) and len(directions) >= 2 * (3 + 3 + 3 + 3)
    for k, block in enumerate(directions.blocks.tolist()):
        outside = np.ones(60, bool)
        outside[directions.columns(block)] = False
        assert not directions.units[k, outside].any() and directions.units[k].any()


def test_bad_input_is_one_line_with_exit_code_2(recording, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    cases = {
        ("--blocks", "router_7"): "--blocks",
        ("--behaviours", "argmax,me"): "--behaviours",
        ("--data_dir", tmp_path): str(tmp_path),
        (): str(out),
        ("--max_rows", 100, "--out", tmp_path / "few"): "--max_rows",
    }
    check_refused(capsys, command.main, cases, *flags_of(recording, out))
