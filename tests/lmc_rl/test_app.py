"""The page of linear mode connectivity: its numbers by hand, as a script, in a real browser, with damaged files."""

import csv
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import FIGURE, Page, opened, served
from checks import refusal
from lmc_files import BEST, BETWEEN_RUNS, FORKS, HEIGHTS, OF_LINES, RANDOM, write_experiment, write_line_experiment
from playwright.sync_api import expect
from scripts import PATIENCE_S, REPOSITORY, run_script_here, the_error_line

from lmc_rl.analysis.lost_figures import plot_lost
from lmc_rl.analysis.training_figures import LOSS, NOT_MEASURED, RETURN, curves_of
from lmc_rl.analysis.units import NATS, SHARE
from lmc_rl.app import page
from lmc_rl.app.catalog import find_experiments, load_shown, read_log
from mop.apps.elements import View
from mop.common.cli import parse
from mop.plotting.hover import boxes_of, values_of

APP = "lmc_viz.py"
LEARNED = BEST - RANDOM
SEVERAL = (
    ("chord barrier B", "barrier"),
    ("instability I", "instability"),
    ("return along the path", "paths"),
    ("learning curves", "curves"),
)
ENV = "demo/InvertedDoublePendulum-v5"
SAC_1 = f"{ENV}/SAC/seed_1_20260101_000001"
DDPG_2 = f"{ENV}/DDPG/seed_2_20260101_000002"
MOP = f"demo/{OF_LINES['task_id']}/mop"
MOP_1, MOP_2, MOP_PENALISED = (
    f"{MOP}/seed_{name}" for name in ("1_20260101_000001", "2_20260101_000002", "1_20260101_000101")
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with finished experiments of both kinds, one at work, one damaged, and other files of the same names."""
    root = tmp_path_factory.mktemp("lmc")
    results = root / "results"
    write_experiment(results, "SAC", 1)
    write_experiment(results, "SAC", 2)
    write_experiment(results, "DDPG", 2, scale=0.5)
    for seed, lpc_alpha in ((1, 0.0), (2, 0.0), (1, 1e-5)):
        write_line_experiment(results, seed, lpc_alpha, scale=1.0 if lpc_alpha == 0 else 0.5)
    at_work = write_experiment(results, "SAC", 3, max_episode_steps=50)
    lines = (at_work / "episodes.jsonl").read_text().splitlines(keepends=True)
    (at_work / "episodes.jsonl").write_text("".join(lines[: len(lines) // 2]) + '{"run": "se')
    early = write_experiment(results, "SAC", 4, env="Hopper-v5")
    (early / "episodes.jsonl").unlink()
    broken = write_experiment(results, "SAC", 5, env="Swimmer-v5")
    (broken / "config.json").write_text("{}")
    (results / "zoo").mkdir()
    (results / "zoo" / "config.json").write_text('{"of": "something else"}')
    return root


@pytest.fixture
def choices(place) -> page.Choices:
    """The first run of SAC at its first fork, beside all that can be pooled."""
    results = place / "results"
    shown = load_shown(results, SAC_1)
    several, problems = page.load_several(results, [SAC_1, DDPG_2], shown)
    assert problems == []
    return page.Choices(str(results), shown, "0", several)


def test_experiments_are_found_and_what_they_lack_is_said(place):
    found = find_experiments(place / "results")
    words = {word: label for label, word in found.items()}
    assert len(words) == 6 + 3 and "zoo" not in words
    assert words[MOP_PENALISED] == "BabyAI-GoToObj-v0, lpc_alpha 1e-05, seed 1 · demo 20260101_000101"
    assert words[SAC_1] == "InvertedDoublePendulum-v5 SAC, copy, seed 1 · demo 20260101_000001"
    assert words["demo/Hopper-v5/SAC/seed_4_20260101_000004"].endswith("· no path yet")
    damaged = "demo/Swimmer-v5/SAC/seed_5_20260101_000005"
    assert words[damaged] == f"{damaged} · damaged"
    assert "config.json" in refusal(load_shown, place / "results", damaged)
    at_work = load_shown(place / "results", f"{ENV}/SAC/seed_3_20260101_000003")
    assert "forks are not measured yet: the experiment is at work" in at_work.note and 0 < len(at_work.paths) < 6
    assert NOT_MEASURED in {mark.verdict for mark in at_work.marks}
    early = load_shown(place / "results", "demo/Hopper-v5/SAC/seed_4_20260101_000004")
    assert early.paths == {} and "no path has been evaluated yet" in early.note and len(early.log["env_steps"]) == 20
    assert "lmc_rl.run_env" in refusal(find_experiments, place / "nowhere")


def test_a_result_that_has_changed_is_read_again(tmp_path):
    folder = write_experiment(tmp_path)
    word = folder.relative_to(tmp_path).as_posix()
    assert len(load_shown(tmp_path, word).paths) == len(FORKS) + 2
    rows = folder / "episodes.jsonl"
    rows.write_bytes(b"".join(line for line in rows.read_bytes().splitlines(True) if b'"fork":3' not in line))
    again = load_shown(tmp_path, word)
    assert len(again.paths) == 3 + 1 and again.note.startswith("1 of 4 forks")
    (folder / "training" / "parent" / "training_log.csv").write_text("update,env_steps\n1,x\n")
    assert "training_log.csv" in refusal(load_shown, tmp_path, word)
    assert read_log(tmp_path / "none.csv") == {}


def test_the_page_opens_without_torch():
    program = (
        "import sys, lmc_viz, lmc_rl.app.page; print({'torch', 'numba', 'pandas', 'mujoco'} & set(sys.modules) or 0)"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (result.stdout, result.stderr) == ("0\n", "")


def rows_of(figure, **fixed) -> list[dict]:
    return [row for row in values_of(figure) if all(row.get(name) == value for name, value in fixed.items())]


def test_a_path_shows_every_episode_and_the_planted_dip(choices):
    """The mean at the middle is 60 below the ends; each episode is a row, and under the mouse with its neighbours."""
    figure = page.draw_path(choices)
    episodes = [row for row in values_of(figure) if "episode" in row]
    assert len(episodes) == 11 * 12 and {row["episode"] for row in episodes} == set(range(12))
    returns = choices.line.main.gains[0]
    for row in episodes:
        assert row["return"] == returns[row["episode"], round(row["alpha"] * 10)]
    (middle,) = [row for row in values_of(figure) if row["alpha"] == 0.5 and "mean_return" in row]
    assert middle["mean_return"] == pytest.approx(returns[:, 5].mean()) and middle["low"] < middle["mean_return"]
    assert middle["chord"] - middle["mean_return"] == pytest.approx(FORKS[0.1], abs=1)
    texts = " ".join(box.text for box in boxes_of(figure))
    assert all(f"episode {number}" in texts for number in range(12))
    profile = choices.line.main
    barrier = profile.barrier.over(profile.scale)
    assert profile.barrier.low < FORKS[0.1] < profile.barrier.high
    assert 0.6 < barrier.low < barrier.value < barrier.high < 0.75
    title = " ".join(figure.get_suptitle().split())
    assert f"barrier, B {100 * barrier.value:.1f} % (95 %: {100 * barrier.low:.1f} to" in title


def test_a_training_marks_its_forks_and_their_children(choices):
    figure = page.draw_training(choices, RETURN)
    marks = [row for row in values_of(figure) if "fork" in row]
    assert [(row["env_steps"], row["verdict"]) for row in marks] == [
        (2000, "barrier"), (5000, "barrier"), (10_000, "connected"), (16_000, "connected")
    ]  # fmt: skip
    children = rows_of(figure, line="child 2")
    assert children[0]["env_steps"] == 3000 and len(children) == 18
    assert len(rows_of(figure, line="run, evaluations")) == 20
    assert curves_of(choices.shown.log) == ["return", "critic_loss", "actor_loss"]
    losses = page.draw_training(choices, "critic_loss")
    assert rows_of(losses, line="run")[0] == {"panel": "", "line": "run", "env_steps": 2000, "critic_loss": 45.0}
    refusal(page.draw_training, choices, "ent_coef")


def test_several_runs_pooled_and_single(place):
    results = place / "results"
    words = [f"{ENV}/SAC/seed_{seed}_20260101_00000{seed}" for seed in (1, 2)] + [DDPG_2]
    several, _ = page.load_several(results, words, load_shown(results, SAC_1))
    choices = page.Choices(str(results), several[0], "0", several)
    pooled, single = (page.curves_of_groups(choices, seeds, SHARE) for seeds in (page.POOLED, page.EACH))
    sac = "InvertedDoublePendulum-v5 SAC, copy"
    assert [line.label for line in pooled] == [f"{sac}, 2 seeds", "InvertedDoublePendulum-v5 DDPG, copy, 1 seed"]
    assert [line.label for line in single][:2] == [f"{sac}, seed 1", f"{sac}, seed 2"]
    assert single[0].hue == single[1].hue != single[2].hue and single[0].marker != single[1].marker
    figure = page.draw_several(choices, "barrier", page.POOLED)
    first = rows_of(figure, line=pooled[0].label, kind="fork")
    values = [load_shown(results, word).paths["0"].main for word in words[:2]]
    shares = [profile.barrier.value / profile.scale for profile in values]
    assert first[0]["value"] == pytest.approx(np.mean(shares)) and first[0]["parents"] == 2
    half = 12.7062 * np.std(shares, ddof=1) / 2**0.5  # Student's t with one degree of freedom
    assert first[0]["high"] - first[0]["value"] == pytest.approx(half, rel=1e-5)
    panels = [pooled, pooled[:1]]
    beside = plot_lost([("both", panels[0]), ("one", panels[1])])
    names = [{text.get_text() for text in ax.get_legend().get_texts()} for ax in beside.axes]
    for shown, panel in zip(names, panels, strict=True):
        assert shown == {"tolerance", "between independent runs"} | {line.label for line in panel}
    by_seed = page.draw_several(choices, "barrier", page.EACH)
    assert {(row["run"], row["fork"]) for row in rows_of(by_seed, kind="fork")} == {
        (word, fork) for word in words for fork in range(4)
    }
    paths = page.draw_several(choices, "paths", page.EACH)
    (middle,) = rows_of(paths, line=f"{sac}, seed 1", alpha=0.5)
    assert middle["share"] == pytest.approx(1 - FORKS[0.1] / LEARNED, abs=0.02)
    covered = 0
    for name, drawing in page.page_of(choices).figures.items():
        figure = drawing.draw()
        assert values_of(figure) and boxes_of(figure), name
        covered += 1
    assert covered == 3 + 2 * 6 + 8


def test_fork_points_are_seen_beside_much_larger_controls():
    """Measured: B falls from 0.08 nats to 0 over the forks, and independent runs lose 1.1 nats."""
    results = REPOSITORY / "results"
    word = next(
        word for word in find_experiments(results).values() if OF_LINES["task_id"] in word or "GoToLocal" in word
    )
    shown = load_shown(results, word)
    figure = page.draw_several(page.Choices(str(results), shown, "0", (shown,)), "barrier", page.EACH)
    (ax,) = figure.axes
    values = [row["value"] for row in rows_of(figure, kind="fork")]
    (independent,) = (row["value"] for row in rows_of(figure, kind="independent"))
    assert independent > 5 * max(values)
    heights = ax.transAxes.inverted().transform(ax.transData.transform([(0, y) for y in (0, max(values))]))[:, 1]
    assert heights[1] - heights[0] > 0.3, "of the height of the axes"


@pytest.fixture
def of_lines(place) -> page.Choices:
    """The first imitation run at its first fork, every part, beside all of its task."""
    results = place / "results"
    shown = load_shown(results, MOP_1)
    several, problems = page.load_several(results, [MOP_1, MOP_2, MOP_PENALISED, SAC_1], shown)
    assert len(several) == 3 and len(problems) == 1 and "is of another kind than" in problems[0]
    return page.Choices(str(results), shown, "0", several, "every")


def test_an_imitation_run_marks_its_forks(of_lines):
    """Fork points in environment steps, with B in nats and in points; the curve and that of the children."""
    assert [mark.step for mark in of_lines.shown.marks] == [0, 64, 320]
    assert [mark.verdict for mark in of_lines.shown.marks] == ["barrier", "barrier", "connected"]
    first = of_lines.shown.marks[0].text
    assert "fork 0, at 0% (step 0): barrier, B 0.79" in first and "of success 27.6 points (95 %: " in first
    figure = page.draw_training(replace(of_lines, path="1"), LOSS)
    assert len(rows_of(figure, line="run")) == 10 and len(rows_of(figure, line="child 2")) == 9
    assert curves_of(of_lines.shown.log) == ["cross_entropy", "accuracy", "success_rate", "loss"]
    assert dict((name, value) for name, value, _ in page.facts(of_lines.shown))["connected from"] == "50%"


def test_the_lines_of_a_fork_and_of_one_part(of_lines):
    """Every part as a curve, or one alone, aligned or not; heights are the planted ones."""
    figure = page.draw_path(of_lines)
    middle = {row["name"]: row["value"] for row in rows_of(figure, panel="cross-entropy, nats", alpha=0.5)}
    assert middle.keys() == {"all", "routers", "experts", "all, aligned"}
    end = 0.1 + 0.025
    for name, share in (("all", 1.0), ("routers", 0.25), ("experts", 0.5), ("all, aligned", 0.6)):
        assert middle[name] == pytest.approx(end + share * HEIGHTS[0.0], abs=0.02)
    panels = {row["panel"] for row in values_of(figure)}
    assert {"accuracy", "success", "mean LPC"} < panels and len(panels) == 6
    alone = page.draw_path(replace(of_lines, path="independent", part="aligned"))
    assert {row["name"] for row in values_of(alone)} == {"all, aligned", "layer 0", "layer 1"}
    assert replace(of_lines, path="independent", part="aligned").path_file == "independent_aligned"
    assert of_lines.path_file == "fork_0"


def test_several_imitation_runs(of_lines):
    """Seeds pooled in nats and in points, the penalised run apart, each part; every figure can be drawn."""
    names = [line.label for line in page.curves_of_groups(of_lines, page.POOLED, NATS)]
    assert names == ["BabyAI-GoToObj-v0, lpc_alpha 0, 2 seeds", "BabyAI-GoToObj-v0, lpc_alpha 1e-05, 1 seed"]
    heights = {}
    for figure, part in (("barrier", "every"), ("barrier", "routers"), ("success", "all"), ("share", "all")):
        drawn = page.draw_several(replace(of_lines, part=part), figure, page.POOLED)
        (first,) = rows_of(drawn, line=names[0], kind="fork", fraction=0.0)
        heights[figure, part] = first["value"]
        assert first["parents"] == 2
    assert heights["barrier", "every"] == pytest.approx(HEIGHTS[0.0], abs=0.02)
    assert heights["barrier", "routers"] == pytest.approx(HEIGHTS[0.0] / 4, abs=0.02)
    assert heights["share", "all"] == pytest.approx(HEIGHTS[0.0] / (np.log(7) - 0.125), abs=0.02)
    assert 0.25 < heights["success", "all"] < 0.4
    independent = rows_of(page.draw_several(of_lines, "barrier", page.EACH), kind="independent")
    assert [row["value"] for row in independent] == pytest.approx([BETWEEN_RUNS] * 3, abs=0.02)
    covered = 0
    for part in of_lines.shown.parts:
        for name, drawing in page.page_of(replace(of_lines, part=part)).figures.items():
            if part in ("every", "aligned") or name.startswith("path_"):
                figure = drawing.draw()
                assert values_of(figure) and boxes_of(figure), name
                covered += 1
    assert covered == 2 * (4 + 5 + 6 * 2 + 1) + 3 * 5
    refusal(page.draw_several, replace(of_lines, part="routers"), "success", page.POOLED)


def test_links_keep_what_else_was_chosen():
    link = page.link_to_fork(View({"run": SAC_1, "seeds": "each", "fork": "2"}))
    assert link({"fork": 0, "verdict": "barrier"}) == f"?run={SAC_1}&seeds=each&fork=0#path"
    assert link({"fork": 1, "verdict": "barrier", "run": DDPG_2}) == f"?run={DDPG_2}&seeds=each&fork=1#path"
    assert link({"fork": 1, "verdict": NOT_MEASURED}) == link({"alpha": 0.5}) == ""


@pytest.mark.slow
def test_figures_are_saved_and_a_caption_makes_them_again(place, tmp_path, capsys):
    only = ["training_return", "path_fork_3", "several_paths_each_seed"]
    flags = ("--results_dir", place / "results", "--run", SAC_1, "--runs", SAC_1, DDPG_2)
    result = run_script_here(capsys, APP, *flags, "--only", *only, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "plots" / "lmc" / SAC_1
    assert result.stdout.split() == [f"plots/lmc/{SAC_1}/{name}.png" for name in only]
    caption = (folder / "several_paths_each_seed.txt").read_text()
    assert f"({DDPG_2}), 20,000 steps, 11 policies along each line, 12 episodes of each." in caption
    numbers = (folder / "several_paths_each_seed.csv").read_bytes()
    (command,) = (line for line in caption.splitlines() if line.startswith("Command: "))
    shutil.rmtree(tmp_path / "plots")
    python, *words = shlex.split(command.removeprefix("Command: "))
    result = run_script_here(capsys, *words, "--format", "svg", cwd=tmp_path)
    assert python == "python" and result.returncode == 0, result.stderr
    assert (folder / "several_paths_each_seed.csv").read_bytes() == numbers
    assert [path.suffix for path in sorted(folder.iterdir())] == [".csv", ".svg", ".txt"]


def test_bad_flags_are_one_line(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    cases = {
        ("--results_dir", "nowhere"): "nowhere",
        ("--run", "x"): "x",
        ("--runs", SAC_1, "y"): "y",
        ("--run", SAC_1, "--fork", "9"): "--fork",
        ("--run", SAC_1, "--only", "map"): "--only",
        ("--run", SAC_1, "--part", "routers"): "--part",
        ("--run", MOP_1, "--part", "ends"): "ends",
    }
    for flags, named in cases.items():
        monkeypatch.setattr("sys.argv", [APP, *flags])
        assert named in refusal(lambda: page.save_as_script(parse(page.Settings, None))), flags
    result = run_script_here(capsys, APP, cwd=place / "results")
    assert result.returncode == 2 and "results/" in the_error_line(result.stderr)


@pytest.mark.slow
def test_in_a_browser(place, browser):
    with served(REPOSITORY / APP, place, zoo=False) as address:
        with opened(browser, f"{address}/?run={SAC_1}") as shown:
            link = walk_through(shown, place)
            assert shown.faults == []
        with opened(browser, link) as shown:  # another profile: the link opens the same view
            shown.names("copy, seed 1: path_self")
            assert shown.chosen("Seeds").startswith("each") and shown.chosen("Show") == "instability I"
            missing_and_damaged(shown)
            assert shown.faults == []
        with opened(browser, f"{address}/?run={SAC_1}&fork=7&runs=nothing") as shown:
            shown.see("there is no fork '7' here: shown is '0'")
            shown.see("there is no 'nothing' among the runs here")


@pytest.mark.slow
def test_imitation_runs_in_a_browser(place, browser):
    with served(REPOSITORY / APP, place, zoo=False) as address, opened(browser, f"{address}/?run={MOP_1}") as shown:
        walk_along_lines(shown, place)
        assert shown.faults == []


def walk_through(shown: Page, place: Path) -> str:
    """Every control once: a click on a fork point, hover texts, what is saved; the address at the end."""
    name = "InvertedDoublePendulum-v5 SAC, copy, seed 1"
    shown.names(f"{name}: path_fork_0")
    mark = shown.page.locator(".figure i[data-text^='fork 2, at 50%']")
    mark.hover()
    assert "connected, B 1." in mark.evaluate("spot => getComputedStyle(spot, '::after').content")
    shown.page.set_viewport_size({"width": 1440, "height": 700})
    mark.click()
    shown.names(f"{name}: path_fork_2")
    assert "fork=2" in shown.page.url
    expect(shown.page.locator("#path")).to_be_in_viewport()
    assert any(text.startswith("alpha 0.50, episode ") for text in shown.shown_texts())
    shown.see("connected from")
    shown.names(": several_barrier")  # the last figure of the page
    shown.undo(lambda: shown.choose("Curve", "critic loss"))
    shown.choose("Curve", "critic loss")
    shown.names(f"{name}: training_critic_loss")
    shown.choose("Path", "control: independent (barrier)")
    shown.names(f"{name}: path_independent")
    files = shown.save("path_independent")
    rows = csv.DictReader(files["path_independent.csv"].decode().splitlines())
    assert sum(row["episode"] != "" for row in rows) == 11 * 12
    assert b"--fork independent --runs" in files["path_independent.txt"]
    shown.choose("Path", "control: self (connected)")
    shown.names(f"{name}: measures_self")
    for option, figure in SEVERAL[:0:-1]:  # the first is shown already
        shown.choose("Show", option)
        shown.page.locator(f"{FIGURE}[data-name^='{name}: several_{figure}, ']").wait_for()
    shown.choose("Seeds", "each by itself, 95 % over episodes")
    shown.page.locator(f"{FIGURE}[data-name^='{name}: several_instability_each_seed, {SAC_1}']").wait_for()
    shown.page.locator("marimo-multiselect button").first.click()
    shown.page.get_by_role("option", name="DDPG, copy, seed 2").first.click()  # away with it
    shown.page.keyboard.press("Escape")
    shown.page.locator(f"{FIGURE}[data-name*='several_']:not([data-name*='DDPG'])").wait_for()
    for choice in ("curve=critic_loss", "fork=self", "show=instability", "seeds=each", "runs="):
        assert choice in shown.page.url
    return shown.page.url


def walk_along_lines(shown: Page, place: Path) -> None:
    """An imitation run: a click on a fork, parts and alignment, several runs; from it to one of the other kind."""
    name = "BabyAI-GoToObj-v0, lpc_alpha 0, seed 1"
    shown.page.locator(f"{FIGURE}[data-name='{name}: path_fork_0']").wait_for()
    mark = shown.page.locator(".figure i[data-text^='fork 1, at 10%']")
    assert "points" in mark.get_attribute("data-text")
    mark.click()
    shown.page.locator(f"{FIGURE}[data-name='{name}: path_fork_1']").wait_for()
    assert any(text.startswith("routers, alpha 0.50: cross-entropy") for text in shown.shown_texts())
    assert any(text.startswith("layer 1, alpha 0.50: KL") for text in shown.shown_texts())
    shown.choose("What moves", "all weights, to the aligned second end")
    shown.page.locator(f"{FIGURE}[data-name='{name}: path_fork_1_aligned']").wait_for()
    shown.choose("Path", "control: independent (barrier)")
    shown.page.locator(f"{FIGURE}[data-name='{name}: path_independent_aligned']").wait_for()
    shown.save("path_independent_aligned")
    shown.choose("What moves", "routers")
    shown.page.locator(f"{FIGURE}[data-name^='{name}: several_barrier_routers, ']").wait_for()
    shown.choose("Show", "barrier of success, points")
    shown.see("no line on which routers moves was played in worlds; see --played_parts of run_mop")
    shown.choose("What moves", "every part, over each other")
    shown.page.locator(f"{FIGURE}[data-name^='{name}: several_success, ']").wait_for()
    assert "show=success" in shown.page.url and "part=" not in shown.page.url
    shown.choose("Run", "InvertedDoublePendulum-v5 SAC, copy, seed 1 · demo 20260101_000001")
    shown.names("SAC, copy, seed 1: measures_independent")
    assert shown.dropdown("What moves").count() == 0


def missing_and_damaged(shown: Page) -> None:
    """An experiment at work, one without a path, a damaged one: each says what is the matter."""
    shown.choose("Run", "InvertedDoublePendulum-v5 SAC, copy, seed 3 · demo 20260101_000003")
    shown.see("are not measured yet: the experiment is at work")
    shown.choose("Run", "Hopper-v5 SAC, copy, seed 4 · demo 20260101_000004 · no path yet")
    shown.see("no path has been evaluated yet")
    shown.page.get_by_text("there is nothing to draw yet").first.wait_for()
    shown.page.locator(f"{FIGURE}[data-name^='Hopper-v5 SAC, copy, seed 4: training_']").wait_for()
    shown.choose("Run", "demo/Swimmer-v5/SAC/seed_5_20260101_000005 · damaged")
    shown.see("no config of an experiment")
    shown.refresh()
    shown.choose("Run", "InvertedDoublePendulum-v5 SAC, copy, seed 2 · demo 20260101_000002")
    shown.page.locator(f"{FIGURE}[data-name^='InvertedDoublePendulum-v5 SAC, copy, seed 2: path_']").wait_for()
