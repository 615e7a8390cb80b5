"""Evaluate one checkpoint, or the BabyAI bot itself, on a fixed list of worlds.

    python eval_mop.py --checkpoint checkpoints/BabyAI-GoToObj-v0/trial_0/checkpoint_final.pt --num_episodes 100
    python eval_mop.py --bot --task_id BabyAI-UnlockPickup-v0 --num_episodes 150

The worlds are the seeds eval_seed, eval_seed + 1, ...; one greedy episode each. A world that the bot cannot solve is
counted and replaced by the next seed, as no path length is known for it. --num_envs changes speed and rounding only.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import runs
from babyai_env import (
    MAX_FAILURES_IN_A_ROW,
    MINIGRID_VERSION,
    OBS_DIM,
    World,
    check_task_id,
    teacher_steps,
    unteachable,
)
from configuration import Parser, check_flags, check_recorded, integer, optional
from devices import use_device
from errors import InputError, run_script
from kernel_cache import announce_compilation
from mission_encoder import DEFAULT_MODEL, MissionEncoder, load_encoder
from mixture_of_experts import compute_lpc, policy_from_checkpoint, reset_hidden
from routing_cache import RoutingSteps
from teacher import TeacherFailure

GIVE_UP = -1  # in place of an action: the episode ends here without success
NUM_ENVS = 64
# What a slot shows before its next action; the names and types of the columns of RoutingSteps.
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
SAVE_INTERVAL_S = 5.0  # between writes of the bot's results while they are computed

Progress = Callable[[int], None]  # called with the number of episodes just finished


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success probability (Wilson 1927, score interval without continuity correction)."""
    z = 1.959963984540054
    centre = (successes + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(successes * (trials - successes) / trials + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def compute_metrics(episodes: Sequence[Mapping], lpc: np.ndarray | None, bot_plan_failures: int) -> dict[str, float]:
    """The measures of an evaluation; their only home.

    success_rate: successes / episodes (success is reward > 0), with its 95 % Wilson interval success_low, success_high.
    path_ratio: mean over the successes of steps / the bot's steps in the same world; 1 is as short as the bot's, NaN
    without a success. mean_lpc: mean over all steps of all episodes of lpc (S,), NaN without routing.
    bot_plan_failures: worlds of the list that were replaced because the bot cannot solve them.
    """
    successes = [episode for episode in episodes if episode["success"]]
    low, high = wilson_interval(len(successes), len(episodes))
    ratios = [episode["steps"] / episode["expert_steps"] for episode in successes]
    return {
        "success_rate": len(successes) / len(episodes),
        "success_low": low,
        "success_high": high,
        "path_ratio": float(np.mean(ratios)) if ratios else math.nan,
        "mean_lpc": float(np.mean(lpc, dtype=np.float64)) if lpc is not None and len(lpc) else math.nan,
        "mean_steps": float(np.mean([episode["steps"] for episode in episodes])),
        "bot_plan_failures": bot_plan_failures,
    }


class TeacherResults:
    """The bot's result in each fixed world of a task and step limit: path length, or the kind of its failure.

    Computed once and kept under `cache_dir`, so that evaluating many checkpoints asks the bot once.
    """

    def __init__(self, task_id: str, max_steps: int | None, cache_dir: str | Path | None):
        """cache_dir None: keep nothing."""
        check_task_id(task_id)
        self.task_id, self.max_steps = task_id, max_steps
        self._path = runs.teacher_path(cache_dir, task_id, max_steps) if cache_dir is not None else None
        self._results: dict[int, int | str] = {}
        if self._path is not None:
            self._results = runs.load_teacher_results(self._path, MINIGRID_VERSION)
        self._num_kept = len(self._results)
        self._world: World | None = None

    def ask(self, seed: int) -> int | str:
        """Steps of the bot's episode in world `seed`, or one of FAILURE_KINDS."""
        if seed not in self._results:
            if self._world is None:
                self._world = World(self.task_id, self.max_steps)
            try:
                self._results[seed] = teacher_steps(self._world, seed)
            except TeacherFailure as failure:
                self._results[seed] = failure.kind
        return self._results[seed]

    def solvable(self, first_seed: int, count: int) -> tuple[dict[int, int], int]:
        """The first `count` worlds from `first_seed` on that the bot solves (seed -> its steps); how many it cannot.

        Raises InputError where it fails in too many worlds in a row.
        """
        solved, failures, in_a_row, seed, saved_at = {}, 0, [], first_seed, time.monotonic()
        with tqdm(total=count, desc="the bot's paths", unit="world", leave=False, delay=2, dynamic_ncols=True) as bar:
            while len(solved) < count:
                if seed >= 2**32:
                    raise InputError("the worlds run past seed 2**32, where training's begin; lower --eval_seed")
                result = self.ask(seed)
                if time.monotonic() - saved_at > SAVE_INTERVAL_S:
                    self.save()
                    saved_at = time.monotonic()
                if isinstance(result, int):
                    solved[seed] = result
                    in_a_row = []
                    bar.update()
                else:
                    failures += 1
                    in_a_row.append(result)
                    if len(in_a_row) == MAX_FAILURES_IN_A_ROW:
                        raise InputError(unteachable(self.task_id, in_a_row, self.max_steps))
                seed += 1
        self.save()
        return solved, failures

    def save(self) -> None:
        """Keep what is new, and what another process has kept meanwhile."""
        if self._path is not None and len(self._results) > self._num_kept:
            self._results |= runs.load_teacher_results(self._path, MINIGRID_VERSION)
            runs.write_teacher_results(self._path, self._results, self.task_id, self.max_steps, MINIGRID_VERSION)
            self._num_kept = len(self._results)


def episode_context(world: World) -> dict:
    """What a reader needs to know of a world at the start of an episode; cells are [x, y], rooms [column, row].

    room_grid_shape is [columns, rows]; room_bounds [x_min, y_min, x_max, y_max] of each room with its walls, row by
    row; doors [x, y, color, is_open, is_locked], other objects [x, y, color]; target_pos: the nearest of the objects
    named by the clause of the mission that is to be done first (the one to be moved, if it names two).
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


class EvalVectorEnv:
    """One episode for each seed of a list, in N slots; a free slot takes the next seed.

    Arrays describe the present of all slots: obs (N, O) float32, active (N,) bool (False when no seed is left), state
    (N,) of SLOT_STATE; missions, a list of N texts. `episodes` holds context and outcome of every episode begun, in the
    order of the seeds.
    """

    def __init__(self, task_id: str, seeds: Sequence[int], num_envs: int, max_steps: int | None = None):
        num_envs = min(num_envs, len(seeds))
        self.obs = np.zeros((num_envs, OBS_DIM), np.float32)
        self.worlds = [World(task_id, max_steps, row) for row in self.obs]
        self.seeds, self.episodes, self.missions = list(seeds), [], [""] * num_envs
        self.active, self.state = np.ones(num_envs, bool), np.zeros(num_envs, SLOT_STATE)
        self._episode = [0] * num_envs  # of each slot
        for slot in range(num_envs):
            self._begin(slot)
        self._describe()

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Execute actions (N,) int in the active slots, GIVE_UP to end an episode. Returns done (N,) bool."""
        done, actions = np.zeros(len(self.worlds), bool), actions.tolist()
        for slot in np.flatnonzero(self.active).tolist():
            world, action = self.worlds[slot], actions[slot]
            reward, terminated, truncated = (0.0, False, True) if action == GIVE_UP else world.step(action)
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
        return done

    def _begin(self, slot: int) -> None:
        if len(self.episodes) == len(self.seeds):
            self.active[slot] = False
            return
        world, seed = self.worlds[slot], self.seeds[len(self.episodes)]
        world.reset(seed)
        self._episode[slot] = len(self.episodes)
        self.missions[slot] = world.mission
        self.episodes.append(episode_context(world) | {"seed": seed, "mission": world.mission})

    def _describe(self) -> None:
        self.state[:] = [
            (k, w.num_steps, w.env.agent_pos, w.env.agent_dir, w.env.carrying is not None, w.t_unlocked is not None)
            for k, w in zip(self._episode, self.worlds, strict=True)
        ]


@dataclass
class Evaluation:
    """metrics: of `compute_metrics`; episodes: context and outcome of each; steps: None if not recorded."""

    metrics: dict[str, float]
    episodes: list[dict]
    steps: RoutingSteps | None
    expert_hidden_sizes: list[list[int]] | None = None  # of the policy; the bot has none


class _Recorder:
    """Collects what the active slots show and what the policy answers at every vector step."""

    def __init__(self):
        self._states: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []

    def add(self, active: np.ndarray, state: np.ndarray, outputs: np.ndarray) -> None:
        """active (N,) bool, state (N,) of SLOT_STATE, outputs (N, A + sum of E_l) float32: logits, then weights."""
        self._states.append(state[active])
        self._outputs.append(outputs[active])

    def steps(self, num_actions: int, expert_hidden_sizes: Sequence[Sequence[int]]) -> RoutingSteps:
        """Everything, in the order of episodes and steps."""
        state, outputs = np.concatenate(self._states), np.concatenate(self._outputs)
        order = np.argsort(state["episode"], kind="stable")  # the steps of an episode came in their order
        state, outputs = state[order], outputs[order]
        ends = np.cumsum([num_actions, *map(len, expert_hidden_sizes)])[:-1]
        logits, *routing = map(np.ascontiguousarray, np.split(outputs, ends, axis=1))
        return RoutingSteps(
            **{name: np.ascontiguousarray(state[name]) for name in SLOT_STATE.names},
            layer_routing=routing,
            lpc=compute_lpc(list(map(torch.from_numpy, routing)), expert_hidden_sizes).numpy(),
            action_logits=logits,
            action=logits.argmax(-1).astype(np.int8),
        )


@torch.no_grad()
def evaluate(
    checkpoint: Mapping,
    encoder: MissionEncoder,
    teacher: TeacherResults,
    num_episodes: int = 1000,
    eval_seed: int = 0,
    num_envs: int = NUM_ENVS,
    record_steps: bool = True,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """One greedy episode of a checkpoint's policy in each of the first `num_episodes` worlds that the bot solves.

    checkpoint: of `runs.load_checkpoint`, MoE or baseline; encoder: of `encoder_for`; teacher: results of the task and
    step limit to evaluate on. Raises InputError where checkpoint, encoder and task do not fit together.
    """
    policy, lang_proj = policy_from_checkpoint(checkpoint)
    if lang_proj.in_features != encoder.dim:
        raise InputError(
            f"the checkpoint projects {lang_proj.in_features} numbers of a mission, encoder {encoder.name!r} gives "
            f"{encoder.dim}; name the one it was trained with: --lang_encoder FOLDER"
        )
    if policy.input_dim != OBS_DIM:
        raise InputError(f"the checkpoint's input_dim is {policy.input_dim}, observations have {OBS_DIM} numbers")
    policy, lang_proj = policy.to(device), lang_proj.to(device)
    expert_steps, bot_plan_failures = teacher.solvable(eval_seed, num_episodes)
    env = EvalVectorEnv(teacher.task_id, list(expert_steps), num_envs, teacher.max_steps)
    obs, embedding = torch.from_numpy(env.obs), encoder.embed(env.missions)  # obs shares the memory of env.obs
    hidden, packed, recorder = policy.initial_hidden(len(env.worlds)), policy.pack(), _Recorder()
    lang = lang_proj(embedding.to(device))
    while env.active.any():
        logits, routing, hidden = policy.get_routing_info(obs.to(device), lang, hidden, packed=packed)
        outputs = torch.cat([logits, *routing], -1).cpu().numpy()
        recorder.add(env.active, env.state, outputs)
        done = env.step(outputs[:, : policy.num_actions].argmax(-1))
        if done.any():
            hidden = reset_hidden(hidden, torch.from_numpy(done).to(device))
            embedding[done] = encoder.embed([env.missions[slot] for slot in np.flatnonzero(done)])
            lang = lang_proj(embedding.to(device))
            if progress is not None:
                progress(int(done.sum()))
    for episode in env.episodes:
        episode["expert_steps"] = expert_steps[episode["seed"]]
    steps = recorder.steps(policy.num_actions, policy.expert_hidden_sizes)
    metrics = compute_metrics(env.episodes, steps.lpc, bot_plan_failures)
    return Evaluation(metrics, env.episodes, steps if record_steps else None, policy.expert_hidden_sizes)


def evaluate_bot(
    teacher: TeacherResults, num_episodes: int = 1000, eval_seed: int = 0, num_envs: int = NUM_ENVS
) -> Evaluation:
    """The bot's own episodes in exactly the worlds eval_seed ... eval_seed + num_episodes - 1; none is replaced.

    Its failures to plan are episodes without success here, and are counted in bot_plan_failures.
    """
    seeds = list(range(eval_seed, eval_seed + num_episodes))
    env = EvalVectorEnv(teacher.task_id, seeds, num_envs, teacher.max_steps)
    failures = 0
    while env.active.any():
        actions = np.zeros(len(env.worlds), np.int64)
        for slot in np.flatnonzero(env.active):
            try:
                actions[slot] = env.worlds[slot].label()
            except TeacherFailure:
                actions[slot] = GIVE_UP
                failures += 1
        env.step(actions)
    for episode in env.episodes:
        result = teacher.ask(episode["seed"])
        episode["expert_steps"] = result if isinstance(result, int) else None
    teacher.save()
    return Evaluation(compute_metrics(env.episodes, None, failures), env.episodes, None)


def load_for_evaluation(path: str | Path) -> dict:
    """A checkpoint whose config has been checked. Raises InputError, naming the file, where either is unusable."""
    checkpoint = runs.load_checkpoint(path)
    config = check_recorded(checkpoint["config"], str(path))
    update = checkpoint.get("update", config.get("num_updates"))
    if update is not None and (type(update) is not int or update < 0):
        raise InputError(f"{path}: 'update' must be a number of updates, not {update!r}")
    return checkpoint | {"config": config, "update": update}


def encoder_for(checkpoint: Mapping, location: str | None = None) -> MissionEncoder:
    """The mission encoder that a checkpoint was trained with; `location`: where it lies on this machine.

    Checkpoints made elsewhere name none and used DistilBERT. Raises InputError where it cannot be had.
    """
    config = checkpoint["config"]
    encoder = _load_encoder_once(config.get("lang_encoder", DEFAULT_MODEL), location)
    encoder.check_fingerprint(config.get("encoder_fingerprint"))
    return encoder


_load_encoder_once = functools.lru_cache(load_encoder)


def format_metrics(metrics: Mapping[str, float], num_episodes: int) -> str:
    """The metrics as lines for a person."""
    interval = f"95 % interval {metrics['success_low']:.1%} to {metrics['success_high']:.1%}, {num_episodes} episodes"
    lines = {
        "success rate": f"{metrics['success_rate']:.1%}  ({interval})",
        "path ratio": f"{metrics['path_ratio']:.3f}  (steps / the bot's steps, successes only)",
        "mean LPC": f"{metrics['mean_lpc']:.1f}",
        "mean steps": f"{metrics['mean_steps']:.1f}",
        "bot plan failures": str(metrics["bot_plan_failures"]),
    }
    if math.isnan(metrics["mean_lpc"]):  # the bot has none
        del lines["mean LPC"]
    return "\n".join(f"{name:<19}{value}" for name, value in lines.items())


def parser() -> Parser:
    """The command line of this script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", help="checkpoint_final.pt or checkpoint_<U>.pt")
    parser.add_argument("--bot", action="store_true", help="evaluate the teacher itself; needs --task_id")
    parser.add_argument("--task_id", help="BabyAI id (default: the checkpoint's)")
    parser.add_argument("--num_episodes", default=100, help="worlds, one episode each (default: 100)")
    parser.add_argument("--num_envs", default=NUM_ENVS, help=f"episodes side by side (default: {NUM_ENVS})")
    parser.add_argument("--max_steps", help="step limit of an episode (default: the checkpoint's, else the task's)")
    parser.add_argument("--eval_seed", default=0, help="seed of the first world (default: 0)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--device", default="auto", help="auto (cuda if there is one), cpu, cuda, ...")
    parser.add_argument("--cache_dir", default="evaluation_cache", help="where the bot's own results are kept")
    return parser


def main() -> int:
    """The command line: evaluates and prints."""
    args = parser().parse_args()
    check_flags(
        args,
        num_episodes=integer(1),
        num_envs=integer(1),
        eval_seed=integer(0, 2**32 - 1),
        max_steps=optional(integer(1)),
    )
    if args.bot == (args.checkpoint is not None) or (args.bot and args.task_id is None):
        raise InputError("give --checkpoint PATH, or --bot with --task_id ID (see --help)")
    if args.bot:
        announce_compilation()
        teacher = TeacherResults(args.task_id, args.max_steps, args.cache_dir)
        evaluation = evaluate_bot(teacher, args.num_episodes, args.eval_seed, args.num_envs)
        print(f"the BabyAI bot on {args.task_id}")
    else:
        device = use_device(args.device)
        checkpoint = load_for_evaluation(args.checkpoint)
        config = checkpoint["config"]
        task_id = args.task_id or config["task_id"]
        max_steps = args.max_steps or (config.get("max_steps") if task_id == config["task_id"] else None)
        encoder = encoder_for(checkpoint, args.lang_encoder)
        teacher = TeacherResults(task_id, max_steps, args.cache_dir)
        with tqdm(total=args.num_episodes, desc=task_id, unit="episode", leave=False, dynamic_ncols=True) as bar:
            evaluation = evaluate(
                checkpoint, encoder, teacher, args.num_episodes, args.eval_seed, args.num_envs,
                record_steps=False, device=device, progress=bar.update,
            )  # fmt: skip
        print(f"{args.checkpoint} on {task_id}")
    print(format_metrics(evaluation.metrics, args.num_episodes))
    return 0


if __name__ == "__main__":
    run_script(main)
