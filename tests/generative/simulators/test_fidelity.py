"""How true simulators are: trials in real worlds, forecasts, measures with known answers, the gate of the analyses."""

import shutil
import sys
from contextlib import nullcontext
from functools import partial

import numpy as np
import orjson
import pytest
import torch
from checks import one_line, refusal, strict_json

from generative import fidelity, train_gen_model
from generative.attribution.closed_loop import untrained
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.trials import ACTORS, AHEAD, MEASURES, Markov, by_exact, run_trials, sums_of
from generative.figures.simulators import plot_fidelity
from generative.simulators import evaluation
from generative.simulators.evaluation import (
    Forecast,
    by_copy,
    check_fidelity,
    choose_moments,
    interval_of_ratio,
    measure,
)
from generative.simulators.exact import ExactSimulator
from generative.simulators.relaxation import NUM_CELLS, discretise
from mop.common.cli import as_flags
from mop.common.errors import InputError
from mop.envs.babyai import OBS_DIM, World, observe
from mop.statistics.bootstrap import bootstrap_means
from mop.training.loop import FINAL_NAME

T = 6


@pytest.fixture(scope="module")
def trials(tiny):
    """Eight trials of six steps with each actor, from moments of training worlds, of which there are most."""
    recording, checkpoint = tiny
    policy, config = FrozenPolicy.load(checkpoint)
    moments = choose_moments(recording, "train", 8, 3, seed=0)
    policies = {"trained": policy, "constant": policy, "untrained": untrained(policy, config, 0)}
    return {actor: run_trials(moments, actor, policies[actor], T, 0) for actor in ACTORS}, moments


def test_minigrids_own_rules_are_always_right(tiny, trials):
    exact = ExactSimulator(tuple(tiny[0].config["encoding"]["grid_shape"]))
    for of_actor in trials[0].values():
        found = measure(of_actor, by_exact(exact, of_actor), sums_of)
        assert set(found) == set(MEASURES)
        for name, parts in found.items():
            known = np.array(parts["mean"])[~np.isnan(parts["mean"])]
            assert known == pytest.approx(0.0 if name.endswith("kl") else 1.0, abs=1e-4), name
    assert not torch.equal(trials[0]["trained"].answer.logits, trials[0]["untrained"].answer.logits)
    assert (trials[0]["constant"].actions[2:] == AHEAD).all()


def test_a_trial_is_what_happens_in_the_real_world(tiny, trials):
    """Frames, ends and the kinds of cells, by replaying each world with Minigrid's own view."""
    of_actor, moments = trials
    encoding, num_frames, kinds = tiny[0].config["encoding"], 0, [0, 0]
    one = of_actor["untrained"]
    for n, (number, row) in enumerate(zip(moments.numbers, moments.rows, strict=True)):
        episode = tiny[0].episode(number)
        world = World(encoding["task_id"], encoding["max_steps"])
        world.reset(episode.seed)
        past = [int(a) for a in episode["action"][:row]]
        shown, is_over = np.zeros((encoding["grid_shape"][1], encoding["grid_shape"][0]), bool), False
        for t, action in enumerate([*past, *one.actions[2:, n].tolist()]):
            if t >= row - 2 and t <= row:
                observe(world.codes, *world.position, world.direction, world.carried, np.zeros(147, np.float32), shown)
            i = t - row
            if i >= 0:
                assert one.mask[i, n] == (not is_over)
            if is_over:
                continue
            _, terminated, truncated = world.step(action)
            is_over = terminated or truncated
            if i >= 0:
                assert np.array_equal(discretise(one.frames[3 + i, n]).numpy(), world.obs)
                seen_now = np.zeros_like(shown)
                image = np.zeros(OBS_DIM, np.float32)
                observe(world.codes, *world.position, world.direction, world.carried, image, seen_now)
                in_grid = [(seen_now & shown).sum(), (seen_now & ~shown).sum()]
                for k, told in enumerate((one.is_seen, one.is_new)):
                    assert told[i, n].sum() >= in_grid[k]  # cells in view may lie beyond the grid
                    kinds[k] += in_grid[k]
                assert (one.is_seen[i, n] | one.is_new[i, n]).sum() == (image[:NUM_CELLS] > 0).sum()
                num_frames += 1
    assert num_frames > 30 and min(kinds) > 30


def test_the_memory_is_the_recorded_one(tiny, trials):
    of_actor, moments = trials
    for n, (number, row) in enumerate(zip(moments.numbers, moments.rows, strict=True)):
        recorded = tiny[0].episode(number)["hidden"][row + 1]
        assert of_actor["trained"].hidden[n].numpy() == pytest.approx(recorded, abs=1e-5)


def test_measures_of_what_is_right_and_of_what_is_wrong(trials):
    one = trials[0]["trained"]
    right = one.frames[3:]
    wrong = right.roll(1, -1)  # every category another one
    best, worst = (sums_of(one, Forecast(views)) for views in (right, wrong))
    for name in ("cells", "seen_cells", "new_cells", "exact_view", "action", "routing"):
        assert np.array_equal(*best[name]), name
    for name in ("seen_cells", "exact_view"):
        assert worst[name][0].sum() == 0 and worst[name][1].sum() > 0, name
    assert best["action_kl"][0].max() < 1e-5 < worst["action_kl"][0].max()
    assert (
        worst["hidden_r2"][0].sum() < best["hidden_r2"][0].sum() == pytest.approx(best["hidden_r2"][1].sum(), rel=1e-5)
    )
    for name, (brought, counts) in best.items():
        assert not brought[~one.mask].any() and not counts[~one.mask].any(), name


def test_intervals_are_those_of_the_bootstrap_over_episodes():
    rng = np.random.default_rng(0)
    values = rng.random((2, 30))
    found = interval_of_ratio(values, np.ones((2, 30)))
    for t in range(2):
        means = bootstrap_means(values[t][:, None], np.arange(30))
        assert (found["mean"][t], found["low"][t], found["high"][t]) == pytest.approx(
            (means.mean[0, 0], means.low[0, 0], means.high[0, 0])
        )
    few = interval_of_ratio(values[:, :4], np.ones((2, 4)))
    assert np.isnan(few["low"]).all() and np.isfinite(few["mean"]).all()


def test_baselines_know_little(tiny, trials):
    recording, one = tiny[0], trials[0]["trained"]
    assert torch.equal(by_copy(one).views, one.frames[2].expand(T, -1, -1))
    markov = Markov.of(recording)
    _, (directions,), (flags,) = markov.tables
    assert directions.T[:3].tolist() == [[3, 0, 1, 2], [1, 2, 3, 0], [0, 1, 2, 3]] and flags[0, 2] == 0
    first, counts = discretise(markov(one).views[0]).numpy(), {}
    for k in recording.episodes("train"):
        episode = recording.episode(k)
        obs, actions = np.asarray(episode["obs"], int), episode["action"]
        for t in np.flatnonzero(actions[:-1] == one.actions[2, 0].item()):
            if np.array_equal(obs[t][[24, 73, 122]], discretise(one.frames[2, 0])[[24, 73, 122]].int().numpy()):
                after = tuple(obs[t + 1][[24, 73, 122]])
                counts[after] = counts.get(after, 0) + 1
    assert counts and counts[tuple(first[0][[24, 73, 122]].astype(int))] == max(counts.values())


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    """A simulator of two updates, with a measurement that says of itself that analyses may rely on it; its folder."""
    folder = tmp_path_factory.mktemp("simulators")
    with pytest.MonkeyPatch.context() as patch:
        words = ["--data_dir", str(tiny[0].folder), "--agent_file", str(tiny[1]), "--output_dir", str(folder)]
        words += ["--tgm_exp_name", "s", "--num_updates", "2", "--num_sim_steps", "3", "--param_name", "small"]
        patch.setattr(sys, "argv", ["train_gen_model", *words])
        assert train_gen_model.main() == 0
    assert call(tiny, folder / "s", actors="trained,constant", out=folder / "few") == 0
    result = orjson.loads((folder / "few" / "fidelity.json").read_bytes())
    result["settings"] |= {"split": "test", "num_trials": 100}
    (folder / "s" / "fidelity.json").write_bytes(orjson.dumps(result))
    return folder / "s"


def call(tiny, simulator, **flags) -> int:
    """Call the command in this process; its exit code."""
    flags = {"data_dir": tiny[0].folder, "agent_file": tiny[1], "num_trials": 6, "num_horizons": 4, **flags}
    flags = {"simulator": simulator, "split": "train", **flags}  # of training worlds there are most
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fidelity", *as_flags(flags)])
        return fidelity.main()


def test_the_command_writes_numbers_table_and_figure(tiny, measured, tmp_path, capsys):
    few = measured.parent / "few"
    result = strict_json(few / "fidelity.json")
    assert set(result["actors"]) == {"trained", "constant"} and result["horizons"] == [1, 2, 3, 4]
    assert set(result["actors"]["trained"]) == {"simulator", "copy_last", "markov", "shuffled"}
    table = (few / "fidelity.md").read_text()
    for words in (f"--simulator {measured}", f"--data_dir {tiny[0].folder}", "--num_trials 6", "--agent_file"):
        assert words in table, words
    assert "--seed" not in table and table.count("| trained | ") == 4 * len(MEASURES)
    figure = plot_fidelity(result)
    lines = {(ax.get_ylabel(), line.get_label()): line for ax in figure.axes[::2] for line in ax.lines}
    mean = result["actors"]["trained"]["simulator"]["action"]["mean"]
    assert lines["same action", "simulator"].get_ydata().tolist() == mean
    first = (few / "fidelity.json").read_bytes()
    assert call(tiny, measured, out=tmp_path / "again", actors="trained,constant") == 0
    assert (tmp_path / "again" / "fidelity.json").read_bytes() == first  # same seed, same bytes
    assert call(tiny, "exact", out=tmp_path / "exact", actors="constant") == 0
    exact = strict_json(tmp_path / "exact" / "fidelity.json")
    assert list(exact["actors"]) == ["constant"]
    assert exact["actors"]["constant"]["simulator"]["exact_view"]["mean"] == [1.0] * 4
    capsys.readouterr()


def test_the_exact_simulator_has_a_folder_for_each_recording(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(tiny, "exact", actors="constant") == 0
    assert [path.name for path in (tmp_path / "plots" / "fidelity_exact").iterdir()] == [tiny[0].folder.name]


def test_what_analyses_cannot_rely_on_is_not_written_beside_the_simulator(tiny, measured, monkeypatch):
    before = (measured / "fidelity.json").read_bytes()
    cases = [
        ({}, "is of the train split"),
        ({"out": measured / ".." / "s"}, "is of the train split"),
        ({"split": "test", "actors": "constant"}, "no trials of the trained policy"),
        ({"split": "test", "num_trials": 99}, r"is of \d episodes, not of 100 or more"),
        ({"split": "test", "num_trials": 300}, r"is of \d episodes, not of 100 or more"),  # the recording has no more
    ]
    for flags, words in cases:
        with pytest.raises(InputError, match=words) as error:
            call(tiny, measured, **flags)
        assert "--out" in one_line(error)
    assert (measured / "fidelity.json").read_bytes() == before
    monkeypatch.setattr(evaluation, "MIN_TRIALS", 2)
    assert call(tiny, measured, split="test", actors="trained") == 0
    assert (measured / "fidelity.json").read_bytes() != before
    (measured / "fidelity.json").write_bytes(before)


def with_shares(measured, folder, action=(0.99, 0.9, 0.1, 0.1), view=0.95, low=(0.8, 0.8, 0.0, 0.0), **settings):
    """A copy of a measured simulator, with these shares and settings in place of what was measured; its folder."""
    shutil.copytree(measured, folder)
    result = orjson.loads((folder / "fidelity.json").read_bytes())
    numbers = result["actors"]["trained"]["simulator"]
    numbers["action"] = {"mean": action, "low": low, "high": [1.0] * 4}
    numbers["exact_view"]["mean"] = [view, 0.1, 0.1, 0.1]
    result["settings"] |= settings
    (folder / "fidelity.json").write_bytes(orjson.dumps(result))
    return folder


def test_simulators_that_are_good_enough_pass(measured, tmp_path):
    folder = with_shares(measured, tmp_path / "good")
    line = check_fidelity(folder, 2)
    assert "over 1 to 2 steps at least 90.0% of the policy's actions are the same (2 ahead, 80.0% to 100.0%)" in line
    assert "95.0% of views exact 1 step ahead" in line
    assert check_fidelity(folder, 3, min_fidelity=0.0)
    unknown = with_shares(measured, tmp_path / "unknown", (None,) * 4, None, (None,) * 4)
    assert "at least not known" in check_fidelity(unknown, 3, min_fidelity=0.0)
    assert "Minigrid's own rules" in check_fidelity("exact", 24)


def test_a_longer_horizon_is_never_judged_better(measured, tmp_path):
    """However the shares of few trials go up again: what passes at a horizon passes at all before it."""
    for number, action in enumerate([(0.9, 0.6, 0.9, 0.9), (0.6, 0.9, 0.9, 0.9), (0.9, 0.8, 0.9, 0.7)]):
        folder, passed = with_shares(measured, tmp_path / str(number), action, low=(0.5,) * 4), []
        for horizon in range(1, 5):
            least = min(action[:horizon])
            with nullcontext() if least >= 0.7 else pytest.raises(InputError, match=f"at least {least:.1%}"):
                passed.append(f"at least {least:.1%}" in check_fidelity(folder, horizon))
        assert len(passed) == (1, 0, 4)[number] and all(passed)


def test_others_are_refused(measured, tmp_path):
    folder, damaged = (with_shares(measured, tmp_path / name) for name in ("good", "damaged"))
    (damaged / "fidelity.json").write_bytes(b'{"actors": {}}')
    refused = [
        (partial(check_fidelity, folder, 3), "below --min_fidelity 0.7; train it longer"),
        (partial(check_fidelity, with_shares(measured, tmp_path / "bad", view=0.5), 1), "below --min_fidelity"),
        (partial(check_fidelity, with_shares(measured, tmp_path / "few", low=(0.8, None, 0, 0)), 2), "for 2 steps to"),
        (partial(check_fidelity, with_shares(measured, tmp_path / "train", split="train"), 1), "of the train split"),
        (partial(check_fidelity, with_shares(measured, tmp_path / "some", num_trials=99), 1), "of 99 episodes"),
        (partial(check_fidelity, folder, 5), "horizons from 1 to 4, not of 5"),
        (partial(check_fidelity, folder, 2, agent_sha256="0" * 64), "is of another policy"),
        (partial(check_fidelity, damaged, 2), "damaged"),
        (partial(check_fidelity, tmp_path, 2), "it is not known how true"),
    ]
    newer = with_shares(measured, tmp_path / "newer")
    (newer / FINAL_NAME).write_bytes((newer / FINAL_NAME).read_bytes() + b" ")
    refused.append((partial(check_fidelity, newer, 2), "of an earlier training"))
    for check, message in refused:
        assert message in refusal(check)


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"simulator": "nowhere"}, "nowhere/checkpoint_final.pt is missing"),
        ({"actors": "trained,bot"}, "--actors must be some of"),
        ({"num_trials": 1}, "--num_trials must be"),
        ({"data_dir": "."}, "is no recording"),
    ],
)
def test_what_cannot_be_is_refused(tiny, measured, flags, message):
    assert message in refusal(call, tiny, **{"simulator": measured, **flags})
