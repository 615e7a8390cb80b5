"""The Interventions tab: controls and texts, what is told of two episodes, use against need; and in a real browser."""

import shlex
import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from browser import Page, opened, page_of, served, wait_for
from checks import refusal
from old_caches import CACHE, TASK
from routing_data import make_data, make_steps
from scripts import REPOSITORY

import intervene
from mop.apps import intervention_page
from mop.apps.intervention_page import Expert, Pair, Place
from mop.apps.runs import Run
from mop.apps.template import Export
from mop.artifacts.intervention_rows import add_row
from mop.artifacts.routing_cache import RoutingData, load_cache
from mop.artifacts.run_paths import RunKey, cache_path, interventions_path
from mop.common import cli
from mop.common.intervention_grammar import FROZEN, GATE_ONLY, NONE, Intervention, parse

KEY = RunKey(TASK, 0, 0)
SIZES = [[0, 16, 32], [64], [0, 32, 32]]
EXPERTS = {
    Place(layer, expert): Expert(f"{size}", "#000000", size, mean)
    for layer, sizes in enumerate(SIZES)
    if len(sizes) > 1
    for (expert, size), mean in zip(enumerate(sizes), (0.5, 0.3017, 0.1983), strict=True)
}


@pytest.fixture(scope="module")
def data() -> RoutingData:
    return load_cache(cache_path(CACHE, KEY))


def test_texts_become_controls_and_back():
    texts = {
        "none": {},
        "lesion 0.1": {"out 0.1": True},
        "clamp 2.2=0.2": {"weight 2.2": 0.2},
        "clamp 0.0=0.5": {"weight 0.0": 0.5},  # its own mean
        "clamp 0.1=0.302": {"weight 0.1": 0.302},  # where its slider would stand
        "clamp 0.1=0.12345": {"weight 0.1": 0.12345},
        "mean 0": {"from 0": "mean"},
        "lesion 0.0 + uniform 2": {"out 0.0": True, "from 2": "uniform"},
        "lesion 2.1 + clamp 0.2=1.0 + mean 2 + shuffle 0 + threshold 0.33": {
            **{"out 2.1": True, "weight 0.2": 1.0, "from 2": "mean", "from 0": "shuffle"},
            **{"after": "threshold", "threshold": 0.33},
        },
        "lesion 0.1 + lesion 0.2 + argmax": {"out 0.1": True, "out 0.2": True, "after": "argmax"},
    }
    for text, expected in texts.items():
        begun = intervention_page.begin(text, EXPERTS)
        homes = intervention_page.homes_of(EXPERTS, begun)
        values = intervention_page.values_of(begun, EXPERTS, homes)
        untouched = intervention_page.values_of(Intervention(NONE), EXPERTS, homes)
        assert {name: value for name, value in values.items() if value != untouched[name]} == expected, text
        assert parse(str(intervention_page.asked_for(values, homes))) == parse(text) == begun
    assert len(texts) == 10
    by_size = intervention_page.values_of(parse("lesion_size 32"), EXPERTS, homes)
    asked = intervention_page.asked_for(by_size, homes)
    assert str(asked) == "lesion 0.2 + lesion 2.1 + lesion 2.2", "the same experts, one by one"
    by_size["weight 0.2"] = 0.9
    assert intervention_page.asked_for(by_size, homes) == asked, "what is left out has no weight to clamp"


def test_sliders_stand_beside_what_can_be_asked_for():
    homes = intervention_page.homes_of(EXPERTS, parse("clamp 0.1=0.302"))
    assert homes == {(layer, e): home for layer in (0, 2) for e, home in enumerate((0.501, 0.303, 0.198))}
    extreme = {Place(0, 0): Expert("skip", "", 0, 1.0), Place(0, 1): Expert("GRU 8", "", 8, 0.0)}
    assert list(intervention_page.homes_of(extreme, Intervention(NONE)).values()) == [0.999, 0.001]


def test_what_controls_cannot_show_is_told():
    for text in ("argmax in carrying", "swap other.pt", "lesion 1.0", "lesion 0.3", "mean 7", "lesion_size 5", "less"):
        refusal(intervention_page.begin, text, EXPERTS)


def test_experts_are_named_as_in_the_figures(data):
    experts = intervention_page.experts_of(data)
    assert [(str(place), expert.name) for place, expert in experts.items()][:3] == [
        *(("0.0", "skip"), ("0.1", "GRU 16"), ("0.2", "GRU 32")),
    ]
    assert experts[0, 0].mean == pytest.approx(data.steps.layer_routing[0][:, 0].mean(), abs=1e-5)
    homes = intervention_page.homes_of(experts, Intervention(NONE))
    values = intervention_page.values_of(Intervention(NONE), experts, homes)
    changed = values | {"out 0.1": True, "weight 0.2": 0.4, "from 1": "mean", "from 2": "shuffle"}
    assert "diverged" in refusal(intervention_page.experts_of, make_data(make_steps([[1, 1]], [[np.nan, 1.0]])))
    told = [intervention_page.state_of(place, expert, changed, homes) for place, expert in experts.items()]
    assert told[0] == f"learned, mean {experts[0, 0].mean:.2f}" and told[1:3] == ["left out", "held at 0.4"]
    assert told[3] == f"always {experts[1, 0].mean:.2f}" and told[6] == "shuffle"


def test_the_command_is_one_that_the_script_takes(data):
    run = Run(KEY, "caches", Path("some place") / KEY.checkpoint("x"))
    asked = parse("lesion 0.1 + clamp 2.0=0.5")
    words = shlex.split(intervention_page.command_of(run, data, asked, FROZEN))
    assert words[:2] == ["python", "intervene.py"]
    args = cli.parse(intervene.Settings, "", words[2:])
    assert args.checkpoint == run.checkpoint.as_posix() and args.variants == FROZEN and args.cache_dir == "caches"
    assert [parse(text) for text in args.what] == [asked] and args.num_episodes == data.header["num_episodes"]
    assert "--what" not in intervention_page.command_of(run, data, None)


def played(actions: list[int], success: bool, weight: float = 0.5) -> RoutingData:
    """One episode with these actions."""
    weights = np.full((len(actions), 2), weight, np.float32)
    steps = make_steps([[1, 1]] * len(actions), weights, action=np.array(actions))
    return make_data(steps, [{"success": success, "seed": 4, "mission": "go"}])


def test_what_is_told_of_two_episodes():
    asked, intact = parse("lesion 0.1"), played([2, 2, 5], True)
    same = Pair(intact, played([2, 2, 5], True), Intervention(NONE))
    assert "identical" in intervention_page.tell(same)
    assert same.is_identical and same.first is None
    longer = Pair(intact, played([2, 1, 2, 5], False), asked)
    parts = ("3 steps", "`lesion 0.1`", "4 steps", "step 1", "forward", "turn right")
    assert longer.first == 1 and all(part in intervention_page.tell(longer) for part in parts)
    weights = Pair(intact, played([2, 2, 5], True, 0.25), asked)
    assert weights.first is None and not weights.is_identical
    assert intervention_page.file_of(longer, FROZEN) == "world_4_lesion_0.1_frozen"
    several = longer._replace(intervention=parse("lesion 0.1 + clamp 2.0=0.5"))
    assert intervention_page.file_of(several, GATE_ONLY) == "world_4_lesion_0.1_clamp_2.0_0.5"


class Worlds:
    """In place of `OneWorld`: worlds that an intervention fails."""

    def __init__(self, *fails: int):
        self.fails, self.played = fails, []

    def episodes(self, numbers, intervention, variant=GATE_ONLY):
        self.played += numbers
        is_intact = intervention.kind == NONE
        return [played([2], is_intact or number not in self.fails) for number in numbers]


def test_the_next_world_with_another_outcome_is_found():
    def found(count, after, *fails):
        return intervention_page.find_changed(Worlds(*fails), count, after, parse("argmax"), GATE_ONLY)

    assert [found(100, 0, 3, 50), found(100, 3, 3, 50), found(100, 50, 3, 50), found(100, 3, 3)] == [3, 50, 3, 3]
    assert found(100, 0) is None and found(1000, 0, 300) is None, "no more than 256 are looked through"
    worlds = Worlds(1)
    intervention_page.find_changed(worlds, 1000, 0, parse("argmax"), GATE_ONLY)
    assert len(worlds.played) == 64, "no more than are needed"


def test_a_checkpoint_that_is_not_here_is_told(data):
    for checkpoint in (None, Path("nowhere") / KEY.checkpoint("x")):
        line = refusal(intervention_page.open_world, Run(KEY, "caches", checkpoint), data)
        assert str(checkpoint or data.header["checkpoint_path"]) in line and "--checkpoint_dir" in line


def rows() -> list[dict]:
    """The intact policy and two lesions in 12 worlds, and one lesion in others."""
    known = {"checkpoint_path": "x.pt", "checkpoint_sha256": "0" * 16, "num_episodes": 12, "eval_seed": 0}
    known |= {"phases_by": "overall", "minigrid_version": "3.1.0", "expert_hidden_sizes": [[0, 16, 32]] * 3}
    known |= {"variant": GATE_ONLY, "success_rate": 0.5, "worlds_lost": 6, "worlds_gained": 0}
    for name in ("delta_success", "delta_path_ratio", "agreement"):
        known |= {name: -0.5, f"{name}_low": -0.75, f"{name}_high": None if name == "agreement" else -0.25}
    known["phases"] = [{"phase": "all steps", "steps": 10, "use": [[0.5, 0.25, 0.25]] * 3}]
    names = {NONE: 12, "lesion 0.1": 12, "lesion 0.2": 12, "lesion 0.0": 50}
    return [known | {"intervention": name, "num_episodes": count} for name, count in names.items()]


def write_rows(cache_dir: Path) -> None:
    for row in rows():
        add_row(interventions_path(cache_dir, KEY), row)


def test_rows_that_belong_together_are_shown(data, tmp_path):
    run = Run(KEY, str(tmp_path))
    assert "`python intervene.py --checkpoint" in refusal(intervention_page.rows_of, run, data)
    interventions_path(tmp_path, KEY).parent.mkdir(parents=True)
    write_rows(tmp_path)
    found = intervention_page.rows_of(run, data)
    assert [row["intervention"] for row in found] == [NONE, "lesion 0.1", "lesion 0.2"]
    figure = intervention_page.plot_matrix(run, found, GATE_ONLY)
    assert [text.get_text() for text in figure.axes[0].texts].count("-50.0") == 2
    page = intervention_page.matrix_page(run, found, data, GATE_ONLY)
    (name,) = page.figures
    caption = page.caption(name, Export())
    assert "12 worlds" in caption and "Command: python intervene.py" in caption
    assert intervention_page.other_checkpoint(run, found, data) is None, "nothing is known"
    checkpoint = tmp_path / "checkpoint_final.pt"
    checkpoint.write_bytes(b"other")
    note = intervention_page.other_checkpoint(Run(KEY, str(tmp_path), checkpoint), found, data)
    assert str(interventions_path(tmp_path, KEY)) in note and str(checkpoint) in note


@pytest.mark.slow
def test_the_tab_in_a_browser(browser, tmp_path):
    shutil.copytree(CACHE, tmp_path / "evaluation_cache")
    shutil.copytree(KEY.artefacts(CACHE), RunKey(TASK, 7).artefacts(tmp_path / "evaluation_cache"))
    with served(REPOSITORY / "routing_viz.py", tmp_path) as address:
        with opened(browser, f"{address}/?tab=Interventions") as page:
            an_expert_is_left_out(page)
            both_are_played(page)
            texts_are_typed(page)
            other_worlds(page)
            a_pair_is_saved(page, tmp_path)
        with opened(browser, f"{address}/?tab=Interventions&what=lesion+1.2&memory=frozen") as page:
            the_matrix(page, tmp_path)


def player_of(page: Page):
    return page.page.frame_locator("iframe.player")


def asked_in(page: Page) -> str:
    return parse_qs(urlsplit(page.page.url).query).get("what", [""])[0]


def row_of(page: Page, name: str):
    return page.page.locator(".gates .expert", has_text=name)


def expect_state(page: Page, name: str, state: str) -> None:
    row_of(page, name).get_by_text(state).first.wait_for()


def set_text(page: Page, text: str) -> None:
    field = page.page.locator("marimo-text[data-label*='As a text'] input")
    field.fill(text)
    field.press("Enter")


def an_expert_is_left_out(page: Page) -> None:
    page.see("Nothing is changed: the two episodes are identical, step by step, solved in")
    player_of(page).get_by_text("The same action at every step.").wait_for()
    expect_state(page, "1.2 GRU 32", "learned, mean")
    row_of(page, "1.2").locator("marimo-switch").get_by_role("switch").click()
    expect_state(page, "1.2", "left out")
    page.see("not solved in 72 steps")
    page.see("They first differ at step")
    assert asked_in(page) == "lesion 1.2"
    page.see("--what 'lesion 1.2'")


def both_are_played(page: Page) -> None:
    player = player_of(page)
    player.get_by_text("not solved in 72 steps").wait_for()
    frame = page.page.locator("iframe.player").element_handle().content_frame()
    wait_for(frame, "columns.length === 2 && columns.every((column) => column.frames.length > 0)")
    player.locator("#play").click()
    wait_for(frame, "now >= 3")
    player.locator("#play").click()
    steps = frame.evaluate("columns.map((column) => Number(column.part('world').dataset.step))")
    assert steps[0] == steps[1] == frame.evaluate("now")
    player.locator("body").press("End")
    assert frame.evaluate("now") == 72
    shown = frame.evaluate("columns.map((column) => column.part('caption').textContent)")
    assert all(text.startswith("after the last action") for text in shown)
    assert "sub-goal: " in frame.evaluate("page.episodes[0].captions[0]")
    player.locator(".events .marked").first.click()
    first = frame.evaluate("page.mark")
    assert frame.evaluate("now") == first and player.locator("#difference.marked").inner_text().startswith("Here they")
    chosen = frame.evaluate("page.episodes.map((episode) => episode.action[page.mark])")
    assert chosen[0] != chosen[1]
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")


def texts_are_typed(page: Page) -> None:
    set_text(page, "argmax + lesion 0.1")
    expect_state(page, "0.1", "left out")
    expect_state(page, "1.2", "learned")
    assert page.dropdown("Then, in all layers").evaluate("select => select.selectedOptions[0].label") == "argmax"
    assert asked_in(page) == "argmax + lesion 0.1"
    set_text(page, "nonsense")
    page.see("'nonsense' is no intervention; the grammar")
    set_text(page, "none")
    page.see("Nothing is changed")
    slider = row_of(page, "2.2").locator("marimo-slider").get_by_role("slider")
    slider.focus()
    slider.press("ArrowRight")
    expect_state(page, "2.2", "held at 0.")
    assert asked_in(page).startswith("clamp 2.2=0.")


def other_worlds(page: Page) -> None:
    set_text(page, "lesion 1.2")
    expect_state(page, "1.2", "left out")
    page.page.get_by_role("button", name="Next world with another outcome").click()
    player_of(page).get_by_text("world 1: intact, and with lesion 1.2").first.wait_for()
    assert "world=1" in page.page.url


def a_pair_is_saved(page: Page, place: Path) -> None:
    page.page.get_by_role("button", name="Save world_1_lesion_1.2.html").click()
    page.see("saved:")
    saved = page_of((place / KEY.artefacts("plots") / "world_1_lesion_1.2.html").read_text())
    assert len(saved["episodes"]) == 2 and saved["title"].endswith("world 1: intact, and with lesion 1.2")


def the_matrix(page: Page, place: Path) -> None:
    page.see("--variants frozen")
    page.see("there are no interventions of this run yet")
    write_rows(place / "evaluation_cache")
    page.refresh()
    page.names("use against need, gate-only")
    page.see("Interventions in all worlds")
    page.see("was made from another checkpoint")
    page.save("use_and_need")
    page.choose("Run", f"{TASK} mixture lpc_alpha 0 trial 7 · update 300 · no checkpoint")
    page.see("is not on this machine, and episodes with an intervention need the policy itself")
    expect_state(page, "1.2", "left out")  # what was set stays
