"""Groups of steps, against keys and labels worked out by hand; the phases of tasks with a key."""

import numpy as np
import pytest
from checks import refusal
from routing_data import TASK, make_data, make_steps, random_data

from mop.analysis.groups import (
    GROUPINGS,
    PHASES,
    choose_phases,
    get_available_analyses,
    group_routing_data,
    is_key_held,
    key_phases,
    room_labels_for_groups,
)
from mop.envs.babyai import World
from mop.envs.episodes import episode_context
from mop.envs.teacher import TeacherFailure

WORLD = {"grid_size": [11, 6], "room_grid_shape": [2, 1]}
EPISODES = [  # the steps of 0 are 0..3, those of 1 and 2 are 0..1
    WORLD
    | {"agent_start_room": [0, 0], "agent_start_pos": [1, 1], "target_pos": [8, 4], "success": True}
    | {"doors": [[5, 4, "red", False, True]], "boxes": [[8, 4, "red"]], "keys": [[1, 2, "red"]]}
    | {"t_opened": 2, "t_unlocked": 2, "mission": "open the red door, then pick up the red box"}
    | {"instructions": ["open the red door", "pick up the red box"]},
    WORLD
    | {"agent_start_room": [1, 0], "agent_start_pos": [6, 3], "target_pos": [1, 1], "success": False}
    | {"doors": [[5, 1, "red", False, True]], "boxes": [[8, 2, "red"]], "keys": [[1, 2, "red"]]}
    | {"t_opened": None, "t_unlocked": None, "mission": "put the box next to the key"}
    | {"instructions": ["put the box next to the key"]},
    WORLD
    | {"agent_start_room": [0, 0], "agent_start_pos": [5, 2], "target_pos": [8, 4], "success": True}
    | {"doors": [[5, 1, "red", False, True], [5, 2, "red", True, False]], "boxes": [[6, 1, "red"]]}
    | {"keys": [[1, 2, "red"]], "t_opened": None, "t_unlocked": None, "mission": "pick up the box"}
    | {"instructions": ["pick up the box"]},
]


@pytest.fixture
def data():
    steps = make_steps(
        np.ones((8, 2)),
        episode=[0, 0, 0, 0, 1, 1, 2, 2],
        t_step=[0, 1, 2, 3, 0, 1, 0, 1],
        carrying=[False, True, True, False, False, True, False, False],
        door_unlocked=[False, False, True, True, False, False, False, False],
        action=[2, 3, 5, 4, 2, 3, 0, 2],
        subgoal=[0, 2, 1, 3, 4, -1, 4, -1],
        instruction=[0, 0, 0, 1, 0, -1, 0, -1],
    )
    return make_data(steps, EPISODES)


# grouping -> label, steps and episodes of each group
EXPECTED = {
    "overall": [("all steps", [0, 1, 2, 3, 4, 5, 6, 7], 3)],
    "by_starting_room": [("Left", [0, 1, 2, 3, 6, 7], 2), ("Right", [4, 5], 1)],
    "by_door_location": [("door at x 5, y 1", [4, 5, 6, 7], 2), ("door at x 5, y 4", [0, 1, 2, 3], 1)],
    "by_door_location_and_box_row": [
        ("door at x 5, y 1; box in row 1", [6, 7], 1),
        ("door at x 5, y 1; box in row 2", [4, 5], 1),
        ("door at x 5, y 4; box in row 4", [0, 1, 2, 3], 1),
    ],
    "by_carrying": [("hands empty", [0, 3, 4, 6, 7], 3), ("carrying", [1, 2, 5], 2)],
    "by_agent_and_target_quadrant": [
        ("agent top left, target bottom right", [0, 1, 2, 3, 6, 7], 2),  # x 5 of 11 is the middle: left
        ("agent bottom right, target top left", [4, 5], 1),
    ],
    "by_key_phase": [
        ("before the key", [0, 4, 6, 7], 3),
        ("carrying the key", [1, 5], 2),
        ("door unlocked", [2], 1),
        ("key dropped", [3], 1),
    ],
    "by_door_opened": [("no door opened yet", [0, 1, 4, 5, 6, 7], 3), ("a door opened", [2, 3], 1)],
    "by_door_unlocked": [("no door unlocked yet", [0, 1, 4, 5, 6, 7], 3), ("a door unlocked", [2, 3], 1)],
    "by_subgoal": [
        ("to go next to", [0], 1),
        ("to open", [2], 1),
        ("to pick up", [1], 1),
        ("to drop", [3], 1),
        ("to explore", [4, 6], 2),
        ("unknown (bot silent)", [5, 7], 2),
    ],
    "by_instruction": [
        ("instruction 1", [0, 1, 2, 4, 6], 3),
        ("instruction 2", [3], 1),
        ("unknown (bot silent)", [5, 7], 2),
    ],
    "by_outcome": [("success", [0, 1, 2, 3, 6, 7], 2), ("failure", [4, 5], 1)],
    "by_mission_verb": [("pick up", [6, 7], 1), ("pick up and open", [0, 1, 2, 3], 1), ("put", [4, 5], 1)],
    "by_action": [
        ("turn left", [6], 1),
        ("forward", [0, 4, 7], 3),
        ("pick up", [1, 5], 2),
        ("drop", [3], 1),
        ("toggle", [2], 1),
    ],
}


def test_every_grouping_by_hand(data):
    assert EXPECTED.keys() == GROUPINGS.keys()
    for name, expected in EXPECTED.items():
        groups = group_routing_data(data, name)
        found = [
            (label, np.flatnonzero(groups.mask(group)).tolist(), int(groups.num_episodes[group]))
            for group, label in enumerate(groups.labels)
        ]
        assert found == expected, name
        assert groups.counts.tolist() == [len(steps) for _, steps, _ in expected]
        assert groups.first_steps.tolist() == [steps[0] for _, steps, _ in expected]
    assert group_routing_data(data, "by_door_location").keys == [(5, 1), (5, 4)]


def test_analyses_that_tell_steps_apart(data):
    assert get_available_analyses(data) == list(GROUPINGS)
    data.steps.carrying = None
    for episode in (same := [dict(EPISODES[0]) for _ in range(3)]):
        del episode["mission"]
    fewer = ["overall", "by_door_opened", "by_door_unlocked", "by_subgoal", "by_instruction", "by_action"]
    assert get_available_analyses(make_data(data.steps, same)) == fewer
    assert get_available_analyses(make_data(make_steps([[1, 1], [2, 1]]))) == ["overall"]
    assert get_available_analyses(make_data(make_steps([]), [])) == ["overall"]


def test_phases_are_those_that_half_of_the_evaluations_have():
    key, carrying = ["by_carrying", "by_key_phase"], ["by_carrying"]
    assert choose_phases([key]) == "by_key_phase" == choose_phases([key, carrying])
    assert choose_phases([key, carrying, carrying]) == "by_carrying" and choose_phases([[], []]) is None
    assert choose_phases([["overall", "by_door_unlocked", "by_carrying", "by_subgoal"]]) == "by_subgoal"


def test_what_cannot_be_grouped_is_one_clear_sentence(data):
    assert "by_moon" in refusal(group_routing_data, data, "by_moon")
    data.steps.door_unlocked = None
    assert "door_unlocked" in refusal(group_routing_data, data, "by_door_unlocked")
    data.steps.subgoal = data.steps.instruction = None  # before version 5
    for group_by in ("subgoal", "instruction"):
        line = refusal(group_routing_data, data, f"by_{group_by}")
        assert f"'{group_by}'" in line and f"`python batch_eval.py --force --task {TASK}`" in line
    assert "success" in refusal(group_routing_data, make_data(data.steps, [WORLD] * 3), "by_outcome")
    two_locked = [episode | {"doors": [[5, 1, "red", False, True]] * 2} for episode in EPISODES]
    assert "door location" in refusal(group_routing_data, make_data(data.steps, two_locked), "by_door_location")
    assert "no steps" in refusal(group_routing_data, make_data(make_steps([]), []), "overall")


def test_rooms_are_named_by_the_real_grid_not_by_those_that_occur():
    assert room_labels_for_groups([(2, 2), (1, 1), (0, 2)], (3, 3)) == ["Bottom-Right", "Middle-Center", "Bottom-Left"]
    assert room_labels_for_groups([(1, 1), (0, 0)], (2, 2)) == ["Bottom-Right", "Top-Left"]
    assert room_labels_for_groups([(1, 0)], (2, 1)) == ["Right"]
    assert room_labels_for_groups([(0, 2)], (1, 3)) == ["Bottom"]
    assert room_labels_for_groups([(0, 0)], (1, 1)) == ["The only room"]
    assert room_labels_for_groups([(3, 1)], (4, 2)) == ["Bottom-Column 4"]
    assert "3, 0" in refusal(room_labels_for_groups, [[3, 0]], (3, 3))
    steps = make_steps(np.ones((3, 2)), episode=[0, 1, 2])
    episodes = [{"agent_start_room": room, "room_grid_shape": [3, 3]} for room in ([2, 2], [1, 1], [2, 0])]
    groups = group_routing_data(make_data(steps, episodes), "by_starting_room")
    assert groups.labels == ["Top-Right", "Middle-Center", "Bottom-Right"]  # reading order
    assert groups.keys == [(2, 0), (1, 1), (2, 2)]


def test_every_step_is_in_exactly_one_group():
    data, checked = random_data(), 0
    for name in get_available_analyses(data):
        groups = group_routing_data(data, name)
        assert groups.counts.sum() == len(data.steps) == len(groups.index) and groups.counts.min() > 0
        for group in range(len(groups)):
            mask = groups.mask(group)
            assert mask.sum() == groups.counts[group] and mask[groups.first_steps[group]]
            assert groups.num_episodes[group] == len(set(data.steps.episode[mask].tolist()))
        checked += 1
    assert checked == len(GROUPINGS)


def phases_of(carrying, t_unlocked):
    steps = make_steps(np.ones((len(carrying), 2)), t_step=range(len(carrying)), carrying=np.array(carrying, bool))
    return key_phases(steps, [{"t_unlocked": t_unlocked}]).tolist()


def test_phases_by_time_where_places_are_unknown():
    assert len(PHASES) == 4
    assert phases_of([0, 1, 1, 0, 1], 2) == [0, 1, 2, 3, 3]  # the box at the end is not the key
    assert phases_of([0, 1, 0, 1, 1, 0], 4) == [0, 0, 0, 1, 2, 3]  # a ball was moved out of the way before
    assert phases_of([0, 0, 1, 1], None) == [0, 0, 1, 1]
    assert phases_of([0, 1, 1, 1], 2) == [0, 1, 2, 2]  # never dropped
    assert phases_of([1, 1, 0], 1) == [1, 2, 3]  # in the hands from the start


def test_phases_need_carrying_and_unlocking():
    steps = make_steps(np.ones((3, 2)), episode=[0, 1, 2], t_step=[0, 0, 0], carrying=[False, True, False])
    assert "t_unlocked" in refusal(key_phases, steps, [{}] * 3)
    steps.carrying = None
    assert "carrying" in refusal(key_phases, steps, [{"t_unlocked": None}] * 3)


def followed(episode, *steps):
    """Phases of steps (x, y, direction, carrying) of one episode."""
    columns = np.array(steps)
    made = make_steps(columns[:, :2], t_step=range(len(steps)), carrying=columns[:, 3] > 0, direction=columns[:, 2])
    return key_phases(made, [episode]).tolist()


def test_a_key_that_is_picked_up_again_is_the_key_again():
    """Towards the right (direction 0): the key at x 2, dropped at x 5, picked up there, carried through the door."""
    door = [9, 1, "red", False, True]
    episode = {"keys": [[2, 1, "red"]], "doors": [door], "t_unlocked": 6}
    walk = [(1, 1, 0, 0), (1, 1, 0, 1), (4, 1, 0, 1), (4, 1, 0, 0)]
    walk += [(4, 1, 0, 1), (8, 1, 0, 1), (8, 1, 0, 1), (8, 1, 2, 1)]
    assert followed(episode, *walk) == [0, 1, 1, 0, 1, 1, 2, 2]
    assert followed(episode, *walk, (8, 1, 2, 0), (8, 1, 2, 1)) == [0, 1, 1, 0, 1, 1, 2, 2, 3, 2]


def test_other_objects_are_no_key():
    episode = {"keys": [[2, 1, "red"], [2, 2, "blue"]], "doors": [[9, 1, "red", False, True]], "t_unlocked": None}
    assert followed(episode, (1, 2, 0, 0), (1, 2, 0, 1), (1, 2, 0, 0)) == [0, 0, 0]  # the blue key opens nothing
    assert followed(episode, (1, 3, 0, 0), (1, 3, 0, 1)) == [0, 0]  # a ball
    assert followed(episode, (1, 1, 0, 0), (1, 1, 0, 1)) == [0, 1]
    any_key = {"keys": [[2, 2, "blue"]], "t_unlocked": None}  # of an older cache, which tells no doors
    assert followed(any_key, (1, 2, 0, 0), (1, 2, 0, 1)) == [0, 1]


@pytest.mark.parametrize("level", ["UnlockPickup", "BlockedUnlockPickup", "KeyCorridorS3R2"])
def test_keys_are_followed_as_in_the_world(level):
    """In episodes that are half the bot's and half at random, with much picking up and dropping."""
    world, rng = World(f"BabyAI-{level}-v0"), np.random.default_rng(0)
    columns, truth, episodes = {name: [] for name in ("episode", "position", "direction", "carrying")}, [], []
    for seed in range(25):
        world.reset(seed)
        episodes.append(episode_context(world))
        is_over = False
        while not is_over:
            now = (seed, world.position, world.direction, world.env.carrying is not None)
            for name, value in zip(columns, now, strict=True):
                columns[name].append(value)
            truth.append(world.env.carrying is not None and world.env.carrying.type == "key")
            try:
                action = world.label()
            except TeacherFailure:
                break
            action = action if rng.random() < 0.7 else int(rng.choice([0, 1, 2, 3, 4]))  # not toggle: it opens boxes
            _, terminated, truncated = world.step(action)
            is_over = terminated or truncated
    steps = make_steps(columns.pop("position"), **columns)
    held = is_key_held(steps, episodes)
    assert held.tolist() == truth
    picked_again = np.bincount(steps.episode[1:][held[1:] & ~held[:-1]], minlength=25)
    assert (picked_again > 1).sum() >= 3 and 0.1 < held.mean() < 0.9
