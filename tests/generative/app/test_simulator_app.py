"""The page of the simulator: its numbers by hand, edits in words, as a script, a learned simulator, in a browser."""

import csv
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import FIGURE, Page, opened, served
from checks import refusal
from generative_data import record_tiny, tiny_checkpoint
from generative_simulated import simulated
from scripts import PATIENCE_S, REPOSITORY, run_script_here, the_error_line

from generative.app import catalog, future_figures, page
from generative.app.catalog import Filter
from generative.app.recorded_step import NUM_POINTS, describe_edit, edit_words
from generative.app.selection import OWN, RECORDED, Choices, PageState, cell_names, change_names, target_names
from generative.app.sheets import part
from generative.attribution.counterfactuals import Case, effects, legal_edits, world_at
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
from mop.common.errors import InputError
from mop.plotting.hover import boxes_of, values_of

APP = "simulator_viz.py"
TARGETS = ("taken", "action:toggle", "routing:0.2", "lpc", "entropy")


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
    config |= {"num_initializing_steps": 2, "agent": {"path": "", "sha256": sha256}}
    torch.manual_seed(0)
    weights = WorldModel(BABYAI, config["sizes"], config["hidden_size"], config["lang_dim"]).state_dict()
    folder.mkdir(parents=True)
    save_checkpoint(folder / "checkpoint_final.pt", {"policy_state_dict": weights, "config": config})


@pytest.fixture(scope="module")
def recording(place):
    return open_recording(place / "recordings" / "tiny")


@pytest.fixture
def state(recording) -> PageState:
    """A moment in the middle of an episode in which the policy acts, with an edit of what it sees."""
    k = catalog.first_episode(recording, recording.episodes())
    some = PageState(recording, Choices(k, 6, horizon=3, num_sim_steps=4))
    return chosen(some, edit=[word for word, edit in some.edits.items() if edit.kind == "put"][1])


def chosen(state: PageState, **changes) -> PageState:
    return PageState(state.recording, replace(state.choices, **changes))


def long_episode(recording, behaviour: str) -> int:
    ks = recording.episodes(behaviours=[behaviour])
    return int(ks[recording.index["num_rows"][ks].argmax()])


def test_episodes_are_listed_as_the_filter_asks(recording):
    index = recording.index
    everything = catalog.list_episodes(recording, Filter())
    assert everything.tolist() == list(range(len(recording)))
    failed = catalog.list_episodes(recording, Filter("train", "random", "failed", 10))
    assert 0 < len(failed) < len(everything)
    for k in failed:
        episode = recording.episode(int(k))
        assert (episode.split, episode.behaviour, episode.success) == ("train", "random", False)
        assert catalog.num_steps_of(episode) >= 10
    assert len(catalog.list_episodes(recording, Filter(outcome="succeeded"))) == index["success"].sum()
    first = recording.episode(catalog.first_episode(recording, everything))
    assert first.behaviour == "argmax"
    labels = catalog.episode_labels(recording, failed, int(everything[0]))
    assert [*labels.values()] == [*failed, everything[0]]
    assert all(label.startswith(f"{k}: ") for label, k in labels.items())
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


def test_the_future_as_recorded_is_the_recording(recording):
    compared = 0
    for behaviour in ("argmax", "sampled", "random"):
        k = long_episode(recording, behaviour)
        episode = recording.episode(k)
        for step in (0, 5, catalog.num_steps_of(episode) - 1):
            some = PageState(recording, Choices(k, step, actions=RECORDED, num_sim_steps=20))
            real, simulated = some.futures(False)
            truth = part(episode, slice(step, step + 21))
            for name in ("obs", "grid", "carried", "position"):
                np.testing.assert_array_equal(real[name], truth[name])
            np.testing.assert_array_equal(simulated["obs"], truth["obs"])
            np.testing.assert_array_equal(simulated["grid"], truth["grid"] & 0xFFFFF)
            np.testing.assert_array_equal(simulated["position"], truth["position"])
            for rows in (real, simulated):
                np.testing.assert_allclose(rows["routing"], truth["routing"], atol=1e-5)
                np.testing.assert_allclose(rows["log_probs"], truth["log_probs"], atol=1e-5)
            agreement = some.agreement
            assert agreement.num_steps == len(truth["obs"]) - 1
            assert not agreement.num_steps or agreement[1] == agreement[3] == agreement[4] == 1.0
            compared += 1
    assert compared == 9


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("actions", [OWN, RECORDED])
def test_changes_are_those_of_the_counterfactuals(state, target, actions):
    state = chosen(state, target=target, actions=actions)
    episode, choices = state.episode, state.choices
    context, encoding = state.context, state.recording.config["encoding"]
    asked = parse_target(state.target_word, context.policy)
    before = episode["action"][: choices.step].tolist()
    world = world_at(encoding["task_id"], encoding["max_steps"], episode.seed, before)
    hidden, lang = torch.from_numpy(episode["hidden"][choices.step].copy()), torch.from_numpy(episode.lang)
    changes = state.effects
    own = state.futures(False)[0]["action"] if actions == OWN else episode["action"][choices.step :]
    for later in range(5):
        case = Case(world, hidden, lang, own[:later].tolist(), [state.edit])
        in_simulator = simulated(context.scenes.simulator)
        for name, make_worlds in ((future_figures.MEASURED, None), (future_figures.SIMULATED, in_simulator)):
            (found,) = effects(context.policy, [case], [asked], make_worlds)
            expected = (found.acting if actions == OWN else found.forced)[0, 0]
            scale = max(1.0, abs(found.acting_values[0]))
            assert changes[name][later] == pytest.approx(expected, abs=1e-5 * scale)
    assert np.abs(changes[future_figures.MEASURED]).max() > 0


def test_causes_are_minus_the_effects_of_absence_by_path(state):
    state = chosen(state, target="routing:0.2")
    episode, choices, policy = state.episode, state.choices, state.context.policy
    scenes, target = (
        ExactScenes(BABYAI, state.recording.config["encoding"]),
        parse_target("routing:0.2", policy),
    )
    compared = 0
    for lag in range(4):
        step = choices.step - lag
        scene = scenes.at(episode, step, WORLD)
        things = [thing for thing in scene.things if not str(thing).startswith("wall")]
        actions = torch.from_numpy(episode["action"][step : choices.step + 1].astype(np.int64))[None]
        hidden = torch.from_numpy(episode["hidden"][step].copy())[None]
        loop = ClosedLoopRollout(
            policy, scenes.simulator, scene.begin, torch.from_numpy(episode.lang)[None], hidden, lag, actions
        )
        (found,) = predict_effects(loop, scene.inputs, scene.without(things), [target], num_points=NUM_POINTS)
        causes = [cause for cause in state.causes if cause.lag == lag]
        assert [cause.thing for cause in causes] == things and len(things) >= 3
        for number, cause in enumerate(causes):
            for path in PATHS:
                assert cause.by_path[path] == pytest.approx(-float(found.total(path)[number]), abs=1e-6)
            assert cause.total == pytest.approx(-float(found.total()[number]), abs=1e-6)
            compared += 1
    assert compared >= 12 and max(abs(cause.total) for cause in state.causes) > 0
    rows = page.rows_of(state.causes, 4)
    assert len({row.name for row in rows}) == len(rows) >= 3
    totals = np.nansum([row.totals for row in rows], 0)
    figure = page.draw_why(state)
    bars = [row for row in values_of(figure) if "total" in row]
    assert [bar["step"] for bar in bars] == [3, 4, 5, 6]
    np.testing.assert_allclose([bar["total"] for bar in bars][::-1], totals, atol=1e-6)


def test_the_prediction_is_the_gradient_along_the_edit(state):
    state = chosen(state, target="lpc", actions=RECORDED)
    step = state.at(RECORDED)
    policy, scene = state.context.policy, state.context.scenes.at_world(step.world)
    hidden = torch.from_numpy(state.episode["hidden"][6].copy())[None]
    loop = ClosedLoopRollout(policy, state.context.scenes.simulator, scene.begin, step.lang, hidden, 0)
    changed = scene.edited([state.edit])
    (found,) = predict_effects(loop, scene.inputs, changed, [parse_target("lpc", policy)], num_points=NUM_POINTS)
    assert state.prediction[0] == pytest.approx(float(found.total()), abs=1e-3)
    assert len(state.prediction) == 5


def test_agreement_by_hand():
    obs = np.zeros((4, 152), np.uint8)
    other = obs.copy()
    other[1, 3] = 5  # one cell, in type
    other[2, [3, 52, 101]] = 2  # one cell, in type, colour and state
    other[2, 60] = 1  # another one, in colour
    truth = {"obs": obs, "student": np.array([0, 1, 2, 3]), "routing": np.zeros((4, 2)), "lpc": np.full(4, 10.0)}
    simulated = {
        "obs": other,
        "student": np.array([0, 1, 5, 3]),
        "routing": np.full((4, 2), 0.25),
        "lpc": np.full(4, 7.0),
    }
    found = future_figures.compare(truth, simulated)
    assert found == future_figures.Agreement(3, 1 - 3 / (3 * 49), 1.0, 1 / 3, 2 / 3, 0.25, 3.0)
    assert future_figures.compare(simulated, simulated).copied_cells == 1 - 3 / (3 * 49)
    assert future_figures.compare(truth, part(simulated, slice(1))).num_steps == 0


def test_every_legal_edit_has_a_word_of_its_own(state):
    legal = legal_edits(state.at(OWN).world)
    assert sorted(state.edits.values()) == sorted(legal) and len(edit_words(legal)) == len(legal) > 50
    kinds = {edit.kind for edit in legal}
    assert kinds >= {"remove", "color", "type", "state", "put"}
    cells = cell_names(state)
    listed = [f"{cell}:{change}" for cell in cells.values() for change in change_names(state, cell).values()]
    assert sorted(listed) == sorted(state.edits)
    assert "0,0:remove" in refusal(lambda: chosen(state, edit="0,0:remove").edit)


def test_every_target_of_the_menu_is_one(state):
    words = [*target_names(state.sizes).values()]
    assert words[0] == "taken" and "routing:1.1" in words and len(words) == 1 + 7 + 5 + 2
    for word in words[1:]:
        assert parse_target(word, state.context.policy).name == word


def test_figures_hold_the_numbers(state):
    episode, step = state.episode, state.choices.step
    now = values_of(page.draw_now(state))
    probabilities = [row["probability"] for row in now if "probability" in row]
    np.testing.assert_allclose(probabilities, np.exp(episode["log_probs"][step]), rtol=1e-6)
    weights = [row["weight"] for row in now if "weight" in row]
    np.testing.assert_allclose(weights, episode["routing"][step], atol=1e-6)
    assert [row["lpc"] for row in now if "lpc" in row] == episode["lpc"].tolist()
    edited = values_of(page.draw_edited(state))
    futures = state.all_futures
    assert [*futures] == [*future_figures.FUTURES]
    for name, rows in futures.items():
        shown = [row["lpc"] for row in edited if row.get("future") == name]
        assert shown == pytest.approx(rows["lpc"].tolist())
    effect = values_of(page.draw_effect(state))
    for name, numbers in state.effects.items():
        shown = [row["value"] for row in effect if row["line"] == name]
        assert shown == pytest.approx(numbers[np.isfinite(numbers)].tolist())
    imagined = values_of(page.draw_imagined(state))
    assert [row["wrong_cells"] for row in imagined if "wrong_cells" in row] == [0] * 5


def test_every_figure_is_drawn_at_the_ends_too(recording):
    drawn, k = 0, long_episode(recording, "bot")
    last = catalog.num_steps_of(recording.episode(k)) - 1
    for step, pictures, actions in ((0, future_figures.WORLD, OWN), (last, future_figures.VIEW, RECORDED)):
        some = PageState(recording, Choices(k, step, pictures=pictures, actions=actions, horizon=2, num_sim_steps=12))
        for name, draw in page.page_of(page.Settings(), some).figures.items():
            figure = draw()
            figure.draw_without_rendering()
            assert values_of(figure) and boxes_of(figure), name
            assert page.label_of(some, name).startswith(f"tiny: episode {k}, step {step}: {name}")
            drawn += 1
    assert drawn == 10


def test_links_lead_to_steps_edits_and_futures_without_a_thing(state):
    view = View({"tab": "Why", "horizon": "3", "change": "blue"})
    k = state.choices.episode
    link = page.link_to_moment(state, view)
    assert link({"step": 2, "lpc": 1.0}) == f"?tab=Why&horizon=3&change=blue&recording=tiny&episode={k}&step=2"
    last = catalog.num_steps_of(state.episode)
    assert link({"step": last, "lpc": 1.0}) == link({"x": 1, "y": 2, "can_be_edited": False}) == ""
    place = link({"x": 1, "y": 2, "can_be_edited": True})
    assert place == f"?tab=Edit&horizon=3&recording=tiny&episode={k}&step=6&cell=1,2"
    table = page.causes_table(state, view)
    cause = max(state.causes, key=lambda cause: abs(cause.total))
    assert str(cause.thing) in table and f"{cause.total:+.3g}" in table
    words = {}
    for cause in state.causes:
        word, address = page.link_to_edit(state, view, cause)
        words[word] = address
        assert f"step={6 - cause.lag}&" in address and f"cell={cause.thing.x},{cause.thing.y}" in address
        assert f"target={state.target_word}" in address and "actions=recorded" in address
    assert words.keys() == {"without it", "if it were open"}
    assert "change=remove" in words["without it"] and "change=open" in words["if it were open"]


def test_a_learned_simulator_is_shown_what_was_seen(place, state):
    simulator = (place / "simulators" / "untrained").as_posix()
    learned = chosen(state, simulator=simulator, num_sim_steps=3, horizon=2)
    real, simulated = learned.futures(False)
    np.testing.assert_array_equal(simulated["obs"][0], real["obs"][0])  # the first view is the true one
    assert "grid" not in simulated and learned.agreement.cells < 1.0 and len(simulated["obs"]) == 4
    assert learned.causes and {cause.lag for cause in learned.causes} <= {0, 1, 2}
    for name, draw in page.page_of(page.Settings(), learned).figures.items():
        assert values_of(draw()), name
    line, is_enough = learned.fidelity
    assert not is_enough and "it is not known how true the simulator" in line
    assert state.fidelity == ("exact simulator: Minigrid's own rules", True)
    with pytest.raises(InputError, match="of another policy or task"):
        chosen(state, simulator=(place / "simulators" / "of_another").as_posix()).context  # noqa: B018


def test_another_policy_is_refused(recording, state, tmp_path):
    other = tiny_checkpoint(tmp_path / "checkpoints", "BabyAI-GoToObj-v0")
    with pytest.raises(InputError, match=r"is not the policy of .*tiny; say where that is with --checkpoint"):
        PageState(recording, state.choices, str(other)).context  # noqa: B018
    with pytest.raises(InputError, match=r"x\.pt, the policy of .*tiny, is missing"):
        PageState(recording, state.choices, "x.pt").context  # noqa: B018


def test_figures_are_saved_and_a_caption_makes_them_again(place, state, tmp_path, capsys):
    k = state.choices.episode
    flags = ("--data_dir", place / "recordings" / "tiny", "--episode", k, "--step", 6, "--target", "lpc")
    flags += ("--edit", state.edit_word)
    result = run_script_here(capsys, APP, *flags, "--num_sim_steps", 3, "--only", "effect", "now", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    stem = f"effect_episode_{k}_step_6_lpc_{state.edit_word}".replace(":", "_").replace(",", "_")
    folder = tmp_path / "plots" / "generative" / "tiny"
    assert result.stdout.split() == [
        f"plots/generative/tiny/{stem}.png", f"plots/generative/tiny/now_episode_{k}_step_6.png",
    ]  # fmt: skip
    with (folder / f"{stem}.csv").open(newline="") as file:
        lines = [row for row in csv.DictReader(file) if row["line"] == future_figures.MEASURED]
    asked = chosen(state, target="lpc", num_sim_steps=3)
    expected = asked.effects[future_figures.MEASURED]
    assert [float(row["value"]) for row in lines] == pytest.approx(expected[np.isfinite(expected)].tolist(), abs=0.02)
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
        ("--edit", "0,0:remove", "--only", "edited"): "--edit",
        ("--simulator", "nothing", "--only", "imagined"): "nothing",
        ("--only", "map"): "--only",
    }
    for flags, named in cases.items():
        monkeypatch.setattr("sys.argv", [APP, *flags])
        assert named in refusal(page.save_as_script), flags
    result = run_script_here(capsys, APP, cwd=place / "simulators")
    assert result.returncode == 2 and "recordings/" in the_error_line(result.stderr)


def test_the_page_opens_without_torch():
    program = "import sys, generative.app.controls; print('torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (result.stdout, result.stderr) == ("False\n", "")


@pytest.mark.slow
def test_in_a_browser(place, state, browser):
    k = state.choices.episode
    with served(REPOSITORY / APP, place, zoo=False) as address:
        with opened(browser, f"{address}/?episode={k}&step=5&horizon=2&steps=3") as shown:
            link = walk_through(shown, place, state)
        with opened(browser, link) as shown:  # another profile: the link opens the same view
            edited = shown.page.locator(f"{FIGURE}[data-name^='tiny: episode {k}, step 6: edited ']")
            edited.wait_for()
            assert edited.get_attribute("data-name").endswith(state.edit_word)
            assert shown.chosen("Target") == "LPC" and shown.chosen("Actions") == "as recorded"
        with opened(browser, f"{address}/?episode=99999&step=x&target=lpc&tab=Imagine") as shown:
            shown.see("episode '99999' is no number from 0 to")
            shown.page.locator(f"{FIGURE}[data-name*=': imagined']").wait_for()


def walk_through(shown: Page, place: Path, state: PageState) -> str:
    """Steps by arrow key and by link, causes, what the simulator imagines, an edit of both futures; the address."""
    k = state.choices.episode
    name = f"tiny: episode {k}, step"
    shown.shows(f"{name} 5: now")
    shown.page.locator("marimo-slider[data-label*='Step'] [role=slider]").first.focus()
    shown.page.keyboard.press("ArrowRight")
    shown.shows(f"{name} 6: now")
    assert "step=6" in shown.page.url
    shown.page.locator(f"{FIGURE}[data-name^='{name} 6: why {state.target_word}']").wait_for()
    shown.choose("Target", "LPC")
    shown.shows(f"{name} 6: why lpc")
    shown.page.locator("table.causes a", has_text="it").first.wait_for()
    shown.undo(lambda: shown.open_tab("Imagine"))
    shown.pass_over()
    shown.open_tab("Imagine")
    shown.shows(f"{name} 6: imagined")
    shown.see("cells right")
    shown.open_tab("Edit")
    shown.page.locator(f"{FIGURE}[data-name^='{name} 6: edited ']").wait_for()
    before = shown.page.locator(f"{FIGURE}[data-name^='{name} 6: edited ']").get_attribute("src")
    cell, change = state.edit_word.split(":")
    shown.choose("Cell", next(called for called, word in cell_names(state).items() if word == cell))
    shown.page.locator(f"{FIGURE}[data-name^='{name} 6: edited {cell}:']").wait_for()
    shown.choose("Change", describe_edit(state.edit))
    shown.choose("Actions", "as recorded")
    shown.shows(f"{name} 6: edited {state.edit_word}")
    shown.shows(f"{name} 6: effect {state.edit_word} on lpc")
    shown.page.wait_for_function(
        "asked => document.querySelector(asked[0])?.src !== asked[1]", arg=[f"{FIGURE}[data-name*=': edited ']", before]
    )
    assert_futures(shown.shown_texts(), chosen(state, actions=RECORDED, num_sim_steps=3))
    file_name = f"effect_episode_{k}_step_6_lpc_{state.edit_word}".replace(":", "_").replace(",", "_")
    rows = csv.DictReader(shown.save(file_name)[f"{file_name}.csv"].decode().splitlines())
    changes = [float(row["value"]) for row in rows if row["line"] == future_figures.MEASURED]
    asked = chosen(state, target="lpc", actions=RECORDED, num_sim_steps=3)
    assert changes == pytest.approx(asked.effects[future_figures.MEASURED].tolist(), abs=0.02)
    for choice in (f"episode={k}", "step=6", "tab=Edit", "target=lpc", "actions=recorded", "cell=", f"change={change}"):
        assert choice in shown.page.url
    return shown.page.url


def assert_futures(texts: list[str], state: PageState) -> None:
    """All four futures are told under the mouse, and the edit changes what the policy spends in both edited ones."""
    futures = state.all_futures
    for name, rows in futures.items():
        called = future_figures.FUTURES[name].replace("\n", " ")
        told = [text.split("LPC ")[1] for text in texts if text.startswith(f"{called}, step ") and ", LPC " in text]
        assert told == [f"{cost:,.0f}" for cost in rows["lpc"]]
    for name in ("real", "simulated"):
        assert futures[name]["lpc"].tolist() != futures[f"{name}_edited"]["lpc"].tolist()
