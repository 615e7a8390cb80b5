"""The Microscope tab: documents that are kept, links of maps, and the policy in a frame of the page."""

import re
import shutil
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
from mop.apps.run_figures import part_of, selections
from mop.apps.runs import Run, load_routing
from mop.artifacts.run_paths import RunKey
from mop.plotting.bars import plot_specialisation
from mop.plotting.hover import notes_of

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


def test_a_cell_of_a_map_leads_to_a_step_there(data):
    held = data.where(data.steps.t_step >= 3, "later")
    address = microscope_tab.link_to_cell(held, View({"run": "a b", "world": "9", "tab": "Spatial"}))
    x, y = held.steps.position[0].tolist()
    words = parse_qs(address({"x": x, "y": y, "weight": 0.5})[1:])
    assert words == {"run": ["a b"], "tab": ["Microscope"], "world": ["0"], "step": ["3"]}
    assert address({"weight": 0.5}) == "" and address({"x": 99, "y": 0}) == ""


def test_a_row_of_the_specialisation_selects_its_steps(data):
    view = View({"run": "a b", "tab": "Specialisation"})
    address = run_controls.link_to_steps(data, view)
    clicked = [note.values for ax in plot_specialisation(data).axes for note in notes_of(ax)]
    asked = {parse_qs(words[1:])["steps"][0] for values in clicked if (words := address(values))}
    assert {"action: forward", "key phase: before the key"} <= asked <= selections(data).keys()
    assert len(part_of(data, "action: forward").steps) == (data.steps.action == 2).sum() > 0
    assert address({"layer": 0}) == ""


@pytest.mark.slow
def test_the_policy_in_a_frame(browser, tmp_path, data):
    shutil.copytree(CACHE, tmp_path / "evaluation_cache")
    with served(REPOSITORY / "routing_viz.py", tmp_path) as address:
        with opened(browser, address) as page:
            page.picture()
            assert page.figures().first.bounding_box()["y"] < 300
            cell = page.page.locator(".figure a").nth(8)
            world, step = (int(n) for n in re.search(r"world=(\d+)&step=(\d+)", cell.get_attribute("href")).groups())
            spot = cell.locator("i")
            x, y = map(int, re.match(r"x (\d+), y (\d+)", spot.get_attribute("data-text")).groups())
            row = np.flatnonzero((data.steps.episode == world) & (data.steps.t_step == step))
            assert data.steps.position[row].tolist() == [[x, y]]
            spot.click()
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
