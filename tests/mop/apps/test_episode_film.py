"""Single episodes: what captions say of them, films and stills."""

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

from mop.apps.episode_records import captions_of, episode_film
from mop.artifacts.routing_cache import RoutingData, load_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.conventions import ACTION_NAMES, SUBGOALS
from mop.envs.render import replay_world
from mop.plotting.film import film_bytes
from mop.plotting.style import expert_hues

EPISODE = 3
PLOTS = Path("plots") / TASK / "trial_0" / "seed_0"


@pytest.fixture(scope="module")
def data() -> RoutingData:
    return load_cache(cache_path(CACHE, RunKey(TASK, 0, 0)))


def test_a_film_shows_every_state(data):
    film, steps = episode_film(data, EPISODE), data.steps
    rows, context = np.flatnonzero(steps.episode == EPISODE), data.episodes[EPISODE]
    num_steps, actions = len(rows), steps.action[rows].tolist()
    ((_, pictures),) = film.columns
    assert len(film.captions) == len(pictures) == num_steps + 1 and context["mission"] in film.title
    for t_step in (0, 7, num_steps):  # the last one is the state after the last action
        np.testing.assert_array_equal(
            pictures[t_step], replay_world(TASK, context["seed"], actions[:t_step]).get_frame()
        )
    for strip, weights, hues in zip(
        film.strips, steps.layer_routing, expert_hues(data.header, steps.layer_routing), strict=True
    ):
        np.testing.assert_array_equal(strip.weights[:-1], weights[rows])
        assert strip.hues == hues
    assert film.captions[num_steps][:2] == [f"after the last action ({num_steps} steps)", "success"]
    assert film.captions[0][0] == f"step 0 of {num_steps}" and " (p = " in film.captions[0][1]
    assert film.captions[context["t_pick"]][-1] and f"carrying the {context['keys'][0][2]} key" in str(film.captions)


def test_sub_goals_stand_beside_the_action(data):
    rows = np.flatnonzero(data.steps.episode == EPISODE)
    goals, instructions = np.full((2, len(data.steps)), -1, np.int8)
    goals[rows] = np.arange(len(rows)) % (len(SUBGOALS) + 1) - 1
    instructions[rows] = np.where(goals[rows] < 0, -1, np.arange(len(rows)) % 2)
    told = captions_of(replace(data, steps=replace(data.steps, subgoal=goals, instruction=instructions)), EPISODE)
    for lines, words in zip(told, ["unknown", "go next to", "open", "pick up", "drop", "explore"], strict=False):
        assert lines[2] == f"sub-goal: {words}", "beside the action"
    assert len(told) > 6 and "sub-goal" not in str(told[-1])
    older = replace(data, steps=replace(data.steps, subgoal=None, instruction=None))
    assert "sub-goal" not in str(captions_of(older, EPISODE))


def test_what_is_missing_is_left_out_of_captions(data):
    steps = data.steps
    bare = replace(steps, action_logits=None, lpc=None, carrying=None, direction=None)
    first = captions_of(replace(data, steps=bare), EPISODE)[0]
    assert len(first) == 2 and first[1] in [f"next action: {name}" for name in ACTION_NAMES]
    sick = replace(steps, action_logits=steps.action_logits * np.nan, lpc=steps.lpc * np.nan)
    told = str(captions_of(replace(data, steps=sick), EPISODE))
    assert "p = " not in told and "LPC" not in told and "hands empty" in told
    assert episode_film(baseline_of(data), EPISODE).strips == [], "a baseline has no gates"


def baseline_of(data: RoutingData) -> RoutingData:
    """The same of a policy with one expert."""
    ones = [np.ones((len(data.steps), 1), np.float32)]
    return replace(
        data, steps=replace(data.steps, layer_routing=ones), header={**data.header, "expert_hidden_sizes": [[64]]}
    )


def test_what_cannot_be_shown_is_one_line(data):
    steps = data.steps
    gaps = steps.t_step.copy()
    gaps[steps.episode == EPISODE] *= 2
    without_seed = [{k: v for k, v in episode.items() if k != "seed"} for episode in data.episodes]
    cases = [
        (replace(data, steps=replace(steps, t_step=None)), "has no 't_step'"),
        (replace(data, steps=replace(steps, t_step=gaps)), "not those of one whole episode"),
        (replace(data, steps=replace(steps, layer_routing=None)), "no 'layer_routing'"),
        (replace(data, steps=replace(steps, action=None)), "action"),
        (replace(data, steps=replace(steps, position=None)), "position"),
        (replace(data, episodes=without_seed), "seed"),
        (replace(data, header=data.header | {"task_id": "BabyAI-Nonsense-v0"}), "BabyAI-Nonsense-v0"),
        (replace(data, steps=replace(steps, position=steps.position + 1)), "another one here"),
    ]
    for changed, words in cases:
        assert words in refusal(episode_film, changed, EPISODE)
    refusal(episode_film, data, 99)
    refusal(episode_film, random_data(), 0)


def test_a_part_of_a_film(data):
    whole = episode_film(data, EPISODE)
    film = Image.open(io.BytesIO(film_bytes(whole.part(2, 6), "gif", 5)))
    assert film.format == "GIF" and film.n_frames == 5 and film.info["loop"] == 0
    durations = []
    for state in range(film.n_frames):
        film.seek(state)
        durations.append(film.info["duration"])
    assert durations == [200] * 4 + [2000]
    refusal(whole.part, 5, 4)
    refusal(whole.part, 0, len(whole.captions))
    assert (
        whole.part(1).captions == whole.captions[1:] and len(whole.part(1).strips[0].weights) == len(whole.captions) - 1
    )


def test_a_script_saves_an_episode(tmp_path, capsys):
    flags = ("--cache_dir", CACHE, "--checkpoint_dir", "none", "--task", TASK)
    result = run_script_here(capsys, "routing_viz.py", *flags, "--episode", 3, "--film", 0, 4, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(PLOTS / f"episode_3.{ending}") for ending in ("gif", "png")]
    assert Image.open(tmp_path / PLOTS / "episode_3.gif").n_frames == 5
    result = run_script_here(capsys, "routing_viz.py", *flags, "--episode", "99", cwd=tmp_path)
    assert result.returncode == 2 and result.stderr == "error: there is no episode 99: they are counted from 0 to 11\n"
