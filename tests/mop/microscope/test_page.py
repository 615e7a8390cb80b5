"""The microscope in a real browser: what a visitor does, and what the page says of it."""

import html
import re
import subprocess
import sys

import numpy as np
import pytest
from eval_helpers import random_checkpoint
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from scripts import REPOSITORY, script_environment

from mop.artifacts.checkpoints import load_checkpoint
from mop.common.intervention_grammar import parse
from mop.envs.bot_paths import BotPaths
from mop.evaluation.evaluate import encoder_for, load_for_evaluation
from mop.evaluation.intervention_runs import Study
from mop.microscope.document import microscope_document, open_at

TASK, NUM_WORLDS = "BabyAI-UnlockPickup-v0", 12
MIXTURE = REPOSITORY / "results" / "zoo" / TASK / "trial_30" / "seed_0" / "checkpoint_final.pt"
LINEAR = REPOSITORY / "results" / "zoo" / TASK / "trial_0" / "seed_0" / "checkpoint_final.pt"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("microscope")


@pytest.fixture(scope="module")
def file(place):
    path = place / "page.html"
    path.write_text(
        microscope_document([load_for_evaluation(MIXTURE)], num_worlds=NUM_WORLDS, cache_dir=str(place)),
        "utf-8",
    )
    return path


class Visit:
    """A visitor of the page, who notes errors and requests."""

    def __init__(self, browser, file, address: str = "", **window):
        self.page, self.faults = browser.new_page(viewport={"width": 1440, "height": 900}, **window), []
        self.page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: request.url.startswith("http") and self.faults.append(request.url))
        self.page.goto(f"file://{file}{address}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.close()
        assert self.faults == []

    def text(self, name: str) -> str:
        return self.page.inner_text(f"#{name}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def intervene(self, text: str) -> None:
        self.page.fill("#what", text)
        self.press("Enter")
        self.page.evaluate("document.activeElement.blur()")

    def effect(self) -> str:
        """What the page says of all worlds."""
        self.page.evaluate("document.getElementById('effect').replaceChildren()")
        self.page.click("#all")
        self.page.locator("#effect p").first.wait_for()
        return self.text("effect")


@pytest.fixture(scope="module")
def study(place):
    checkpoint = load_checkpoint(MIXTURE)
    return Study(checkpoint, encoder_for(checkpoint), BotPaths(TASK, None, str(place)), NUM_WORLDS)


@pytest.mark.parametrize("what", ["lesion 2.2", "argmax", "mean 2 + lesion 0.1", "lesion 2.2 in carrying the key"])
def test_in_all_worlds_the_page_counts_what_intervene_counts(browser, file, study, what):
    row = study.run(parse(what))
    with Visit(browser, file) as visit:
        visit.intervene(what)
        told = visit.effect()
    assert f"intact, {row['success_rate'] * 100:.1f} % with {what}" in told
    assert f"{row['worlds_lost']} lost" in told
    assert f"{row['worlds_gained']} gained" in told
    assert f"then {row['mean_lpc']:.0f}; path ratio" in told
    assert f"intact, {NUM_WORLDS} of {NUM_WORLDS} end as they do in Python" in told
    shown = [float(number) / 100 for number in re.search(r"change (\S+) % .*?(\S+) % to (\S+) %", told).groups()]
    assert shown[0] == pytest.approx(row["delta_success"], abs=0.0006)
    assert shown[1:] == pytest.approx(
        [row["delta_success_low"], row["delta_success_high"]], abs=0.09
    )  # resamples of 12


def test_a_hand_acts_in_the_policys_place_and_hands_back(browser, file):
    with Visit(browser, file) as visit:
        assert visit.page.locator("#world1").is_hidden()
        visit.press("ArrowLeft", "ArrowLeft")
        assert visit.page.locator("#world1").is_visible()
        assert visit.text("clock") == "step 2"
        assert "it would" in visit.text("told")
        visit.press("Enter")
        visit.page.locator("#caption1", has_text="solved in").wait_for()
        visit.press("u", "u")
        assert visit.page.locator("#world1").is_hidden()


def test_the_address_makes_the_same_again(browser, file):
    with Visit(browser, file) as visit:
        visit.page.click("#next")
        visit.intervene("lesion 2.2")
        visit.press(".", ".", "ArrowUp")
        visit.page.wait_for_url("**hands**")
        address, shown = visit.page.evaluate("location.hash"), visit.text("caption1")
    with Visit(browser, file, address) as visit:
        assert visit.text("caption1") == shown
        assert visit.page.input_value("#what") == "lesion 2.2"
        assert visit.page.input_value("#world") == "1"


def test_an_address_may_name_the_world_by_its_seed(browser, file):
    with Visit(browser, file) as visit:
        seeds = visit.page.evaluate("content.worlds.map(({ seed }) => seed)")
    with Visit(browser, file, f"#seed={seeds[-1]}&step=4") as visit:
        assert visit.page.input_value("#world") == str(NUM_WORLDS - 1)
        assert visit.text("clock") == "step 4"
        visit.page.evaluate("location.hash = 'world=2'")
        visit.page.locator("#clock", has_text="step 0").wait_for()
        visit.page.go_back()
        visit.page.locator("#clock", has_text="step 4").wait_for()
        visit.page.evaluate("location.hash = 'seed=123456789'")
        visit.page.locator("#told", has_text="not here").wait_for()
        assert visit.text("clock") == "step 4", "another world would be no answer"


@pytest.mark.parametrize("sandbox", ["", 'sandbox="allow-scripts"'])
def test_in_a_frame_it_begins_where_the_document_says(browser, file, place, sandbox):
    """A frame without an address of its own, as an app makes it: all goes on in it, also the links and the worker."""
    inner = open_at(open_at(file.read_text("utf-8"), "step=1"), "world=3&step=5&intervention=lesion 2.2")
    (place / "outer.html").write_text(f'<iframe {sandbox} width="1300" height="800" srcdoc="{html.escape(inner)}">')
    with Visit(browser, place / "outer.html") as visit:
        frame = visit.page.frame_locator("iframe")
        frame.locator("#clock", has_text="step 5").wait_for()
        assert frame.locator("#world").input_value() == "3"
        assert "lesion 2.2" in frame.locator("#name1").inner_text()
        frame.locator("#find").click()
        last = frame.locator("#steps a").last
        last.click()
        number = re.search(r"world=(\d+)", last.get_attribute("href") or "")
        frame.locator("#clock", has_text=re.search(r"step \d+", last.get_attribute("title")).group()).wait_for()
        assert frame.locator("#world").input_value() == number.group(1)


@pytest.mark.parametrize(
    "address",
    [
        "#world=99&step=1",
        "#intervention=nonsense",
        "#step=x",
        "#step=0.5",
        "#step=-1",
        "#world=1.5",
        "#edits=7",
        "#hands=null",
        "#constructor=1",
        '#edits=[[0,"constructor"]]',
        '#edits=[[5,"constructor"]]',
        "#hands={",
        "#hands=[[0,99]]",
        "#memory=none",
        '#edits=[[0,"put",1,1,99]]',
        '#edits=[[1,"moveAgent",1,1,7]]',
    ],
)
def test_an_address_that_asks_for_nonsense_does_no_harm(browser, file, address):
    with Visit(browser, file, address) as visit:
        visit.press(".")
        assert visit.text("clock") in ("step 0", "step 1")
        assert "LPC" in visit.text("caption0")


def test_what_cannot_be_is_told_and_changes_nothing(browser, file):
    with Visit(browser, file) as visit:
        visit.intervene("lesion 9.9")
        assert "layers 0 to 2" in visit.text("told")
        visit.page.fill("#mission", "fetch the moon")
        visit.press("Enter")
        assert "moon" in visit.text("told") or "fetch" in visit.text("told")
        assert visit.page.locator("#world1").is_hidden()


def test_an_edited_world_is_played_on_beside_the_one_that_was(browser, file):
    with Visit(browser, file) as visit:
        visit.page.locator("#because", has_text="taken away").wait_for()
        visit.page.fill("#mission", "go to the door")
        visit.press("Enter")
        assert visit.page.locator("#world1").is_visible()
        visit.page.click("#reset")
        box = visit.page.locator("#world0").bounding_box()
        found = visit.page.evaluate("mine().at(0).world.things()[0]")
        size = visit.page.evaluate("[mine().at(0).world.width, mine().at(0).world.height]")
        x, y = (
            box["x"] + (found["x"] + 0.5) * box["width"] / size[0],
            box["y"] + (found["y"] + 0.5) * box["height"] / size[1],
        )
        visit.page.keyboard.down("Shift")
        visit.page.mouse.click(x, y)
        visit.page.keyboard.up("Shift")
        after = visit.page.evaluate(f"mine().at(0).world.at({found['x']}, {found['y']})")
        assert after & 255 == found["code"] & 255
        assert after & 65280 != found["code"] & 65280


def test_why_is_what_the_policy_does_without_the_thing(browser, file):
    """The door: once it is gone, the policy does what the sentence says, and the world ends as the list says."""
    with Visit(browser, file) as visit:
        told = visit.page.evaluate(
            """() => {
              const told = [];
              for (let t = 0; t < mine().length; t++) {
                for (const cause of findCauses(mine(), t).filter(({ kind }) => kind === "thing")) {
                  const edits = [[t, "remove", cause.x, cause.y]];
                  const actor = new Actor(policies[0], phases);
                  const episode = new Episode(actor, content.worlds[0], content.palette, 0, edits);
                  const { action } = episode.at(t), end = episode.at(Infinity), { success, steps } = cause.goOn();
                  told.push([cause.action === action, success === end.world.success, steps === end.t]);
                }
              }
              return told;
            }"""
        )
        assert len(told) > 10
        assert all(map(all, told))


def test_without_each_cause_the_page_says_how_it_ends(browser, file):
    with Visit(browser, file, "#step=3") as visit:
        causes = visit.page.locator("#causes li")
        causes.last.get_by_text(re.compile("solved")).wait_for()
        assert all(
            re.search(r"without it .*, (not solved|solved after \d+)$", text) for text in causes.all_inner_texts()
        )


def test_why_remembers_as_the_changed_policy_does(browser, file):
    """Where an expert's memory is set to zero, no step that is forgotten brings it back."""
    with Visit(browser, file, "#intervention=lesion+2.2&memory=zeroed") as visit:
        sums = visit.page.evaluate(
            """() => {
              const [start, stop] = policies[0].layout["expert_2_2"];
              const sum = (hidden) => hidden.slice(start, stop).reduce((total, unit) => total + Math.abs(unit), 0);
              return pair.map((episode) => [1, 2, 3, 4].map((back) => sum(hiddenWithout(episode, 6, 6 - back))));
            }"""
        )
    assert all(total > 0 for total in sums[0]) and sums[1] == [0, 0, 0, 0]


def test_the_mission_knows_where_the_things_are_that_were_moved_or_removed(browser, file):
    """A thing that is moved is still the one that is meant; where one is gone, the agent has not gone to it."""
    with Visit(browser, file) as visit:
        ends = visit.page.evaluate(
            """() => {
              const ends = content.worlds.map((start) => {
                const world = new World(start, content.palette), { x, y } = matches(world.instruction.desc, world)[0];
                while (world.at(...world.front()) !== EMPTY) world.direction = (world.direction + 1) % 4;
                const front = world.front(), isPicked = world.clone();
                isPicked.move(x, y, ...front);
                isPicked.step(PICK_UP);
                world.setMission(world.mission.replace("pick up", "go to"));
                world.begin();
                world.move(x, y, ...front);
                const isGone = world.clone();
                isGone.remove(...front);
                for (const one of [world, isGone]) one.step(6);
                return [isPicked.success, world.success, isGone.success];
              });
              return ends;
            }"""
        )
    assert ends == [[True, True, False]] * NUM_WORLDS


def test_steps_of_an_expert_open_where_they_are(browser, file):
    with Visit(browser, file) as visit:
        visit.page.select_option("#expert", "2.2")
        visit.page.click("#find")
        first = visit.page.locator("#steps a").first
        first.wait_for()
        assert visit.page.locator("#steps a").count() == NUM_WORLDS
        weight, step = first.inner_text().split()[0], re.search(r"step \d+", first.get_attribute("title")).group()
        with visit.page.context.expect_page() as opened:
            first.click(modifiers=["Control"])
        assert opened.value.inner_text('[id="weight2.2"]') == weight, "in a tab of its own"
        first.click()
        visit.page.locator("#clock", has_text=re.compile(f"^{step}$")).wait_for()
        assert visit.page.inner_text('[id="weight2.2"]') == weight


def test_what_is_in_front_is_changed_by_keys(browser, file):
    with Visit(browser, file) as visit:
        front = "(() => { const { world } = mine().at(chosen.step); return world.at(...world.front()) & 0xffff; })()"
        while visit.page.evaluate(front) & 255 < 3:  # nothing, or a wall
            visit.press(".")
        before = visit.page.evaluate(front)
        visit.press("X")
        assert visit.page.evaluate(front) == before + 256, "another colour"
        visit.press("u")
        assert visit.page.evaluate(front) == before


def test_a_drag_of_a_slider_is_one_step_of_undo(browser, file):
    with Visit(browser, file) as visit:
        visit.intervene("argmax")
        box = visit.page.locator('[id="slider2.2"]').bounding_box()
        middle = box["y"] + box["height"] / 2
        for share in (0.2, 0.8):  # two drags
            visit.page.mouse.move(box["x"] + box["width"] * 0.5, middle)
            visit.page.mouse.down()
            visit.page.mouse.move(box["x"] + box["width"] * share, middle, steps=5)
            visit.page.mouse.up()
            assert "clamp 2.2=" in visit.page.input_value("#what")
        visit.page.evaluate("document.activeElement.blur()")
        shown = visit.page.input_value("#what")
        visit.press("u")
        assert "clamp 2.2=" in visit.page.input_value("#what") != shown
        visit.press("u")
        assert visit.page.input_value("#what") == "argmax"


def test_keys_are_phases_only_where_they_are_in_python(browser, place):
    """A policy that never unlocks a door: Python's phases are others, though doors are locked in every world."""
    checkpoint = random_checkpoint(task_id=TASK) | {"path": "random.pt", "update": 0}
    path, bot_paths = place / "random.html", BotPaths(TASK, 40, str(place))
    checkpoint["config"]["max_steps"] = 40
    path.write_text(microscope_document([checkpoint], num_worlds=3, cache_dir=str(place)), "utf-8")
    assert Study(checkpoint, encoder_for(checkpoint), bot_paths, 3).group_by != "by_key_phase"
    with Visit(browser, path) as visit:
        assert "before the key" not in visit.text("caption0")
        visit.intervene("argmax in before the key")
        assert "the phases here are" in visit.text("told")


def test_why_asks_the_policy_once_in_each_state(browser, file):
    """Of the states after something was taken away, none is asked for twice; those that were remembered may be."""
    with Visit(browser, file) as visit:
        asked, again = visit.page.evaluate(
            """() => {
              const asked = new Map(), act = Actor.prototype.act, isKept = new Set(pair[0].states.map((s) => s.world));
              Actor.prototype.act = function (world, ...given) {
                if (!asked.has(world)) asked.set(world, []);
                if (!isKept.has(world)) asked.get(world).push(world.steps);
                return act.call(this, world, ...given);
              };
              for (let t = 0; t < mine().length; t++) findCauses(pair[0], t).forEach((cause) => cause.goOn());
              const times = [...asked.values()];
              return [times.flat().length, times.filter((steps) => new Set(steps).size < steps.length).length];
            }"""
        )
    assert asked > 100 and again == 0


def test_a_lost_world_opens_where_the_two_part(browser, file):
    with Visit(browser, file) as visit:
        visit.intervene("argmax")
        told = visit.effect()
        count = int(re.search(r"(\d+) lost", told)[1])
        links = visit.page.locator("#effect p", has_text=f"{count} lost:").locator("a")
        assert links.count() == min(count, 30) > 0 and (f"and {count - 30} more" in told) == (count > 30)
        links.first.click()
        visit.page.locator("#effect").wait_for()
        step, earlier, acts = visit.page.evaluate(
            "[chosen.step, [...Array(chosen.step).keys()].filter((t) => pair[0].at(t).chosen !== pair[1].at(t).chosen),"
            " pair.map((episode) => episode.at(chosen.step).chosen)]"
        )
    assert step > 0 and earlier == [] and acts[0] != acts[1]


def test_the_code_that_is_copied_counts_what_the_page_counts(browser, file):
    with Visit(browser, file) as visit:
        visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        visit.intervene("lesion 2.2 + argmax")
        visit.page.select_option("#memory", "zeroed")
        told = visit.effect()
        visit.page.click("#python")
        visit.page.locator("#told", has_text="is copied").wait_for()
        code = visit.page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=script_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    row = eval(done.stdout, {"nan": float("nan"), "inf": float("inf")})  # a row of numbers
    assert f"{row['success_rate'] * 100:.1f} % with lesion 2.2 + argmax" in told
    assert f"{row['worlds_lost']} lost" in told
    assert f"{row['path_ratio']:.2f}; " in told.replace("\n", "; ") or row["success_rate"] == 0


def test_the_film_shows_the_episode(browser, file, place):
    """Each step is a frame; its colours are those of the canvas but for the lowest four bits."""
    with Visit(browser, file, "#intervention=lesion+2.2") as visit:
        visit.page.select_option("#speed", "20")
        with visit.page.expect_download() as download:
            visit.page.click("#gif")
        download.value.save_as(place / "episode.gif")
        drawn = """(t) => {
          const { canvas: { width, height }, context, drawAt } = picture();
          drawAt(t);
          return Array.from(context.getImageData(0, 0, width, height).data);
        }"""
        num_steps = visit.page.evaluate("lastStep()")
        expected = {t: visit.page.evaluate(drawn, t) for t in (0, num_steps // 2, num_steps)}
    with Image.open(place / "episode.gif") as film:
        assert isinstance(film, GifImageFile) and film.n_frames == num_steps + 1 > 10
        assert film.info["duration"] == 50 and film.info["loop"] == 0
        for number, pixels in expected.items():
            film.seek(number)
            shown = np.asarray(film.convert("RGBA"), int)
            different = np.abs(shown - np.reshape(pixels, shown.shape))[..., :3]
            assert shown.std() > 30 and different.max() <= 15, number


def test_words_are_explained_when_one_points_at_them_or_comes_by_keyboard(browser, file):
    with Visit(browser, file) as visit:
        visit.effect()
        words = {text.lower() for text in visit.page.locator("dfn").all_inner_texts()}
        assert words >= {"world", "intervention", "layer", "router", "skip", "lpc", "expert", "interval", "path ratio"}
        meanings = visit.page.locator("dfn").evaluate_all("words => words.map((word) => word.ariaDescription)")
        assert all(len(meaning) > 20 for meaning in meanings)
        assert not any(mark in meaning for meaning in meanings for mark in ("*", "`", "]("))
        shown = "word => getComputedStyle(word, '::after').content"
        router = visit.page.locator("dfn", has_text="router").first
        assert router.evaluate(shown) == "none"
        router.hover()
        assert "weights its experts" in router.evaluate(shown)
        visit.page.mouse.move(0, 0)
        visit.page.locator("#memory").focus()
        visit.press("Tab")  # to "layer"
        assert "experts and one router" in visit.page.locator("dfn:focus").evaluate(shown)


def test_all_that_can_be_clicked_can_be_reached_by_keyboard(browser, file):
    with Visit(browser, file) as visit:
        visit.page.click("#find")
        visit.page.locator("#steps a").first.wait_for()
        visit.effect()
        chosen = "button:enabled, input:enabled, select:enabled, a[href], summary, dfn"
        expected, reached = visit.page.locator(chosen).count(), set()
        visit.page.evaluate("document.activeElement.blur()")
        for _ in range(expected + 5):
            visit.press("Tab")
            number = "chosen => [...document.querySelectorAll(chosen)].indexOf(document.activeElement)"
            reached.add(visit.page.evaluate(number, chosen))
        assert len(reached - {-1}) == expected > 60


@pytest.mark.parametrize("width", [390, 1000, 1440])
def test_no_window_scrolls_sideways(browser, file, width):
    with Visit(browser, file, color_scheme="dark") as visit:
        visit.page.set_viewport_size({"width": width, "height": 800})
        visit.page.click("#leave")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_tour_of_five_stops_shows_something_each_time(browser, file):
    with Visit(browser, file) as visit:
        for number in range(1, 6):
            visit.page.click("#tour")
            visit.page.locator("#told", has_text=f"{number} of 5").wait_for()


def command(*flags) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "microscope.py", *map(str, flags)],
        cwd=REPOSITORY,
        env=script_environment(),
        capture_output=True,
        text=True,
    )


def test_two_policies_stand_side_by_side(browser, place):
    out = place / "pair.html"
    done = command("--checkpoint", MIXTURE, "--compare", LINEAR, "--num_worlds", 5, "--cache_dir", place, "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size < 2.5e6
    with Visit(browser, out) as visit:
        assert visit.page.locator("#world1").is_visible()
        assert "trial 30" in visit.text("name0")
        assert "trial 0" in visit.text("name1")


def test_a_damaged_checkpoint_is_one_line(place):
    bad = place / "checkpoint_final.pt"
    bad.write_bytes(MIXTURE.read_bytes()[:5000])
    done = command("--checkpoint", bad, "--out", place / "none.html")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "checkpoint_final.pt" in done.stderr
    assert not (place / "none.html").exists()
