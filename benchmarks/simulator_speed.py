"""Seconds of the processor that an update of the learned simulator takes, and its parts.

    python benchmarks/simulator_speed.py
    python benchmarks/simulator_speed.py --updates 50 --data_dir recordings/X

Without --data_dir, a few episodes of an untrained policy on UnlockPickup are recorded. Sizes, windows and batch are the
defaults of generative.train_gen_model. Time of the processor is told, so that other work on the machine counts less.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.throughput import spread
from generative import record
from generative.domains.babyai.domain import BABYAI
from generative.domains.registry import load_recorded_policy
from generative.recordings.format import open_recording
from generative.simulators.losses import Frames, losses, simulate
from generative.simulators.training import SimulatorRun, make_config, resolve_settings
from mop.artifacts.checkpoints import save_checkpoint
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer
from mop.training.policies import build_policy

TASK = "BabyAI-UnlockPickup-v0"


def record_untrained(folder: Path) -> Path:
    """Record some episodes of an untrained policy of default sizes; the recording's folder."""
    from mop.common.train_config import parse_config

    config = parse_config("", ["--task_id", TASK])[0] | {"policy": "mop", "seed": 0, "lang_encoder": "vocab"}
    projection = torch.nn.Linear(512, config["lang_dim"])
    checkpoint = {"policy_state_dict": build_policy(config).state_dict(), "update": 0, "config": config}
    save_checkpoint(folder / "policy.pt", checkpoint | {"lang_proj_state_dict": projection.state_dict()})
    words = ["--checkpoint", str(folder / "policy.pt"), "--num_steps", "6000", "--data_dir", str(folder / "recording")]
    sys.argv = ["record", *words, "--max_steps", "64"]
    record.main()
    return folder / "recording"


def parts_of_update(run: SimulatorRun) -> dict[str, float]:
    """Seconds of the processor of one update, by part."""
    rng, times, start = np.random.default_rng(run.update), {}, time.process_time()

    def lap(name: str) -> None:
        nonlocal start
        times[name], start = time.process_time() - start, time.process_time()

    chosen = rng.integers(len(run.windows), size=run.settings["batch_size"])
    frames = Frames.of(run.windows.batch(chosen, BABYAI.arrays), BABYAI)
    lap("windows as tensors")
    noise = run.draw_noise(frames.mask.shape)
    simulated = simulate(run.model, frames, run.num_init, torch.ones_like(frames.mask), noise)
    lap("simulating them")
    loss = run.weighed(losses(run.model, run.policy, frames, simulated, run.num_init, run.variance))
    lap("losses, with the policy inside")
    loss.backward()
    lap("gradients")
    run.optimizer.step()
    run.optimizer.zero_grad()
    lap("Adam")
    run.update += 1
    return times


def main() -> int:
    """Measure and tell."""
    parser = Parser(description=__doc__)
    parser.add_argument("--updates", default=20, help="after five that are not counted (default: %(default)s)")
    parser.add_argument("--data_dir", help="folder of a recording")
    args = parser.parse_args()
    check_flags(args, updates=integer(1))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        recording = open_recording(args.data_dir or record_untrained(Path(folder)))
        policy, agent = load_recorded_policy(recording)
        config = make_config(BABYAI, resolve_settings(BABYAI, "babyai", {}), "babyai", recording, agent)
        run = SimulatorRun(BABYAI, config, policy, recording)
        found = [parts_of_update(run) for _ in range(args.updates + 5)][5:]
    print(f"{sum(p.numel() for p in run.model.parameters()):,} weights; milliseconds of the processor for an update:")
    for name in found[0]:
        print(f"{name:>32}  {spread([1000 * one[name] for one in found])}")
    print(f"{'together':>32}  {spread([1000 * sum(one.values()) for one in found])}")
    return 0


if __name__ == "__main__":
    run_script(main)
