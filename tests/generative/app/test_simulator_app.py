"""The page of the simulator: numbers by hand, the answer in words, as a script, a learned simulator, in a browser."""

import csv
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from browser import Page, opened, served
from checks import refusal
from generative_data import record_tiny, tiny_checkpoint
from scripts import PATIENCE_S, REPOSITORY, run_script_here, the_error_line

from generative import fidelity
from generative.app import answer, catalog, page
from generative.app.computed import NUM_POINTS
from generative.app.state import OWN, RECORDED, Choices, PageState, target_names
from generative.attribution.counterfactuals import Case, Edit, effects, plain_code, world_at
from generative.attribution.explanations import PATHS
from generative.attribution.integrated_gradients import ClosedLoopRollout, predict_effects
from generative.attribution.loop_inputs import WORLD
from generative.domains.babyai.domain import BABYAI
from generative.domains.babyai.scenes import ExactScenes
from generative.domains.babyai.targets import parse_target
from generative.recordings.format import open_recording
from generative.simulators.world_model import WorldModel
from mop.apps.elements import View
from mop.artifacts.checkpoints import save_checkpoint
from mop.common.cli import parse
from mop.common.errors import InputError
from mop.envs.geometry import EMPTY
from mop.plotting.hover import boxes_of, values_of

APP = "simulator_viz.py"
RECORDED_AT = "recordings/tiny"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a tiny recording, recordings/tiny, and two simulators, of its policy and of another one."""
    root = tmp_path_factory.mktemp("simulator")
    recording = record_tiny(tiny_checkpoint(root / "checkpoints"), root / "recordings" / "tiny")
    write_simulator(root / "simulators" / "untrained", recording, recording.config["checkpoint"]["sha256"])
    write_simulator(root / "simulators" / "of_another", recording, "0" * 64)
    return root


def write_simulator(folder: Path, recording, sha256: str) -> None:
    """An untrained world model."""
    encoding = recording.config["encoding"]
    config = {"kind": "world_model", **{name: encoding[name] for name in ("task_id", "lang_dim", "hidden_size")}}
    config |= {"sizes": BABYAI.presets["small"], "settings": {"num_initializing_steps": 2, "num_sim_steps": 4}}
    config |= {"recording": {"path": RECORDED_AT}, "num_initializing_steps": 2, "agent": {"path": "", "sha256": sha256}}
    torch.manual_seed(0)
    weights = WorldModel(BABYAI, config["sizes"], config["hidden_size"], config["lang_dim"]).state_dict()
    folder.mkdir(parents=True)
    save_checkpoint(folder / "checkpoint_final.pt", {"policy_state_dict": weights, "config": config})


@pytest.fixture(scope="module")
def recording(place):
    return open_recording(place / "recordings" / "tiny")


@pytest.fixture
def state(recording) -> PageState:
    """A moment in the middle of an episode in which the policy acts."""
    k = catalog.first_episode(recording)
    return PageState(recording, Choices(k, 6, horizon=3, num_sim_steps=4))


@pytest.fixture
def learned(place, state) -> PageState:
    """The same, in a learned simulator."""
    return chosen(state, simulator=(place / "simulators" / "untrained").as_posix())


def chosen(state: PageState, **changes) -> PageState:
    return PageState(state.recording, replace(state.choices, **changes))


def long_episode(recording, behaviour: str) -> int:
    ks = recording.episodes(behaviours=[behaviour])
    return int(ks[recording.index["num_rows"][ks].argmax()])


def test_episodes_are_listed_and_the_first_is_worth_seeing(recording):
    rows = catalog.list_episodes(recording)
    assert rows["episode"].tolist() == list(range(len(recording)))
    for row in rows.to_dict("records"):
        episode = recording.episode(row["episode"])
        assert (row["who acts"], row["split"], row["mission"]) == (episode.behaviour, episode.split, episode.mission)
        assert row["steps"] == catalog.num_steps_of(episode)
        assert row["outcome"] == ("succeeded" if episode.success else "failed")
    first = recording.episode(catalog.first_episode(recording))
    assert first.behaviour == "argmax"
    step = catalog.first_step(first)
    assert step >= 4 and first["lpc"][step] == first["lpc"][4:-1].max()


def test_recordings_are_found_beside_the_one_that_is_asked_for(place, monkeypatch):
    monkeypatch.chdir(place)
    assert catalog.find_recordings(None) == {"tiny": "recordings/tiny"} == catalog.find_recordings("recordings/tiny")
    for nowhere in (None, "elsewhere"):
        monkeypatch.chdir(place / "simulators")
        assert "--checkpoint" in refusal(catalog.find_recordings, nowhere)
    monkeypatch.chdir(place)
    names = catalog.find_simulators(None)
    assert [*names.values()] == ["exact", "simulators/of_another", "simulators/untrained"]


def test_a_small_recording_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(catalog.SMALL, "num_steps", 60)
    folder = catalog.record_small(str(tmp_path / "recordings"))
    assert len(open_recording(folder)) >= 5 and folder.endswith("recordings/UnlockPickup")
    assert [*catalog.find_recordings(str(tmp_path / "recordings")).values()] == [folder]


def test_causes_are_minus_the_effects_of_absence_by_path(state):
    state = chosen(state, target="routing:0.2")
    episode, explanation = state.episode, state.explanation
    scenes, policy = ExactScenes(BABYAI, state.recording.config["encoding"]), policy_of(state)
    compared = 0
    for lag in range(4):
        step = state.step - lag
        scene = scenes.at(episode, step, WORLD)
        things = [thing for thing in scene.things if thing.kind != "wall"]
        actions = torch.from_numpy(episode["action"][step : state.step + 1].astype(np.int64))[None]
        hidden, lang = torch.from_numpy(episode["hidden"][step].copy())[None], torch.from_numpy(episode.lang)[None]
        loop = ClosedLoopRollout(policy, scenes.simulator, scene.begin, lang, hidden, lag, actions)
        target = parse_target("routing:0.2", policy)
        found = predict_effects(loop, scene.inputs, scene.without(things), target, num_points=NUM_POINTS)
        rows = np.flatnonzero(explanation.lag == lag)
        assert [explanation.thing(row) for row in rows] == things and len(things) >= 3
        for path, values in zip(PATHS, explanation.by_path[rows].T, strict=True):
            np.testing.assert_allclose(values, -found.total(path).numpy(), atol=1e-6)
        compared += len(rows)
    assert compared >= 12 and np.abs(explanation.total).max() > 0
    drawn = {(row["step"], row["cause"]): row["total"] for row in values_of(page.draw_why(state))}
    assert len(drawn) == compared
    for row, total in enumerate(explanation.total.tolist()):
        assert drawn[6 - explanation.lag[row], str(explanation.thing(row))] == pytest.approx(total)


def policy_of(state: PageState):
    from generative.app.computed import open_policy

    return open_policy(state.recording, None)


@pytest.mark.parametrize("actions", [OWN, RECORDED])
def test_the_answer_names_what_matters_in_truth(state, actions):
    """The amounts in the sentence are those of a cloned world without the thing."""
    state = chosen(state, actions=actions)
    episode, encoding, explanation = state.episode, state.recording.config["encoding"], state.explanation
    target, lang = parse_target(state.target_word, policy_of(state)), torch.from_numpy(episode.lang)
    amounts, compared = answer.amounts(state), 0
    for row in range(len(explanation.lag)):
        thing, start = explanation.thing(row), state.step - int(explanation.lag[row])
        if not np.isfinite(explanation.contribution[row]).all():
            assert amounts[row] == explanation.total[row]
            continue
        world = world_at(encoding["task_id"], encoding["max_steps"], episode.seed, episode["action"][:start])
        code = world.carried if thing.is_carried else world.codes[thing.y, thing.x]
        edit = Edit(thing.x, thing.y, plain_code(code), EMPTY)
        hidden = torch.from_numpy(episode["hidden"][start].copy())
        case = Case(world, hidden, lang, episode["action"][start : state.step].tolist(), [edit])
        found = effects(policy_of(state), case, [target])
        expected = (found.acting if actions == OWN else found.forced)[0, 0]
        assert amounts[row] == pytest.approx(-expected, abs=1e-5)
        compared += 1
    assert compared >= 4
    rows = answer.largest_causes(state)
    assert np.abs(amounts).argmax() == rows[0] and (np.diff(np.abs(amounts[rows])) <= 0).all()
    view = View({"horizon": "3", "target": "taken"})
    told = answer.why(state, view)
    action = int(episode["action"][6])
    assert answer.VERBS[action] in told and f"({np.exp(episode['log_probs'][6, action]):.0%})" in told
    assert ("because of" if amounts[rows[0]] > 0 else "in spite of") in told
    places = told.split("the ")
    for row in rows:
        assert any(part.startswith(f"{explanation.thing(row)}, ") for part in places), str(explanation.thing(row))
        lag = int(explanation.lag[row])
        address = f"?horizon=3&amp;target=taken&amp;recording=tiny&amp;episode={state.number}&amp;step={6 - lag}"
        assert not lag or address in told


def test_two_equal_things_are_two_causes_and_one_thing_at_two_steps_is_one(state):
    explanation = state.explanation
    red_balls = explanation.things.copy()
    red_balls[:, 2:5] = (6, 0, 0)
    alike = replace(explanation, things=red_balls)
    at_start = np.flatnonzero(explanation.lag == 0)
    numbers = [alike.object_number(row) for row in range(len(red_balls))]
    assert len(at_start) >= 3 and len({numbers[row] for row in at_start}) == len(at_start) < len(numbers)
    largest = {number: max(np.flatnonzero(np.array(numbers) == number)) for number in numbers}
    attribution = np.full_like(explanation.attribution, 1.0)
    attribution[[*largest.values()]] = 2.0
    alike = replace(alike, attribution=attribution, contribution=np.full_like(explanation.contribution, np.nan))
    found = answer.largest_causes(SimpleNamespace(explanation=alike, is_own=False))
    assert sorted(found) == sorted(largest.values())[:5] and len(found) >= 3


def test_the_answer_is_of_the_target(state):
    lpc = answer.why(chosen(state, target="lpc"), View({}))
    assert "parameters" in lpc and "lpc is " in lpc
    other = next(a for a in range(7) if a != state.episode["action"][6])
    word = [*target_names(state.sizes).values()][1 + other]
    assert f"what speaks for {word.split(':')[1]} here" in answer.why(chosen(state, target=word), View({}))


def test_every_target_of_the_menu_is_one(state):
    words = [*target_names(state.sizes).values()]
    assert words[0] == "taken" and "routing:1.1" in words and len(words) == 1 + 7 + 5 + 2
    for word in words[1:]:
        assert parse_target(word, policy_of(state)).name == word


def test_figures_hold_the_numbers(learned):
    episode, step = learned.episode, learned.step
    now = values_of(page.draw_now(learned))
    probabilities = [row["probability"] for row in now if "probability" in row]
    np.testing.assert_allclose(probabilities, np.exp(episode["log_probs"][step]), rtol=1e-6)
    weights = [row["weight"] for row in now if "weight" in row]
    np.testing.assert_allclose(weights, episode["routing"][step], atol=1e-6)
    assert [row["lpc"] for row in now if "lpc" in row] == episode["lpc"].tolist()
    truth, simulated = learned.futures
    future = [row["difference"] for row in values_of(page.draw_future(learned))]
    assert len(future) == 3 * 5
    np.testing.assert_allclose(future[5:10], np.abs(truth["routing"] - simulated["routing"]).mean(1), rtol=1e-5)
    np.testing.assert_allclose(future[10:], simulated["lpc"] - truth["lpc"], rtol=1e-5)


def test_every_figure_is_drawn_at_the_ends_too(recording, learned):
    drawn, ks = 0, recording.episodes(behaviours=["bot"])
    k = int(ks[recording.index["num_rows"][ks].argmax()])
    last = catalog.num_steps_of(recording.episode(k)) - 1
    for step, actions in ((0, OWN), (last, RECORDED)):
        some = chosen(learned, episode=k, step=step, actions=actions, horizon=2, num_sim_steps=12)
        for name, figure in page.page_of(page.Settings(), some).figures.items():
            drawn, draw = drawn + 1, figure.draw
            if name == "why" and not len(some.explanation.lag):
                assert "no cause" in refusal(draw) and "no cause" in answer.why(some, View({}))
                continue
            figure = draw()
            figure.draw_without_rendering()
            assert values_of(figure) and boxes_of(figure), name
            assert page.label_of(some, name).startswith(f"tiny: episode {k}, step {step}: {name}")
    assert drawn == 6


def test_a_click_on_the_curve_leads_to_its_step(state):
    link = page.link_to_step(state, View({"horizon": "3"}))
    assert link({"step": 2, "lpc": 1.0}) == f"?horizon=3&recording=tiny&episode={state.number}&step=2"
    assert link({"step": catalog.num_steps_of(state.episode), "lpc": 1.0}) == link({"x": 1, "y": 2}) == ""


def test_a_learned_simulator_is_shown_what_was_seen(place, state, learned):
    assert page.shown_figures(state) == ["why", "now"] and "future" in page.shown_figures(learned)
    assert "--simulator" in refusal(lambda: state.futures)
    truth, simulated = learned.futures
    np.testing.assert_array_equal(simulated["obs"][0], truth["obs"][0])  # the first view is the true one
    np.testing.assert_allclose(simulated["routing"][0], truth["routing"][0], atol=1e-5)
    np.testing.assert_allclose(simulated["lpc"][0], truth["lpc"][0], rtol=1e-4)
    assert (simulated["obs"] != truth["obs"]).any() and len(simulated["obs"]) == len(truth["obs"]) == 5
    assert {*learned.explanation.lag.tolist()} <= {0, 1, 2, 3}
    line, is_enough = learned.fidelity
    assert not is_enough and "it is not known how true the simulator" in line
    (command,) = (words for words in line.split("; ") if "generative.fidelity" in words)
    words = parse(fidelity.Settings, "", shlex.split(command)[4:])  # give python -m generative.fidelity
    assert words.data_dir == RECORDED_AT and words.simulator == learned.choices.simulator
    assert state.fidelity == ("exact simulator: Minigrid's own rules", True)
    with pytest.raises(InputError, match="of another policy or task"):
        chosen(state, simulator=(place / "simulators" / "of_another").as_posix()).explanation  # noqa: B018


def test_another_policy_is_refused(recording, state, tmp_path):
    other = tiny_checkpoint(tmp_path / "checkpoints", "BabyAI-GoToObj-v0")
    with pytest.raises(InputError, match=r"is not the policy of .*tiny; say where that is with --checkpoint"):
        PageState(recording, state.choices, str(other)).explanation  # noqa: B018
    with pytest.raises(InputError, match=r"x\.pt, the policy of .*tiny, is missing"):
        PageState(recording, state.choices, "x.pt").explanation  # noqa: B018


def test_figures_are_saved_and_a_caption_makes_them_again(place, state, tmp_path, capsys):
    k = state.number
    flags = ("--data_dir", place / "recordings" / "tiny", "--episode", k, "--step", 6, "--target", "lpc")
    result = run_script_here(capsys, APP, *flags, "--horizon", 2, "--only", "why", "now", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    stem = f"why_episode_{k}_step_6_lpc"
    folder = tmp_path / "plots" / "generative" / "tiny"
    assert result.stdout.split() == [
        f"plots/generative/tiny/{stem}.png", f"plots/generative/tiny/now_episode_{k}_step_6.png",
    ]  # fmt: skip
    with (folder / f"{stem}.csv").open(newline="") as file:
        totals = [float(row["total"]) for row in csv.DictReader(file)]
    asked = chosen(state, target="lpc", horizon=2)
    assert sorted(totals) == pytest.approx(sorted(asked.explanation.total.tolist()), abs=0.02)
    caption = (folder / f"{stem}.txt").read_text()
    assert f"Episode: {k} of tiny, world {state.episode.seed} (" in caption
    numbers = (folder / f"{stem}.csv").read_bytes()
    (command,) = (line for line in caption.splitlines() if line.startswith("Command: "))
    shutil.rmtree(tmp_path / "plots")
    python, *words = shlex.split(command.removeprefix("Command: "))
    result = run_script_here(capsys, *words, "--format", "svg", "--width", 6.75, cwd=tmp_path)
    assert python == "python" and result.returncode == 0, result.stderr
    assert (folder / f"{stem}_6.75in.csv").read_bytes() == numbers
    assert {path.suffix for path in folder.iterdir()} == {".csv", ".svg", ".txt"}


def test_bad_flags_are_one_line(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    cases = {
        ("--data_dir", "nowhere"): "nowhere/",
        ("--episode", "99999"): "episodes 0 to",
        ("--step", "999"): "steps 0 to",
        ("--target", "action:fly", "--only", "why"): "action:fly",
        ("--simulator", "nothing", "--only", "future"): "nothing",
        ("--only", "future"): "--only",
        ("--only", "map"): "--only",
    }
    for flags, named in cases.items():
        monkeypatch.setattr("sys.argv", [APP, *flags])
        assert named in refusal(lambda: page.save_as_script(parse(page.Settings, None))), flags
    result = run_script_here(capsys, APP, cwd=place / "simulators")
    assert result.returncode == 2 and "recordings/" in the_error_line(result.stderr)


def test_the_page_opens_without_torch():
    program = "import sys, generative.app.controls; print('torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_the_microscope_holds_the_policy(recording, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "NUM_WORLDS", 2)
    document = page.microscope_of(recording, None).decode()
    assert recording.config["checkpoint"]["path"] in document and document.startswith("<!")


@pytest.mark.slow
def test_in_a_browser(place, state, browser):
    k = state.number
    name = f"tiny: episode {k}, step"
    with served(REPOSITORY / APP, place, zoo=False) as address:
        with opened(browser, f"{address}/?episode={k}&step=5&horizon=2&steps=3") as shown:
            link = walk_through(shown, state)
        with opened(browser, link) as shown:  # another profile: the link opens the same view
            shown.shows(f"{name} 6: future")
            assert shown.chosen("Target") == "LPC" and shown.chosen("Simulator") == "learned: untrained"
        with opened(browser, f"{address}/?episode=99999&step=x&target=foo") as shown:
            shown.names(": why ")
            for told in ("episode '99999' is no number from 0 to", "step 'x' is no number", "there is no target 'foo'"):
                assert shown.page.get_by_text(told).count() == 1
            assert shown.chosen("Target") == "the action that was taken"
            assert "foo" not in shown.dropdown("Target").inner_text()
            shown.page.get_by_text("Episodes: a row opens one").click()
            row = shown.page.get_by_role("row").nth(3)
            row.get_by_role("checkbox").or_(row.get_by_role("radio")).first.click()
            shown.names("tiny: episode 2, step")
            assert "episode=2" in shown.page.url


def walk_through(shown: Page, state: PageState) -> str:
    """Steps by arrow key and by link, the answer, a file, the microscope, a learned simulator; the address."""
    name = f"tiny: episode {state.number}, step"
    shown.shows(f"{name} 5: now")
    shown.page.locator("marimo-slider[data-label*='Step'] [role=slider]").first.focus()
    shown.page.keyboard.press("ArrowRight")
    shown.shows(f"{name} 6: now")
    assert "step=6" in shown.page.url
    shown.shows(f"{name} 6: why {state.target_word}")
    asked = chosen(state, horizon=2)
    sentence = shown.page.locator("b", has_text=answer.what_happens(asked))
    shown.page.set_viewport_size({"width": 1440, "height": 900})
    box = sentence.bounding_box()
    assert box["y"] + box["height"] < 450, "the answer is in the upper half of the first screen"
    thing = asked.explanation.thing(answer.largest_causes(asked)[0])
    assert str(thing) in sentence.inner_text()
    shown.choose("Target", "LPC")
    shown.shows(f"{name} 6: why lpc")
    file_name = f"why_episode_{state.number}_step_6_lpc"
    rows = csv.DictReader(shown.save(file_name)[f"{file_name}.csv"].decode().splitlines())
    totals = chosen(asked, target="lpc").explanation.total.tolist()
    assert sorted(float(row["total"]) for row in rows) == pytest.approx(sorted(totals), abs=0.02)
    shown.undo(lambda: shown.choose("Target", "entropy of the routers"))
    shown.pass_over()
    with shown.page.expect_download() as download:
        shown.page.get_by_text("its microscope").click()
    assert download.value.path().read_bytes().startswith(b"<!")
    shown.choose("Simulator", "learned: untrained")
    shown.shows(f"{name} 6: future")
    shown.see("do not rely on this")
    return shown.page.url
