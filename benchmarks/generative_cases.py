"""Recordings, simulators, attribution, agents, linear mode connectivity; each case imports what it needs."""

import os
import subprocess
import sys
import tempfile

import numpy as np
import torch

from benchmarks.bench import Costs, case, seconds
from benchmarks.training_cases import UNLOCK, ZOO, step_cost, zoo_policy
from mop.envs.babyai import NUM_ACTIONS, World
from mop.evaluation.evaluate import evaluate

CHECKPOINT = ZOO / UNLOCK / "trial_0/seed_0/checkpoint_final.pt"


def marginal_cost(module: str, flags: dict, counted: str, few: int, many: int) -> float:
    """Seconds of the processor for one more of what the flag `counted` counts, of a command in its own process."""

    def cost(count: int) -> float:
        words = [str(word) for pair in (flags | {counted: count}).items() for word in pair]
        before = os.times()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", module, *(word.replace("{folder}", folder) for word in words)]
            subprocess.run(command, check=True, capture_output=True, cwd=ZOO.parent.parent)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return (cost(many) - cost(few)) / (many - few)


@case("us", rounds=3)
def recording(num_worlds: int = 500, num_steps: int = 40_000) -> Costs:
    """A step of a plain evaluation, and of a recording by the policy alone and by all behaviours."""
    given = zoo_policy(UNLOCK, num_worlds)
    flags = {"--checkpoint": CHECKPOINT, "--data_dir": "{folder}/data"}
    while True:
        costs = {"evaluation": step_cost(lambda: evaluate(*given, with_phases=False))}
        for name, who in (("argmax", {"--policies": "argmax"}), ("all behaviours", {})):
            costs[name] = marginal_cost("generative.record", flags | who, "--num_steps", num_steps // 8, num_steps)
        yield costs


@case("ms", rounds=20)
def exact_simulator(task_id: str = UNLOCK, num_worlds: int = 64) -> Costs:
    """A step of the exact simulator in 64 worlds, view included, and with gradients."""
    from generative.simulators.exact import ExactSimulator

    worlds = [World(task_id) for _ in range(num_worlds)]
    for seed, world in enumerate(worlds):
        world.reset(seed)
    simulator = ExactSimulator(worlds[0].codes.shape)
    state = simulator.state_of_worlds(worlds)
    action = torch.nn.functional.one_hot(torch.arange(num_worlds) % NUM_ACTIONS, NUM_ACTIONS).float()

    def step(state, action):
        return simulator.view(state), simulator.step(state, action)

    def step_with_gradients() -> None:
        leaves = {name: values.clone().requires_grad_() for name, values in state.items()}
        shown, after = step(leaves, action.clone().requires_grad_())
        (shown.sum() + sum(values.sum() for values in after.values())).backward()

    while True:
        yield {
            "step": seconds(lambda: torch.no_grad()(step)(state, action), 5),
            "with gradients": seconds(step_with_gradients),
        }


@case("s")
def attribution(task_id: str = UNLOCK) -> Costs:
    """One target attributed to all things of a world, by path, in the exact simulator; by the number of steps."""
    from generative.attribution.integrated_gradients import ClosedLoopRollout, predict_effects
    from generative.domains.babyai.domain import BABYAI
    from generative.domains.babyai.policy import FrozenPolicy
    from generative.domains.babyai.scenes import ExactScenes
    from generative.domains.babyai.targets import parse_target
    from mixture_of_experts import MixtureOfExpertsPolicy

    world, policy = World(task_id), FrozenPolicy(MixtureOfExpertsPolicy(), None, None)
    world.reset(0)
    scenes = ExactScenes(BABYAI, {"grid_shape": world.codes.shape})
    scene, target = scenes.at_world(world), parse_target("lpc", policy)
    changed, lang = scene.without(scene.things), torch.zeros(1, policy.policy.lang_dim)

    def attribute(lag: int) -> None:
        actions = torch.arange(lag + 1)[None] % 3  # turns, and steps ahead
        loop = ClosedLoopRollout(policy, scenes.simulator, scene.begin, lang, policy.initial_hidden(1), lag, actions)
        predict_effects(loop, scene.inputs, changed, target)

    while True:
        yield {f"{lag} steps earlier": seconds(lambda lag=lag: attribute(lag)) for lag in (0, 1, 2, 4, 8)}


@case("ms", rounds=3)
def simulator_update() -> Costs:
    """An update of the learned simulator with its default settings, on a recording of 6,000 steps."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--checkpoint", str(CHECKPOINT), "--num_steps", "6000", "--data_dir", f"{folder}/data"]
        subprocess.run([sys.executable, "-m", "generative.record", *words], check=True, capture_output=True)
        flags = {"--data_dir": f"{folder}/data", "--output_dir": "{folder}"}
        while True:
            yield {"update": marginal_cost("generative.train_gen_model", flags, "--num_updates", 5, 25)}


@case("us")
def steering(num_worlds: int = 500) -> Costs:
    """A step of evaluation, with events and actions counted, and with the hidden state moved as well."""
    from generative.domains.babyai.policy import FrozenPolicy
    from generative.domains.babyai.rollouts import play_moved
    from generative.representations.steering import Move, Reading

    given = zoo_policy(UNLOCK, num_worlds)
    policy, _ = FrozenPolicy.load(CHECKPOINT)
    seeds = list(given[2].solvable(0, num_worlds)[0])
    nowhere = torch.zeros(policy.policy.hidden_size)  # a move of no length: the same episodes
    still = Move(Reading(nowhere, nowhere, 0.0), nowhere)
    num_steps = play_moved(policy, UNLOCK, None, seeds).table["steps"].sum()
    while True:
        yield {
            "evaluation": step_cost(lambda: evaluate(*given, with_phases=False)),
            "counted": seconds(lambda: play_moved(policy, UNLOCK, None, seeds)) / num_steps,
            "moved": seconds(lambda: play_moved(policy, UNLOCK, None, seeds, still)) / num_steps,
        }


@case("us", rounds=3)
def coinrun() -> Costs:
    """A step of envpool with random actions, and of training an agent (small-rec, easy); needs `make coinrun`."""
    from generative.domains.coinrun.games import NUM_ACTIONS, GameEnvs

    flags = {"--param_name": "small-rec", "--distribution_mode": "easy", "--output_dir": "{folder}"}
    while True:
        game = GameEnvs("coinrun", "easy", 64, num_levels=0, start_level=0, seed=0, has_backgrounds=False)
        game.begin()
        rng = np.random.default_rng(0)
        alone = seconds(lambda: game.step(rng.integers(0, NUM_ACTIONS, 64)), 100) / 64  # noqa: B023
        game.close()
        cost = marginal_cost("generative.train_agent", flags, "--num_timesteps", 1, 80_000)
        yield {"envpool alone": alone, "training": cost}


@case("ms", rounds=3)
def sac(env: str = "InvertedDoublePendulum-v5", num_steps: int = 3000) -> Costs:
    """A step of SAC by stable-baselines3 alone, and of lmc_rl, which saves and logs."""
    import gymnasium
    from stable_baselines3 import SAC

    flags = {"--env": env, "--seed": 0, "--fork_points": "none", "--eval_freq": 0, "--learning_starts": 100}
    flags |= {"--device": "cpu", "--jobs": 1, "--controls": "none", "--output_dir": "{folder}"}
    while True:
        model = SAC(
            "MlpPolicy", gymnasium.make(env), ent_coef=0.2, train_freq=2, gradient_steps=1, batch_size=256, seed=0,
            learning_starts=100, policy_kwargs={"net_arch": [256, 256]}, buffer_size=num_steps, device="cpu",
        )  # fmt: skip
        alone = seconds(lambda: model.learn(num_steps)) / num_steps  # noqa: B023
        yield {"alone": alone, "lmc_rl": marginal_cost("lmc_rl.run_env", flags, "--total_steps", 1000, num_steps)}
