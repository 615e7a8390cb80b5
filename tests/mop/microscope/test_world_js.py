"""The page's worlds against Minigrid's: the same actions, the same views, grids, ends, events and phases."""

import os
from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from javascript import page_with
from minigrid.core.constants import COLOR_NAMES
from minigrid.core.world_object import Ball, Box, Door, Key
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    AndInstr,
    BeforeInstr,
    GoToInstr,
    ObjDesc,
    PickupInstr,
    PutNextInstr,
)
from played_worlds import (
    MODULES,
    PLAY,
    SHARES,
    WITHOUT_NUMBER,
    Played,
    go_on,
    pack,
    phases_in_python,
    play,
    random_action,
    routing_data_of,
    rows_of,
    state_row,
)
from scripts import REPOSITORY

from mop.analysis.groups import GROUPINGS
from mop.envs.babyai import World
from mop.envs.episodes import episode_context
from mop.envs.geometry import EMPTY, WALL, cell_code, code_kind
from mop.microscope.pack_worlds import pack_instruction

NUM_WORLDS = int(os.environ.get("MICROSCOPE_WORLDS", "8"))  # of each task; 100 take two minutes
MAX_ACTIONS = 80 if NUM_WORLDS < 20 else 300  # of an episode
MAX_STEPS = 20  # a step limit that ends half of the episodes
OTHER_TASKS = (
    *("KeyInBox", "PutNextS5N2Carrying", "PutNextS7N4Carrying", "PickupDistDebug", "OpenDoorDebug", "SynthSeq"),
    *("OpenDoorsOrderN2", "OpenDoorsOrderN2Debug", "OpenDoorsOrderN4Debug", "OpenRedBlueDoorsDebug", "GoToOpen"),
)


@pytest.fixture(scope="module")
def page(browser):
    with page_with(browser, *MODULES, more=PLAY) as page:
        yield page


def task_ids() -> list[str]:
    tables = [REPOSITORY / "results" / name for name in ("tasks.csv", "linear/tasks.csv")]
    published = {task_id for path in tables for task_id in pd.read_csv(path).task_id}
    return sorted(published | {f"BabyAI-{name}-v0" for name in OTHER_TASKS})


def check_same(page, packed: dict, episodes: list[Played], case) -> str:
    """Play the same in the page and compare every number of every state; returns the grouping of the phases."""
    data = routing_data_of(episodes)
    grouping = "by_key_phase" if GROUPINGS["by_key_phase"].suits(data) else "by_carrying"
    asked = [packed, [played.commands for played in episodes], grouping == "by_key_phase"]
    found = page.evaluate("asked => play(...asked)", asked)
    phases: list[str] = []
    for played, text in zip(episodes, found["rows"], strict=True):
        rows = rows_of(text, len(played.rows))
        different = np.argwhere(rows[:, :-1] != np.array(played.rows))
        assert len(different) == 0, f"{case}, {played.context['seed']}: state and number {different[0]}"
        phases += [found["labels"][index] for index in rows[:-1, -1]]
    assert phases == phases_in_python(data, grouping), case
    return grouping


def test_all_is_as_in_python(page):
    counts, groupings = Counter(), defaultdict(set)
    for task_id in task_ids():
        for max_steps in (None, MAX_STEPS):
            for first in range(0, NUM_WORLDS // 2, 10):
                seeds = range(first, min(first + 10, NUM_WORLDS // 2))
                seeds = [seed + NUM_WORLDS * (max_steps is not None) for seed in seeds]
                episodes = [play(task_id, seed, max_steps, SHARES[seed % 4], MAX_ACTIONS) for seed in seeds]
                groupings[task_id].add(check_same(page, pack(task_id, seeds, max_steps), episodes, task_id))
                counts += sum((played.counts for played in episodes), Counter())
    print(f"{len(groupings)} tasks: {dict(counts)}")
    assert len(groupings) == len(set(task_ids())) >= 59 and counts["episodes"] == NUM_WORLDS * len(groupings)
    for name in ("successes", "failures", "truncated", "boxes opened", "t_pick", "t_opened", "t_unlocked", "t_drop"):
        assert counts[name] >= 3, counts
    assert "by_key_phase" in groupings["BabyAI-UnlockPickup-v0"] & groupings["BabyAI-KeyCorridorS3R3-v0"]
    assert groupings["BabyAI-GoToLocal-v0"] == groupings["BabyAI-KeyInBox-v0"] == {"by_carrying"}


# --- editing ----------------------------------------------------------------------------------------------------------


def cells_of(world: World, *kinds: type | None) -> list[tuple[int, int]]:
    """The cells inside the outer walls with such things (None: with nothing), but not the agent's."""
    grid = world.env.grid
    inside = [(x, y) for y in range(1, grid.height - 1) for x in range(1, grid.width - 1) if (x, y) != world.position]
    return [cell for cell in inside if (type(grid.get(*cell)) if grid.get(*cell) else None) in kinds]


def remove(world: World, cell: tuple[int, int]) -> list:
    world.env.grid.set(*cell, None)
    return ["remove", *cell]


def put(world: World, cell: tuple[int, int], thing: Key | Ball | Box | Door) -> list:
    world.env.grid.set(*cell, thing)
    return ["put", *cell, cell_code(thing) & WITHOUT_NUMBER]


def set_door(world: World, cell: tuple[int, int], state: int) -> list:
    door = world.env.grid.get(*cell)
    door.is_open, door.is_locked = state == 0, state == 2
    return ["setDoor", *cell, state]


def move_agent(world: World, cell: tuple[int, int], direction: int) -> list:
    world.env.agent_pos, world.env.agent_dir = cell, direction
    world.position = cell  # `cells_of` reads it
    return ["moveAgent", *cell, direction]


def set_mission(world: World, instruction) -> list:
    world.env.instrs = instruction
    return ["setMission", instruction.surface(world.env)]


def describe_some(world: World, rng: np.random.Generator, *kinds: type) -> ObjDesc:
    """A description of one of the things of these kinds in the world, by all, some or few of its features."""
    cells = cells_of(world, *kinds)
    thing = world.env.grid.get(*cells[rng.integers(len(cells))])
    desc = ObjDesc(thing.type if rng.random() < 0.9 else None, thing.color if rng.random() < 0.7 else None)
    desc.loc = str(rng.choice(["left", "right", "front", "behind"])) if rng.random() < 0.3 else None
    return desc if desc.find_matching_objs(world.env)[0] else ObjDesc(thing.type, thing.color)


def some_mission(world: World, rng: np.random.Generator):
    things = (Key, Ball, Box)
    go_to = GoToInstr(describe_some(world, rng, *things))
    pick_up = PickupInstr(describe_some(world, rng, *things))
    put_next = PutNextInstr(describe_some(world, rng, *things), describe_some(world, rng, *things))
    return [go_to, pick_up, put_next, BeforeInstr(pick_up, go_to)][rng.integers(4)]


def edit(world: World, rng: np.random.Generator) -> list[list]:
    """Change a world in several ways; what was done, as commands for the page."""

    def one_of(cells):
        return cells[rng.integers(len(cells))]

    color = str(rng.choice(COLOR_NAMES))
    commands = [put(world, one_of(cells_of(world, None)), kind(color)) for kind in (Key, Ball, Box)]
    commands += [remove(world, one_of(cells_of(world, Key, Ball, Box)))]
    commands += [set_door(world, cell, int(rng.integers(3))) for cell in cells_of(world, Door)[:3]]
    if rng.random() < 0.5:
        commands += [move_agent(world, one_of(cells_of(world, None)), int(rng.integers(4)))]
    if rng.random() < 0.7:
        commands += [set_mission(world, some_mission(world, rng))]
    return commands


def play_edited(task_id: str, seed: int) -> Played:
    """Act at random, change the world, and play on in it as in a new episode."""
    rng = np.random.default_rng(seed)
    world = World(task_id)
    world.reset(seed)
    commands: list = []
    for _ in range(int(rng.integers(30))):
        commands.append(random_action(world, rng))
        world.step(commands[-1])
    commands += [*edit(world, rng), ["begin"]]
    world.begin_here()
    played = Played(episode_context(world), commands)
    go_on(world, played, rng, float(rng.choice(SHARES)), 60)
    return played


@pytest.mark.parametrize(
    "name", ["BossLevel", "KeyCorridorS3R3", "PutNextLocal", "UnlockPickup", "PutNextS5N2Carrying"]
)
def test_an_edited_world_is_as_in_python(page, name):
    task_id, seeds = f"BabyAI-{name}-v0", range(NUM_WORLDS)
    episodes = [play_edited(task_id, seed) for seed in seeds]
    check_same(page, pack(task_id, seeds), episodes, name)
    assert all(len(played.rows) > 1 for played in episodes)


ONE_ROOM = "BabyAI-GoToRedBallNoDists-v0"
RED_BALL, BLUE_KEY = ObjDesc("ball", "red"), ObjDesc("key", "blue")
LEFT, RIGHT, FORWARD, PICK_UP, DROP = range(5)
# The agent looks at a red ball to its right; below it lies a blue key, and a green box beside the key. The last of its
# actions ends the episode.
SUCCESSES = {
    "what was put down elsewhere is there": (
        BeforeInstr(PickupInstr(BLUE_KEY), GoToInstr(RED_BALL)),
        [PICK_UP, LEFT, DROP, RIGHT, RIGHT, PICK_UP, LEFT, LEFT],
    ),
    "what is carried counts where it was taken from": (
        BeforeInstr(GoToInstr(BLUE_KEY), GoToInstr(RED_BALL)),
        [PICK_UP, RIGHT, LEFT],
    ),
    "what is carried already is not picked up": (
        BeforeInstr(GoToInstr(BLUE_KEY), PickupInstr(RED_BALL)),
        [PICK_UP, RIGHT, PICK_UP, LEFT, PICK_UP, DROP, PICK_UP],
    ),
    "what cannot be dropped is not put down": (
        PutNextInstr(RED_BALL, BLUE_KEY),
        [PICK_UP, RIGHT, DROP, LEFT, FORWARD, RIGHT, DROP, RIGHT, DROP],
    ),
    "beside what was moved itself": (
        PutNextInstr(RED_BALL, BLUE_KEY),
        [RIGHT, PICK_UP, RIGHT, DROP, RIGHT, RIGHT, PICK_UP, LEFT, FORWARD, LEFT, DROP],
    ),
    "two in any order": (AndInstr(GoToInstr(BLUE_KEY), PickupInstr(RED_BALL)), [PICK_UP, RIGHT]),
}
FAILURES = {
    "first before second": (BeforeInstr(PickupInstr(BLUE_KEY), PickupInstr(RED_BALL), strict=True), [PICK_UP]),
    "first after second": (AfterInstr(PickupInstr(RED_BALL), PickupInstr(BLUE_KEY), strict=True), [PICK_UP]),
    "only what is to be put": (PutNextInstr(RED_BALL, BLUE_KEY, strict=True), [RIGHT, PICK_UP]),
}
SITUATIONS = SUCCESSES | FAILURES


@pytest.mark.parametrize("name", SITUATIONS)
def test_missions_are_judged_as_in_python(page, name):
    instruction, actions = SITUATIONS[name]
    world, packed, commands = arranged(instruction)
    played = follow(world, commands, actions)
    ends = [row[-7:-4].tolist() for row in played.rows]  # terminated, truncated, success
    assert ends == [[0, 0, 0]] * len(actions) + [[1, 0, name in SUCCESSES]]
    check_same(page, packed, [played], name)


def arranged(instruction) -> tuple[World, dict, list]:
    """A world of SITUATIONS in Python; and what the page needs for it: a packed world, and commands."""
    world, packed = World(ONE_ROOM), pack(ONE_ROOM, [0])
    world.reset(0)
    commands = [remove(world, cell) for cell in cells_of(world, Ball)] + [move_agent(world, (3, 3), 0)]
    things = {(4, 3): Ball("red"), (3, 4): Key("blue"), (4, 4): Box("green")}
    commands += [put(world, cell, thing) for cell, thing in things.items()]
    world.env.instrs = instruction
    packed["worlds"][0]["instruction"] = pack_instruction(instruction)
    return world, packed, commands


def follow(world: World, edits: list, actions: list[int]) -> Played:
    """Begin in a world that was edited, and do these actions."""
    world.begin_here()
    played = Played(episode_context(world), [*edits, ["begin"], *actions])
    played.rows = [state_row(world, False, False, False)]
    for action in actions:
        reward, terminated, truncated = world.step(action)
        played.rows.append(state_row(world, terminated, truncated, reward > 0))
    return played


@pytest.mark.parametrize("name", SUCCESSES)
def test_a_clone_is_independent(page, name):
    """From any state of an episode, a clone goes on to its end: the other has not changed, and comes there, too."""
    instruction, actions = SUCCESSES[name]
    _, packed, commands = arranged(instruction)
    go_on_twice = """([{ palette, worlds }, edits, actions]) => actions.map((_, k) => {
      const world = new World(worlds[0], palette);
      for (const [name, ...given] of [...edits, ["begin"]]) world[name](...given);
      for (const action of actions.slice(0, k)) world.step(action);
      const [before, copy] = [JSON.stringify(world), world.clone()];
      for (const action of actions.slice(k)) copy.step(action);
      const [isUntouched, isSolved] = [JSON.stringify(world) === before, copy.success];
      copy.remove(4, 4);
      copy.begin();
      for (const action of actions.slice(k)) world.step(action);
      return isUntouched && isSolved && world.success && codeKind(world.at(4, 4)) === BOX;
    })"""
    assert page.evaluate(go_on_twice, [packed, commands, actions]) == [True] * len(actions)


def test_what_cannot_be_edited_is_refused(page):
    packed = pack("BabyAI-UnlockPickup-v0", [0])
    refused = """([{ palette, worlds }, [name, ...given]]) => {
      const world = new World(worlds[0], palette);
      const before = JSON.stringify(world);
      try { world[name](...given); } catch (error) { return [error.message, JSON.stringify(world) === before]; }
    }"""
    world = World("BabyAI-UnlockPickup-v0")
    world.reset(0)
    door, wall, key = cells_of(world, Door)[0], cell_of_wall(world), 5
    commands = [
        ["remove", 0, 1],
        ["put", *door, key],
        ["put", *world.position, key],
        ["put", world.env.width, 1, key],
        ["setDoor", *wall, 0],
        ["moveAgent", *wall, 0],
        ["moveAgent", *door, 0],
        ["setMission", "go to the moon"],
    ]
    for command in commands:
        message, is_unchanged = page.evaluate(refused, [packed, command])
        assert message and is_unchanged, command


def cell_of_wall(world: World) -> tuple[int, int]:
    codes = world.codes[1:-1, 1:-1]
    y, x = np.argwhere(code_kind(codes) == WALL)[0] + 1
    return int(x), int(y)


def test_what_is_seen_has_names(page):
    packed = pack("BabyAI-UnlockPickup-v0", [0])
    world = World("BabyAI-UnlockPickup-v0")
    world.reset(0)
    found = page.evaluate(
        "({ palette, worlds }) => new World(worlds[0], palette).things().map((t) => [t.x, t.y, describe(t.code)])",
        packed,
    )
    expected = []
    for y, x in np.argwhere(world.seen.T & (world.codes != EMPTY) & (code_kind(world.codes) != WALL)):
        thing = world.env.grid.get(int(x), int(y))
        state = "" if thing.type != "door" else "locked " if thing.is_locked else "closed "
        expected.append([int(x), int(y), f"{state}{thing.color} {thing.type}"])
    assert found == expected and len(found) >= 1
