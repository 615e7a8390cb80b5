"""Evaluate one checkpoint, or the bot itself, on a fixed list of worlds."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mixture_of_experts import RecurrentPolicy, compute_lpc
from mop.analysis.metrics import compute_metrics, format_metrics
from mop.artifacts.checkpoints import load_checkpoint
from mop.artifacts.routing_cache import Steps
from mop.common.errors import InputError
from mop.common.reading import reading
from mop.common.seeding import stream_seed
from mop.common.task_mix import tasks_of
from mop.common.values import MAX_INTEGER, shown
from mop.envs.babyai import OBS_DIM, World
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import EvalVectorEnv
from mop.envs.missions import DEFAULT_MODEL, MissionEncoder, load_encoder
from mop.envs.teacher import TeacherFailure
from mop.evaluation.rollout import Answer, Choose, Missions, Policy, WorldPolicy, greedy, rollout
from mop.evaluation.settings import PlaySettings, WorldSettings
from mop.training.devices import choose_device
from mop.training.policies import policy_from_checkpoint

NUM_ENVS = 64

Progress = Callable[[int], None]  # called with the number of episodes just finished


@dataclass
class Evaluation:
    """metrics: of `compute_metrics`; episodes: context and outcome of each; steps: None if not recorded.

    bot_failures: kind -> episodes in which the bot fell silent while it followed the policy; None if it did not follow.
    """

    metrics: dict[str, float]
    episodes: list[dict]
    steps: Steps | None
    expert_hidden_sizes: list[list[int]] | None = None  # of the policy; the bot has none
    bot_failures: dict[str, int] | None = None


def prepare(
    checkpoint: Mapping, encoder: MissionEncoder, device: torch.device | str = "cpu"
) -> tuple[RecurrentPolicy, Missions]:
    """Build the policy of a checkpoint, ready to act."""
    policy, lang_proj = policy_from_checkpoint(checkpoint)
    if lang_proj.in_features != encoder.dim:
        raise InputError(
            f"the checkpoint projects {lang_proj.in_features} numbers of a mission, encoder {encoder.name!r} gives "
            f"{encoder.dim}; name the one it was trained with: --lang_encoder FOLDER"
        )
    if policy.input_dim != OBS_DIM:
        raise InputError(f"the checkpoint's input_dim is {policy.input_dim}, observations have {OBS_DIM} numbers")
    return policy.to(device), Missions(encoder, lang_proj.to(device))


def play(policy: RecurrentPolicy, act: Policy, env: EvalVectorEnv, temperature: float = 0.0) -> Steps:
    """Play the worlds of `env`, which holds the episodes then; act: for `rollout`.

    temperature: of the softmax from which actions are drawn, 0: the likeliest ones. Returns their steps, in the order
    of episodes and steps.
    """
    active, states, outputs, actions = [], [], [], []
    choose = drawn(temperature) if temperature > 0 else greedy
    for step in rollout(act, env, policy.initial_hidden(len(env.worlds)), choose=choose):
        active.append(env.active.copy())
        states.append(env.state.copy())
        outputs.append([step.answer.logits, *step.answer.routing])
        actions.append(step.action)
    rows, state = np.flatnonzero(np.concatenate(active)), np.concatenate(states)
    rows = rows[np.argsort(state["episode"][rows], kind="stable")]  # the steps of an episode came in their order
    logits, *routing = (torch.cat(parts).numpy()[rows] for parts in zip(*outputs, strict=True))
    return Steps(
        **{name: state[name][rows] for name in state.dtype.names or ()},
        layer_routing=routing,
        lpc=compute_lpc(list(map(torch.from_numpy, routing)), policy.expert_hidden_sizes).numpy(),
        action_logits=logits,
        action=np.concatenate(actions)[rows].astype(np.int8),
    )


def play_solved(
    policy: RecurrentPolicy, act: Policy, bot_paths: BotPaths, solved: Mapping[int, int], num_envs: int,
    with_phases: bool, progress: Progress | None, temperature: float = 0.0,
) -> tuple[EvalVectorEnv, Steps]:  # fmt: skip
    """`play` in worlds that the bot solves (seed -> its steps, which become `expert_steps` of the episodes)."""
    env = EvalVectorEnv(bot_paths.task_id, list(solved), num_envs, bot_paths.max_steps, with_phases, progress)
    steps = play(policy, act, env, temperature)
    for episode in env.episodes:
        episode["expert_steps"] = solved[episode["seed"]]
    return env, steps


def drawn(temperature: float) -> Choose:
    """Draw actions from the softmax of logits / temperature, for `rollout` in an `EvalVectorEnv`.

    The draws depend on the world's seed and the step alone (Gumbel-max trick: Gumbel 1954), so `num_envs` does not
    change an episode.
    """
    streams: dict[int, np.random.Generator] = {}  # of each episode

    def choose(env: EvalVectorEnv, answer: Answer) -> np.ndarray:
        logits = answer.logits.numpy() / temperature
        for slot in np.flatnonzero(env.active):
            episode = int(env.state["episode"][slot])
            if episode not in streams:
                streams[episode] = np.random.default_rng(stream_seed(env.seeds[episode], "actions"))
            logits[slot] += streams[episode].gumbel(size=logits.shape[1])
        return logits.argmax(-1)

    return choose


def evaluate(
    checkpoint: Mapping,
    encoder: MissionEncoder,
    bot_paths: BotPaths,
    num_episodes: int = 1000,
    eval_seed: int = 0,
    num_envs: int = NUM_ENVS,
    record_steps: bool = True,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    with_phases: bool = True,
    temperature: float = 0.0,
) -> Evaluation:
    """Play one episode of a policy in each of the first `num_episodes` worlds that the bot solves.

    checkpoint: of `load_checkpoint`, mixture or baseline; encoder: of `encoder_for`; bot_paths: results of the task and
    step limit to evaluate on; with_phases: recorded steps have `subgoal` and `instruction` of the bot, which follows
    the policy; temperature: of `play`.
    """
    policy, missions = prepare(checkpoint, encoder, device)
    solved, bot_plan_failures = bot_paths.solvable(eval_seed, num_episodes)
    with_phases = with_phases and record_steps
    act = WorldPolicy(policy, missions)
    env, steps = play_solved(policy, act, bot_paths, solved, num_envs, with_phases, progress, temperature)
    metrics = compute_metrics(env.episodes, steps.lpc, bot_plan_failures)
    failures = dict(Counter(env.bot_failures.values())) if with_phases else None
    return Evaluation(metrics, env.episodes, steps if record_steps else None, policy.expert_hidden_sizes, failures)


def evaluate_bot(
    task_id: str, max_steps: int | None = None, num_episodes: int = 1000, eval_seed: int = 0
) -> Evaluation:
    """Play the bot's own episodes in exactly the worlds eval_seed ... eval_seed + num_episodes - 1; none is replaced.

    Its failures to plan are episodes without success here, and are counted in bot_plan_failures. The episodes have no
    context.
    """
    world, episodes, failures = World(task_id, max_steps), [], 0
    for seed in range(eval_seed, eval_seed + num_episodes):
        world.reset(seed)
        reward, is_over = 0.0, False
        try:
            while not is_over:
                reward, terminated, truncated = world.step(world.label())
                is_over = terminated or truncated
        except TeacherFailure:
            failures += 1
        is_solved, steps = reward > 0, world.num_steps
        own = steps if is_solved else None
        episodes.append({"seed": seed, "success": is_solved, "steps": steps, "expert_steps": own})
    return Evaluation(compute_metrics(episodes, None, failures), episodes, None)


def load_for_evaluation(path: str | Path) -> dict:
    """Load a checkpoint with its `path` and its number of updates, None if the file does not say."""
    checkpoint = load_checkpoint(path)
    kind = checkpoint["config"].get("kind")  # a policy has none
    if kind is not None:
        raise InputError(f"{path} is a checkpoint of a {str(kind).replace('_', ' ')}, not of a policy")
    update = checkpoint.get("update", checkpoint["config"].get("num_updates"))
    if update is not None and (type(update) is not int or not 0 <= update <= MAX_INTEGER):
        raise InputError(f"{path}: 'update' must be a number of updates, not {shown(update)}")
    with reading(path, "checkpoint"):
        policy_from_checkpoint(checkpoint)  # what does not fit is refused here, where the file is known
    return checkpoint | {"path": Path(path).as_posix(), "update": update}


def encoder_for(checkpoint: Mapping, location: str | None = None) -> MissionEncoder:
    """Load the mission encoder that a checkpoint was trained with; `location`: where it lies on this machine.

    Checkpoints made elsewhere name none and used DistilBERT.
    """
    config, path = checkpoint["config"], checkpoint.get("path")
    try:
        encoder = _load_encoder_once(config.get("lang_encoder", DEFAULT_MODEL), location)
        encoder.check_fingerprint(config.get("encoder_fingerprint"))
    except InputError as error:
        raise InputError(str(error) if path is None else f"{path}: {error}") from error
    return encoder


_load_encoder_once = functools.lru_cache(load_encoder)


def print_bot_metrics(task_id: str, max_steps: int | None, worlds: WorldSettings) -> None:
    """Evaluate the bot, and print its metrics."""
    evaluation = evaluate_bot(task_id, max_steps, worlds.num_episodes, worlds.eval_seed)
    print(f"the BabyAI bot on {task_id}")
    print(format_metrics(evaluation.metrics, worlds.num_episodes))


def print_metrics(path: str, task_id: str | None, max_steps: int | None, cache_dir: str, worlds: PlaySettings) -> None:
    """Evaluate a checkpoint, and print its metrics.

    task_id, max_steps: of the worlds, by default the checkpoint's own, of all of its tasks; cache_dir: where the bot's
    own results are kept.
    """
    device = choose_device(worlds.device)
    checkpoint = load_for_evaluation(path)
    config, encoder = checkpoint["config"], encoder_for(checkpoint, worlds.lang_encoder)
    own = [name for name, _ in tasks_of(config)]
    for name in own if task_id is None else [task_id]:
        bot_paths = BotPaths(name, max_steps or (config.get("max_steps") if name in own else None), cache_dir)
        asked = (worlds.num_episodes, worlds.eval_seed, worlds.num_envs)
        with tqdm(total=worlds.num_episodes, desc=name, unit="episode", leave=False, dynamic_ncols=True) as bar:
            evaluation = evaluate(
                checkpoint, encoder, bot_paths, *asked, False, device, bar.update, temperature=worlds.temperature
            )
        print(f"{path} on {name}")
        print(format_metrics(evaluation.metrics, worlds.num_episodes))
