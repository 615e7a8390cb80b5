"""The Episodes tab: the filter, what the player's document holds, films; and all of it in a real browser."""

import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import page_of, served, wait_for
from checks import refusal
from old_caches import CACHE, TASK
from PIL import Image
from routing_data import random_data, two_episodes_in_a_corridor
from scripts import REPOSITORY, run_script_here

from mop.apps.elements import View
from mop.apps.episode_player import episode_gif, player_document
from mop.apps.episode_records import EpisodeFilter, episode_labels, episode_record, find_episodes, parse_cell
from mop.apps.episode_tab import link_to_episodes
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


def content_of(document: str) -> dict:
    """The same of its only episode."""
    (content,) = page_of(document)["episodes"]
    return content


def frame_of(world: dict, t_step: int) -> np.ndarray:
    """A picture, put together as the player's script does."""
    sheet = np.asarray(Image.open(io.BytesIO(bytes_of(world["tiles"]))).convert("RGB"))
    cells, side = {}, world["tile_size"]
    for changes in world["changes"][: t_step + 1]:
        cells |= dict(zip(changes[::2], changes[1::2], strict=True))
    picture = np.zeros((world["height"] * side, world["width"] * side, 3), np.uint8)
    for cell, tile in cells.items():
        (y, x), (row, column) = divmod(cell, world["width"]), divmod(tile, world["columns"])
        source = sheet[row * side : (row + 1) * side, column * side : (column + 1) * side]
        picture[y * side : (y + 1) * side, x * side : (x + 1) * side] = source
    return picture


def bytes_of(address: str) -> bytes:
    assert address.startswith("data:image/png;base64,")
    return base64.b64decode(address.split(",")[1])


def test_filter_by_hand():
    data = two_episodes_in_a_corridor()  # 0: four steps, success, x 1 to 4; 1: two steps at (1, 1), failure
    data.episodes[0] |= {"mission": "open the door", "expert_steps": 4}
    data.episodes[1] |= {"mission": "Pick up the <b>ball</b>", "expert_steps": 1}
    cases = [
        ({}, [0, 1]),
        ({"outcome": "failure"}, [1]),
        ({"outcome": "success"}, [0]),
        ({"min_steps": 3}, [0]),
        ({"words": " BALL "}, [1]),
        ({"words": "<b>"}, [1]),
        ({"cell": (3, 1)}, [0]),
        ({"cell": (1, 1)}, [0, 1]),
        ({"cell": (5, 1)}, []),
        ({"order": "most steps first"}, [0, 1]),
        ({"order": "largest path ratio first"}, [1, 0]),
        ({"outcome": "failure", "cell": (3, 1)}, []),
    ]
    for wanted, found in cases:
        assert find_episodes(data, EpisodeFilter(**wanted)) == found, wanted
    assert list(episode_labels(data, [1])) == ["1 · Pick up the <b>ball</b> · failure · 2 steps"]
    del data.episodes[0]["expert_steps"]
    assert find_episodes(data, EpisodeFilter(order="largest path ratio first")) == [1, 0]
    del data.episodes[0]["success"]
    assert find_episodes(data, EpisodeFilter()) == [0, 1]
    assert "success" in refusal(find_episodes, data, EpisodeFilter(outcome="failure"))


def test_a_cell_is_two_numbers():
    assert [parse_cell(text) for text in ("", " ", "3,4", " 3 , 4 ", "12 5", "1;2")] == [
        *(None, None, (3, 4), (3, 4), (12, 5), (1, 2))
    ]
    for text in ("3", "3,4,5", "x, y", "-1, 2", "99999, 1"):
        refusal(parse_cell, text)


def test_links_of_a_map():
    address = link_to_episodes(View({"run": "a b", "cell": "9,9", "outcome": "failure"}))
    assert address({"x": 3, "y": 4, "weight": 0.5}) == "?run=a+b&cell=3,4&tab=Episodes"
    assert address({"weight": 0.5}) == ""


def test_what_the_document_holds(data):
    document = player_document(episode_record(data, EPISODE))
    content, steps = content_of(document), data.steps
    rows = np.flatnonzero(steps.episode == EPISODE)
    num_steps, actions = len(rows), steps.action[rows].tolist()
    assert content["num_steps"] == num_steps and content["action"] == actions
    assert len(content["captions"]) == len(content["world"]["changes"]) == len(content["carrying"]) == num_steps + 1
    env, seed = replay_world(TASK, data.episodes[EPISODE]["seed"], []), data.episodes[EPISODE]["seed"]
    for t_step in (0, 7, num_steps):  # the last one is the state after the last action
        env = replay_world(TASK, seed, actions[:t_step])
        np.testing.assert_array_equal(frame_of(content["world"], t_step), env.get_frame(tile_size=32))
        assert content["world"]["path"][t_step] == [int(place) for place in env.agent_pos]
    hues = expert_hues(data.header, steps.layer_routing)
    assert [layer["hues"] for layer in content["layers"]] == hues
    for layer, weights, overlay in zip(content["layers"], steps.layer_routing, content["overlays"], strict=False):
        np.testing.assert_allclose(layer["weights"], weights[rows], atol=1e-4)
        assert overlay["colors"] == [layer["hues"][expert] for expert in weights[rows].argmax(1)]
    assert len(content["overlays"]) == len(content["layers"]) + 1
    np.testing.assert_allclose(content["lpc"], steps.lpc[rows], atol=0.06)
    np.testing.assert_allclose(np.sum(content["probabilities"], 1), 1, atol=1e-3)
    assert np.argmax(content["probabilities"], 1).tolist() == actions, "the policy is greedy"
    context = data.episodes[EPISODE]
    assert [context["t_pick"], f"picked up the {context['keys'][0][2]} key"] in content["events"]
    assert any(time == context["t_unlocked"] and text.startswith("unlocked") for time, text in content["events"])
    assert content["captions"][-1] == f"after the last action ({num_steps} steps) · success"
    assert content["captions"][0].startswith(f"step 0 of {num_steps} · next action: ") and " (p = " in document
    assert len(document) < 200_000


def test_sub_goals_stand_beside_the_action(data):
    rows = np.flatnonzero(data.steps.episode == EPISODE)
    goals, instructions = np.full((2, len(data.steps)), -1, np.int8)
    goals[rows] = np.arange(len(rows)) % (len(SUBGOALS) + 1) - 1
    instructions[rows] = np.where(goals[rows] < 0, -1, np.arange(len(rows)) % 2)
    told = replace(data, steps=replace(data.steps, subgoal=goals, instruction=instructions))
    first = " · sub-goal: "
    captions = content_of(player_document(episode_record(told, EPISODE)))["captions"]
    for t_step, words in enumerate(["unknown", "go next to", "open", "pick up", "drop", "explore"]):
        assert f"){first}{words} · " in captions[t_step], "beside the action"
    assert first not in captions[-1] and len(captions) == len(rows) + 1
    older = replace(data, steps=replace(data.steps, subgoal=None, instruction=None))
    assert first not in player_document(episode_record(older, EPISODE))


def test_the_document_asks_for_nothing(data):
    document = player_document(episode_record(data, EPISODE))
    assert "default-src 'none'" in document
    assert not re.search(r"""(src|href)=|https?://(?!www\.w3\.org/2000/svg)|@import|url\(|fetch\(|import\(""", document)


def test_texts_are_never_markup(data):
    evil = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> %episode%"
    header = data.header | {"task_id": data.header["task_id"]}
    episodes = [episode | {"mission": evil} for episode in data.episodes]
    document = player_document(episode_record(RoutingData(header, episodes, data.steps), EPISODE))
    assert page_of(document)["subtitle"] == f"{evil} · success"
    assert "<img" not in document and document.count("</script>") == 2
    named = RoutingData(data.header | {"task_id": "</title><script>"}, episodes, data.steps)
    assert "</title><script>" not in player_document(episode_record(named, EPISODE))


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
        content = content_of(player_document(episode_record(changed, EPISODE)))
        assert content["world"] is None and content["no_world"] and "\n" not in content["no_world"], name
        assert len(content["layers"]) == len(steps.layer_routing) and content["overlays"] == []
        refusal(episode_gif, changed, EPISODE)
    bare = replace(steps, action_logits=None, lpc=None, carrying=None, direction=None)
    content = content_of(player_document(episode_record(replace(data, steps=bare), EPISODE)))
    assert content["probabilities"] is None and content["lpc"] is None and content["world"] is not None
    sick = replace(steps, action_logits=steps.action_logits * np.nan, lpc=steps.lpc * np.nan)
    content = content_of(player_document(episode_record(replace(data, steps=sick), EPISODE)))
    assert content["probabilities"] is None and set(content["lpc"]) == {None}


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
    content = content_of(player_document(episode_record(random_data(4, 1, 1), 0)))
    assert content["layers"] == [] and content["overlays"] == [] and content["lpc"] is not None


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
    assert result.stdout.split() == [str(PLOTS / f"episode_3.{ending}") for ending in ("html", "gif", "png")]
    assert Image.open(tmp_path / PLOTS / "episode_3.gif").n_frames == 5
    result = run_script_here(capsys, "routing_viz.py", *flags, "--episode", "99", cwd=tmp_path)
    assert result.returncode == 2 and result.stderr == "error: there is no episode 99: they are counted from 0 to 11\n"


def shown_steps(player) -> set[int]:
    """The steps that world, cursors and slider of a player show: one, if they agree."""
    parts = player.locator(".world, .cursor").evaluate_all("parts => parts.map(part => Number(part.dataset.step))")
    return {*parts, int(player.locator("#step").input_value())}


def test_the_saved_player_stands_alone(browser, data, tmp_path):
    """By double click: from a file, without the network, with every control."""
    evil = "<script>window.hacked = 1</script>"
    episodes = [episode | {"mission": evil} for episode in data.episodes]
    path = tmp_path / "episode.html"
    path.write_text(player_document(episode_record(replace(data, episodes=episodes), EPISODE)))
    page, faults = browser.new_page(viewport={"width": 1000, "height": 900}), []
    page.on("request", lambda request: request.url.startswith("data:") or faults.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.goto(path.as_uri())
    wait_for(page, "columns[0].frames.length > 0 && columns[0].part('world').dataset.step === '0'")
    last = int((data.steps.episode == EPISODE).sum())
    for _ in range(6):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(100)
    assert shown_steps(page) == {6} and page.locator(".caption").inner_text().startswith("step 6 of")
    for key, step in (("Shift+ArrowRight", 16), ("ArrowLeft", 15), ("End", last), ("ArrowRight", last), ("Home", 0)):
        page.keyboard.press(key)
        assert shown_steps(page) == {min(step, last)}, key
    page.select_option("#speed", "16")
    page.locator("body").press(" ")
    wait_for(page, "now >= 4")
    page.keyboard.press(" ")
    (paused,) = shown_steps(page)
    page.wait_for_timeout(300)
    assert shown_steps(page) == {paused}
    page.locator("#play").click()
    wait_for(page, f"now === {last}")
    assert page.locator("#play").inner_text() == "play", "it stops at the end"
    assert page.locator(".caption").inner_text().startswith("after the last action")
    box = page.locator(".timeline").first.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 5)
    page.mouse.down()
    assert shown_steps(page) == {last // 2}
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 5)
    page.mouse.up()
    (dragged,) = shown_steps(page)
    assert abs(dragged - last / 4) <= 1
    bars = page.locator(".right .bars b").all_inner_texts()
    rows = np.flatnonzero(data.steps.episode == EPISODE)
    weights = np.concatenate([layer[rows[dragged]] for layer in data.steps.layer_routing])
    np.testing.assert_allclose(list(map(float, bars)), weights, atol=0.006)
    before = page.locator(".world").evaluate("world => world.toDataURL()")
    page.select_option("#overlay", "0")
    assert page.locator(".world").evaluate("world => world.toDataURL()") != before
    page.select_option("#overlay", "")
    assert page.locator(".world").evaluate("world => world.toDataURL()") == before
    assert page.evaluate("window.hacked") is None and evil in page.locator("#mission").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    assert faults == [path.as_uri()]
    page.close()


@pytest.mark.slow
def test_episodes_of_the_app(browser, tmp_path):
    """A cell of the map leads to its episodes; filter, player and saving; another visitor has them too."""
    shutil.copytree(CACHE, tmp_path / "evaluation_cache")
    flags = ("--checkpoint_dir", "none")
    with served(REPOSITORY / "routing_viz.py", tmp_path, *flags) as address:
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.set_default_timeout(60_000)
        page.goto(address, wait_until="domcontentloaded")
        page.locator(".figure a i").first.wait_for()
        cell = page.locator(".figure a").nth(8)
        x, y = re.search(r"cell=(\d+)(?:,|%2C)(\d+)", cell.get_attribute("href")).groups()
        cell.locator("i").click()
        player = page.frame_locator("iframe.player")
        player.locator(".caption").wait_for()
        listed = page.locator("marimo-dropdown[data-label*='Episode'] select option").all_inner_texts()
        data = load_cache(cache_path(CACHE, RunKey(TASK, 0, 0)))
        passing = data.steps.episode[(data.steps.position == [int(x), int(y)]).all(1)]
        assert [int(text.split(" ")[0]) for text in listed] == sorted(set(passing.tolist()))
        page.get_by_text(f"Episode ({len(listed)} of 12)").first.wait_for()
        player.locator("body").press("End")
        assert len(shown_steps(player)) == 1
        assert player.locator("body").evaluate("() => document.documentElement.scrollHeight <= innerHeight")
        field = page.locator("marimo-text[data-label*='Passes cell'] input")
        field.fill("nowhere")
        field.press("Enter")
        page.get_by_text("a cell is written as x, y").wait_for()
        field.fill("")
        field.press("Enter")
        page.get_by_text("Episode (12 of 12)").wait_for()
        page.get_by_role("button", name="Save episode_0").click()
        page.get_by_text("saved:").wait_for()
        saved = tmp_path / PLOTS / "episode_0.html"
        assert content_of(saved.read_text())["number"] == 0
        other = browser.new_page()  # a visitor who follows the same link
        other.goto(f"{address}/?tab=Episodes&cell={x},{y}", wait_until="domcontentloaded")
        other.frame_locator("iframe.player").get_by_text("step 0 of").first.wait_for()
        other.get_by_text(f"Episode ({len(listed)} of 12)").first.wait_for()
        page.close()
        other.close()
