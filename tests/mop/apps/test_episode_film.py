"""Single episodes: what is known of them, films and stills."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checks import refusal
from old_caches import CACHE, TASK
from PIL import Image
from routing_data import random_data
from scripts import run_script_here

from mop.apps.episode_film import episode_gif
from mop.apps.episode_records import episode_record
from mop.artifacts.routing_cache import RoutingData, load_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.conventions import SUBGOALS
from mop.envs.render import replay_world
from mop.plotting.style import expert_hues

EPISODE = 3
PLOTS = Path("plots") / TASK / "trial_0" / "seed_0"


@pytest.fixture(scope="module")
def data() -> RoutingData:
    return load_cache(cache_path(CACHE, RunKey(TASK, 0, 0)))


def test_what_is_known_of_an_episode(data):
    record, steps = episode_record(data, EPISODE), data.steps
    rows = np.flatnonzero(steps.episode == EPISODE)
    num_steps, actions = len(rows), steps.action[rows].tolist()
    assert record.num_steps == num_steps and record.action.tolist() == actions
    assert len(record.carrying) == len(record.world.frames) == num_steps + 1
    seed = data.episodes[EPISODE]["seed"]
    for t_step in (0, 7, num_steps):  # the last one is the state after the last action
        env = replay_world(TASK, seed, actions[:t_step])
        np.testing.assert_array_equal(record.world.picture(t_step), env.get_frame(tile_size=32))
        assert record.world.position[t_step].tolist() == [int(place) for place in env.agent_pos]
    assert record.hues == expert_hues(data.header, steps.layer_routing)
    for mine, weights in zip(record.weights, steps.layer_routing, strict=True):
        np.testing.assert_array_equal(mine, weights[rows])
    np.testing.assert_allclose(record.probabilities.sum(1), 1)
    assert record.probabilities.argmax(1).tolist() == actions, "the policy is greedy"
    context = data.episodes[EPISODE]
    assert (context["t_pick"], f"picked up the {context['keys'][0][2]} key") in record.events
    assert any(time == context["t_unlocked"] and text.startswith("unlocked") for time, text in record.events)
    assert record.caption(num_steps) == f"after the last action ({num_steps} steps) · success"
    assert record.caption(0).startswith(f"step 0 of {num_steps} · next action: ") and " (p = " in record.caption(0)


def test_sub_goals_stand_beside_the_action(data):
    rows = np.flatnonzero(data.steps.episode == EPISODE)
    goals, instructions = np.full((2, len(data.steps)), -1, np.int8)
    goals[rows] = np.arange(len(rows)) % (len(SUBGOALS) + 1) - 1
    instructions[rows] = np.where(goals[rows] < 0, -1, np.arange(len(rows)) % 2)
    told = replace(data, steps=replace(data.steps, subgoal=goals, instruction=instructions))
    first = " · sub-goal: "
    record = episode_record(told, EPISODE)
    captions = [record.caption(t_step) for t_step in range(len(rows) + 1)]
    for t_step, words in enumerate(["unknown", "go next to", "open", "pick up", "drop", "explore"]):
        assert f"){first}{words} · " in captions[t_step], "beside the action"
    assert first not in captions[-1] and len(captions) == len(rows) + 1
    older = replace(data, steps=replace(data.steps, subgoal=None, instruction=None))
    assert first not in episode_record(older, EPISODE).caption(0)


def test_what_is_missing_is_left_out(data):
    steps = data.steps
    without_seed = [{k: v for k, v in episode.items() if k != "seed"} for episode in data.episodes]
    damaged = {
        "action": replace(data, steps=replace(steps, action=None)),
        "position": replace(data, steps=replace(steps, position=None)),
        "seed": replace(data, episodes=without_seed),
        "task": replace(data, header=data.header | {"task_id": "BabyAI-Nonsense-v0"}),
        "moved": replace(data, steps=replace(steps, position=steps.position + 1)),
    }
    for name, changed in damaged.items():
        record = episode_record(changed, EPISODE)
        assert record.world is None and record.no_world and "\n" not in record.no_world, name
        assert len(record.weights) == len(steps.layer_routing)
        refusal(episode_gif, changed, EPISODE)
    bare = replace(steps, action_logits=None, lpc=None, carrying=None, direction=None)
    record = episode_record(replace(data, steps=bare), EPISODE)
    assert record.probabilities is None and record.lpc is None and record.world is not None
    sick = replace(steps, action_logits=steps.action_logits * np.nan, lpc=steps.lpc * np.nan)
    record = episode_record(replace(data, steps=sick), EPISODE)
    assert record.probabilities is None and "LPC" not in record.caption(0)


def test_what_cannot_be_shown_is_one_line(data):
    steps = data.steps
    gaps = steps.t_step.copy()
    gaps[steps.episode == EPISODE] *= 2
    cases = [
        (replace(steps, t_step=None), "has no 't_step'"),
        (replace(steps, t_step=gaps), "not those of one whole episode"),
        (replace(steps, layer_routing=None), "no 'layer_routing'"),
        (replace(steps, layer_routing=[weights * np.nan for weights in steps.layer_routing]), "diverged"),
    ]
    for changed, words in cases:
        assert words in refusal(episode_record, replace(data, steps=changed), EPISODE)
    refusal(episode_record, data, 99)


def test_a_baseline_has_no_gates():
    record = episode_record(random_data(4, 1, 1), 0)
    assert record.weights == [] and record.hues == [] and record.lpc is not None


def test_a_film_has_every_state(data):
    num_steps = int((data.steps.episode == EPISODE).sum())
    film = Image.open(io.BytesIO(episode_gif(data, EPISODE, steps_per_second=5)))
    assert film.format == "GIF" and film.n_frames == num_steps + 1
    durations, shown = [], []
    for state in range(film.n_frames):
        film.seek(state)
        durations.append(film.info["duration"])
        shown.append(np.asarray(film.convert("RGB")).astype(int))
    assert durations == [200] * num_steps + [2000] and film.info["loop"] == 0
    record = episode_record(data, EPISODE)
    for state in (0, 5, num_steps):  # the world is where it should be, in nearly its own colours
        picture = Image.fromarray(record.world.picture(state)).resize((300, 164), Image.Resampling.LANCZOS)
        assert np.abs(shown[state][10:174, 10:310] - np.asarray(picture)).mean() < 6
    part = Image.open(io.BytesIO(episode_gif(data, EPISODE, first=2, last=6)))
    assert part.n_frames == 5
    refusal(episode_gif, data, EPISODE, first=5, last=4)


def test_a_script_saves_an_episode(tmp_path, capsys):
    flags = ("--cache_dir", CACHE, "--checkpoint_dir", "none", "--task", TASK)
    result = run_script_here(capsys, "routing_viz.py", *flags, "--episode", 3, "--film", 0, 4, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(PLOTS / f"episode_3.{ending}") for ending in ("gif", "png")]
    assert Image.open(tmp_path / PLOTS / "episode_3.gif").n_frames == 5
    result = run_script_here(capsys, "routing_viz.py", *flags, "--episode", "99", cwd=tmp_path)
    assert result.returncode == 2 and result.stderr == "error: there is no episode 99: they are counted from 0 to 11\n"
