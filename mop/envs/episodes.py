"""Episodes in a fixed list of worlds, as arrays, with the context and outcome of each.

Axis letters: N slots, O = 152 numbers of an observation.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mop.envs.babyai import OBS_DIM, World
from mop.envs.teacher import TeacherFailure

# What a slot shows before its next action: columns of Steps, by the same names.
SLOT_STATE = np.dtype(
    [
        ("episode", np.int32),  # index into `episodes`
        ("t_step", np.int32),
        ("position", np.int32, 2),
        ("direction", np.int8),
        ("carrying", np.bool_),
        ("door_unlocked", np.bool_),  # a door was unlocked in this episode
    ]
)
PHASED_STATE = np.dtype([*SLOT_STATE.descr, ("subgoal", np.int8), ("instruction", np.int8)])  # and `Teacher.phase`
_UNKNOWN = (-1, -1)


def episode_context(world: World) -> dict:
    """What readers need to know of a world at the start of an episode; cells are [x, y], rooms [column, row].

    room_grid_shape: [columns, rows]; room_bounds: [x_min, y_min, x_max, y_max] of each room with its walls, row by row;
    doors: [x, y, color, is_open, is_locked]; other objects: [x, y, color]; target_pos: the nearest object among those
    that the mission names in the clause to be done first (the one to be moved, if the clause names two kinds).
    """
    env = world.env
    x, y = (int(v) for v in env.agent_pos)
    objects: dict[str, list] = {kind: [] for kind in ("goal", "door", "key", "ball", "box")}
    for index, cell in enumerate(env.grid.grid):
        if cell is not None and cell.type in objects:
            extra = [bool(cell.is_open), bool(cell.is_locked)] if cell.type == "door" else []
            objects[cell.type].append([index % env.grid.width, index // env.grid.width, cell.color, *extra])
    clause = env.instrs
    while hasattr(clause, "instr_a"):  # "A after you B" is done from its end
        clause = clause.instr_b if type(clause).__name__ == "AfterInstr" else clause.instr_a
    named = getattr(clause, "desc", None) or clause.desc_move
    targets = [[int(v) for v in position] for position in named.obj_poss]
    size = env.room_size - 1
    return {
        "grid_size": [env.grid.width, env.grid.height],
        "agent_start_pos": [x, y],
        "agent_start_dir": int(env.agent_dir),
        "agent_start_room": [x // size, y // size],
        "room_grid_shape": [env.num_cols, env.num_rows],
        "room_bounds": [
            [i * size, j * size, (i + 1) * size, (j + 1) * size]
            for j in range(env.num_rows)
            for i in range(env.num_cols)
        ],
        "goals": objects["goal"],
        "doors": objects["door"],
        "keys": objects["key"],
        "balls": objects["ball"],
        "boxes": objects["box"],
        "target_pos": min(targets, key=lambda t: abs(t[0] - x) + abs(t[1] - y), default=None),
    }


def split_mission(mission: str) -> list[str]:
    """The instructions of a mission in the order in which the bot does them: "A after you B" is B, then A."""
    first, then, second = mission.partition(", then ")
    if not then:
        second, after, first = mission.partition(" after you ")
        if not after:
            return mission.split(" and ")
    return [*first.split(" and "), *second.split(" and ")]


class EvalVectorEnv:
    """One episode for each seed of a list, in N slots; a free slot takes the next seed.

    The present of all slots: obs (N, O) float32, active (N,) bool (False when no seed is left), state (N,) of
    SLOT_STATE, missions (N texts), worlds (N). `episodes` holds context and outcome of every episode that has begun, in
    the order of the seeds.

    with_phases: the bot follows what is done, and `state` is of PHASED_STATE. From the state on in which it fails, the
    phase is unknown; `bot_failures` holds the kind of its failure (of FAILURE_KINDS) in each such episode.
    """

    def __init__(
        self,
        task_id: str,
        seeds: Sequence[int],
        num_envs: int,
        max_steps: int | None = None,
        with_phases: bool = False,
        progress: Callable[[int], object] | None = None,
    ):
        """progress: called with the number of episodes just finished."""
        num_envs = min(num_envs, len(seeds))
        self.obs = np.zeros((num_envs, OBS_DIM), np.float32)
        self.worlds = [World(task_id, max_steps, row) for row in self.obs]
        self.seeds, self.episodes, self.missions = list(seeds), [], [""] * num_envs
        self.active = np.ones(num_envs, bool)
        self.state: np.ndarray = np.zeros(num_envs, PHASED_STATE if with_phases else SLOT_STATE)
        self._with_phases, self.bot_failures = with_phases, {}
        self._progress = progress
        self._episode = [0] * num_envs  # of each slot
        for slot in range(num_envs):
            self._begin(slot)
        self._describe()

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Execute actions (N,) int in the active slots. Returns done (N,) bool."""
        done, actions = np.zeros(len(self.worlds), bool), actions.tolist()
        for slot in np.flatnonzero(self.active).tolist():
            world = self.worlds[slot]
            reward, terminated, truncated = world.step(actions[slot])
            if terminated or truncated:
                done[slot] = True
                self.episodes[self._episode[slot]] |= {
                    "success": reward > 0,
                    "truncated": truncated,
                    "steps": world.num_steps,
                    **{name: getattr(world, name) for name in ("t_pick", "t_opened", "t_unlocked", "t_drop")},
                }
                self._begin(slot)
        self._describe()
        if self._progress is not None and done.any():
            self._progress(int(done.sum()))
        return done

    def _begin(self, slot: int) -> None:
        if len(self.episodes) == len(self.seeds):
            self.active[slot] = False
            return
        world, seed = self.worlds[slot], self.seeds[len(self.episodes)]
        world.reset(seed)
        self._episode[slot] = len(self.episodes)
        self.missions[slot] = world.mission
        mission = {"mission": world.mission, "instructions": split_mission(world.mission)}
        self.episodes.append(episode_context(world) | {"seed": seed, **mission})

    def _describe(self) -> None:
        phases = self._phases() if self._with_phases else [()] * len(self.worlds)
        self.state[:] = [
            (k, w.num_steps, w.env.agent_pos, w.env.agent_dir, w.env.carrying is not None, w.t_unlocked is not None, *p)
            for k, w, p in zip(self._episode, self.worlds, phases, strict=True)
        ]

    def _phases(self) -> list[tuple[int, int]]:
        """The bot's present subgoal and instruction in each slot, -1 where it is silent; call it once for each step."""
        phases = [_UNKNOWN] * len(self.worlds)
        for slot in np.flatnonzero(self.active).tolist():
            world, episode = self.worlds[slot], self._episode[slot]
            if episode not in self.bot_failures:
                try:
                    world.label()
                    phases[slot] = world.teacher.phase
                except TeacherFailure as failure:
                    self.bot_failures[episode] = failure.kind
        return phases
