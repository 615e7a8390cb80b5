"""Attribution held against true effects: cases, rank correlations, controls, and the command."""

import numpy as np
import orjson
import pandas as pd
import pytest
import torch
from checks import refusal
from generative_planted import Planted
from scripts import check_refused, in_process, refused

from generative import validate
from generative.attribution.agreement import RANDOM, SHUFFLED, compare, count_outcomes, rank_cases, summarise
from generative.attribution.closed_loop import untrained
from generative.attribution.counterfactuals import Case, Edit, effects, legal_edits, world_at
from generative.attribution.integrated_gradients import (
    MEMORY_ONLY,
    ClosedLoopRollout,
    attribute,
    predict_effects,
    total_of,
)
from generative.attribution.loop_inputs import Place
from generative.attribution.validation import (
    ALL,
    WITHOUT_WORLD,
    Predictor,
    Study,
    ValidationSettings,
    cases_file,
    edit_name,
    measure,
    plan_cases,
)
from generative.domains.babyai.domain import BABYAI
from generative.domains.babyai.scenes import ExactScenes
from generative.domains.babyai.targets import parse_target
from generative.domains.registry import open_scenes
from generative.figures.attribution import plot_agreement

NUM_POINTS = 4


def study_of(recording, policy, targets=("action:chosen", "lpc"), num_controls: int = 0, **changes) -> Study:
    """A study of attribution through the recorded actions, with other untrained policies as controls."""
    scenes, config = open_scenes("exact", recording), recording.config["checkpoint"]["config"]
    predictors = [Predictor("own", lambda episode: policy, scenes, "integrated", False, False)]
    for seed in range(num_controls):
        other = untrained(policy, config, seed)
        predictors.append(
            Predictor(f"control {seed}", lambda episode, other=other: other, scenes, "integrated", True, False)
        )
    changes = {"max_edits": 12, "num_points": NUM_POINTS} | changes
    return Study(recording, policy, predictors, ValidationSettings(data_dir="", of=targets, **changes))


def test_cases_are_drawn_by_a_stream_of_each_episode(recorded):
    recording, _ = recorded
    episodes = recording.episodes(behaviours=["argmax"])[:6]
    places = plan_cases(recording, episodes, 2, (0, 3, 50), seed=1)
    assert places == plan_cases(recording, episodes, 2, (0, 3, 50), seed=1)
    assert places != plan_cases(recording, episodes, 2, (0, 3, 50), seed=2)
    assert [p for p in places if p.episode != episodes[0]] == plan_cases(recording, episodes[1:], 2, (0, 3, 50), seed=1)
    assert all(1 <= p.step < recording.index["num_rows"][p.episode] - 1 and p.lag <= p.step for p in places)
    assert len({(p.episode, p.step) for p in places}) == 12 and {p.lag for p in places} == {0, 3}


def test_a_case_holds_true_effects_beside_predicted_ones(recorded):
    """The true ones are those of the counterfactuals, the predicted ones those of attribution of the same edits."""
    recording, policy = recorded
    study = study_of(recording, policy)
    k = int(recording.episodes(behaviours=["bot"])[0])
    place = Place(k, 6, 2)
    row, episode, encoding = study.measure(place), recording.episode(k), recording.config["encoding"]
    assert orjson.loads(orjson.dumps(row)) == row and row == study.measure(place)
    world = world_at(encoding["task_id"], encoding["max_steps"], episode.seed, episode["action"][:4])
    every, edits = legal_edits(world, study.settings.kinds), [Edit(*edit) for edit in row["edits"]]
    assert len(edits) == 12 < len(every) and set(edits) <= set(every)
    assert row["words"] == [edit_name(world, edit) for edit in edits]
    chosen = int(episode["student"][6])
    targets = [parse_target("action:chosen", policy, chosen=chosen), parse_target("lpc", policy)]
    hidden, lang = torch.from_numpy(np.array(episode["hidden"][4])), torch.from_numpy(np.array(episode.lang))
    actions = episode["action"][4:6].tolist()
    true = effects(policy, Case(world, hidden, lang, actions, edits), targets)
    assert np.allclose(row["acting"], true.acting.T, atol=1e-6) and np.allclose(row["forced"], true.forced.T, atol=1e-6)
    scene = open_scenes("exact", recording).at_world(world)
    simulator = study.predictors[0].scenes.simulator
    loop = ClosedLoopRollout(policy, simulator, scene.begin, lang[None], hidden[None], 2, torch.tensor([[*actions, 0]]))
    changed = scene.edited(edits)
    for name, paths in ((ALL, ()), (WITHOUT_WORLD, (MEMORY_ONLY,))):
        found = attribute(loop, scene.inputs, changed, targets, *paths, num_points=NUM_POINTS)
        expected = torch.stack([total_of(numbers) for numbers in found])
        assert np.allclose(row["predicted"]["own"][name], expected, atol=1e-5)


def test_a_planted_cause_is_the_top_attribution_in_a_real_world_and_nowhere_else():
    """A policy that reads one cell five steps earlier, standing still in a real world with something in that cell.

    At lag 5 the thing there is the only cause, through the memory alone; before, nothing is; earlier, the same thing
    is through the world. All of it as the cloned real world says.
    """
    world = world_at("BabyAI-UnlockPickup-v0", None, 3, [])
    scenes, cell = ExactScenes(BABYAI, {"task_id": "BabyAI-UnlockPickup-v0", "grid_shape": world.codes.shape}), None
    scene = scenes.at_world(world)
    for thing in scene.things:  # a coloured thing in the agent's view
        i, j = 3 + thing.right, 6 - thing.ahead
        if (
            thing.code[1] > 0
            and 0 <= i < 7
            and 0 <= j < 7
            and world.obs[:147].reshape(3, 7, 7)[1, i, j] == thing.code[1]
        ):
            cell, cause = (i, j), thing
    assert cell is not None and cause.code[0] != 2, "this world has something to be seen"
    planted = Planted(cell, delay=5)
    target = parse_target("action:left", planted)
    edits = legal_edits(world, ["remove", "color", "type", "state"])
    sizes = {}
    for lag in (0, 3, 5, 7):
        hidden, lang = torch.full((5,), 1.0), torch.zeros(1)
        true = effects(planted, Case(world, hidden, lang, [6] * lag, edits), [target])
        loop = ClosedLoopRollout(
            planted, scenes.simulator, scene.begin, lang[None], hidden[None], lag, torch.full((1, lag + 1), 6)
        )
        found = predict_effects(loop, scene.inputs, scene.edited(edits), target, num_points=2)
        assert np.allclose(found.total(), true.forced[:, 0], atol=1e-5)
        without = predict_effects(loop, scene.inputs, scene.without(scene.things), target, num_points=2)
        sizes |= {(lag, thing): abs(float(value)) for thing, value in zip(scene.things, without.total(), strict=True)}
        for path in ("memory", "world", "mixed"):
            is_it = path == {5: "memory", 7: "mixed"}.get(lag)
            assert (found.total(path).abs().max() > 0.1) == is_it, (lag, path)
    top = [lag for (lag, thing), size in sizes.items() if size > 1e-5]
    assert top == [5, 7] and all(sizes[lag, cause] > 0.1 for lag in top) and len(sizes) == 4 * len(scene.things)


def row_of(true, *, episode=0, lag=0, forced=None, **predicted) -> dict:
    """A row of one target, with the same effects in both truths."""
    return {
        "episode": episode, "step": 3, "lag": lag, "targets": ["lpc"], "acting": [list(true)],
        "forced": [list(true if forced is None else forced)],
        "predicted": {name: {ALL: [list(values)]} for name, values in predicted.items()},
    }  # fmt: skip


def test_rank_correlations_of_known_cases():
    true = [0.0, 1.0, 2.0, -5.0, 3.0]
    rows = [row_of(true, same=np.array(true) ** 3, other=-np.array(true), none=np.zeros(5), tied=[0, 1, 1, -1, 1])]
    ranked = rank_cases(rows).set_index(["truth", "predictor"])
    assert ranked.loc[("acting", "same"), "rho"] == pytest.approx(1)
    assert ranked.loc[("forced", "other"), "rho"] == pytest.approx(-1)
    assert ranked.loc[("acting", "same"), "is_top"] == 1
    assert ranked.loc[("acting", "none"), "rho"] == 0 and bool(ranked.loc[("acting", "none"), "is_constant"])
    assert ranked.loc[("acting", "none"), "is_top"] == pytest.approx(0.2)
    assert 0.8 < ranked.loc[("acting", "tied"), "rho"] < 1
    assert {RANDOM, SHUFFLED} <= set(ranked.index.get_level_values("predictor")) and len(ranked) == 2 * 6
    assert compare(np.array([1.0, 1, 2]), np.array([1.0, 1, 2]))["rho"] == pytest.approx(1), "ties have mean ranks"


def test_what_cannot_be_ranked_is_counted_and_left_out():
    none = None  # the episode was over before the step
    rows = [
        row_of([1, 2, 3, 4, none], way=[1, 2, 3, 4, 99]),
        row_of([0, 0, 0, 0], way=[1, 2, 3, 4], episode=1),
        row_of([1, 2, 3, none], way=[1, 2, 3, 4], episode=2),
        {"episode": 3, "step": 3, "lag": 0, "targets": ["lpc"], "acting": [], "forced": [], "predicted": {}},
    ]
    ranked = rank_cases(rows)
    counts = count_outcomes(ranked).loc["acting"]
    assert counts.to_dict() == {"no effect": 1, "ranked": 1, "too few edits": 2, "num_edits": 11, "num_over": 2}
    summary = summarise(ranked).set_index(["truth", "predictor"]).loc[("acting", "way")]
    assert summary["rho"] == pytest.approx(1) and summary["cases"] == 1 and np.isnan(summary["low"])


def test_controls_find_nothing_where_a_true_predictor_does():
    rng = np.random.default_rng(0)
    rows = []
    for episode in range(120):
        true = rng.standard_normal(10)
        rows.append(row_of(true, episode=episode, way=true + rng.standard_normal(10)))
    summary = summarise(rank_cases(rows)).set_index(["truth", "predictor"])
    assert summary.loc[("acting", "way"), "low"] > 0.5
    for name in (RANDOM, SHUFFLED):
        found = summary.loc[("acting", name)]
        assert abs(found["rho"]) < 0.12 and found["high"] - found["low"] < 0.2, name
    by_lag = summarise(rank_cases(rows), ("truth", "predictor", "lag"))
    figure = plot_agreement(by_lag, "title")
    drawn = {c.get_label(): c.lines[0].get_ydata() for c in figure.axes[0].containers}
    assert drawn["way"] == pytest.approx([summary.loc[("acting", "way"), "rho"]]) and set(drawn) == {
        "way",
        RANDOM,
        SHUFFLED,
    }


@pytest.mark.parametrize("loops", [("own", "recorded"), ("recorded",), ("own",)])
def test_the_figure_is_of_the_recorded_actions_where_they_were_asked_for(loops):
    """In both panels, as the tables lead with them."""
    rows = []
    for episode in range(6):
        true = np.arange(5) + episode
        values = {"own": -true, "recorded": true}
        rows.append(row_of(true, episode=episode, **{f"exact, {loop} actions": values[loop] for loop in loops}))
    figure = plot_agreement(summarise(rank_cases(rows), ("truth", "predictor", "lag")), "title")
    for ax in figure.axes:
        drawn = {c.get_label(): float(c.lines[0].get_ydata()[0]) for c in ax.containers}
        assert set(drawn) == {"exact", RANDOM, SHUFFLED}
        assert drawn["exact"] == pytest.approx(1 if "recorded" in loops else -1)


@pytest.mark.slow
def test_attribution_ranks_true_effects_and_that_of_other_policies_and_shuffled_effects_do_not(recorded):
    """The acceptance test of controls, with real worlds: random-weight policies and shuffled labels give nothing."""
    recording, policy = recorded
    study = study_of(recording, policy, ("action:forward", "lpc", "routing:0.1"), num_controls=4)
    places = plan_cases(recording, recording.episodes(behaviours=["bot"])[:12], 1, (1,), seed=0)
    ranked = rank_cases([study.measure(place) for place in places])
    means = summarise(ranked).set_index(["truth", "predictor"])["rho"].loc["forced"]
    assert (ranked["outcome"] == "ranked").sum() > 250
    assert means["own"] > 0.8 and means[f"own, {WITHOUT_WORLD}"] < means["own"] - 0.2
    controls = [means[f"control {seed}"] for seed in range(4)]
    assert abs(np.mean(controls)) < 0.2 and max(map(abs, (means[SHUFFLED], means[RANDOM]))) < 0.2


def test_a_line_of_something_else_is_no_row(tmp_path):
    row = row_of([0.0, 1, 2, -5, None], way=[1, 2, 3, 4, 5])
    empty = row | {"acting": [], "forced": [], "predicted": {}}
    cases = cases_file(tmp_path / "cases.jsonl")
    cases.append(row, empty)
    assert cases.read() == [row, empty]
    cases.append({name: value for name, value in row.items() if name != "lag"})
    assert "line 3" in refusal(cases.read)
    for wrong in ({"targets": None}, {"acting": [["x"] * 5]}, {"predicted": {"a": {"all": 7}}}, {"episode": "1"}):
        cases.path.write_bytes(orjson.dumps(row | wrong) + b"\n")
        assert "line 1" in refusal(cases.read)


def flags_of(recording, out) -> list:
    flags = ["--data_dir", recording.folder, "--split", "train", "--policies", "bot", "--num_episodes", 5]
    return [*flags, "--steps_per_episode", 1, "--lags", "0,1", "--num_points", 2, "--max_edits", 6, "--out", out]


@pytest.fixture(scope="module")
def finished(recorded, tmp_path_factory):
    """The folder of a finished validation."""
    out = tmp_path_factory.mktemp("validate") / "out"
    assert in_process(validate.main, *flags_of(recorded[0], out)) == 0
    return out


def test_the_command_writes_what_it_says(finished):
    names = {"config.json", "cases.jsonl", "agreement.csv", "agreement.md", "agreement.png"}
    assert {path.name for path in finished.iterdir()} == names
    table = pd.read_csv(finished / "agreement.csv")
    assert set(table["truth"]) == {"acting", "forced"} and set(table["target"]) == {"all", "action:chosen", "lpc"}
    predictors = set(table["predictor"])
    assert len(predictors) == 2 * (2 * 2 + 1) + 2 and "exact, untrained policies, own actions" in predictors
    config = orjson.loads((finished / "config.json").read_bytes())
    assert config["num_cases"] == len((finished / "cases.jsonl").read_bytes().splitlines()) == 10
    assert config["fidelity"] == ["exact simulator: Minigrid's own rules"]


def test_a_killed_validation_goes_on_to_the_same_bytes(recorded, finished, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    whole = (finished / "cases.jsonl").read_bytes()
    for name in ("config.json", "cases.jsonl"):
        (out / name).write_bytes((finished / name).read_bytes())
    lines = whole.splitlines(keepends=True)
    (out / "cases.jsonl").write_bytes(b"".join(lines[:8]) + lines[8][:50])
    assert in_process(validate.main, *flags_of(recorded[0], out)) == 0
    assert (out / "cases.jsonl").read_bytes() == whole
    assert (out / "agreement.csv").read_bytes() == (finished / "agreement.csv").read_bytes()
    assert str(out) in refused(capsys, validate.main, *flags_of(recorded[0], out), "--seed", 5)
    assert "other cases" in refusal(measure, None, [Place(0, 1, 0)] * 10, out / "cases.jsonl")


def test_bad_input_is_one_line_and_code_2(recorded, tmp_path, capsys):
    cases = {
        ("--lags", "0,x"): "--lags",
        ("--of", "lpc,"): "--of",
        ("--of", "dance"): "dance",
        ("--simulators", "exact,nowhere"): "nowhere",
        ("--split", "test", "--policies", "random"): "--split test",
    }
    check_refused(capsys, validate.main, cases, *flags_of(recorded[0], tmp_path / "out"))
    assert not list(tmp_path.glob("out/*"))
