"""What the apps show: runs, routing data of any age, frames of episodes, figures, tables."""

import json
import shlex
import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checks import refusal
from eval_helpers import random_checkpoint, write_result
from old_caches import CACHE, TASK, write_variants
from scripts import REPOSITORY

import batch_eval
from mop.analysis.actions import hold_action
from mop.apps.elements import drawn
from mop.apps.example_worlds import episode_frame, example_images
from mop.apps.flags import RunSettings
from mop.apps.microscope_tab import list_episodes
from mop.apps.run_figures import action_figures, analyses, has_routing, part_of, routing_figures, selections
from mop.apps.runs import (
    Run,
    choose_run,
    describe_metrics,
    evaluate_now,
    find_cached_runs,
    find_runs,
    label_of,
    last_cached,
    load_routing,
    other_checkpoint,
)
from mop.apps.template import Page, PageFigure, chosen
from mop.artifacts.checkpoints import FoundCheckpoint, save_checkpoint
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_paths import RunKey, cache_path, result_path
from mop.common import cli
from mop.common.errors import InputError
from mop.common.files import file_digest
from mop.envs.render import replay_world
from mop.evaluation import batch
from mop.evaluation.batch import Settings, evaluate_checkpoint, select

ZOO = REPOSITORY / "results" / "zoo"
KEY = RunKey(TASK, 0, 0)


@pytest.fixture
def cache_dir(tmp_path) -> Path:
    """A copy of the small cache."""
    return Path(shutil.copytree(CACHE, tmp_path / "evaluation_cache"))


@pytest.fixture
def data() -> RoutingData:
    return load_routing(Run(KEY, str(CACHE)))


def test_runs_of_every_layout_are_found(tmp_path):
    cached = [RunKey("A", 1), RunKey("A", 1, 2), RunKey("B", 0, 3, 50), RunKey("B", 0, update=50)]
    for key in cached:
        path = cache_path(tmp_path / "cache", key)
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    stray = tmp_path / "cache" / "A" / "trial_x"
    stray.mkdir()
    (stray / "routing_data.json").write_text("{}")
    for key in (RunKey("A", 1), RunKey("C", 0)):
        save_checkpoint(key.checkpoint(tmp_path / "zoo"), random_checkpoint())
    write_result(
        tmp_path / "cache", RunKey("A", 1, 2), {"checkpoint_path": "", "task_id": "A", "trial": 1, "update": 9}
    )
    found = find_runs([tmp_path / "nowhere", tmp_path / "zoo"], str(tmp_path / "cache"))
    assert {folder: [run.word for run in runs] for folder, runs in found.items()} == {
        "A/trial_1": ["final"],
        "A/trial_1/seed_2": ["final"],
        "B/trial_0": ["50"],
        "B/trial_0/seed_3": ["50"],
        "C/trial_0": ["final"],
    }
    labels = [label_of(runs) for runs in found.values()]
    assert "update 9" in labels[1] and "no checkpoint" in labels[1] and "no cache" in labels[4]
    assert [run.has_cache for (run,) in found.values()] == [True] * 4 + [False]
    assert found["A/trial_1"][0].checkpoint == tmp_path / "zoo" / "A" / "trial_1" / "checkpoint_final.pt"
    names = ["A mixture lpc_alpha 0 trial 1", "A trial 1 seed 2", "B trial 0 update 50", "B trial 0 seed 3 update 50"]
    assert list(find_cached_runs([tmp_path / "zoo"], str(tmp_path / "cache"))) == names


def test_checkpoints_of_a_run_are_in_their_order(tmp_path):
    for update in (None, 10, 9):
        save_checkpoint(RunKey("A", 0, update=update).checkpoint(tmp_path), random_checkpoint())
    (runs,) = find_runs([tmp_path], str(tmp_path / "cache")).values()
    assert [run.word for run in runs] == ["9", "10", "final"] and last_cached(runs) is runs[-1]
    assert label_of(runs) == "A mixture lpc_alpha 0 trial 0 · 3 checkpoints · no cache"
    cache = cache_path(tmp_path / "cache", RunKey("A", 0, update=10))
    cache.parent.mkdir(parents=True)
    cache.write_text("{}")
    assert last_cached(runs) is runs[1]
    cache.unlink()
    assert last_cached(runs) is runs[-1], "what is deleted is gone at once"


def test_no_run_at_all(tmp_path):
    line = refusal(find_runs, ["a", "b"], str(tmp_path / "none"))
    assert all(word in line for word in ("/none/", "a/", "b/", "train_mop.py"))
    assert "batch_eval.py" in refusal(find_cached_runs, [], str(tmp_path / "none"))


@pytest.mark.parametrize("key", [KEY, RunKey(TASK, 3), RunKey(TASK, 0, 1, 200), RunKey(TASK, 2, update=5)])
@pytest.mark.parametrize("root", ["results/zoo", "checkpoints", None])
def test_the_command_in_messages_selects_the_run(key, root, monkeypatch):
    run = Run(key, "elsewhere", None if root is None else key.checkpoint(root))
    script, *flags = shlex.split(run.remake)[1:]
    args = cli.parse(batch_eval.Settings, "", flags)
    assert script == "batch_eval.py" and args.force and args.cache_dir == "elsewhere"
    assert args.checkpoint_dir == ("results/zoo" if root == "results/zoo" else None)
    others = [replace(key, trial=9), replace(key, task_id="X"), replace(key, update=77)]
    found = [FoundCheckpoint(k, Path("x.pt")) for k in (key, *others)]
    monkeypatch.setattr(batch, "find_checkpoints", lambda roots: found)
    assert [item.key for item in select(["here"], args, "no way out")] == [key]


def test_choose_run():
    keys = [RunKey("T", 0), RunKey("T", 1, 2), RunKey("T", 1, 3, 50), RunKey("T", 1, 3)]
    found = {}
    for key in keys:
        found.setdefault(key.folder("").as_posix(), []).append(Run(key, ""))
    asked = Namespace(task=None, trial=None, seed=None, update=None)

    def choose(**flags) -> RunKey:
        return choose_run(found, Namespace(**vars(asked) | flags)).key

    assert choose() == keys[0] and choose(trial=1) == keys[1]
    assert choose(trial=1, seed=3) == keys[3] and choose(update=50) == keys[2]
    assert choose(seed=0) == keys[0], "where a path names no seed, it is the trial number, as for batch_eval.py"
    assert choose(seed=2) == keys[1] and choose(seed=3, update=50) == keys[2]
    assert "--seed 1" in refusal(choose, seed=1) and "--update 5" in refusal(choose, update=5)
    named = RunKey("T", 0, 0)
    found[named.folder("").as_posix()] = [Run(named, "")]
    assert choose(trial=0) == keys[0] and choose(trial=0, seed=0) == named, "a path that names it goes before"


def test_flags(monkeypatch):
    for words in (["--", "--trial", "3", "--fresh"], ["--trial", "3", "--fresh"]):
        monkeypatch.setattr(sys, "argv", ["app.py", *words])
        args = cli.parse(RunSettings, "about")
        assert (args.trial, args.fresh, args.num_episodes, args.cache_dir) == (3, True, 100, "evaluation_cache")
    for words in (["--format", "gif2"], ["--width", "0.1"], ["--scale", "log"], ["--min_steps", "0"]):
        monkeypatch.setattr(sys, "argv", ["app.py", *words])
        assert words[0] in refusal(cli.parse, RunSettings, "about")


def test_broken_and_missing_caches_name_file_and_command(cache_dir):
    write_variants(cache_dir)
    cache_path(cache_dir, RunKey(TASK, 4)).parent.mkdir(parents=True)
    for trial in (1, 3, 4, 5):  # damaged, without steps, and two that are not there
        key = RunKey(TASK, trial)
        run = Run(key, str(cache_dir), key.checkpoint(ZOO) if trial == 5 else None)
        line = refusal(load_routing, run)
        assert str(run.cache_path) in line and f"`{run.remake}`" in line
    assert "`--fresh`" in line, "the checkpoint of the last one is there"


def test_old_caches_are_completed_from_their_key(cache_dir):
    write_variants(cache_dir)
    run = Run(RunKey(TASK, 2), str(cache_dir))
    old = load_routing(run)
    assert (old.header["task_id"], old.header["trial"], old.header["is_final"]) == (TASK, 2, True)
    assert [name for name, *_ in describe_metrics(old)] == ["success", "path ratio", "mean LPC", "episodes", "steps"]
    assert example_images(old, "overall") == {}
    assert set(analyses(old).values()) >= {"overall", "by_door_location"}
    assert list_episodes(old)[0] == {"world": 0, "mission": "", "steps": 20, "outcome": "", "path ratio": None}
    for figure in action_figures(old):
        assert f"`{run.remake}`" in refusal(figure.draw)


def test_a_replaced_cache_is_read_anew(cache_dir):
    run = Run(KEY, str(cache_dir))
    first = load_routing(run)
    assert load_routing(run) is first
    content = json.loads(run.cache_path.read_text())
    content["routing_data"] = content["routing_data"][:10]
    run.cache_path.unlink()
    run.cache_path.write_text(json.dumps(content))
    assert len(load_routing(run).steps) == 10


def test_what_cannot_be_drawn_cannot_be_downloaded(tmp_path):
    def draw():
        raise InputError("one line of the `reason`")

    page = Page("logit_viz.py", (), tmp_path / "plots", [PageFigure("name", "It is not there.", draw)])
    shown = drawn(page, "name").text
    assert "one line of the" in shown and "marimo-download" not in shown


def test_fresh_evaluation_gives_the_cached_data_and_writes_no_cache(tmp_path):
    run, done = Run(KEY, str(tmp_path), KEY.checkpoint(ZOO)), []
    fresh = evaluate_now(run, 12, 5, done.append)
    assert sum(done) == 12 and not run.cache_path.exists()
    settings = Settings(num_episodes=12, num_envs=7, cache_dir=str(tmp_path), device="cpu")
    evaluate_checkpoint(FoundCheckpoint(KEY, run.checkpoint), settings)
    data = load_routing(Run(KEY, str(tmp_path)))
    assert fresh.episodes == data.episodes
    np.testing.assert_array_equal(fresh.steps.action, data.steps.action)
    np.testing.assert_allclose(fresh.steps.layer_routing[1], data.steps.layer_routing[1], atol=2e-5)
    refusal(evaluate_now, replace(run, checkpoint=None), 2, 2, done.append)


def test_a_cache_of_another_checkpoint_is_told(tmp_path):
    def run(name: str) -> Run:
        path = cache_path(tmp_path / name, KEY)
        shutil.copytree(cache_path(CACHE, KEY).parent, path.parent)
        return Run(KEY, str(tmp_path / name), KEY.checkpoint(ZOO))

    same, other, unknown = run("same"), run("other"), run("unknown")
    assert other_checkpoint(same) is None
    result = result_path(other.cache_dir, KEY)
    result.write_text(result.read_text().replace(file_digest(other.checkpoint), "0" * 16))
    told = other_checkpoint(other)
    assert str(other.cache_path) in told and str(other.checkpoint) in told and other.remake in told
    result_path(unknown.cache_dir, KEY).unlink()  # as beside older caches
    assert other_checkpoint(unknown) is None
    assert other_checkpoint(replace(other, checkpoint=None)) is None


def test_frames_follow_the_episode(data):
    steps = data.steps
    actions = steps.action[steps.episode == 3].tolist()
    count = 0
    for t_step in (0, 5, len(actions) - 1):
        frame = episode_frame(data, 3, t_step)
        np.testing.assert_array_equal(frame, replay_world(TASK, data.episodes[3]["seed"], actions[:t_step]).get_frame())
        count += 1
    assert count == 3 and (episode_frame(data, 3, 0) != frame).any()
    held = hold_action(data, "forward")  # the actions in between still happened
    np.testing.assert_array_equal(episode_frame(held, 3, len(actions) - 1), frame)
    rows = list_episodes(data)
    assert [row["world"] for row in rows] == list(range(12)) and rows[0]["mission"].startswith("pick up the")
    assert {row["outcome"] for row in rows} == {"solved"} and rows[3]["steps"] == len(actions)


def test_a_world_that_is_another_one_here_is_not_shown(data):
    moved = replace(data.steps, position=data.steps.position + 1)
    other = replace(data, steps=moved)
    refusal(episode_frame, other, 0, 0)
    assert example_images(other, "overall") == {}


def test_example_images_show_the_first_step_of_each_group(data):
    images = example_images(data, "by_key_phase")
    assert list(images) == ["before the key", "carrying the key", "door unlocked", "key dropped"]
    np.testing.assert_array_equal(images["before the key"], episode_frame(data, 0, 0, tile_size=16))
    assert len({image.tobytes() for image in images.values()}) == 4


def page_of_actions(data: RoutingData, folder: Path, part: str = "") -> Page:
    names = ("action_frequency", "action_entropy_heatmap")
    figures = [figure for figure in action_figures(data) if figure.name in names]
    return Page("logit_viz.py", (), folder, figures, part=part)


def test_figures_are_saved_and_those_without_data_explained(data, tmp_path, capsys):
    page, args = page_of_actions(data, tmp_path), cli.parse(RunSettings, "", [])
    page.save_as_script(args)
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / f"{name}.png") for name in page.figures]
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in written)
    silent = replace(data, steps=replace(data.steps, action_logits=None))
    page_of_actions(silent, tmp_path, "_forward").save_as_script(cli.parse(RunSettings, "", ["--format", "pdf"]))
    told = capsys.readouterr()
    assert "no action_entropy_heatmap_forward.pdf: this routing cache" in told.err
    assert told.out.split() == [str(tmp_path / "action_frequency_forward.pdf")]
    nothing = replace(silent, steps=replace(silent.steps, action=None))
    assert "action" in refusal(page_of_actions(nothing, tmp_path).save_as_script, args)


def test_which_figures_a_script_saves(data):
    figures = routing_figures(data)
    saved = chosen(figures, None)
    assert "lpc_heatmap_by_key_phase" in saved and [name for name in saved if "episode" in name] == ["episode_0"]
    assert "weight_heatmap_expert_2" in saved and "weight_heatmap_expert_2_by_key_phase" not in saved
    named = ["episode_11", "weight_heatmap_expert_2_by_key_phase", "pathways"]
    assert chosen(figures, named) == named
    assert "episode_12" in refusal(chosen, figures, ["episode_12"])


def test_a_policy_without_routers_has_no_figures_of_routing(data):
    ones = [np.ones((len(data.steps), 1), np.float32)]
    baseline = replace(data, steps=replace(data.steps, layer_routing=ones))
    assert has_routing(data) and not has_routing(baseline)
    names = [figure.name for figure in routing_figures(baseline)]
    assert {"lpc_heatmap", "visits_heatmap", "action_entropy_heatmap", "episode_11"} <= set(names)
    assert not any("routing" in name or "weight" in name for name in names) and "pathways" not in names


def test_a_part_of_the_steps_is_chosen_by_its_name(data):
    counts = selections(data)
    of_actions = sum(count for word, count in counts.items() if word.startswith("action: "))
    assert counts["all steps"] == of_actions == len(data.steps)
    held = part_of(data, "action: forward")
    np.testing.assert_array_equal(held.steps.action, hold_action(data, "forward").steps.action)
    assert len(part_of(data, "key phase: carrying the key").steps) == counts["key phase: carrying the key"] > 0
    assert part_of(data, "all steps") is part_of(data, None) is data
    for word in ("action: fly", "carrying", "mission: x"):
        assert "'action: forward'" in refusal(part_of, data, word)


def test_the_first_run_is_one_worth_seeing(tmp_path):
    """The longest episodes of the mixtures that solve 90 %."""
    cases = {"A": (0.99, 5.0, "mop"), "B": (0.95, 50.0, "mop"), "C": (0.5, 90.0, "mop"), "D": (1.0, 99.0, "gru")}
    for task, (success, steps, policy) in cases.items():
        key = RunKey(task, 0)
        cache_path(tmp_path, key).parent.mkdir(parents=True)
        cache_path(tmp_path, key).write_text("{}")
        row = {"checkpoint_path": "", "task_id": task, "trial": 0}
        write_result(tmp_path, key, row | {"success_rate": success, "mean_steps": steps, "policy": policy})
    found = find_runs([], str(tmp_path))
    nothing = Namespace(task=None, trial=None, seed=None, update=None)
    assert choose_run(found, nothing).key.task_id == "B"
    assert choose_run(found, Namespace(**vars(nothing) | {"trial": 0})).key.task_id == "A", (
        "the first that is asked for"
    )
