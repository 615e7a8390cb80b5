"""The Microscope tab: documents that are kept, links of maps, and the policy in a frame of the page."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from browser import opened, served
from checks import refusal
from old_caches import CACHE, TASK
from scripts import REPOSITORY

from mop.apps import microscope_tab, run_controls
from mop.apps.elements import View
from mop.apps.run_figures import part_of
from mop.apps.runs import Run, load_routing
from mop.artifacts.run_paths import RunKey
from mop.plotting.bars import plot_action_frequency, plot_routing_distributions, plot_specialisation
from mop.plotting.hover import notes_of
from mop.plotting.maps import plot_map

KEY = RunKey(TASK, 0, 0)
CHECKPOINT = KEY.checkpoint(REPOSITORY / "results" / "zoo")


@pytest.fixture
def data():
    return load_routing(Run(KEY, str(CACHE)))


def test_a_document_is_made_once_for_a_file_as_it_is(data, tmp_path):
    path = Path(shutil.copy(CHECKPOINT, tmp_path))
    run = Run(KEY, str(tmp_path), path)
    first = microscope_tab.document_of(run, data)
    assert microscope_tab.document_of(run, data) is first and "of 12 worlds" in first
    again = path.read_bytes()
    path.unlink()
    line = refusal(microscope_tab.document_of, run, data)
    assert str(path) in line and "--checkpoint_dir" in line
    path.write_bytes(again)
    assert microscope_tab.document_of(run, data) is not first


def test_what_is_clicked_in_a_figure_selects_its_steps(data):
    view = View({"run": "a b", "tab": "Spatial", "world": "9", "step": "2"})
    address, steps = run_controls.link_to_steps(view, "all steps", tab="Temporal"), data.steps
    figures = (plot_map(data), plot_specialisation(data), plot_routing_distributions(data), plot_action_frequency(data))
    shown = [note.values for figure in figures for ax in figure.axes for note in notes_of(ax)]
    asked = [parse_qs(words[1:]) for values in shown if (words := address(values))]
    assert all(words.keys() == {"run", "tab", "steps"} and words["tab"] == ["Temporal"] for words in asked)
    counts = {words["steps"][0]: len(part_of(data, words["steps"][0]).steps) for words in asked}
    assert {"action: forward", "key phase: before the key"} <= counts.keys()
    assert counts["action: forward"] == (steps.action == 2).sum() > 0
    x, y = steps.position[7].tolist()
    assert counts[f"cell: {x}, {y}"] == (steps.position == (x, y)).all(1).sum()
    bins = [name for name in counts if name.startswith("layer 1, ") and "entropy" not in name]
    assert bins and sum(counts[name] for name in counts if name.startswith("layer 1, entropy: ")) == len(steps)
    layer, low, high = re.fullmatch(
        r"layer (\d), GRU 16: (.*) to (.*)", next(n for n in counts if "GRU 16" in n)
    ).groups()
    weight = steps.layer_routing[int(layer)][:, 1]
    assert counts[f"layer {layer}, GRU 16: {low} to {high}"] == ((weight >= float(low)) & (weight < float(high))).sum()
    assert address({"layer": 0}) == ""
    of_phase = [note.values for ax in plot_action_frequency(data, "by_key_phase").axes for note in notes_of(ax)]
    within = run_controls.link_to_steps(view, f"cell: {x}, {y}")
    for values in of_phase:  # what the text counts is what is selected
        words = parse_qs(address(values)[1:]).get("steps")
        assert (words is None) == (values["share"] == 0)
        if words:
            assert len(part_of(data, words[0]).steps) == round(values["share"] * values["steps"])
            (both,) = parse_qs(within(values)[1:])["steps"]
            assert both == f"cell: {x}, {y} & {words[0]}" and both.count(" & ") == 2
    for group_by, title in (("by_key_phase", "key phase"), ("by_starting_room", "starting room")):
        cells = [note.values for ax in plot_map(data, "LPC", group_by).axes for note in notes_of(ax)]
        named = {parse_qs(address(values)[1:])["steps"][0]: values["steps"] for values in cells}
        assert len(named) > 10 and all(name.startswith(f"{title}: ") and " & cell: " in name for name in named)
        assert all(len(part_of(data, name).steps) == count for name, count in named.items())
    alike = replace(steps, layer_routing=[np.full((len(steps), 3), 1 / 3, np.float32)] * 3)
    assert len(part_of(replace(data, steps=alike), "layer 0, entropy: 1.0547 to 1.0986").steps) == len(steps)


def test_the_microscope_opens_at_the_first_step_of_a_part(data):
    part = part_of(data, "action: pick up")
    place = {"world": int(part.steps.episode[0]), "step": int(part.steps.t_step[0])}
    assert microscope_tab._first_place(part) == place and microscope_tab._first_place(data) == {}


@pytest.mark.slow
def test_the_policy_in_a_frame(browser, tmp_path, data):
    shutil.copytree(CACHE, tmp_path / "evaluation_cache")
    with served(REPOSITORY / "routing_viz.py", tmp_path) as address:
        with opened(browser, address) as page:
            page.picture()
            assert page.figures().first.bounding_box()["y"] < 300
            spot = page.page.locator(".figure a").nth(8).locator("i")
            x, y = map(int, re.match(r"x (\d+), y (\d+)", spot.get_attribute("data-text")).groups())
            spot.click()
            page.page.locator("option:checked", has_text=f"cell: {x}, {y} (").wait_for(state="attached")
            page.page.get_by_text("Microscope", exact=True).click()
            first = np.flatnonzero((data.steps.position == (x, y)).all(1))[0]
            world, step = data.steps.episode[first], data.steps.t_step[first]
            shown = page.page.frame_locator("iframe.microscope")
            page.until(lambda: shown.locator("#clock").inner_text() == f"step {step}")
            assert shown.locator("#world").input_value() == str(world)
            shown.locator("#leave").click()
            shown.locator("#world1").wait_for()
            row = page.page.get_by_role("row").nth(3)
            row.get_by_role("checkbox").or_(row.get_by_role("radio")).first.click()
            page.until(lambda: shown.locator("#world").input_value() == "2")
            assert "world=2" in page.page.url and "step=" not in page.page.url
            link = page.page.url
            page.page.go_back()
            page.until(lambda: shown.locator("#clock").inner_text() == f"step {step}")
            with page.page.expect_download() as saved:
                page.page.get_by_text("Download this page").click()
            assert "of 12 worlds" in Path(saved.value.path()).read_text()
        with opened(browser, link) as page:
            shown = page.page.frame_locator("iframe.microscope")
            page.until(lambda: shown.locator("#world").input_value() == "2")
