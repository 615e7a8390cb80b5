"""Attribution of recorded steps: scenes, explanations, their files and pictures, and the command."""

import numpy as np
import pandas as pd
import pytest
import torch
from checks import refusal
from scripts import check_refused, in_process, refused

from generative import saliency, validate
from generative.attribution.closed_loop import EVERY_PATH
from generative.attribution.common_targets import recorded_values
from generative.attribution.counterfactuals import Case, clone, edit_world, effects, legal_edits, world_at
from generative.attribution.explanations import PATHS, short_number
from generative.attribution.integrated_gradients import NO_PATH, attribute, predict_effects, total_of
from generative.attribution.loop_inputs import VIEW, WORLD, LearnedScenes, Place, closed_loop_from, hidden_at
from generative.attribution.recorded_steps import amounts_by_kind, explain, sizes_by_lag
from generative.domains import registry
from generative.domains.babyai.causes import WorldExplanation, views_without
from generative.domains.babyai.domain import BABYAI
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.scenes import ExactScenes, true_contributions
from generative.domains.babyai.targets import parse_target
from generative.domains.registry import open_scenes
from generative.figures.attribution import plot_horizon, plot_map, plot_strip
from generative.representations.storage import Directions
from generative.simulators.relaxation import discretise, to_simplex
from generative.simulators.world_model import WorldModel
from mop.artifacts.records import write_record
from mop.envs.geometry import EMPTY


def places_of(recording, num: int, behaviour="bot", horizon=6) -> list[Place]:
    """Steps of some episodes in which more happens than an untrained policy makes happen."""
    numbers = [k for k in recording.episodes(behaviours=[behaviour]) if recording.index["num_rows"][k] > horizon + 2]
    return [Place(int(k), int(recording.index["num_rows"][k]) - 2, horizon) for k in numbers[:num]]


def test_a_scene_begins_as_it_was_recorded_and_the_loop_repeats_the_recording(recorded):
    """In the exact simulator, with the recorded actions, from both kinds of scene: the view, the memory, the target."""
    recording, policy = recorded
    scenes, target = open_scenes("exact", recording), parse_target("lpc", policy)
    cases = 0
    for place in places_of(recording, 3):
        episode, start = recording.episode(place.episode), place.step - place.lag
        recorded_target = recorded_values(episode, target, policy.policy.expert_hidden_sizes)[place.step]
        for kind in (WORLD, VIEW):
            scene = scenes.at(episode, start, kind)
            memory = hidden_at(policy, policy, episode, start, to_simplex)
            loop = closed_loop_from(policy, scenes, scene, episode, memory, place, is_own=False)
            (value,) = loop.values(scene.inputs, [target])
            assert torch.allclose(value, recorded_target, atol=1e-4)
            state, first_view = scene.begin(scene.inputs)
            seen = discretise(scenes.simulator.view(state) if first_view is None else first_view)[0].numpy()
            assert np.array_equal(seen, episode["obs"][start])
            cases += 1
        watched = hidden_at(FrozenPolicy(policy.policy, None, None), policy, episode, start, to_simplex)
        assert torch.allclose(watched, memory, atol=1e-5), "another policy of the same weights remembers the same"
    assert cases == 6


def test_a_scene_without_a_thing_is_that_of_the_edited_world(recorded):
    recording, _ = recorded
    scenes, cases = ExactScenes(BABYAI, recording.config["encoding"]), 0
    for place in places_of(recording, 4):
        episode, encoding = recording.episode(place.episode), recording.config["encoding"]
        world = world_at(encoding["task_id"], encoding["max_steps"], episode.seed, episode["action"][: place.step])
        by_world, by_row = scenes.at_world(world), scenes.at(episode, place.step, WORLD)
        assert by_world.things == by_row.things and all(
            torch.equal(part, by_row.inputs[name]) for name, part in by_world.inputs.items()
        )
        removals = legal_edits(world, ["remove"])
        names = {(thing.x, thing.y): thing for thing in by_row.things if thing.code[0] not in (2, 4)}
        assert {(edit.x, edit.y) for edit in removals} == set(names)
        without = by_row.without([names[edit.x, edit.y] for edit in removals])
        edited = by_world.edited(removals)
        assert all(torch.equal(part, without[name]) for name, part in edited.items())
        for number, edit in enumerate(removals):
            copy = clone(world)
            edit_world(copy, edit)
            state, _ = by_row.begin({name: part[number : number + 1] for name, part in without.items()})
            assert np.array_equal(discretise(scenes.simulator.view(state))[0].numpy(), copy.obs)
            cases += 1
    assert cases >= 8


def test_a_thing_that_is_carried_is_a_cause_in_both_kinds_of_scene(recorded):
    recording, _ = recorded
    scenes = ExactScenes(BABYAI, recording.config["encoding"])
    k = next(k for k in recording.episodes(behaviours=["bot"]) if (recording.episode(k)["carried"] != EMPTY).any())
    episode = recording.episode(k)
    step = int(np.argmax(episode["carried"] != EMPTY))
    for kind in (WORLD, VIEW):
        scene = scenes.at(episode, step, kind)
        (thing,) = [thing for thing in scene.things if thing.is_carried]
        state, view = scene.begin(scene.without([thing]))
        seen = scenes.simulator.view(state) if view is None else view
        expected = views_without(
            episode["obs"][step], [one for one in scenes.at(episode, step, VIEW).things if one.is_carried]
        )
        assert np.array_equal(discretise(seen).numpy(), expected) and expected[0, -1] == 0


def test_removing_what_attribution_finds_changes_the_real_world_alike(recorded):
    """A check of signs and units: one step ahead in the exact simulator, predictions rank and sign the true effects."""
    recording, policy = recorded
    scenes, target = open_scenes("exact", recording), parse_target("action:forward", policy)
    true, predicted = [], []
    for place in places_of(recording, 6, horizon=1):
        episode, start, encoding = recording.episode(place.episode), place.step - 1, recording.config["encoding"]
        world = world_at(encoding["task_id"], encoding["max_steps"], episode.seed, episode["action"][:start])
        edits, scene = legal_edits(world, ["remove", "state"]), scenes.at_world(world)
        hidden, lang = torch.from_numpy(np.array(episode["hidden"][start])), torch.from_numpy(np.array(episode.lang))
        case = Case(world, hidden, lang, episode["action"][start : place.step].tolist(), edits)
        found = effects(policy, case, [target])
        loop = closed_loop_from(policy, scenes, scene, episode, hidden[None], place, is_own=False)
        (numbers,) = attribute(loop, scene.inputs, scene.edited(edits), [target])
        true.append(found.forced[:, 0])
        predicted.append(total_of(numbers).numpy())
    true, predicted = np.concatenate(true), np.concatenate(predicted)
    assert len(true) >= 12 and np.corrcoef(true, predicted)[0, 1] > 0.9
    large = np.abs(true) > 0.2 * np.abs(true).max()
    assert (np.sign(true[large]) == np.sign(predicted[large])).all()


def test_in_a_learned_simulator_what_is_seen_goes_to_its_state_too(recorded):
    """An untrained world model: the world's path is there from lag 1 on, and begins as `begin` of the same frames."""
    recording, policy = recorded
    encoding = recording.config["encoding"]
    torch.manual_seed(0)
    model = (
        WorldModel(BABYAI, BABYAI.presets["small"], encoding["hidden_size"], encoding["lang_dim"])
        .eval()
        .requires_grad_(False)
    )
    scenes, target = LearnedScenes(model, 3, encoding), parse_target("action:forward", policy)
    place = places_of(recording, 1)[0]
    episode, start = recording.episode(place.episode), place.step - 2
    scene = scenes.at(episode, start, VIEW)
    state, view = scene.begin(scene.inputs)
    frames = to_simplex(np.array(episode["obs"][start - 2 : start + 1]))[None]
    actions = torch.nn.functional.one_hot(torch.from_numpy(episode["action"][start - 2 : start].astype(int)), 7).float()
    begun = model.observe(frames, actions[None], torch.from_numpy(np.array(episode.lang))[None])
    assert all(torch.allclose(part, begun[name], atol=1e-5) for name, part in state.items())
    assert torch.equal(view, frames[:, -1])
    for lag in (0, 2):
        memory = hidden_at(policy, policy, episode, start, to_simplex)
        loop = closed_loop_from(
            policy, scenes, scene, episode, memory, Place(place.episode, start + lag, lag), is_own=False
        )
        found = predict_effects(loop, scene.inputs, scene.without(scene.things), target, num_points=4)
        assert (found.total("world").abs().max() > 0) == (lag > 0) and len(found.after) == len(scene.things)
    first = scenes.at(episode, 0, VIEW)
    assert len(first.begin(first.inputs)[0]["mission"]) == 1, "the first step of an episode has no action before it"


def test_a_cut_loop_has_no_cause_in_a_recorded_world(recorded):
    """With both paths cut nothing that was there k >= 1 steps earlier counts; at k = 0 the cut changes nothing."""
    recording, policy = recorded
    scenes, target = open_scenes("exact", recording), parse_target("lpc", policy)
    place = places_of(recording, 1)[0]
    episode = recording.episode(place.episode)
    for lag in (0, 3):
        scene = scenes.at(episode, place.step - lag, WORLD)
        memory = hidden_at(policy, policy, episode, place.step - lag, to_simplex)
        loop = closed_loop_from(policy, scenes, scene, episode, memory, place._replace(lag=lag), is_own=True)
        changed = scene.without(scene.things)
        (whole,), (cut,) = (attribute(loop, scene.inputs, changed, [target], paths) for paths in (EVERY_PATH, NO_PATH))
        assert total_of(whole).abs().max() > 0
        assert torch.equal(total_of(whole), total_of(cut)) if lag == 0 else total_of(cut).abs().max() == 0


def test_a_learned_simulator_of_another_policy_is_refused(recorded, monkeypatch):
    recording, _ = recorded
    encoding = recording.config["encoding"]
    model = WorldModel(BABYAI, BABYAI.presets["small"], encoding["hidden_size"], encoding["lang_dim"])
    config = {"task_id": encoding["task_id"], "agent": {"sha256": recording.config["checkpoint"]["sha256"]}}
    config |= {"settings": {"num_initializing_steps": 3}}
    monkeypatch.setattr(registry, "load_simulator", lambda path: (model, config))
    scenes = open_scenes("simulators/one", recording)
    assert scenes.simulator is model and scenes.kinds == (VIEW,)
    config["agent"]["sha256"] = "0" * 64
    refusal(open_scenes, "simulators/one", recording)


@pytest.mark.parametrize(
    "command, flags",
    [
        (saliency, ["--horizon", 1, "--num_points", 1, "--split", "train"]),
        (validate, ["--lags", 0, "--num_points", 1, "--split", "train", "--num_episodes", 2, "--max_edits", 4]),
    ],
)
def test_a_folder_is_of_the_directions_that_it_was_made_with(recorded, tmp_path, capsys, command, flags):
    """Another file in the same --out is refused; without --directions, none is among the settings."""
    recording, policy = recorded
    size, names = policy.policy.hidden_size, [tmp_path / "one.npz", tmp_path / "two.npz"]
    for number, name in enumerate(names):
        units = np.eye(size, dtype=np.float32)[number : number + 1]
        found = Directions(
            units, units, np.array(["all.pca.0"]), np.array(["all"]), np.array(["pca"]), np.zeros(size, np.float32),
            np.eye(size, dtype=np.float32), np.array(["all"]), np.array([[0, size]]),
            np.array(recording.config["checkpoint"]["sha256"]),
        )  # fmt: skip
        write_record(name, found)
    flags = ["--data_dir", recording.folder, "--of", "direction:0", "--out", tmp_path / "out", *flags]
    for _ in range(2):
        assert in_process(command.main, *flags, "--directions", names[0]) == 0
    assert str(tmp_path / "out") in refused(capsys, command.main, *flags, "--directions", names[1])


@pytest.fixture(scope="module")
def explanation(recorded):
    recording, policy = recorded
    place = places_of(recording, 1)[0]
    target = parse_target("routing:1.1", policy)
    scenes, here = open_scenes("exact", recording), place._replace(lag=4)
    return explain(BABYAI, policy, scenes, recording, here, target, WORLD, num_points=4, is_own=False)


def test_an_explanation_holds_every_thing_at_every_lag(recorded, explanation):
    recording, policy = recorded
    episode, step = recording.episode(int(explanation.episode)), int(explanation.step)
    assert explanation.value == pytest.approx(
        float(episode["routing"][step, len(policy.policy.expert_hidden_sizes[0]) + 1])
    )
    assert np.allclose(explanation.simulated, explanation.value, atol=1e-5)
    for lag in range(5):
        grid = episode["grid"][step - lag]
        num_carried = int(episode["carried"][step - lag] != EMPTY)
        assert (explanation.lag == lag).sum() == ((grid & 255) != EMPTY).sum() + num_carried
        assert explanation.maps(None, lag).sum() == pytest.approx(
            explanation.total[explanation.lag == lag].sum(), abs=1e-5
        )
    assert explanation.attribution.shape == (len(explanation.lag), len(PATHS), 3)
    assert np.abs(explanation.by_path[explanation.lag == 0, 1:]).max() == 0
    assert np.abs(explanation.by_path[explanation.lag > 0, 0]).max() == 0


def test_what_can_be_removed_has_its_true_contribution_beside_it(recorded, explanation):
    """The same in both kinds of scene: in a view, the thing is found again in the world."""
    recording, policy = recorded
    place = Place(int(explanation.episode), int(explanation.step), 2)
    scenes, target = open_scenes("exact", recording), parse_target("routing:1.1", policy)
    is_there = np.isfinite(explanation.contribution[:, 1])
    assert {explanation.thing(row).kind for row in np.flatnonzero(is_there)} >= {"box"}
    assert not {explanation.thing(row).kind for row in np.flatnonzero(is_there)} & {"wall", "locked door", "open door"}
    assert is_there.sum() >= 5
    here = is_there & (explanation.lag == 2)
    episode, start, encoding = recording.episode(place.episode), place.step - 2, recording.config["encoding"]
    world = world_at(encoding["task_id"], encoding["max_steps"], episode.seed, episode["action"][:start])
    edits = {(edit.x, edit.y): edit for edit in legal_edits(world, ["remove"])}
    things = [explanation.thing(row) for row in np.flatnonzero(here)]
    edits = [edits[thing.x, thing.y] for thing in things]
    hidden, lang = torch.from_numpy(np.array(episode["hidden"][start])), torch.from_numpy(np.array(episode.lang))
    case = Case(world, hidden, lang, episode["action"][start : place.step].tolist(), edits)
    true = effects(policy, case, [target])
    assert np.allclose(explanation.contribution[here, 1], -true.forced[:, 0])
    scene = scenes.at(episode, start, VIEW)
    seen = scene.things
    by_view = true_contributions(policy, recording, place, scene, hidden, target)
    known = {(thing.x, thing.y): value for thing, value in zip(things, explanation.contribution[here, 1], strict=True)}
    pairs = [
        (value, known[thing.place_in_world(world.position, world.direction)])
        for thing, value in zip(seen, by_view[:, 1], strict=True)
        if np.isfinite(value)
    ]
    assert pairs and all(value == pytest.approx(other) for value, other in pairs)


def test_the_largest_causes_are_told_in_words(explanation):
    top = explanation.top(5)
    sizes = np.abs(explanation.total)
    assert len(top) == 5 and sizes[top].tolist() == sorted(sizes, reverse=True)[:5]
    sentences = list(explanation.sentences(5))
    assert len(sentences) == 5
    for row, sentence in zip(top, sentences, strict=True):
        assert (
            str(explanation.thing(row)) in sentence and short_number(float(explanation.total[row]), 3, "+") in sentence
        )
        assert ("direct" in sentence) == (explanation.lag[row] == 0)


def test_an_explanation_comes_back_from_its_file(explanation, tmp_path):
    write_record(tmp_path / "one.npz", explanation)
    again = WorldExplanation.load(tmp_path / "one.npz")
    assert np.array_equal(again.attribution, explanation.attribution) and str(again.mission) == str(explanation.mission)
    (tmp_path / "two.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:100])
    refusal(WorldExplanation.load, tmp_path / "two.npz")


def test_pictures_show_the_attribution_of_each_cell(explanation):
    figure = plot_map(explanation, lag=2)
    drawn = figure.axes[1].images[1].get_array()
    assert np.allclose(drawn, explanation.maps(None, 2).T)
    assert np.array_equal(figure.axes[0].images[0].get_array(), explanation.picture(2))
    strip = plot_strip(explanation)
    panels = [ax for ax in strip.axes if len(ax.images) == 2]
    assert len(panels) == 4 * 5
    for ax, lag in zip(panels[5:10], (4, 3, 2, 1, 0), strict=True):
        assert np.allclose(ax.images[1].get_array(), explanation.maps(PATHS.index("memory"), lag).T)
    curve = plot_horizon(sizes_by_lag([explanation, explanation]), amounts_by_kind([explanation]))
    total = np.abs(explanation.by_path[explanation.lag == 3]).sum(0)
    lines = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in curve.axes[0].lines}
    assert lines["memory"][3] == pytest.approx(total[PATHS.index("memory")], rel=1e-5) and set(lines["direct"]) == {0}


@pytest.mark.slow
def test_the_command_writes_what_it_says_and_goes_on(recorded, tmp_path, capsys):
    recording, _ = recorded
    flags = ["--data_dir", recording.folder, "--of", "lpc", "--horizon", 1, "--num_points", 2, "--split", "train"]
    flags += ["--num_episodes", 2, "--out", tmp_path / "out"]
    assert in_process(saliency.main, *flags) == 0
    told = capsys.readouterr().out
    assert told.count("## lpc at step") == 2 and "exact simulator" in told and "through memory" in told
    files = {path.name for path in (tmp_path / "out").iterdir()}
    npz = sorted(name for name in files if name.endswith(".npz"))
    assert len(npz) == 2 and len(files) == 7 + 3 * 2
    assert files >= {"config.json", "causes.csv", "checked.csv", "kinds.csv", "sizes.csv", "horizon.png"}
    causes, checked = (pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("causes", "checked"))
    assert 0 < len(checked) == causes["true_forced"].notna().sum() < len(causes) and checked["value"].notna().all()
    sizes = pd.read_csv(tmp_path / "out" / "sizes.csv")
    assert len(sizes) == 2 * len(PATHS) and sizes.groupby("lag")["share"].sum().tolist() == pytest.approx([1, 1])
    found = WorldExplanation.load(tmp_path / "out" / npz[0])
    episode = recording.episode(int(found.episode))
    assert episode.behaviour == "argmax" and episode["lpc"][: len(episode["action"]) - 1].argmax() == found.step
    before = (tmp_path / "out" / npz[0]).read_bytes()
    (tmp_path / "out" / npz[0]).unlink()
    stamp = (tmp_path / "out" / npz[1]).stat().st_mtime_ns
    assert in_process(saliency.main, *flags) == 0
    assert (tmp_path / "out" / npz[0]).read_bytes() == before, "the same bytes again"
    assert (tmp_path / "out" / npz[1]).stat().st_mtime_ns == stamp, "what is there is kept"
    assert str(tmp_path / "out") in refused(capsys, saliency.main, *flags, "--method", "gradient")


def test_bad_input_is_one_line_and_code_2(recorded, tmp_path, capsys):
    cases = {
        ("--of", "routing:9.9"): "layers 0 to 1",
        ("--of", "direction:1"): "--directions",
        ("--of", "happiness"): "happiness",
        ("--episode", "99999"): "episodes 0 to",
        ("--episode", "0", "--step", "9999"): "steps 0 to",
        ("--simulator", "nowhere"): "nowhere",
        ("--policy", "random"): "--split",
        ("--data_dir", tmp_path): str(tmp_path),
    }
    check_refused(capsys, saliency.main, cases, "--data_dir", recorded[0].folder, "--out", tmp_path / "out")
