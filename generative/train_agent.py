"""Train an agent with a memory to play a game of Procgen: CoinRun, or CaveFlyer.

    python -m generative.train_agent                                    small-rec on easy CoinRun: learns on two cores
    python -m generative.train_agent --exp_name mine --num_levels 500 --num_timesteps 4000000 --num_checkpoints 20
    python -m generative.train_agent --exp_name mine --num_levels 500 --num_timesteps 4000000 --resume
    python -m generative.train_agent --exp_name trainhx_1Mlvls --env_name coinrun --param_name hard-rec \\
        --num_levels 1000000 --distribution_mode hard --num_timesteps 200000000 --num_checkpoints 500

Proximal policy optimisation through a memory (docs/coinrun.md). The games come from envpool (`make coinrun`). --resume,
after Ctrl-C, a kill, ..., gives the same bytes as a run that was never interrupted, on the same CPU.

Writes logs/procgen/<env_name>/<exp_name>/seed_<seed>/: log.csv, model_<timesteps>.pt at even intervals,
training_curve.png, training_state.pt; and TensorBoard's events where it is installed.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from generative.agents.agent_training import AgentRun
from generative.agents.networks import ENCODERS, KIND, WORLD, load_agent
from generative.domains.coinrun.games import GAMES, GameEnvs, actions_of, check_playable
from generative.simulators.resuming import saved_state
from mop.common.configuration import Parser, check_flags, choice, flag, integer, number, optional, shown, text
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, remove_leftovers, whole_digest
from mop.training.devices import choose_device
from mop.training.loop import CURVE_NAME, FileNames, drive

LOG_NAME = "log.csv"
_HARD = {  # those of the seed's `hard-rec`
    "num_envs": 256, "num_val_envs": 256, "num_steps": 256, "num_epochs": 3, "num_batches": 8, "batch_limit": 2048,
    "gamma": 0.999, "lam": 0.95, "lr": 5e-4, "eps_clip": 0.2, "value_coef": 0.5, "entropy_coef": 0.01,
    "grad_clip_norm": 0.5, "reward_divisor": 0.0, "encoder": "impala", "num_features": 64, "hidden_size": 64,
    "is_recurrent": True, "use_backgrounds": True, "action_set": "all",
}  # fmt: skip
_WITHOUT_MEMORY = {"is_recurrent": False, "num_features": 256}
_EASY = {"num_envs": 64, "num_val_envs": 64}
_LOCAL = {"num_envs": 16, "num_val_envs": 16}
PRESETS = {
    "small-rec": _HARD | _EASY | {
        "num_val_envs": 16, "num_steps": 64, "gamma": 0.997, "lr": 1e-3, "reward_divisor": 10.0,
        "encoder": "half-nature", "use_backgrounds": False, "action_set": "useful",
    },
    "hard-rec": _HARD,
    "hard": _HARD | _WITHOUT_MEMORY,
    "hard-500": _HARD | _WITHOUT_MEMORY,
    "hard-500-mem": _HARD | {"num_features": 256},
    "hard-local-dev": _HARD | _LOCAL | _WITHOUT_MEMORY,
    "hard-local-dev-rec": _HARD | _LOCAL,
    "easy": _HARD | _EASY | _WITHOUT_MEMORY,
    "easy-200": _HARD | _EASY | _WITHOUT_MEMORY,
}  # fmt: skip
HYPERPARAMETERS = {  # name -> what it accepts, what it means
    "num_envs": (integer(1, 4096), "environments side by side"),
    "num_val_envs": (integer(0, 4096), "and in levels of all; 0: no validation"),
    "num_steps": (integer(1, 2**16), "steps of each in a rollout, through which gradients flow back"),
    "num_epochs": (integer(1, 1000), "how often a rollout is learned from"),
    "num_batches": (integer(1, 4096), "gradient steps of an epoch"),
    "batch_limit": (integer(1), "steps whose gradients are computed at once"),
    "gamma": (number(0, high=1), "discount"),
    "lam": (number(0, high=1), "lambda of generalised advantage estimation"),
    "lr": (number(0, above=True), "learning rate of Adam, which falls to 0 at the end"),
    "eps_clip": (number(0, above=True), "clipping of policy and value"),
    "value_coef": (number(0), "weight of the value's loss"),
    "entropy_coef": (number(0), "weight of the entropy"),
    "grad_clip_norm": (number(0, above=True), "largest norm of a gradient"),
    "reward_divisor": (number(0), "what rewards are divided by; 0: the running deviation of their discounted sum"),
    "encoder": (choice(*ENCODERS), " or ".join(ENCODERS)),
    "num_features": (integer(1, 2**16), "features of a frame"),
    "hidden_size": (integer(1, 2**16), "units of the memory"),
    "is_recurrent": (flag, "whether there is a memory"),
    "use_backgrounds": (flag, "whether the game shows its backgrounds"),
    "action_set": (WORLD["action_set"], "all 15 actions, or the useful ones, that do anything"),
}
OF_THE_SHAPE = ("encoder", "num_features", "hidden_size", "is_recurrent")


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.train_agent", description=__doc__)
    add = parser.add_argument
    add("--exp_name", default="test", help="name of the experiment (default: %(default)s)")
    add("--env_name", default="coinrun", help=f"{' or '.join(GAMES)} (default: %(default)s)")
    add("--param_name", default="small-rec", help=f"{', '.join(PRESETS)} (default: %(default)s)")
    add("--distribution_mode", default="easy", help="easy or hard levels (default: %(default)s)")
    add("--num_levels", default="0", help="levels of the training; 0: all there are (default: %(default)s)")
    add("--start_level", default="0", help="the first of them (default: %(default)s)")
    add("--num_timesteps", default="4000000", help="steps of the whole run, in all environments (default: %(default)s)")
    add("--num_checkpoints", default="1", help="models kept, at even intervals (default: %(default)s)")
    add("--seed", default="0", help="of all random numbers (default: %(default)s)")
    add("--model_file", metavar="FILE", help="an agent whose weights the run begins with")
    add("--device", default="cpu", help="cpu, gpu, auto, cuda:1, ... (default: %(default)s)")
    add("--gpu_device", default="0", help="which one `gpu` is (default: %(default)s)")
    few = min(8, os.cpu_count() or 1)
    add("--num_threads", default=few, help="of the game; no result depends on it (default: the processors, 8 at most)")
    add("--log_level", default="40", help="20 or less: print each row of the log (default: %(default)s)")
    add("--output_dir", default="logs", help="where logs and models are written (default: %(default)s)")
    add("--resume", action="store_true", help="go on with the run of this name and seed")
    of_preset = parser.add_argument_group("in place of the preset's values")
    for name, (_, meaning) in HYPERPARAMETERS.items():
        default = PRESETS["small-rec"][name]
        what = f"{meaning} (small-rec: {str(default).lower() if isinstance(default, bool) else default})"
        of_preset.add_argument(f"--{name}", default=argparse.SUPPRESS, metavar="VALUE", help=what)
    return parser


def settle(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of flags and preset; the flags are checked in place. Raises InputError."""
    world = {name: parse for name, parse in WORLD.items() if name not in HYPERPARAMETERS}
    check_flags(
        args, **world, exp_name=text, num_timesteps=integer(1), num_checkpoints=integer(1), seed=integer(0),
        gpu_device=integer(0, 1023), num_threads=integer(1, 1024), log_level=integer(0, 1000),
        model_file=optional(text),
    )  # fmt: skip
    if args.param_name not in PRESETS:
        raise InputError(f"--param_name must be {' or '.join(PRESETS)}, not {shown(args.param_name)}")
    if Path(args.exp_name).name != args.exp_name:
        raise InputError(f"--exp_name must be the name of a folder, not {shown(args.exp_name)}")
    given = argparse.Namespace(**{name: value for name, value in vars(args).items() if name in HYPERPARAMETERS})
    check_flags(given, **{name: HYPERPARAMETERS[name][0] for name in vars(given)})
    named = {name: getattr(args, name) for name in ("seed", "num_timesteps", "param_name", *world)}
    return PRESETS[args.param_name] | vars(given) | named


def check_preset(param_name: str | None, config: dict, path: str) -> None:
    """Raises InputError where an agent's config is of another network than a preset's; None: of whatever it is."""
    if param_name is None:
        return
    if param_name not in PRESETS:
        raise InputError(f"--param_name must be {' or '.join(PRESETS)}, not {shown(param_name)}")
    if any(config["shape"][name] != PRESETS[param_name][name] for name in OF_THE_SHAPE):
        raise InputError(f"--param_name: {path} has not the network of {param_name}; leave it out")


def make_config(settings: dict, model_file: str | None) -> dict:
    """What the checkpoints of a run carry: how to make the agent, and what it was trained in."""
    return {
        "kind": KIND,
        "task_id": settings["env_name"],
        "shape": {name: settings[name] for name in OF_THE_SHAPE}
        | {"actions": list(actions_of(settings["env_name"], settings["action_set"]))},
        "world": {name: settings[name] for name in WORLD},
        "settings": settings | {"begun_from": model_file and whole_digest(model_file)},
        "versions": {"torch": str(torch.__version__)},
    }


def make_envs(settings: dict, num_threads: int, kind: str, seed: int) -> GameEnvs:
    """Environments for training, or for validation in levels of all that the game has."""
    is_training = kind == "training"
    return GameEnvs(
        settings["env_name"],
        settings["distribution_mode"],
        settings["num_envs" if is_training else "num_val_envs"],
        num_levels=settings["num_levels"] if is_training else 0,
        start_level=settings["start_level"] if is_training else 0,
        seed=seed,
        num_threads=num_threads,
        has_backgrounds=settings["use_backgrounds"],
    )


def checkpoint_updates(num_updates: int, num_checkpoints: int) -> list[int]:
    """The updates after which a model is kept, at even intervals, the last one among them."""
    count = min(num_checkpoints, num_updates)
    return [round((number + 1) * num_updates / count) for number in range(count)]


def tensorboard_rows(folder: Path) -> Callable[[dict[str, float]], object]:
    """Called with a row of the log, it writes the row for TensorBoard; nothing where that is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return lambda row: None
    writer = SummaryWriter(str(folder))

    def write(row: dict[str, float]) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, int(row["timesteps"]))
        writer.flush()

    return write


def main(words: Sequence[str] | None = None, on_save: Callable[[], object] = lambda: None) -> int:
    """Check the flags (None: those of the command line), train, tell; on_save: as `drive`."""
    args = parser().parse_args(words)
    settings = settle(args)
    device = choose_device(f"cuda:{args.gpu_device}" if args.device == "gpu" else args.device)
    weights = None
    if args.model_file is not None:
        weights, other = load_agent(args.model_file, settings["env_name"])
        weights = weights.state_dict()
    config = make_config(settings, args.model_file)
    if weights is not None and other["shape"] != config["shape"]:
        raise InputError(f"--model_file: {args.model_file} is of another shape; give its --param_name and sizes")
    check_playable(settings["env_name"], settings["distribution_mode"])  # before anything is written
    label = f"seed_{settings['seed']}"
    folder = Path(args.output_dir) / "procgen" / settings["env_name"] / args.exp_name / label
    check_writable(folder, "--output_dir")
    num_updates = -(-settings["num_timesteps"] // (settings["num_envs"] * settings["num_steps"]))
    with claimed(folder) as is_ours:
        if not is_ours:
            raise InputError(f"another process trains {folder}; choose another --exp_name or --seed")
        in_the_way = "a run; go on with --resume, or choose another --exp_name or --seed"
        saved = saved_state(folder, config, ("settings",), args.resume, in_the_way)
        remove_leftovers(folder.glob(".*.tmp"))
        if saved is not None and saved["update"] == num_updates and (folder / CURVE_NAME).exists():
            print(f"{folder} is trained already")
            return 0
        run = AgentRun(config, num_updates, partial(make_envs, settings, args.num_threads), device, weights)
        write = tensorboard_rows(folder)

        def on_row(row: dict[str, float]) -> None:
            write(row)
            if args.log_level <= 20:
                print(" ".join(f"{name} {value:.4g}" for name, value in row.items()))

        def name_of(run: AgentRun) -> str:
            return f"model_{run.timesteps}.pt"

        try:
            path = drive(
                run, folder, num_updates, f"{settings['env_name']} {label}", log_interval=1, saved=saved, on_row=on_row,
                checkpoint_updates=checkpoint_updates(num_updates, args.num_checkpoints), checkpoint_on_interrupt=False,
                names=FileNames(LOG_NAME, name_of, name_of), on_save=on_save,
            )  # fmt: skip
        except KeyboardInterrupt:
            return 130
        finally:
            run.close()
    print(f"what it is worth: python -m generative.evaluate_agent --model_file {path}")
    return 0


if __name__ == "__main__":
    run_script(main)
