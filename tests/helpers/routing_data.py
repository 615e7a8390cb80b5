"""Routing data made by hand, for the tests of numbers and figures."""

import numpy as np

from mop.artifacts.routing_cache import RoutingData, Steps

TASK = "BabyAI-UnlockPickup-v0"
EVERY_KIND = (
    *("none", "lesion 0.1", "lesion 1.0", "lesion_size 16", "threshold 0.3", "argmax", "clamp 0.2=0.7", "mean 1"),
    *("uniform 0", "shuffle 0", "swap other.pt", "lesion 0.1 in carrying", "argmax in hands empty"),
    *("lesion 0.1 + clamp 0.2=0.7 + mean 1 + argmax", "lesion 0.0 + threshold 0.3 in hands empty"),
)


def make_steps(position, *layers, lpc=None, **columns) -> Steps:
    """Steps with these columns only, all of episode 0 where no `episode` is given."""
    position = np.array(position, np.int32).reshape(-1, 2)
    return Steps(
        np.array(columns.pop("episode", np.zeros(len(position))), np.int32),
        position=position,
        layer_routing=[np.array(weights, np.float32) for weights in layers],
        lpc=None if lpc is None else np.array(lpc, np.float32),
        **{name: np.array(values) for name, values in columns.items()},
    )


def make_data(steps: Steps, episodes=({},), sizes=None, **header) -> RoutingData:
    """Routing data of version 5; sizes: `expert_hidden_sizes` of the header."""
    header = {"schema_version": 5, "task_id": TASK, **header}
    return RoutingData(header if sizes is None else header | {"expert_hidden_sizes": sizes}, list(episodes), steps)


def three_visits(**columns) -> Steps:
    """Three visits of two cells: (4, 1) at first and last, (2, 3) in between; two layers of 3 and 2 experts."""
    return make_steps(
        [[4, 1], [2, 3], [4, 1]],
        [[0.9, 0.1, 0.0], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2]],
        [[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]],
        lpc=[100.0, 700.0, 200.0],
        **columns,
    )


def random_data(num_episodes=30, num_layers=3, num_experts=3, grid=(11, 6), rooms=(2, 1), seed=0) -> RoutingData:
    """Episodes of a task with key, door and box, whose steps lie anywhere in the rooms, with every column there is."""
    rng = np.random.default_rng(seed)
    (width, height), size = grid, ((grid[0] - 1) // rooms[0], (grid[1] - 1) // rooms[1])
    bounds = [  # row by row
        [i * size[0], j * size[1], (i + 1) * size[0], (j + 1) * size[1]]
        for j in range(rooms[1])
        for i in range(rooms[0])
    ]
    lengths = rng.integers(12, 30, num_episodes)
    episodes = []
    for number in range(num_episodes):
        start = [1 + number % (width - 2), 1 + number % (height - 2)]
        episodes.append(
            {"grid_size": list(grid), "room_grid_shape": list(rooms), "room_bounds": bounds}
            | {"agent_start_pos": start, "agent_start_room": [number % rooms[0], number % rooms[1]]}
            | {"doors": [[size[0], 1 + number % (size[1] - 1), "red", False, True]], "keys": [[1, 1, "red"]]}
            | {"boxes": [[width - 2, 1 + number % 2, "blue"]], "balls": [], "goals": [], "target_pos": [width - 2, 1]}
            | {"t_pick": 3, "t_opened": 6, "t_unlocked": 6, "t_drop": 9, "success": number % 5 > 0, "seed": number}
            | {"mission": ("pick up the blue box", "open the red door, then go to the blue box")[number % 2]}
            | {"instructions": (["pick up the blue box"], ["open the red door", "go to the blue box"])[number % 2]}
        )
    t_step = np.concatenate([np.arange(length) for length in lengths])
    inside = np.array([[x, y] for x0, y0, x1, y1 in bounds for x in range(x0 + 1, x1) for y in range(y0 + 1, y1)])
    weights = [rng.dirichlet(np.full(num_experts, 0.5), len(t_step)) for _ in range(num_layers)]
    steps = make_steps(
        inside[rng.integers(len(inside), size=len(t_step))],
        *weights,
        lpc=1024 * sum(w[:, -1] for w in weights),
        episode=np.repeat(np.arange(num_episodes), lengths),
        t_step=t_step,
        carrying=(t_step >= 3) & (t_step < 9),
        door_unlocked=t_step >= 6,
        action_logits=rng.normal(size=(len(t_step), 7)),
        action=rng.integers(0, 7, len(t_step)),
        subgoal=t_step % 6 - 1,
        instruction=np.where(t_step % 6, (t_step >= 6) & (np.repeat(np.arange(num_episodes), lengths) % 2), -1),
    )
    return make_data(steps, episodes, [[0, *(8 * 2**k for k in range(1, num_experts))]] * num_layers, trial=0, seed=1)


FIRST_WEIGHTS = np.array([0.0, 0.1, 0.2, 0.3, 0.6, 1.0])  # of expert 0 in layer 0, in the episodes below
_TWO_EPISODES = {"episode": [0, 0, 0, 0, 1, 1], "t_step": [0, 1, 2, 3, 0, 1], "action": [2, 2, 2, 5, 0, 2]}


def two_episodes() -> RoutingData:
    """Episodes of 4 and 2 steps; a layer of two experts, of which the first has FIRST_WEIGHTS."""
    steps = make_steps(np.ones((6, 2)), np.stack([FIRST_WEIGHTS, 1 - FIRST_WEIGHTS], axis=1), **_TWO_EPISODES)
    outcomes = [{"success": True, "t_pick": 2, "t_opened": None}, {"success": False, "t_pick": None, "t_opened": 1}]
    return make_data(steps, outcomes)


def two_episodes_in_a_corridor() -> RoutingData:
    """Episodes of 4 and 2 steps; the layer of `two_episodes`, and one whose first expert has all."""
    layers = [np.stack([FIRST_WEIGHTS, 1 - FIRST_WEIGHTS], axis=1), np.eye(2)[[0] * 6]]
    position = [[1, 1], [2, 1], [3, 1], [4, 1], [1, 1], [1, 1]]
    steps = make_steps(position, *layers, carrying=[False, False, True, True, False, False], **_TWO_EPISODES)
    world = {"grid_size": [7, 3], "room_bounds": [[0, 0, 6, 2]], "doors": [], "keys": [], "target_pos": [5, 1]}
    outcomes = [
        world | {"success": True, "mission": "open the door", "t_pick": 2, "t_opened": 3, "t_unlocked": 3},
        world | {"success": False, "mission": "open the door", "t_pick": None, "t_opened": None, "t_unlocked": None},
    ]
    return make_data(steps, outcomes, [[0, 16], [0, 16]])
