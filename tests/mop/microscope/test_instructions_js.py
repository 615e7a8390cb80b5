"""BabyAI's language in the page: a mission's text gives the instruction that Minigrid has."""

import pytest
from javascript import page_with
from played_worlds import MODULES, pack

from mop.envs.babyai import babyai_task_ids

# of a world in which something is carried, only the text is read: what it names may be in the hand
READ = """({ palette, worlds }) => worlds.map((start) =>
  parseMission(start.mission, start.carrying === null ? new World(start, palette) : null))"""
READ_ONE = """([{ palette, worlds }, text]) => {
  try { return parseMission(text, new World(worlds[0], palette)); } catch (error) { return error.message; }
}"""


@pytest.fixture(scope="module")
def page(browser):
    with page_with(browser, *MODULES) as page:
        yield page


def without_strict(instruction):
    """An instruction without what a text does not tell."""
    if not isinstance(instruction, dict):
        return instruction
    return {key: without_strict(value) for key, value in instruction.items() if key != "strict"}


def test_every_mission_is_read_as_minigrid_has_it(page):
    missions = set()
    for task_id in babyai_task_ids():
        packed = pack(task_id, range(40 if "Boss" in task_id or "Seq" in task_id else 4))
        expected = [without_strict(world["instruction"]) for world in packed["worlds"]]
        assert [without_strict(found) for found in page.evaluate(READ, packed)] == expected, task_id
        missions |= {world["mission"] for world in packed["worlds"]}
    assert len(missions) > 200
    for words in (", then ", " after you ", " and ", "in front of you", "behind you", "on your left", "on your right"):
        assert any(words in mission for mission in missions), words


def test_what_cannot_be_read_is_refused(page):
    packed = pack("BabyAI-GoToRedBallNoDists-v0", [0])  # a red ball and nothing else
    for text in ("go to the red ball", "  Pick up A red  ball", "go to a red object , then go to the ball"):
        assert isinstance(page.evaluate(READ_ONE, [packed, text]), dict), text
    refused = {
        "": "go to",
        "fly to the red ball": "fly",
        "go to red ball": "red ball",
        "go to the pink ball": "pink",
        "go to the blue ball": "blue ball",  # there is none
        "open the red ball": "door",
        "pick up the red door": "door",
        "put the red ball": "put",
        "go to a ball and go to a ball and go to a ball": "and",
        "go to a ball, then go to a ball, then go to a ball": "then",
        "go to a ball after you go to a ball after you go to a ball": "after you",
        "go to a ball, then go to a ball after you go to a ball": "after you",
    }
    for text, named in refused.items():
        message = page.evaluate(READ_ONE, [packed, text])
        assert isinstance(message, str) and named in message, (text, message)
