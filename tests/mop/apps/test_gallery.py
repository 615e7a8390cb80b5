"""The static site: a page for each run, which stands alone, and a front page; in a browser without a server."""

import io
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from checks import refusal
from old_caches import CACHE, TASK
from scripts import run_here, run_script_here, script_command, the_error_line

from mop.apps import gallery
from mop.apps.comparison_page import load_table
from mop.apps.runs import Run
from mop.artifacts.routing_cache import load_cache, write_cache
from mop.artifacts.run_paths import RunKey, cache_path

GOOD, BROKEN = RunKey(TASK, 0, 0), RunKey(TASK, 1)
PAGE = f"{TASK}_trial_0_seed_0.html"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a cache of a good run, a text of it in markup, and a broken one, and the site of them."""
    root = tmp_path_factory.mktemp("gallery")
    shutil.copytree(CACHE, root / "evaluation_cache")
    cache = load_cache(cache_path(CACHE, GOOD))
    cache.header["minigrid_version"] = "<script>alert(1)</script>"
    write_cache(root / "evaluation_cache", GOOD, cache)
    broken = cache_path(root / "evaluation_cache", BROKEN)
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    with io.StringIO() as told:
        result = run_here(script_command("gallery.py"), cwd=root, stdout=told, stderr=subprocess.STDOUT)
        lines = told.getvalue().splitlines()
    assert result.returncode == 1 and "site: site/index.html" in lines
    warned = [line for line in lines if line.startswith("warning: ")]
    assert warned == [line for line in lines if str(broken.relative_to(root)) in line]
    return root / "site"


def test_pages_hold_everything_and_lead_to_each_other(place):
    assert {path.name for path in place.iterdir()} == {"index.html", PAGE}
    index, page = ((place / name).read_text() for name in ("index.html", PAGE))
    assert re.findall(r'<li [^>]*><a href="([^"]+)"', index) == [PAGE] and 'href="index.html"' in page
    assert (
        "UnlockPickup" in index and "success 100.0%" in index and str(cache_path("evaluation_cache", BROKEN)) in index
    )
    for text in (index, page):
        addresses = re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', text)
        assert set(addresses) <= {"index.html", PAGE}
    titles = re.findall(r"<h2 id=\"(\w+)\">(.+)</h2>", page)
    assert len(titles) == 5 and ("routing_heatmap_by_key_phase", "Dominant expert by key phase") in titles
    commands = re.findall(r"^Command: (.*)</pre>", page, re.M)
    assert f"python routing_viz.py --task {TASK} --trial 0 --seed 0 --only pathways --format png" in commands
    assert page.count("<iframe") == 0, "the checkpoint is not here"


def test_texts_of_a_cache_are_no_markup(place):
    page = (place / PAGE).read_text()
    assert "<script>alert" not in page and "alert(1)" in page, "in a caption"


def test_every_run_has_a_page_of_its_own_and_a_link_that_leads_there_and_nowhere_else(tmp_path, monkeypatch):
    cache, names = (
        load_cache(cache_path(CACHE, GOOD)),
        ["a b", "a_b", "A B", "a%20b", "#?&", "javascript:alert(1)", "é"],
    )
    keys = [RunKey(TASK, 0, trained_on=name) for name in names]
    for key in keys:
        write_cache(tmp_path / "cache", key, cache)
    monkeypatch.setattr(gallery, "_page_of_run", lambda run, data, pages, *_: f"page of {run.key.trained_on}")
    list(gallery.write_gallery([Run(key, str(tmp_path / "cache")) for key in keys], load_table(CACHE, [])[0], tmp_path))
    hrefs = re.findall(r'<li [^>]*><a href="([^"]+)"', (tmp_path / "index.html").read_text())
    assert len({href.lower() for href in hrefs}) == len(names) and not any(urlsplit(href).scheme for href in hrefs)
    pages = [(tmp_path / unquote(href)).read_text() for href in hrefs]
    assert pages == [f"page of {name}" for name in names]


def test_without_a_readable_run_there_is_no_site(tmp_path, capsys):
    refusal(list, gallery.write_gallery([Run(GOOD, str(tmp_path))], pd.DataFrame(), tmp_path / "site"))
    assert not (tmp_path / "site").exists()
    result = run_script_here(capsys, "gallery.py", cwd=tmp_path)
    assert result.returncode == 2 and "batch_eval.py" in result.stderr and result.stderr.count("\n") == 1


def test_flags_of_figures_that_are_files_are_refused(tmp_path, capsys):
    for words in (("--only", "pathways"), ("--format", "pdf"), ("--width", "5"), ("--plots_dir", "plots")):
        result = run_script_here(capsys, "gallery.py", *words, cwd=tmp_path)
        assert result.returncode == 2 and words[0] in the_error_line(result.stderr)


def test_pages_work_from_the_disk(place, browser):
    faults = []
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("request", lambda r: r.url.startswith(("file:", "data:", "about:")) or faults.append(r.url))
    page.goto((place / "index.html").as_uri())
    page.get_by_role("searchbox").fill("nothing of this name")
    assert page.locator("#shown").inner_text() == "0 of 1" and not page.locator(".cards li").is_visible()
    page.get_by_role("searchbox").fill("unlock MIXTURE")
    assert page.locator("#shown").inner_text() == "1 of 1"
    page.locator(".cards a").click()
    page.wait_for_url(f"**/{PAGE}")
    spot = page.locator(".figure i").first
    spot.hover()
    assert "skip" in spot.get_attribute("data-text")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == 1000 and faults == []


def test_a_policy_whose_checkpoint_is_here_runs_in_a_page_of_its_own(tiny_run, tmp_path, browser):
    shutil.copytree(tiny_run / "checkpoints", tmp_path / "checkpoints")
    for words in (("batch_eval.py", "--num_episodes", "6"), ("gallery.py",)):
        assert run_here(script_command(*words), cwd=tmp_path).returncode == 0
    (name,) = (path.name for path in (tmp_path / "site").glob("*_microscope.html"))
    page = browser.new_page()
    page.goto(f"file://{tmp_path}/site/index.html")
    page.click(".microscope")
    page.wait_for_url(f"**/{name}")
    page.locator("#world0").wait_for()
    page.keyboard.press("ArrowLeft")
    page.locator("#world1").wait_for()
    page.go_back()
    page.locator(".cards a").first.click()
    page.frame_locator("iframe").locator("#world0").wait_for()
    page.close()
