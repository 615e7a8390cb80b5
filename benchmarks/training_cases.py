"""Training, evaluation and their files: against a plain loop, by stage, by setting."""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench import Costs, case, seconds
from mop.artifacts.routing_cache import RoutingData, Steps, load_cache, write_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.intervention_grammar import GATE_ONLY, ZEROED, parse
from mop.common.train_config import parse_config
from mop.envs.babyai import World
from mop.envs.bot_paths import BotPaths
from mop.envs.missions import MissionEncoder, load_encoder
from mop.envs.vector_env import Slots
from mop.evaluation.evaluate import encoder_for, evaluate, load_for_evaluation
from mop.evaluation.intervention_runs import Study
from mop.fast import autograd
from mop.fast.policy_step import CompiledPolicy
from mop.training.devices import choose_device
from mop.training.imitation import ImitationRun

HERE = Path(__file__).parent
ZOO = HERE.parent / "results/zoo"
UNLOCK = "BabyAI-UnlockPickup-v0"
PLAINEST = (
    *("--obs_encoding", "raw", "--input_encoder", "linear", "--residual", "false", "--expert_gain", "1"),
    *("--replay", "0", "--teacher_mix", "0"),
)
TWELVE = (
    "GoToRedBallGrey", "GoToRedBall", "GoToObj", "GoToLocal", "PickupLoc", "PutNextLocal", "UnlockPickup",
    "UnlockLocal", "OpenRedDoor", "OpenDoor", "FindObjS5", "KeyCorridorS3R1",
)  # fmt: skip


def make_run(task_id: str, *flags: str) -> ImitationRun:
    """A new run with the default sizes and the encoder that needs no download."""
    words = ["--task_id", task_id, *flags, "--lang_encoder", "vocab", "--device", "cpu"]
    config = parse_config("", words)[0] | {"policy": "mop", "seed": 0}
    return ImitationRun(config, load_encoder("vocab"), choose_device("cpu"))


def steps_of(run: ImitationRun, updates: int) -> int:
    """Environment steps of so many updates."""
    return updates * run.config["unroll_len"] * run.config["num_envs"]


def update_cost(run: ImitationRun, updates: int, of_processor: bool = True) -> float:
    """Seconds of an environment step in whole training updates."""
    return seconds(lambda: [run.step_update() for _ in range(updates)], 1, of_processor) / steps_of(run, updates)


def zoo_policy(task_id: str, num_worlds: int) -> tuple[dict, MissionEncoder, BotPaths, int]:
    """The arguments of `evaluate` for a policy of the zoo; the bot's own paths are known already."""
    checkpoint = load_for_evaluation(ZOO / task_id / "trial_0/seed_0/checkpoint_final.pt")
    bot_paths = BotPaths(task_id, checkpoint["config"]["max_steps"], None)
    bot_paths.solvable(0, num_worlds)
    return checkpoint, encoder_for(checkpoint), bot_paths, num_worlds


def step_cost(play, *given) -> float:
    """Seconds of the processor for each step of `play(*given)`, which returns an evaluation with its steps."""
    start = time.process_time()
    played = play(*given)
    return (time.process_time() - start) / len(played.steps)


@case("us")
def training(task_id: str = UNLOCK, updates: int = 20, num_envs: int = 16, num_episodes: int = 200) -> Costs:
    """An environment step of a plain loop (naive_training.py), of training that learns the same way, of evaluation."""
    bot_paths = BotPaths(task_id, None, None)
    bot_paths.solvable(0, num_episodes)
    command = [sys.executable, HERE / "naive_training.py", "--task_id", task_id, "--updates", updates]
    while True:
        printed = subprocess.run([*map(str, command), "--num_envs", str(num_envs)], capture_output=True, text=True)
        run = make_run(task_id, *PLAINEST, "--num_envs", str(num_envs))  # new: who has learned begins more worlds
        update_cost(run, 3)
        costs = {"plain loop": 1 / float(re.findall(r"env steps/s (\d+)", printed.stdout)[0])}
        costs["training"] = update_cost(run, updates, of_processor=False)
        begin = time.perf_counter()
        result = evaluate(run.checkpoint(), run.encoder, bot_paths, num_episodes, with_phases=False)
        assert result.steps is not None
        costs["evaluation"] = (time.perf_counter() - begin) / len(result.steps)
        run.close()
        yield costs


class _Stages:
    """Exclusive seconds by stage: entering one pauses the one around it."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._open = ["other"]
        self._since = time.perf_counter()

    def charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now

    def wrap(self, owner: type, name: str, stage: str) -> None:
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            self.charge()
            self._open.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.charge()
                self._open.pop()

        setattr(owner, name, timed)


@case("ms", rounds=3)
def stages(task_id: str = UNLOCK, updates: int = 30) -> Costs:
    """The stages of a training update that learns from its own unroll alone; means over the updates of a round."""
    timers = _Stages()
    for owner, name, stage in (
        (World, "reset", "world generation"),
        (World, "step", "game rules and view"),
        (World, "label", "bot"),
        (Slots, "step", "slots"),
        (MissionEncoder, "embed", "mission encoder"),
        (CompiledPolicy, "step", "policy, step by step"),
        (ImitationRun, "act", "rollout's own"),
        (autograd.CompiledSequence, "apply", "policy, sequence forward"),
        (torch.Tensor, "backward", "policy, backward"),
        (torch.optim.Adam, "step", "optimiser"),
    ):
        timers.wrap(owner, name, stage)
    run = make_run(task_id, *PLAINEST)
    while True:
        timers.charge()
        timers.seconds = {}
        for _ in range(updates):
            run.step_update()
        timers.charge()
        by_stage = {name: value / updates for name, value in sorted(timers.seconds.items())}
        yield {"all": sum(by_stage.values())} | by_stage


@case("us")
def replay(task_id: str = UNLOCK, updates: int = 5) -> Costs:
    """An environment step of training with the default settings, which learns from eight earlier unrolls besides."""
    plain, default = make_run(task_id, *PLAINEST), make_run(task_id)
    while True:
        yield {"own unroll": update_cost(plain, 4 * updates), "default": update_cost(default, updates)}


@case("us")
def environments(task_id: str = UNLOCK) -> Costs:
    """An environment step of training, by the number of environments."""
    runs = {count: make_run(task_id, *PLAINEST, "--num_envs", str(count)) for count in (16, 1, 64, 256)}
    while True:
        yield {f"{count} environments": update_cost(run, max(3, 320 // count)) for count, run in runs.items()}


@case("us")
def workers(task_id: str = UNLOCK, updates: int = 20) -> Costs:
    """An environment step of training on the clock, by the number of worker processes."""
    runs = {count: make_run(task_id, *PLAINEST, "--num_workers", str(count)) for count in (0, 1, 2)}
    try:
        while True:
            yield {f"{count} workers": update_cost(run, updates, False) for count, run in runs.items()}
    finally:
        for run in runs.values():
            run.close()


@case("us", rounds=12)
def twelve_tasks(updates: int = 10) -> Costs:
    """An environment step of training on one of twelve tasks, the next in each round, and on all of them."""
    number, together = 0, ",".join(f"BabyAI-{name}-v0" for name in TWELVE)
    while True:
        costs = {}
        for name, tasks in (("one", f"BabyAI-{TWELVE[number % 12]}-v0"), ("twelve", together)):
            run = make_run(tasks, "--num_envs", "48")
            update_cost(run, 2)
            costs[name] = update_cost(run, updates)
        number += 1
        yield costs


@case("s", rounds=2)
def first_update() -> Costs:
    """The first update where kernels are compiled before, and where they have to be."""
    code = "from benchmarks.training_cases import *; make_run(UNLOCK).step_update()"

    def first(folder: str) -> float:
        command = ["env", f"NUMBA_CACHE_DIR={folder}", sys.executable, "-c", code]
        return seconds(lambda: subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True), 1, False)

    while True:
        with tempfile.TemporaryDirectory() as folder:
            compiling = first(folder)
            yield {"compiled before": first(folder), "compiling": compiling}


@case("us", rounds=15)
def phases(task_id: str = UNLOCK, num_worlds: int = 300) -> Costs:
    """A step of evaluation with its routing: without the bot, and with the bot following the policy."""
    given = zoo_policy(task_id, num_worlds)
    while True:
        yield {
            "without": step_cost(lambda: evaluate(*given, with_phases=False)),
            "with phases": step_cost(lambda: evaluate(*given)),
        }


@case("us")
def routing_edits(task_id: str = UNLOCK, num_worlds: int = 300) -> Costs:
    """A step of evaluation, and with interventions on the routers' weights; the first two change nothing."""
    given = zoo_policy(task_id, num_worlds)
    study = Study(*given)
    edits = [("threshold 0.0", GATE_ONLY), ("threshold 0.0", ZEROED)]
    edits += [(text, GATE_ONLY) for text in ("lesion 1.2", "threshold 0.1", "argmax", "clamp 1.2=0.5", "shuffle 1")]
    while True:
        costs = {"evaluation": step_cost(evaluate, *given)}
        for text, variant in edits:
            costs[f"{text}, {variant}"] = step_cost(study.episodes, parse(text), variant)
        yield costs


def make_cache(num_steps: int) -> RoutingData:
    """A routing cache of random numbers: a room task, episodes of 40 steps, three layers of three experts."""
    rng = np.random.default_rng(0)
    routing = [rng.dirichlet(np.ones(3), num_steps).astype(np.float32) for _ in range(3)]
    steps = Steps(
        episode=np.arange(num_steps, dtype=np.int32) // 40,
        t_step=np.arange(num_steps, dtype=np.int32) % 40,
        position=rng.integers(1, 22, (num_steps, 2), dtype=np.int32),
        direction=rng.integers(0, 4, num_steps, dtype=np.int8),
        layer_routing=routing,
        lpc=sum(routing) @ np.square([0, 16, 32]).astype(np.float32),
        carrying=rng.random(num_steps) < 0.5,
        door_unlocked=rng.random(num_steps) < 0.5,
        action_logits=rng.normal(0, 8, (num_steps, 7)).astype(np.float32),
        action=rng.integers(0, 7, num_steps, dtype=np.int8),
    )
    bounds = [[7 * x, 7 * y, 7 * x + 7, 7 * y + 7] for y in range(3) for x in range(3)]
    objects = {"doors": [[7, 3, "red", False, True]] * 10, "keys": [], "balls": [[10, 6, "blue"]] * 6, "boxes": []}
    episode = {"grid_size": [22, 22], "room_bounds": bounds, **objects, "mission": "go to the blue ball"}
    return RoutingData({"num_episodes": 1}, [episode | {"t_pick": None}] * -(-num_steps // 40), steps)


@case("s")
def routing_cache(num_steps: int = 100_000) -> Costs:
    """A routing cache: written (with the flush to the disk), read, and read from its JSON alone."""
    key, cache = RunKey("BabyAI-GoTo-v0", 0), make_cache(num_steps)
    with tempfile.TemporaryDirectory() as folder:
        path = cache_path(folder, key)
        while True:
            costs = {"written": seconds(lambda: write_cache(folder, key, cache), 1, False)}
            costs["read"] = seconds(lambda: load_cache(path), 1, False)
            path.with_suffix(".npz").unlink()
            yield costs | {"read, JSON alone": seconds(lambda: load_cache(path), 1, False)}
