"""Train a recurrent agent to play a game of Procgen: CoinRun, or CaveFlyer.

    python -m generative.train_agent                                    small-rec on easy CoinRun: learns on two cores
    python -m generative.train_agent --exp_name mine --num_levels 500 --num_timesteps 4000000 --num_checkpoints 20
    python -m generative.train_agent --exp_name mine --num_levels 500 --num_timesteps 4000000 --resume
    python -m generative.train_agent --exp_name trainhx_1Mlvls --env_name coinrun --param_name hard-rec \\
        --num_levels 1000000 --distribution_mode hard --num_timesteps 200000000 --num_checkpoints 500

Recurrent proximal policy optimisation (docs/coinrun.md). The games come from envpool (`make coinrun`). --resume, after
Ctrl-C, a kill, ..., gives the same bytes as a run that was never interrupted, on the same CPU.

Writes logs/procgen/<env_name>/<exp_name>/seed_<seed>/: log.csv, model_<timesteps>.pt at even intervals,
training_curve.png, training_state.pt; and TensorBoard's events where it is installed.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from generative.agents.config import IN_CONFIG, Settings, make_config, make_envs, parse_settings, warn_without_gpu
from generative.agents.networks import load_agent
from generative.agents.ppo import AgentRun
from generative.domains.coinrun.games import check_playable
from generative.simulators.resuming import saved_state
from mop.common.errors import InputError, run_script
from mop.common.files import open_output_dir
from mop.training.devices import choose_device
from mop.training.loop import CURVE_NAME, FileNames, Trainable, drive

LOG_NAME = "log.csv"


def checkpoint_updates(num_updates: int, num_checkpoints: int) -> list[int]:
    """The updates after which a model is kept, at even intervals, the last one among them."""
    count = min(num_checkpoints, num_updates)
    return [round((number + 1) * num_updates / count) for number in range(count)]


def tensorboard_rows(folder: Path) -> Callable[[dict[str, float]], object]:
    """A function that writes a row of the log for TensorBoard; nothing where that is not installed."""
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


def make_run(settings: Settings) -> AgentRun:
    """The run, with the weights of --model_file if it is given."""
    device = choose_device(f"cuda:{settings.gpu_device}" if settings.device == "gpu" else settings.device)
    warn_without_gpu(settings.param_name, device.type)
    named = {name: getattr(settings, name) for name in IN_CONFIG}
    config = make_config(named, settings.model_file)
    weights = None
    if settings.model_file is not None:
        agent, other = load_agent(settings.model_file, settings.env_name)
        if other["shape"] != config["shape"]:
            way_out = "give its --param_name and sizes"
            raise InputError(f"--model_file: {settings.model_file} is of another shape; {way_out}")
        weights = agent.state_dict()
    check_playable(settings.env_name, settings.distribution_mode)  # before anything is written
    num_updates = -(-settings.num_timesteps // (settings.num_envs * settings.num_steps))
    return AgentRun(config, num_updates, partial(make_envs, named, settings.num_threads), device, weights)


def train(settings: Settings, run: AgentRun, folder: Path) -> Path | None:
    """Train, or continue; the path of the last model, None where the run was over already."""
    in_the_way = "a run; go on with --resume, or choose another --exp_name or --seed"
    saved = saved_state(folder, run.config, ("settings",), settings.resume, in_the_way)
    if saved is not None and saved["update"] == run.num_updates and (folder / CURVE_NAME).exists():
        return None
    write = tensorboard_rows(folder)

    def on_row(row: dict[str, float]) -> None:
        write(row)
        if settings.log_level <= 20:
            print(" ".join(f"{name} {value:.4g}" for name, value in row.items()))

    def name_of(_: Trainable) -> str:
        return f"model_{run.timesteps}.pt"

    return drive(
        run,
        folder,
        run.num_updates,
        f"{settings.env_name} {folder.name}",
        log_interval=1,
        saved=saved,
        on_row=on_row,
        checkpoint_updates=checkpoint_updates(run.num_updates, settings.num_checkpoints),
        checkpoint_on_interrupt=False,
        names=FileNames(LOG_NAME, name_of, name_of),
    )


def main() -> int:
    """Train an agent."""
    settings = parse_settings(__doc__)
    run = make_run(settings)
    folder = Path(settings.output_dir) / "procgen" / settings.env_name / settings.exp_name / f"seed_{settings.seed}"
    with open_output_dir(folder, flag="--output_dir", other="another --exp_name or --seed"):
        try:
            path = train(settings, run, folder)
        finally:
            run.close()
    if path is None:
        print(f"{folder} is trained already")
    else:
        print(f"evaluate it: python -m generative.evaluate_agent --model_file {path}")
    return 0


if __name__ == "__main__":
    run_script(main)
