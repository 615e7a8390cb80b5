"""What each part of mop/fast gains over the plain code that it replaces, and the kernels that a device would launch."""

import contextlib
import io
from typing import Any

import gymnasium
import numpy as np
import torch
from minigrid.core.constants import OBJECT_TO_IDX
from numba import njit
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.bench import Costs, case, seconds
from mop.common.train_config import parse_config
from mop.envs import geometry
from mop.envs.babyai import World, bot_steps
from mop.envs.teacher import Teacher as PlainTeacher
from mop.envs.teacher import TeacherFailure
from mop.fast import grid, policy, product, worlds
from mop.fast.compiled_teacher import Teacher
from mop.training.policies import build_policy

UNLOCK = "BabyAI-UnlockPickup-v0"


@case("us")
def bot(task_id: str = UNLOCK, steps: int = 1000) -> Costs:
    """A label of the bot: Minigrid's, and compiled."""
    world, seed = World(task_id), 0
    while True:
        costs, done = {"Minigrid": 0.0, "compiled": 0.0}, 0
        while done < steps:
            world.reset(seed)
            seed += 1
            teachers = {"Minigrid": PlainTeacher(world), "compiled": Teacher(world)}
            is_over = False
            while not is_over:
                labels: dict[str, int] = {}
                try:
                    for name, teacher in teachers.items():
                        costs[name] += seconds(lambda: labels.__setitem__(name, teacher.label(world)))  # noqa: B023
                except TeacherFailure:
                    break
                is_over = any(world.step(labels["compiled"])[1:])
                done += 1
        yield {name: total / done for name, total in costs.items()}


@case("us")
def view(task_id: str = UNLOCK, steps: int = 500) -> Costs:
    """A view of the agent: Minigrid's, NumPy's, and compiled."""
    world = World(task_id)
    world.reset(0)
    image = np.empty(geometry.IMAGE_SIZE, np.float32)
    given = (world.codes, *world.position, world.direction, geometry.EMPTY, image, world.seen)
    while True:
        yield {
            "Minigrid": seconds(lambda: type(world.env).gen_obs(world.env), steps),
            "NumPy": seconds(lambda: geometry.observe(*given), steps),
            "compiled": seconds(lambda: grid.observe(*given), 20 * steps),
        }


def both_envs(task_id: str) -> dict:
    """Minigrid's environment and the fast one, without their views."""
    made = {"Minigrid": gymnasium.make(task_id, disable_env_checker=True).unwrapped, "fast": worlds.make_env(task_id)}
    for env in made.values():
        vars(env)["gen_obs"] = lambda: None
    return made


@case("ms")
def world_generation(task_id: str = UNLOCK, num_worlds: int = 100) -> Costs:
    """A new world: Minigrid's, and with fast methods."""
    made = both_envs(task_id)

    def begin(env) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            for seed in range(num_worlds):
                env.reset(seed=seed)

    while True:
        yield {name: seconds(lambda env=env: begin(env)) / num_worlds for name, env in made.items()}


@case("us")
def world_step(task_id: str = UNLOCK, num_worlds: int = 20) -> Costs:
    """A step of Minigrid's rules, the bot acting, without the view: Minigrid's, and with fast methods."""
    world, actions, made = World(task_id), {}, both_envs(task_id)
    for seed in range(num_worlds):
        bot_steps(world, seed)
        actions[seed] = list(world.actions)

    def cost(env) -> float:
        total = 0.0
        for seed, taken in actions.items():
            env.reset(seed=seed)
            total += seconds(lambda: [env.step(action) for action in taken])  # noqa: B023
        return total / sum(map(len, actions.values()))

    while True:
        yield {name: cost(env) for name, env in made.items()}


def make_policy(**changes):
    """An untrained policy of default sizes, and inputs of an unroll: obs, lang, hidden, keep."""
    config: dict[str, Any] = parse_config("", ["--task_id", UNLOCK])[0] | {"policy": "mop"} | changes
    torch.manual_seed(0)
    made, shape = build_policy(config), (config["unroll_len"], config["num_envs"])
    obs = torch.zeros(*shape, config["input_dim"])
    obs[..., :49] = OBJECT_TO_IDX["wall"]
    lang, keep = torch.randn(*shape, config["lang_dim"]), torch.rand(shape) > 0.05
    return made, (obs, lang, made.initial_hidden(shape[1]), keep)


@case("us")
def policy_step(repeats: int = 200) -> Costs:
    """A step of the policy in 16 environments: plain torch, and compiled."""
    plain, (obs, lang, hidden, _) = make_policy()
    compiled = policy.stepper(plain)
    given = obs[0], lang[0], hidden
    while True:
        yield {
            "plain": seconds(lambda: torch.no_grad()(plain.get_routing_info)(*given), max(1, repeats // 10)),
            "compiled": seconds(lambda: compiled(*given), repeats),
        }


def loss_of(logits, routing, _hidden):
    """A loss of all results that have one."""
    return logits.square().mean() + sum(weights.square().mean() for weights in routing)


@case("ms")
def sequence(repeats: int = 10) -> Costs:
    """An unroll of 32 steps in 16 environments, forward and backward: plain torch, and compiled."""
    plain, given = make_policy()

    def learn(run) -> None:
        loss_of(*run(*given)).backward()

    while True:
        yield {
            "plain": seconds(lambda: learn(plain.get_routing_info)),
            "compiled": seconds(lambda: learn(lambda *given: policy.run(plain, *given)), repeats),
        }


@njit(error_model="numpy", fastmath={"contract"})
def _add_by_loops(x, at, weight, column, width, out, to):
    for n in range(len(x)):
        row = out[n, to : to + width]
        for k in range(len(weight)):
            factor, factors = x[n, at + k], weight[k, column : column + width]
            for j in range(width):
                row[j] += factor * factors[j]


@njit
def _add_by_dot(x, at, weight, column, width, out, to):
    out[:, to : to + width] += np.dot(x, weight)


@case("us", rounds=15)
def matrix_product(rows: int = 512, terms: int = 64, width: int = 192, repeats: int = 200) -> Costs:
    """A sum of products (rows, terms) (terms, width): numba's loops, BLAS through numba, and LLVM's tiles."""
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(size=size).astype(np.float32) for size in ((rows, terms), (terms, width)))
    out = np.zeros((rows, width), np.float32)
    given = x, 0, weight, 0, width, out, 0
    runs = {"loops": _add_by_loops, "np.dot": _add_by_dot, "tiles": product.add_product}
    while True:
        yield {name: seconds(lambda run=run: run(*given), repeats) for name, run in runs.items()}


_FREE = {"detach", "empty", "empty_like", "new_empty", "lift_fresh", "_unsafe_view", "unbind", "split_with_sizes"}


class _Launches(TorchDispatchMode):
    """Counts the operations that would launch a kernel: all but views and allocations."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name.split("::")[-1]
        self.count += not (func.is_view or name in _FREE)
        return func(*args, **(kwargs or {}))


@case("s", rounds=1)
def launches() -> Costs:
    """Kernels that would be launched, a count and no time: an unroll of 32, forward and backward, plain and packed."""
    made, given = make_policy()
    runs = {"plain": made.get_routing_info, "packed": lambda *given: policy.run(made, *given, is_packed=True)}
    counts = {}
    for name, run in runs.items():
        with _Launches() as forward:
            loss = loss_of(*run(*given))
        with _Launches() as backward:
            loss.backward()
        counts |= {f"{name}, forward": forward.count, f"{name}, backward": backward.count}
    while True:
        yield counts
