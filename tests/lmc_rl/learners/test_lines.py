"""Lines between policies: exact at both ends, played all at once, kept as rows, measured on a held-out batch."""

import numpy as np
import pytest
import torch
from checks import refusal
from lmc_settings import learner, tiny

from lmc_rl.analysis.results import ExperimentPaths
from lmc_rl.analysis.table import LineKey, read_rows, read_table
from lmc_rl.experiment import measure_all
from lmc_rl.interpolation import StackedActor, alphas_of, distance, interpolate, stack
from lmc_rl.learners import rl
from lmc_rl.learners.base import Line
from lmc_rl.learners.rl import RLLearner, common_config, load_policy
from lmc_rl.workers import Workers
from mop.artifacts.checkpoints import save_checkpoint

ALGORITHMS = ["SAC", "DDPG"]
PLACES = alphas_of(5)


@pytest.fixture(scope="module")
def runs() -> dict:
    """Two runs of each algorithm from different seeds."""
    return {algo: [learner(tiny(algo=algo, seed=seed), 40) for seed in (1, 2)] for algo in ALGORITHMS}


def weights_of(run) -> dict:
    return run.checkpoint()["policy_state_dict"]


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_ends_are_the_policies(runs, algo):
    """The stacked actor gives what the module of stable-baselines3 gives, at both ends."""
    pair = runs[algo]
    actor = StackedActor(interpolate(*map(weights_of, pair), PLACES))
    obs = np.random.default_rng(0).normal(size=(5, 7, 9)).astype(np.float32)
    actions = actor(obs)
    assert actions.shape == (5, 7, 1) and actions.dtype == np.float32
    for place, run in ((0, pair[0]), (4, pair[1])):
        plain, _ = run.policy.predict(obs[place], deterministic=True)
        assert actions[place] == pytest.approx(plain, abs=2e-6)
    assert np.abs(actions[0] - actions[2]).max() > 1e-3


def test_interpolation_is_exact_where_it_must_be():
    first, second = (
        {"a": torch.tensor([0.1, 3.0]), "b": torch.tensor(1.0)},
        {"a": torch.tensor([0.7, -1e9]), "b": torch.tensor(2.0)},
    )
    line = interpolate(first, second, np.array([0.0, 0.3, 1.0]))
    for name in first:
        assert torch.equal(line[name][0], first[name]) and torch.equal(line[name][2], second[name])
    assert line["b"][1] == pytest.approx(1.3) and line["a"][1, 0] == pytest.approx(0.28)
    still = interpolate(first, first, np.linspace(0, 1, 33))
    assert all((still[name] == first[name]).all() for name in first)
    only = interpolate(first, second, np.array([0.5]), moves=lambda name: name == "b")
    assert torch.equal(only["a"][0], first["a"]) and only["b"].tolist() == [1.5]
    assert distance({"a": torch.tensor([0.0, 3.0])}, {"a": torch.tensor([4.0, 3.0])}) == 4
    refusal(interpolate, first, {"a": second["a"]}, PLACES)
    refusal(stack, [first, {"a": second["a"]}])


def saved(runs, folder) -> list:
    paths = [folder / f"{algo}_{k}.pt" for algo in ALGORITHMS for k in range(2)]
    for path, run in zip(paths, [run for algo in ALGORITHMS for run in runs[algo]], strict=True):
        save_checkpoint(path, run.checkpoint())
    return paths


def planned(first, second) -> list:
    """The segments of the random policy, and those of a line."""
    (segments,) = learner_in(".").work([line_of(first, second)]).values()
    return segments


def learner_in(folder) -> RLLearner:
    config = tiny(alpha_points=5, num_eval_episodes=7, max_episode_steps=200)
    return RLLearner(config, ExperimentPaths(folder, folder))


def line_of(first, second) -> Line:
    return Line(LineKey("fork", 3, (1, 2)), first, second)


def play(segment) -> np.ndarray:
    """Returns (A, E)."""
    return dict(segment.measures())["return"]


def test_a_walk_plays_all_places_in_the_same_worlds(runs, tmp_path, monkeypatch):
    """Returns are those of each policy alone; a policy and itself have the same everywhere; parts do not matter."""
    paths = saved(runs, tmp_path)
    random, whole = planned(*paths[:2])
    assert (random.alphas, len(whole.alphas), len(whole.places()), len(random.places())) == ([None], 5, 35, 7)
    played = play(whole)
    assert played.shape == (5, 7)
    for place, run in ((0, runs["SAC"][0]), (4, runs["SAC"][1])):
        actor = StackedActor.of_policies([weights_of(run)])
        alone = rl.EvaluationWorlds(whole.env, 200).play(actor, 1, range(10**6, 10**6 + 7))
        assert played[place] == pytest.approx(alone.returns[0], rel=1e-3)
    (still,) = planned(paths[0], paths[0])[1:]
    same = play(still)
    assert (same == same[:1]).all() and len(np.unique(same[0])) == 7
    monkeypatch.setattr(rl, "_MAX_WORLDS", 10)
    parts = planned(*paths[:2])
    assert [len(part.episodes) for part in parts] == [7, 2, 2, 2, 1]
    together = np.concatenate([play(part) for part in parts[1:]], axis=1)
    assert together == pytest.approx(played, rel=1e-3)
    assert play(parts[0]) == pytest.approx(play(random), rel=1e-12)


def test_rows_are_added_and_a_file_that_was_cut_off_goes_on(tmp_path, monkeypatch, runs):
    """Wherever it was cut, it ends with the same bytes; the table reads it, but for a row that is being written."""
    monkeypatch.setattr(rl, "_MAX_WORLDS", 10)
    paths = saved(runs, tmp_path)
    path, learner = tmp_path / "episodes.jsonl", learner_in(tmp_path)

    def measure() -> bytes:
        with Workers(1) as workers:
            measure_all(learner, [line_of(*paths[:2])], workers)
        return path.read_bytes()

    whole, covered = measure(), 0
    assert whole.count(b"\n") == 7 + 5 * 7
    for cut in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert measure() == whole
        covered += 1
    assert covered == 6
    rows = read_rows(path)
    assert rows[7] == {
        "run": tmp_path.name, "kind": "fork", "fork": 3, "children": [1, 2], "alpha": 0.0, "episode": 0, "seed": 10**6,
        "return": rows[7]["return"], "length": rows[7]["length"],
    }  # fmt: skip
    table = {(series.line, series.measure): series for series in read_table(tmp_path, PLACES.size)}
    line = LineKey("fork", 3, (1, 2))
    assert table.keys() == {(key, name) for key in (line, LineKey("random")) for name in ("return", "length")}
    assert table[line, "return"].alphas.tolist() == PLACES.tolist() and table[line, "return"].values.shape == (7, 5)
    assert table[LineKey("random"), "return"].values.shape == (7, 1)
    assert table[line, "return"].values[0, 0] == rows[7]["return"]
    with path.open("ab") as file:
        file.write(b'{"run": "a run", "ki')  # still being written
    assert read_rows(path) == rows
    path.write_text("{}\n")
    assert "line 1" in refusal(read_rows, path)


def test_a_new_measure_is_one_yield(tmp_path, monkeypatch, runs):
    """What `measures` yields is in the rows, and in the table, without another line of code."""
    original = rl.PathSegment.measures

    def more(segment):
        for name, values in original(segment):
            yield name, values
            if name == "return":
                yield "squared_return", values**2

    monkeypatch.setattr(rl.PathSegment, "measures", more)
    paths = saved(runs, tmp_path)
    with Workers(1) as workers:
        measure_all(learner_in(tmp_path), [line_of(*paths[:2])], workers)
    table = {series.measure: series.values for series in read_table(tmp_path, 5) if series.line.kind == "fork"}
    assert table["squared_return"] == pytest.approx(table["return"] ** 2)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_measures_along_the_line(runs, algo):
    """KL is 0 at its own end and that of two Gaussians by hand at the other; the TD error is that of each end alone."""
    first, second = map(weights_of, runs[algo])
    config = runs[algo][0].checkpoint()["config"]
    found = dict(rl.measures_of_line(config, first, second, PLACES))
    assert found["kl_to_first"][0] == found["kl_to_second"][-1] == 0 and min(found["td_error"]) > 0
    assert all(value > 0 for value in (*found["kl_to_first"][1:], *found["kl_to_second"][:-1]))
    assert found["distance"] == pytest.approx(distance(first, second)) and found["actor_distance"] < found["distance"]
    batch = rl.held_out_batch(config, first, second)
    assert batch.shape[1] == 2 * 9 + 1 + 2 and 20 < len(batch) <= rl.NUM_TRANSITIONS
    obs = batch[:, :9]
    means, stds = [], []
    with torch.no_grad():
        for run in runs[algo]:
            if algo == "SAC":
                mean, log_std, _ = run.model.actor.get_action_dist_params(obs)
                means.append(mean), stds.append(log_std.exp())
            else:
                means.append(run.model.actor(obs)), stds.append(torch.full((len(obs), 1), 0.1))
    normals = [torch.distributions.Normal(mean, std) for mean, std in zip(means, stds, strict=True)]
    by_hand = torch.distributions.kl_divergence(normals[1], normals[0]).sum(1).mean()
    assert found["kl_to_first"][-1] == pytest.approx(float(by_hand), rel=1e-3)
    if algo == "DDPG":
        run = runs[algo][1]
        with torch.no_grad():
            value = run.model.critic_target(batch[:, 9:18], run.model.actor_target(batch[:, 9:18]))[0]
            target = batch[:, 19:20] + 0.99 * (1 - batch[:, 20:]) * value
            error = (target - run.model.critic(obs, batch[:, 18:19])[0]).square().mean().sqrt()
        assert found["td_error"][-1] == pytest.approx(float(error), rel=1e-3)


def test_policies_are_read_and_compared(runs, tmp_path):
    paths = saved(runs, tmp_path)
    sac, other, ddpg = (load_policy(path) for path in paths[:3])
    assert common_config(sac, other) == sac.config and sac.config["task_id"] == "InvertedDoublePendulum-v5"
    assert sac.update == 40
    assert "DDPG" in refusal(common_config, sac, ddpg)
    auto = sac._replace(config=sac.config | {"ent_coef": 0.4})
    assert common_config(sac, auto)["ent_coef"] == pytest.approx(0.3)
    save_checkpoint(tmp_path / "mop.pt", {"policy_state_dict": {"a": torch.ones(1)}, "config": {"task_id": "x"}})
    assert "lmc_rl" in refusal(load_policy, tmp_path / "mop.pt")
