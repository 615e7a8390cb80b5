"""The three apps: as scripts, and in a real browser, with every control, broken and old caches, fresh evaluation."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from browser import FIGURE, Page, opened, served
from old_caches import CACHE, TASK, write_variants
from scripts import PATIENCE_S, REPOSITORY, run_script_here, the_error_line

from mop.artifacts.run_paths import RunKey

APPS = ("routing_viz.py", "logit_viz.py", "cross_task_viz.py")
NAME = f"{TASK} mixture lpc_alpha 0 trial"  # of the runs of the small cache, up to the number of their trial
PLOTS = Path("plots") / TASK / "trial_0" / "seed_0"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a cache of a good run, broken and old ones beside it, and nothing else."""
    root = tmp_path_factory.mktemp("apps")
    shutil.copytree(CACHE, root / "evaluation_cache")
    shutil.copytree(RunKey(TASK, 0, 0).artefacts(CACHE), RunKey(TASK, 7).artefacts(root / "evaluation_cache"))
    write_variants(root / "evaluation_cache")
    return root


def test_marimo_finds_nothing_to_complain_about():
    is_allowed = ("--ignore", "MF001")  # an import before its own, which answers Ctrl-C
    apps = (*APPS, "lmc_viz.py", "simulator_viz.py")
    command = [sys.executable, "-m", "marimo", "check", "--strict", *is_allowed, *apps]
    result = subprocess.run(command, cwd=REPOSITORY, timeout=PATIENCE_S, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "app, only, names",
    [
        (
            "routing_viz.py",
            ["--only", "routing_heatmap_by_key_phase", "pathways"],
            ["routing_heatmap_by_key_phase", "pathways"],
        ),
        ("logit_viz.py", [], ["action_frequency", "action_entropy_heatmap"]),
    ],
)
def test_script_saves_the_figures_of_a_run(app, only, names, place, capsys):
    """Some of them, or all; tests/mop/apps/test_gallery.py draws all of the routing."""
    result = run_script_here(capsys, app, "--", "--task", TASK, "--seed", 0, *only, cwd=place)
    assert result.returncode == 0, result.stderr
    written = result.stdout.split()
    assert {str(PLOTS / f"{name}.png") for name in names} <= set(written) and (not only or len(written) == len(names))
    assert all((place / path).read_bytes().startswith(b"\x89PNG") for path in written)


def test_script_saves_the_figures_across_runs(place, capsys):
    result = run_script_here(capsys, "cross_task_viz.py", "--right", f"{TASK}/trial_7", cwd=place)
    assert result.returncode == 0, result.stderr
    names = [f"{measure}_by_task" for measure in ("failures", "success", "path_ratio", "mean_lpc")]
    names += [f"{y}_against_lpc_by_{color}" for y in ("failures", "success") for color in ("task", "lpc_alpha")]
    assert result.stdout.split() == [f"plots/{name}.png" for name in [*names, "difference"]]
    assert "no routing_side_by_side.png: " in result.stderr and "it is damaged" in result.stderr
    for name in names:
        assert (place / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (place / "plots" / f"{name}.csv").read_text().startswith("panel,task_id,")


@pytest.mark.parametrize("app", APPS)
def test_script_without_anything_to_show(app, tmp_path, capsys):
    result = run_script_here(capsys, app, "--", "--cache_dir", "none", "--checkpoint_dir", "none", cwd=tmp_path)
    assert result.returncode == 2 and "batch_eval.py" in the_error_line(result.stderr)


@pytest.mark.slow
def test_figures_are_there_when_a_visitor_comes_later(place, browser):
    """From another profile, after the first visitor has left and is forgotten; and while another one is there."""
    with served(REPOSITORY / "routing_viz.py", place, ttl_s=2) as address:
        with opened(browser, address) as first, opened(browser, address) as second:
            first.picture()
            second.picture()
        time.sleep(6)
        with opened(browser, address) as page:
            shown = page.picture()
            page.choose("Map", "LPC")
            page.picture(other_than=shown)


@pytest.mark.slow
def test_routing_viz(place, browser):
    flags = ("--num_episodes", 60, "--num_envs", 3)  # an evaluation long enough for its bar to be seen
    with served(REPOSITORY / "routing_viz.py", place, *flags) as address:
        with opened(browser, address) as page:
            controls_of_routing_viz(page)
        with opened(browser, address) as page:
            fresh_evaluation(page)
        with opened(browser, address) as page:
            faulty_caches(page)


def controls_of_routing_viz(page: Page) -> None:
    shown = page.picture()
    page.choose("Map", "LPC")
    shown = page.picture(other_than=shown)
    page.choose("Scale", "absolute")
    shown = page.picture(other_than=shown)
    page.choose("Map", "weight of an expert")
    page.choose("Expert", "GRU 16")
    page.shows(f"{NAME} 0 seed 0: weight_heatmap_expert_1_absolute")
    page.choose("Analysis", "by key phase")
    page.choose("Map", "dominant expert")
    page.shows(f"{NAME} 0 seed 0: routing_heatmap_by_key_phase")
    shown = page.picture(other_than=shown)
    assert page.figures().evaluate("image => image.clientWidth") <= 1354, "wider than the page without its margins"
    texts = page.shown_texts()
    assert len(texts) > 100 and any(
        re.fullmatch(r"x \d+, y \d+: skip 0.\d\d, GRU \d+ 0.\d\d, .* steps?", text) for text in texts
    )
    page.page.locator("marimo-dropdown select", has_text="pdf").select_option("pdf")
    page.save("routing_heatmap_by_key_phase", b"%PDF")
    for tab in ("Near objects", "Temporal", "Distributions", "Specialisation", "Pathways", "Variance"):
        page.open_tab(tab)
        shown = page.picture(other_than=shown)
    page.open_tab("Use and need")
    page.see("there are no interventions of this run yet")
    page.open_tab("Microscope")  # tests/mop/apps/test_microscope_tab.py presses its controls
    page.page.frame_locator("iframe.microscope").locator("#world0").wait_for()
    page.open_tab("Pathways")
    page.choose_run(f"{NAME} 7")
    page.label(f"{NAME} 7: pathways")
    page.undo(lambda: page.open_tab("Variance"))
    page.pass_over()


def fresh_evaluation(page: Page) -> None:
    shown = page.picture()
    page.page.get_by_text("Use cached routing data").click()
    page.see(f"Evaluating {NAME} 0 seed 0")
    shown = page.picture(other_than=shown)
    page.enter("Episodes", 9)
    shown = page.picture(other_than=shown)
    page.enter("Environments", 2)
    page.page.wait_for_timeout(1000)  # these change the speed alone
    assert page.picture() == shown
    page.page.get_by_text("9", exact=True).first.wait_for()


def faulty_caches(page: Page) -> None:
    page.picture()
    for trial, words in ((1, "it is damaged"), (3, "it holds no steps")):
        page.choose_run(f"{TASK} trial {trial}")
        page.see(words)
        page.see(f"trial_{trial}/routing_data.json")
        page.see(f"python batch_eval.py --force --task {TASK} --trial {trial}")
    page.choose_run("BabyAI-GoToObj-v0 mixture lpc_alpha 0 trial 10 seed 1")
    page.see("there is no routing cache")
    page.see("python batch_eval.py --force --checkpoint_dir")
    shown = page.picture()  # evaluated instead
    page.choose_run(f"{TASK} trial 2")
    shown = page.picture(other_than=shown)
    page.open_tab("Microscope")
    page.see("the microscope needs the policy itself")
    page.open_tab("Distributions")
    page.picture(other_than=shown)


@pytest.fixture
def own_place(tmp_path) -> Path:
    """A folder with the small cache, one training with three checkpoints, and one of a policy without routers."""
    caches = tmp_path / "evaluation_cache"
    shutil.copytree(CACHE, caches)
    small = RunKey(TASK, 0, 0).artefacts(caches)
    for update in (100, 200, None):
        key = RunKey(TASK, 9, update=update)
        shutil.copytree(small, key.artefacts(caches), ignore=shutil.ignore_patterns("update_*"), dirs_exist_ok=True)
        for name in ("result.json", "routing_data.json"):
            path = key.artefacts(caches) / name
            content = json.loads(path.read_text()) | {"update": update or 300, "is_final": update is None}
            path.write_text(json.dumps(content | {"trial": 9, "seed": None}))
    baseline = RunKey(TASK, 6).artefacts(caches)
    baseline.mkdir(parents=True)
    about = {"policy": "gru", "trial": 6, "seed": None, "expert_hidden_sizes": [[64]]}
    content = json.loads((small / "routing_data.json").read_text())
    for step in content["routing_data"]:
        step["layer_routing"] = {"layer_0": [1.0]}
    (baseline / "routing_data.json").write_text(json.dumps(content | about))
    (baseline / "result.json").write_text(json.dumps(json.loads((small / "result.json").read_text()) | about))
    return tmp_path


@pytest.mark.slow
def test_view_in_the_address(own_place, browser):
    with served(REPOSITORY / "routing_viz.py", own_place, "--num_episodes", 6) as address:
        with opened(browser, address) as page:
            link = choose_a_view(page)
        with opened(browser, link) as page:  # another profile
            page.shows(f"{NAME} 9 update 200: lpc_heatmap_by_key_phase_action_forward_min_2_steps")
            chosen = [page.chosen(label) for label in ("Map", "Analysis")]
            assert chosen == ["LPC", "by key phase"] and page.page.url == link
            assert page.chosen("Steps").startswith("action: forward (")
            nothing_is_cut_off(page)
            page.choose("Analysis", "overall")  # a figure of fewer inches
            page.shows(f"{NAME} 9 update 200: lpc_heatmap_action_forward_min_2_steps")
            fills_the_page(page, 1800)
        with opened(browser, f"{address}/?run=none&tab=Nowhere&analysis=by_magic&min_steps=x&steps=fly") as page:
            page.shows(f"{NAME} 0 seed 0: routing_heatmap")
            for word in ("'none'", "'Nowhere'", "'by_magic'", "'fly'", "min_steps 'x'"):
                page.see(word)
        with opened(browser, address) as page:
            runs_come_and_go(page, own_place)


def choose_a_view(page: Page) -> str:
    """Choose everything, move through the training and over to other runs and back; returns the address."""
    page.picture()
    page.choose("Map", "LPC")
    page.choose("Analysis", "by key phase")
    page.choose_start("Steps", "action: forward")
    page.shows(f"{NAME} 0 seed 0: lpc_heatmap_by_key_phase_action_forward")
    least = page.page.locator("marimo-number input")
    least.fill("2")
    least.press("Enter")
    page.shows(f"{NAME} 0 seed 0: lpc_heatmap_by_key_phase_action_forward_min_2_steps")
    page.choose_run(f"{TASK} GRU trial 6")
    page.shows(f"{TASK} GRU trial 6: lpc_heatmap_by_key_phase_action_forward_min_2_steps")
    assert page.tab_names() == ["Spatial", "Actions", "Microscope"], "it has no routers"
    page.choose_run(f"{NAME} 9")
    page.shows(f"{NAME} 9: lpc_heatmap_by_key_phase_action_forward_min_2_steps")
    page.see("update 300 (3 of 3)")
    slider = page.page.locator("marimo-slider[data-label*='Training']").get_by_role("slider")
    for update in (200, 100):
        slider.focus()
        slider.press("ArrowLeft")
        page.shows(f"{NAME} 9 update {update}: lpc_heatmap_by_key_phase_action_forward_min_2_steps")
    slider.focus()
    slider.press("ArrowRight")
    page.shows(f"{NAME} 9 update 200: lpc_heatmap_by_key_phase_action_forward_min_2_steps")
    return page.page.url


def nothing_is_cut_off(page: Page) -> None:
    """In narrow and wide windows, figure and texts under the mouse are within the page, which is filled."""
    inside = """(spot) => [...function* () { for (let e = spot; e; e = e.parentElement) yield e }()].every(
        e => e.scrollWidth <= e.clientWidth || getComputedStyle(e).overflowX == 'visible' || !e.clientWidth)"""
    spots = page.page.locator(".figure i")
    corners = spots.evaluate_all(
        """spots => { const box = spots.map(spot => spot.getBoundingClientRect()), all = [...box.keys()]
        const first = by => all.sort((a, b) => by(box[a]) - by(box[b]))[0]
        return [first(b => b.left), first(b => -b.right), first(b => b.top), first(b => -b.bottom)] }"""
    )
    for width in (1000, 1800):
        page.page.set_viewport_size({"width": width, "height": 900})
        for corner in corners:
            spot = spots.nth(corner)
            spot.scroll_into_view_if_needed()
            height = settled_height(page)
            spot.hover()
            assert spot.evaluate(inside), f"{width} pixels"
            assert settled_height(page) == height
        fills_the_page(page, width)


def settled_height(page: Page) -> int:
    """The height of all that the page holds, once two readings in a row are equal: it may still be laid out."""
    heights = [-1]

    def is_settled() -> bool:
        heights.append(page.page.evaluate("document.querySelector('#App').scrollHeight"))
        return heights[-1] == heights[-2]

    page.until(is_settled)
    return heights[-1]


def fills_the_page(page: Page, width: int) -> None:
    left, right = page.figures().first.evaluate(
        "image => [image.getBoundingClientRect().left, image.getBoundingClientRect().right]"
    )
    assert left >= 0 and right <= width and right - left > 0.75 * width


def runs_come_and_go(page: Page, place: Path) -> None:
    """The button finds a new cache, and that one is gone; what was chosen stays."""
    page.shows(f"{NAME} 0 seed 0: routing_heatmap")
    page.choose("Analysis", "by key phase")
    page.shows(f"{NAME} 0 seed 0: routing_heatmap_by_key_phase")
    first = RunKey(TASK, 0, 0).artefacts(place / "evaluation_cache")
    shutil.copytree(first, RunKey("A", 0).artefacts(place / "evaluation_cache"))  # the first of all
    page.refresh()
    page.until(lambda: any(name.startswith("A mixture lpc_alpha 0 trial 0") for name in page.run_names()))
    page.shows(f"{NAME} 0 seed 0: routing_heatmap_by_key_phase")
    shutil.rmtree(first)
    page.refresh()
    page.see("there is no routing cache")
    page.see("Shown are fresh episodes")
    page.shows(f"{NAME} 0 seed 0: routing_heatmap_by_key_phase")
    assert page.chosen_run().endswith("· no cache")


@pytest.mark.slow
def test_logit_viz(place, browser):
    with (
        served(REPOSITORY / "logit_viz.py", place, "--num_episodes", 6) as address,
        opened(browser, address, color_scheme="dark") as page,
    ):
        shown = page.picture()
        assert page.page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"
        page.undo(lambda: page.choose("Analysis", "by action"))
        page.pass_over()
        page.save("action_frequency")
        page.choose("Analysis", "by key phase")
        shown = page.picture(other_than=shown)
        page.save("action_frequency_by_key_phase")
        link = page.page.url
        page.open_tab("Spatial")
        page.choose("Map", "action probabilities")
        shown = page.picture(other_than=shown)
        page.choose("Analysis", "overall")
        page.choose("Map", "action entropy")
        page.shows(f"{NAME} 0 seed 0: action_entropy_heatmap")
        shown = page.picture(other_than=shown)
        page.save("action_entropy_heatmap")
        page.page.get_by_text("Use cached routing data").click()
        shown = page.picture(other_than=shown)
        page.page.get_by_text("Use cached routing data").click()
        page.choose_run(f"{TASK} trial 2")
        page.see("(schema version 1) has no 'action_logits'")
        page.see(f"python batch_eval.py --force --task {TASK} --trial 2")
        page.choose_run(f"{TASK} trial 1")
        page.see("it is damaged")
        with opened(browser, link) as other:  # the page of a run, begun with the actions
            other.shows(f"{NAME} 0 seed 0: action_frequency_by_key_phase")


@pytest.mark.slow
def test_cross_task_viz(place, browser):
    table = pd.read_csv(REPOSITORY / "results/linear/tasks.csv")
    few = [f"BabyAI-{name}-v0" for name in ("GoToDoor", "GoToObj", "UnlockPickup")]  # all would be drawn at each click
    table[table["task_id"].isin(few)].to_csv(place / "few.csv", index=False)
    with served(REPOSITORY / "cross_task_viz.py", place, "--results_path", place / "few.csv") as address:
        with opened(browser, address) as page:
            results_and_filters(page, place)
            difference = two_runs(page)
            seeds = many_seeds(page)
            link = page.page.url
        with opened(browser, link) as page:  # it opens the same view
            for shown in (difference, seeds):
                page.names(shown)


def results_and_filters(page: Page, place: Path) -> None:
    written, by_task, against_cost = sorted(place.glob("plots/**/*")), page.picture(), page.picture(1)
    table = pd.read_csv(place / "few.csv").query("task_id == 'BabyAI-GoToDoor-v0'")
    row = table.sort_values("success_rate", kind="stable").iloc[0]  # no other point is near
    hardest = page.page.locator(f".figure i[data-text^='GoToDoor GRU baseline'][data-text*='seed {row['seed']}']").first
    hardest.hover()
    shown = "success {:.1f} % ({:.1f} to {:.1f})".format(*(100 * row[["success_rate", "success_low", "success_high"]]))
    assert shown in hardest.evaluate("spot => getComputedStyle(spot, '::after').content")
    page.choose("Measure", "path ratio")
    by_task = page.picture(other_than=by_task)
    page.undo(lambda: page.choose("Measure", "mean LPC"))
    assert list(page.save("path_ratio_by_task")) == [f"path_ratio_by_task.{ending}" for ending in ("csv", "txt", "png")]
    assert sorted(place.glob("plots/**/*")) == written, "a page writes nothing"
    page.choose("Policy", "mixture")
    against_cost = page.picture(1, other_than=against_cost)
    page.choose("Show", "success")
    page.picture(1, other_than=against_cost)
    page.save("success_against_lpc_by_task")
    page.choose("Worlds", "12 worlds from eval_seed 0")
    page.see("there is no GRU baseline among these results")
    page.picture(other_than=by_task)
    for choice in ("worlds=12", "measure=path", "policy=mop", "scale=success"):
        assert choice in page.page.url
    page.choose("Worlds", "all, though they differ")
    page.see("these runs were evaluated in different worlds")


def two_runs(page: Page) -> str:
    """Compare two runs, and several side by side; what the figure of the difference says that it shows."""
    page.see("it is damaged")  # the first two runs of a task
    assert page.page.get_by_role("button", name="Save difference.png").count() == 0
    name = f"{TASK} mixture lpc_alpha 0 trial"
    page.choose("Right", f"{name} 7")
    label = f"difference, {name} 0 seed 0, {name} 7"
    page.names(f"{label}: LPC and all layers, overall")
    page.see("+0.0 (+0.0 to +0.0)")  # the same evaluation twice
    assert any(re.fullmatch(r"x \d+, y \d+: LPC ([\d,]+) → \1, \+0 \(95 % .*", text) for text in page.shown_texts())
    page.choose("Analysis", "by key phase")
    page.names(f"{label}: LPC, by_key_phase")
    page.choose("Map", "layer 1")
    page.names(f"{label}: layer 1, by_key_phase")
    page.save("difference")
    page.page.locator("marimo-multiselect button").first.click()
    for trial in ("trial 1", "trial 2", "trial 7"):  # those that cannot be shown away, another one in
        page.page.get_by_role("option", name=re.compile(rf" {trial}( |$)")).first.click()
    page.page.keyboard.press("Escape")
    page.page.locator(f"{FIGURE}[data-name^='routing_side_by_side, '][data-name*='trial 7']").wait_for()
    page.save("routing_side_by_side")
    return f"{label}: layer 1, by_key_phase"


def many_seeds(page: Page) -> str:
    """Trials 0 and 7 are two trainings with one lpc_alpha; what cannot be read is counted. What is shown last."""
    page.choose("Task", TASK)
    page.names(f"measures_against_alpha of {TASK}")
    page.see("left out, 1 run: it cannot be read: it is damaged, or no routing cache")
    assert any(text.startswith("lpc_alpha 0: mean of 2 seeds") for text in page.shown_texts())
    page.choose("Figure", "measures by phase")
    page.names(f"measures_by_phase of {TASK}")
    page.save("measures_by_phase")
    page.choose("Phases", "by outcome")
    page.see("these runs have one phase alone, 'success'")  # every episode succeeds
    page.choose("Phases", "by carrying phase")
    page.names(f"measures_by_phase of {TASK}")
    return f"measures_by_phase of {TASK}"


@pytest.mark.slow
def test_the_editor_shows_what_the_app_shows(place, browser):
    app = "cross_task_viz.py"
    before = (REPOSITORY / app).read_bytes()
    with served(REPOSITORY / app, place, mode="edit") as address, opened(browser, address) as page:
        page.picture()
    assert (REPOSITORY / app).read_bytes() == before


@pytest.mark.slow
def test_nothing_to_show(browser, tmp_path):
    app = REPOSITORY / "cross_task_viz.py"
    with served(app, tmp_path, "--checkpoint_dir", "none") as address, opened(browser, address) as page:
        page.see("there is no result under evaluation_cache/")
        page.see("python batch_eval.py")
