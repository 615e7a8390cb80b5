"""Pathways policies in experiments: parts, measures, forks, and experiments from beginning to end."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from checks import refusal
from dying import dying, run_until_it_lives
from scripts import TINY_FLAGS, check_refused, in_process

from lmc_rl import analyze, compare, run_mop
from lmc_rl.alignment import MISSION
from lmc_rl.analysis.figures import plot_lines
from lmc_rl.analysis.lost_figures import plot_alignment, plot_parts
from lmc_rl.analysis.results import ExperimentPaths, load_experiment, pooled_groups
from lmc_rl.analysis.table import ROWS_NAME, TRAJECTORIES_NAME, read_rows
from lmc_rl.config import load_config, resolve_mop
from lmc_rl.experiment import is_finished, pairs_of, run
from lmc_rl.learners import imitation
from lmc_rl.learners.imitation import (
    ImitationLearner,
    RolloutReturn,
    TrajectoryLoss,
    as_checkpoint,
    check_comparable,
    load_pathways,
    moves_of,
    on_line,
    parts_of,
    routing_kl,
)
from mixture_of_experts import MixtureOfExpertsPolicy, compute_lpc
from mop.artifacts.checkpoints import load_checkpoint
from mop.envs.babyai import NO_LABEL, World
from mop.envs.missions import load_encoder
from mop.envs.trajectories import Trajectories, bot_trajectories
from mop.plotting.hover import values_of
from mop.training.imitation import ImitationRun
from mop.training.teacher_forcing import teacher_force

OF_RUN = {name.removeprefix("--"): value for name, value in zip(TINY_FLAGS[::2], TINY_FLAGS[1::2], strict=True)}
TINY = OF_RUN | {
    "fork_points": "0,0.5", "alpha_points": "3", "num_trajectories": "5", "num_eval_episodes": "5", "seed": "5",
    "replay": "1",
}  # fmt: skip
PARTS = ["all", "routers", "experts", "ends", "layer_0", "layer_1"]


def tiny(**changes):
    """Settings of an experiment of seconds."""
    return resolve_mop({**TINY, **changes})


def do(folder: Path, **changes) -> ExperimentPaths:
    """An experiment of tiny settings below a folder."""
    return ExperimentPaths.of_results(run(tiny(output_dir=str(folder), **changes)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> ExperimentPaths:
    """A finished experiment that nobody interrupted; change only copies."""
    return do(tmp_path_factory.mktemp("whole"))


def test_parts_divide_the_weights():
    """Routers, experts and ends are all weights but norms, each once; layers and ends are all of them, each once."""
    policy = MixtureOfExpertsPolicy(intermediate_dim=24, lang_dim=6, router_hidden_size=16, residual=True)
    weights = {*policy.state_dict(), f"{MISSION}weight", f"{MISSION}bias"}
    config = {"policy": "mop", "expert_hidden_sizes": [[0, 16, 32]] * 3}
    assert parts_of(config, ["all", "layers"]) == ["all", "layer_0", "layer_1", "layer_2"]
    assert parts_of({"policy": "gru"}, ["all", "routers", "layers"]) == ["all"]
    moved = {part: {name for name in weights if moves_of(part)(name)} for part in ("all", "routers", "experts", "ends")}
    norms = {name for name in weights if ".norm." in name}
    assert moved["all"] == set(weights) and len(norms) == 6
    assert sorted([*moved["routers"], *moved["experts"], *moved["ends"], *norms]) == sorted(weights)
    assert f"{MISSION}weight" in moved["ends"] and "head.bias" in moved["ends"]
    layers = [{name for name in weights if moves_of(f"layer_{layer}")(name)} for layer in range(3)]
    assert sorted([*moved["ends"], *(name for layer in layers for name in layer)]) == sorted(weights)
    assert "moe_layers.1.norm.weight" in layers[1] and all(name.startswith("moe_layers.1.") for name in layers[1])


def test_the_line_of_a_part_ends_at_a_hybrid(whole):
    first, second = (load_pathways(whole.weights / name) for name in ("final.pt", "independent.pt"))
    hybrid = on_line(first, second, "routers", 1.0)["policy_state_dict"]
    num_routers = 0
    for name, value in hybrid.items():
        is_router = ".router." in name
        num_routers += is_router
        assert torch.equal(value, (second if is_router else first).weights[name]), name
    assert num_routers == 2 * 6
    assert all(torch.equal(value, first.weights[name]) for name, value in hybrid.items() if ".router." not in name)


def test_trajectories_are_the_bots_own():
    found = bot_trajectories("BabyAI-GoToObj-v0", None, 3, first_seed=10)
    assert found.obs.shape[1:] == (3, 152) and found.obs.shape[0] == found.lengths.max()
    for e, (seed, mission, length) in enumerate(zip(found.seeds, found.missions, found.lengths, strict=True)):
        world = World("BabyAI-GoToObj-v0")
        world.reset(seed)
        assert world.mission == mission
        for t in range(length):
            assert np.array_equal(found.obs[t, e], world.obs)
            assert world.label() == found.labels[t, e] and world.teacher.phase[0] == found.subgoals[t, e]
            reward, *_ = world.step(int(found.labels[t, e]))
        assert reward > 0 and (found.labels[length:, e] == NO_LABEL).all() and (found.subgoals[length:, e] == -1).all()


def test_measures_are_those_of_the_plain_equations(whole):
    """Cross-entropy, accuracy, LPC and routing of each trajectory, alone and step by step."""
    given = load_pathways(whole.weights / "final.pt")
    encoder = load_encoder("vocab")
    seen = bot_trajectories(given.config["task_id"], None, 4)
    found = teacher_force(as_checkpoint(given.config, given.weights), seen, encoder)
    parts, places = ImitationLearner(tiny(), whole).run_config, 0
    policy = MixtureOfExpertsPolicy(
        lang_dim=parts["lang_dim"], intermediate_dim=parts["intermediate_dim"], obs_encoding="raw",
        expert_hidden_sizes=parts["expert_hidden_sizes"], router_hidden_size=parts["router_hidden_size"],
    )  # fmt: skip
    checkpoint = as_checkpoint(given.config, given.weights)
    policy.load_state_dict(checkpoint["policy_state_dict"])
    mission = checkpoint["lang_proj_state_dict"]
    with torch.no_grad():
        for e, length in enumerate(seen.lengths):
            hidden, losses, hits, costs = policy.initial_hidden(1), [], [], []
            lang = encoder.embed([seen.missions[e]]) @ mission["weight"].T + mission["bias"]
            for t in range(length):
                out, routing, hidden = policy.step(torch.cat([seen.obs[t, e][None], lang], 1), hidden)
                losses.append(-out.double().log_softmax(-1)[0, seen.labels[t, e]].item())
                hits.append(float(out.argmax() == seen.labels[t, e]))
                costs.append(compute_lpc(routing, policy.expert_hidden_sizes).item())
                places += 1
                assert torch.allclose(found.routing[1][t, e], routing[1][0], atol=1e-5)
            assert found.cross_entropy[e] == pytest.approx(np.mean(losses), abs=1e-4)
            assert found.accuracy[e] == np.mean(hits) and found.lpc[e] == pytest.approx(np.mean(costs), rel=1e-4)
    assert places == seen.lengths.sum() > 8


def test_routing_kl_by_hand():
    """KL of (1/2, 1/2) from (1/4, 3/4) is ln 2 / 2 + ln(2/3) / 2; the second of two steps is after the end."""
    here, there = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]), torch.tensor([[[0.25, 0.75]], [[0.1, 0.9]]])
    labels = torch.tensor([[2], [NO_LABEL]])
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert routing_kl([here], [there], labels) == pytest.approx(np.array([[expected]]))
    assert routing_kl([here], [here], labels) == pytest.approx(0)


def test_an_experiment_leaves_its_files(whole):
    children = {f"fork{child}_{fork}.pt" for fork in (0, 1) for child in (1, 2)}
    aligned = {f"aligned_{line}.pt" for line in ("self_1", "independent", "fork_0_1_2", "fork_1_1_2")}
    weights = {path.name for path in whole.weights.iterdir()}
    assert weights == {"final.pt", "independent.pt", "self_1.pt"} | children | aligned
    names = {path.name for path in whole.results.iterdir()}
    assert names == {"config.json", "training", "forks", "paths", "bot", ROWS_NAME, TRAJECTORIES_NAME}
    for name in weights:  # each is a checkpoint as any other
        assert load_checkpoint(whole.weights / name)["update"] == 6
    rows = read_rows(whole.results / TRAJECTORIES_NAME, ["cross_entropy"])
    assert len(rows) == 4 * 7 * 3 * 5 and {row["part"] for row in rows} == set(PARTS)
    rows = read_rows(whole.results / ROWS_NAME, ["return"])
    assert len(rows) == 5 + 4 * 2 * 3 * 5 and {row["seed"] for row in rows} >= {10**6}
    assert orjson.loads((whole.results / "config.json").read_bytes())["imitation"]["fork_points"] == [0, 0.5]


def test_the_parent_does_not_notice_its_forks(whole, tmp_path):
    places = do(tmp_path, fork_points="none", controls="none", parts="all", align="false")
    ours, theirs = (load_checkpoint(p.weights / "final.pt")["policy_state_dict"] for p in (whole, places))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_children_share_what_they_should(whole):
    """A child trained twice is itself, B = 0 exactly; children differ; at fork 0 they share the initial weights."""
    one, twin, other = (load_pathways(whole.weights / n).weights for n in ("fork1_1.pt", "self_1.pt", "fork2_1.pt"))
    assert all(torch.equal(one[name], twin[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert is_finished(whole.results)
    own = [line for line in load_experiment(whole.results).lines if line.kind == "self"]
    assert len(own) == 7
    for line in own:
        for profile in line.profiles.values():
            assert (profile.barrier.value, profile.barrier.low, profile.barrier.high, line.excess_lpc) == (0, 0, 0, 0)
    config = replace(load_config(whole.results), run=tiny().run | {"lang_encoder": "vocab"})
    learner = ImitationLearner(config, whole)
    parent, first, second = learner.parent(), learner.fork(0, 1), learner.fork(0, 2)
    worlds = []
    for child in (parent, first, second):
        assert torch.equal(child.policy.head.weight, parent.policy.head.weight)
        assert torch.equal(child.lang_proj.weight, parent.lang_proj.weight)
        worlds.append(child.act()[0].steps.obs[0].copy())
        child.close()
    assert not np.array_equal(worlds[0], worlds[1]) and not np.array_equal(worlds[1], worlds[2])


def test_a_frozen_mission_projection_is_the_parents_everywhere(tmp_path):
    learner = ImitationLearner(tiny(train_lang_proj="false"), ExperimentPaths(tmp_path, tmp_path))
    runs = [learner.parent(), learner.independent()]
    assert torch.equal(runs[0].lang_proj.weight, runs[1].lang_proj.weight)
    assert not torch.equal(runs[0].policy.head.weight, runs[1].policy.head.weight)
    for made in runs:
        made.close()


def outcome(places: ExperimentPaths) -> dict[str, bytes]:
    """What must not depend on interruptions: weights, snapshots, rows, distances."""
    files = [*places.weights.iterdir(), *places.results.glob("forks/*.pt"), *places.results.glob("paths/*.json")]
    files += [places.results / ROWS_NAME, places.results / TRAJECTORIES_NAME]
    return {path.name: path.read_bytes().replace(places.results.name.encode(), b"run") for path in files}


@pytest.mark.slow
def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path, monkeypatch, whole):
    """It dies in the parent, in a child, on the trajectories and in a world; each time it goes on."""
    monkeypatch.setattr("mop.training.loop.STATE_INTERVAL_S", 0.0)
    monkeypatch.setattr(ImitationRun, "learn", dying(ImitationRun.learn, (5, 27)))
    monkeypatch.setattr(TrajectoryLoss, "rows", dying(TrajectoryLoss.rows, (9,)))
    monkeypatch.setattr(RolloutReturn, "rows", dying(RolloutReturn.rows, (7,)))
    places, deaths = run_until_it_lives(tmp_path, lambda: do(tmp_path, resume="true"))
    assert deaths == 4 and len(list(tmp_path.rglob("config.json"))) == 1
    assert outcome(places) == outcome(whole)


@pytest.mark.slow
def test_several_processes_end_with_the_same_bytes(tmp_path, whole):
    assert outcome(do(tmp_path, jobs=2)) == outcome(whole)


def planted(folder: Path, whole: ExperimentPaths, height: float) -> Path:
    """A copy of an experiment with a bump of the cross-entropy of a height in the middle of the lines of fork 0."""
    results = folder / "results" / Path(*whole.results.parts[-4:])
    shutil.copytree(whole.results, results)
    path, rows = results / TRAJECTORIES_NAME, []
    for row in map(orjson.loads, path.read_bytes().splitlines()):
        if row["fork"] == 0 and row["kind"] == "fork":
            row["cross_entropy"] = 1.0 + 0.1 * row["episode"] + height * (row["alpha"] == 0.5) + row["alpha"]
            row["lpc"] = 10.0 - 4.0 * (row["alpha"] == 0.5)
        rows.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    path.write_bytes(b"".join(rows))
    return results


def test_a_planted_bump_is_found_with_its_height(tmp_path, whole):
    """B is the height above the chord, whatever the ends; I is against their mean; the rise against the first."""
    experiment = load_experiment(planted(tmp_path, whole, 0.7))
    found = [line for line in experiment.lines if line.key == ("fork", 0.0, "all", False)]
    assert len(found) == 1 and found[0].fork == 0
    assert found[0].main.barrier.value == pytest.approx(0.7, abs=0.05)
    assert found[0].main.rise.value == pytest.approx(1.2, abs=0.1) and found[0].excess_lpc == pytest.approx(-4)
    assert found[0].main.verdict == "barrier" and found[0].main.instability.value == pytest.approx(0.7, abs=0.1)
    lengths = [row["length"] for row in read_rows(experiment.results / TRAJECTORIES_NAME, ()) if row["fork"] == 0]
    share = np.array(lengths[:5]) / np.mean(lengths[:5])
    assert -found[0].main.end_mean == pytest.approx(np.mean(share * (1.5 + 0.1 * np.arange(5))))


def test_a_new_measure_is_one_yield(tmp_path, monkeypatch, whole):
    """What `measures_of_trajectories` yields is in the rows, in the summary, and a panel of the figure."""
    original = imitation.measures_of_trajectories

    def more(forced, ends, labels):
        yield from original(forced, ends, labels)
        yield "error", 1 - np.asarray(forced.accuracy, float)

    monkeypatch.setattr(imitation, "measures_of_trajectories", more)
    results = tmp_path / "results" / Path(*whole.results.parts[-4:])
    shutil.copytree(whole.results, results)
    shutil.copytree(whole.weights, tmp_path / "model_weights" / Path(*whole.results.parts[-4:]))
    (results / TRAJECTORIES_NAME).unlink()
    run(tiny(output_dir=str(tmp_path), resume="true"))
    line = load_experiment(results).lines[0]
    assert line.means["error"] == pytest.approx(1 - line.means["accuracy"])
    assert {row["panel"] for row in values_of(plot_lines([line]))} > {"error", "accuracy", "mean LPC"}


def test_parents_are_pooled_and_drawn(tmp_path, whole):
    """Seeds alone differ: one panel with an interval over parents. The numbers of a figure are those of the table."""
    both = [load_experiment(planted(tmp_path / str(k), whole, height)) for k, height in enumerate((0.5, 0.9))]
    both[1].config.run["seed"] = 6
    groups = pooled_groups(both)
    assert list(groups) == ["BabyAI-GoToObj-v0, lpc_alpha 0"]
    of_all = {line.first.key: line for line in groups["BabyAI-GoToObj-v0, lpc_alpha 0"]}
    line = of_all["fork", 0.0, "all", False]
    assert len(line.lines) == 2 and line.barrier.value == pytest.approx(0.7, abs=0.05)
    assert line.barrier.high > 0.9 and line.barrier.low == 0  # Student's t of two parents
    drawn = [row for row in values_of(plot_alignment(groups)) if row["kind"] == "fork"]
    rows = [row for row in drawn if row["measure"] == "cross_entropy"]
    shown = {(row["fraction"], row["line"] == "aligned"): row["value"] for row in rows}
    assert shown == {(key[1], key[3]): of_all[key].barrier.value for key in of_all if key[::2] == ("fork", "all")}
    assert len(shown) == 4
    assert {row["part"] for row in values_of(plot_parts(groups))} == set(PARTS)
    own = [line for line in both[0].lines if line.fork == 0 and line.kind == "fork"]
    assert len(values_of(plot_lines(own))) == 3 * (7 + 7 + 2 + 7 + 4)  # loss, accuracy, success, LPC, routing


@pytest.mark.slow
def test_commands_tell_and_write(tmp_path, whole, capsys, monkeypatch):
    results = planted(tmp_path, whole, 0.7)
    in_process(analyze.main, "--results_dir", results)
    told = capsys.readouterr().out
    assert "independent" in told and "all, aligned" in told and "barrier" in told
    names = {path.name for path in (results / "fork_analysis").iterdir()}
    figures = {"all_interpolations.png", "instability_over_time.png", "rise_by_part.png", "instability.md"}
    assert names == figures | {f"interp_{of}.png" for of in ("fork_0", "fork_1", "self", "independent")}
    assert {path.name for path in results.glob("*.json")} == {"config.json", "all_forks_results.json", "controls.json"}
    files = [whole.weights / "final.pt", whole.weights / "independent.pt"]
    flags = ("--alpha_points", 3, "--num_eval_episodes", 5, "--out", tmp_path / "compared")
    for _ in range(2):  # the second time nothing is left to do, and it says the same
        in_process(compare.main, *files, *flags)
        assert "distance" in capsys.readouterr().out
    summary = orjson.loads((tmp_path / "compared" / "compare.json").read_bytes())
    assert [line["part"] for line in summary["lines"]] == [*PARTS, "all"]
    assert all(np.isfinite(line["cross_entropy_barrier"]["value"]) for line in summary["lines"])


def test_bad_flags_end_with_one_line(capsys):
    cases = {
        ("--fork_points", "0,1"): "fork_points",
        ("--fork_points", "0,0.01"): "fork",
        ("--task_id", "BabyAI-GoToObi-v0", "--fork_points", "0"): "BabyAI-GoToObi-v0",
        ("--parts", "routers"): "all",
        ("--played_parts", "routers", "--parts", "all"): "routers",
        ("--checkpoint_dir", "x"): "checkpoint_dir",
        ("--num_trajectories", "4"): "--num_trajectories",
    }
    check_refused(capsys, run_mop.main, cases, *TINY_FLAGS)


def test_other_files_are_refused(tmp_path, whole):
    assert "config.json" in refusal(load_experiment, tmp_path)
    first, second = (load_pathways(whole.weights / "final.pt") for _ in range(2))
    for name, other in {"input_encoder": "film", "task_id": "BabyAI-GoToLocal-v0"}.items():
        second.config[name] = other
        assert name in refusal(check_comparable, first, second)
    assert tiny().fork_steps == [0, 3] and len(pairs_of(ImitationLearner(tiny(), whole))) == 4
    assert isinstance(bot_trajectories("BabyAI-GoToObj-v0", None, 1), Trajectories)
