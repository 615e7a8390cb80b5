"""Groups of steps, against keys and labels worked out by hand."""

import re

import numpy as np
import pytest
from routing_data import TASK, make_data, make_steps, random_data

from mop.analysis.groups import GROUPINGS, get_available_analyses, group_routing_data, room_labels_for_groups
from mop.common.errors import InputError

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


def test_what_cannot_be_grouped_is_one_clear_sentence(data):
    with pytest.raises(InputError, match="by_moon"):
        group_routing_data(data, "by_moon")
    data.steps.door_unlocked = None
    with pytest.raises(InputError, match="door_unlocked"):
        group_routing_data(data, "by_door_unlocked")
    data.steps.subgoal = data.steps.instruction = None  # before version 5
    for group_by in ("subgoal", "instruction"):
        way_out = f"no '{group_by}': make a new one with `python batch_eval.py --force --task {TASK}`"
        with pytest.raises(InputError, match=re.escape(way_out)):
            group_routing_data(data, f"by_{group_by}")
    with pytest.raises(InputError, match="success"):
        group_routing_data(make_data(data.steps, [WORLD] * 3), "by_outcome")
    two_locked = [episode | {"doors": [[5, 1, "red", False, True]] * 2} for episode in EPISODES]
    with pytest.raises(InputError, match="door location"):
        group_routing_data(make_data(data.steps, two_locked), "by_door_location")
    with pytest.raises(InputError, match="no steps"):
        group_routing_data(make_data(make_steps([]), []), "overall")


def test_rooms_are_named_by_the_real_grid_not_by_those_that_occur():
    assert room_labels_for_groups([(2, 2), (1, 1), (0, 2)], (3, 3)) == ["Bottom-Right", "Middle-Center", "Bottom-Left"]
    assert room_labels_for_groups([(1, 1), (0, 0)], (2, 2)) == ["Bottom-Right", "Top-Left"]
    assert room_labels_for_groups([(1, 0)], (2, 1)) == ["Right"]
    assert room_labels_for_groups([(0, 2)], (1, 3)) == ["Bottom"]
    assert room_labels_for_groups([(0, 0)], (1, 1)) == ["The only room"]
    assert room_labels_for_groups([(3, 1)], (4, 2)) == ["Bottom-Column 4"]
    with pytest.raises(InputError, match="3, 0"):
        room_labels_for_groups([[3, 0]], (3, 3))
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
