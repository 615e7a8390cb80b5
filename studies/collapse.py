"""Why routing collapses: UnlockPickup in the plainest settings, then with one change each, of settings or weights.

    python studies/collapse.py --jobs 2

Trains three seeds of every change and writes results/collapse.csv, a row for every tenth update of each training, and
results/collapse.md, their summary. Finished trainings are kept under results/runs/collapse (not in git).
"Signal" is what varies from step to step: the standard deviation over an unroll, mean over the units.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from mixture_of_experts import MixtureOfExpertsPolicy
from mop.common.cli import as_flags, parse, setting
from mop.common.errors import InputError, run_script
from mop.common.files import write_csv, write_figure
from mop.common.reading import read_csv
from mop.common.tables import markdown_table
from mop.common.train_config import parse_config
from mop.common.workers import Died, JobPool
from mop.envs.missions import load_encoder
from mop.training.devices import choose_device
from mop.training.imitation import ImitationRun
from mop.training.replay import Batch
from plotting_utils import plot_curves_by
from studies.experiments import BASE, LAST_ROWS, RESULTS, RUNS, SEEDS, SETTINGS, spread, write_table

TASK, NUM_UPDATES, INTERVAL = "BabyAI-UnlockPickup-v0", 400, 10
SIGNALS = ("signal_0", "signal_1", "signal_2", "signal_head")
MEASURES = ("seed", *SIGNALS, "env_steps", "success_rate", "lpc", "accuracy")  # of each row, with its change


def head_times_27(policy: MixtureOfExpertsPolicy) -> None:
    """Make up for three layers that each hand on a third of their input."""
    policy.head.weight.mul_(27)


def inputs_times_a_tenth(policy: MixtureOfExpertsPolicy) -> None:
    """Give integers up to 10 the scale of one-hot numbers."""
    assert isinstance(policy.input_projection, torch.nn.Linear)
    policy.input_projection.weight.mul_(0.1)


def bias_against_skips(policy: MixtureOfExpertsPolicy) -> None:
    """Let the skips begin with a weight of 0.02 instead of a third."""
    for layer in policy.layers:
        for expert, size in enumerate(layer.expert_sizes):
            if size == 0:
                layer.router.fc.bias[expert] -= 3


Change = tuple[dict[str, object], Callable[[MixtureOfExpertsPolicy], None] | None]
CHANGES: dict[str, Change] = {
    "none": ({}, None),
    "one-hot observations": ({"obs_encoding": "one_hot"}, None),
    "first input weights / 10": ({}, inputs_times_a_tenth),
    "first expert outputs x 10": ({"expert_gain": 10.0}, None),
    "first head weights x 27": ({}, head_times_27),
    "first router biases against skips": ({}, bias_against_skips),
    "gradient clipped at 0.5": ({"grad_clip": 0.5}, None),
    "lr 1e-3": ({"lr": 1e-3}, None),
    "lr 1e-3, clipped": ({"lr": 1e-3, "grad_clip": 0.5}, None),
    "bot acts at first": ({"teacher_mix": 0.5}, None),
    "replay 8": ({"replay": 8}, None),
    "residual block": ({"residual": "true"}, None),
}


def signals(run: ImitationRun) -> dict[str, float]:
    """The signal at the input of each layer and of the head in the run's next unroll; the run itself stays as it is."""
    fork = run.copy()
    acted = fork.act()
    seen: dict[str, list[torch.Tensor]] = {}
    for layer, module in enumerate(fork.policy.layers):
        module.register_forward_pre_hook(partial(_note, seen.setdefault(f"signal_{layer}", [])))
    fork.policy.head.register_forward_pre_hook(partial(_note, seen.setdefault("signal_head", [])))
    batch, policy = Batch.of(*acted), fork.policy
    lang = fork.lang_proj(fork.encoder.embed(batch.missions))[batch.mission]
    policy.forward_encoded(policy.encode(batch.obs, lang), batch.first_hidden, batch.keep)  # calls each layer itself
    fork.close()
    return {name: torch.cat(inputs).std(0).mean().item() for name, inputs in seen.items()}


def _note(seen: list[torch.Tensor], module: torch.nn.Module, inputs: tuple) -> None:
    seen.append(inputs[0].detach())


def log_path(name: str, seed: int) -> Path:
    """Where a finished training leaves its rows."""
    return RUNS / "collapse" / f"{name.replace(' ', '_').replace('/', 'by')}_{seed}.csv"


def train(name: str, seed: int) -> None:
    """Train once and write a row for each tenth update; the signals at the beginning are in every row."""
    flags, change_weights = CHANGES[name]
    flags = BASE | SETTINGS["bare"] | flags | {"task_id": TASK, "seed": seed, "num_updates": NUM_UPDATES}
    encoder = load_encoder("vocab")
    config, _ = parse_config("", as_flags(flags))
    run = ImitationRun(config | {"policy": "mop", "encoder_dim": encoder.dim}, encoder, choose_device("cpu"))
    if change_weights is not None and isinstance(run.policy, MixtureOfExpertsPolicy):
        with torch.no_grad():
            change_weights(run.policy)
    rows, first = [], {"change": name, "seed": seed} | signals(run)
    for update in range(NUM_UPDATES):
        measures = run.step_update()
        if update % INTERVAL == 0 or update == NUM_UPDATES - 1:
            shown = {key: measures[key] for key in measures if key.startswith(("lpc", "accuracy", "router", "skip"))}
            now = {"env_steps": run.env_steps, "success_rate": run.summary()["success_rate"]}
            rows.append(first | now | shown)
    run.close()
    write_csv(log_path(name, seed), pd.DataFrame(rows).round(4))


def summary(table: pd.DataFrame) -> str:
    """A Markdown row for each change: mean over the seeds, and their range."""
    head = "change | signal at layers 1, 2, 3, head | least LPC | LPC at the end | accuracy | recent success, %"
    lines = []
    for name, rows in table.groupby("change", sort=False):
        by_seed = rows.groupby("seed")
        at_end = by_seed[["lpc", "accuracy", "success_rate"]].apply(lambda of_seed: of_seed.tail(LAST_ROWS).mean())
        signal = rows[list(SIGNALS)].mean()
        cells = [name, ", ".join(f"{value:.2f}" for value in signal), spread(by_seed["lpc"].min())]
        cells += [spread(at_end["lpc"]), spread(at_end["accuracy"], 2), spread(100 * at_end["success_rate"])]
        lines.append(cells)
    return markdown_table(head.split(" | "), lines)


@dataclass(frozen=True)
class Settings:
    """The flags."""

    jobs: int = setting(1, "trainings at a time; 0: none", low=0)


def main() -> int:
    """Train what is missing, write the summary."""
    args = parse(Settings, __doc__)
    every = [(name, seed) for seed in SEEDS for name in CHANGES]
    missing = [one for one in every if not log_path(*one).exists()]
    if args.jobs > 0 and missing:
        with JobPool(args.jobs) as pool:
            for _, result in tqdm(pool.run(_train, missing), total=len(missing), unit="training"):
                if isinstance(result, Died):
                    raise InputError("a training's process died (out of memory?); the same command goes on")
    logs = [log_path(*one) for one in every if log_path(*one).exists()]
    if not logs:
        raise InputError("no training is finished; give --jobs 1 or more")
    table = pd.concat([read_csv(log, texts=("change",), numbers=MEASURES) for log in logs])
    write_table("collapse", table, summary(table))
    write_figure(RESULTS / "collapse.png", plot_curves_by(table, "change", "lpc", f"{TASK}, in grey: no change"))
    print(f"{len(logs)} of {len(every)} trainings: results/collapse.csv, .md, .png")
    return 0


def _train(training: tuple[str, int]) -> None:
    train(*training)


if __name__ == "__main__":
    run_script(main)
