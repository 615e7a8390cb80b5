"""One training loop: the student acts, the bot labels every state it visits, the student imitates the labels.

`ImitationRun` is the whole state of a run as one object that can be saved, restored and copied; `train` drives it from
a config to a final checkpoint, with a log, a progress bar, and a state on disk from which a killed run continues.
Axis letters: T steps of an unroll, N environments, A actions, G numbers of the mission (`lang_dim`).
"""

import contextlib
import math
import signal
import time
import zlib
from collections import deque
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import runs
from babyai_env import NO_LABEL, BabyAIVectorEnv, check_teachable
from configuration import RUNTIME_KEYS, parse_config
from errors import InputError
from mission_encoder import MissionEncoder, load_encoder
from mixture_of_experts import build_policy, compute_lpc, reset_hidden
from teacher import FAILURE_KINDS
from training_log import RECENT_EPISODES, TrainingLog, bar_text, closing_table

STATE_INTERVAL_S = 120.0  # time between states on disk from which a killed run continues


def stream_seed(seed: int, name: str) -> int:
    """The seed of a named random stream of a run, so that streams do not depend on each other's use."""
    return int(np.random.SeedSequence((seed, zlib.crc32(name.encode()))).generate_state(1)[0])


def choose_device(name: str) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda`, ... Raises InputError for one that this machine lacks."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    if device.type == "cpu":
        torch.set_num_threads(1)  # matrices are small: a second thread costs more than it does, and workers need it
    return device


def imitation_loss(
    logits: Tensor, labels: Tensor, lpc: Tensor, alpha: float = 0.0, normalize: bool = False, eps: float = 1e-2,
    detach: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Loss and its cross-entropy part, both scalars.

    Mean cross-entropy in nats over the labels that are there, plus alpha x mean LPC, or with `normalize` the form of
    the Mixture-of-Pathways paper, alpha x mean LPC / (cross-entropy + eps); `detach`: no gradient through that
    denominator. logits (T, N, A); labels (T, N) int64, NO_LABEL where the teacher is silent; lpc (T, N).
    """
    num_labels = (labels != NO_LABEL).sum().clamp(min=1)
    cross_entropy = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="sum"
    ) / num_labels  # fmt: skip
    if alpha == 0.0:
        return cross_entropy, cross_entropy
    denominator = 1.0
    if normalize:
        denominator = (cross_entropy.detach() if detach else cross_entropy) + eps
    return cross_entropy + alpha * lpc.mean() / denominator, cross_entropy


class ImitationRun:
    """Policy, optimiser, hidden state, environments with their bots, and counters of one run.

    `state()` is plain tensors and numbers: a world in progress is its number and the actions taken in it, and replaying
    them restores environment and bot exactly. Initial weights and worlds come from named streams of `config["seed"]`;
    nothing else is random.
    """

    def __init__(self, config: dict, encoder: MissionEncoder, device: torch.device):
        self.config, self.encoder, self.device = config, encoder, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(config["seed"], "weights"))
            self.policy = build_policy(config).to(device)
            self.lang_proj = nn.Linear(encoder.dim, config["lang_dim"]).to(device)
        self.lang_proj.requires_grad_(config["train_lang_proj"])
        self.parameters = [p for p in (*self.policy.parameters(), *self.lang_proj.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config["lr"])
        self.env = BabyAIVectorEnv(
            config["task_id"], config["num_envs"], config["seed"], config["max_steps"], config["num_workers"]
        )
        self.hidden = self.policy.initial_hidden(config["num_envs"])
        self.update = 0
        self.recent_success: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.recent_path_ratio: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.counts = {name: 0 for name in ("episodes", "bot_plan_failures", *FAILURE_KINDS)}
        self._is_started = False

    def step_update(self) -> dict[str, float]:
        """One update: an unroll of the student's own actions, then one Adam step on it. Returns its measures."""
        obs, missions, labels, keep, first_hidden = self._rollout()
        logits, routing, _ = self.policy.get_routing_info(obs, self.lang_proj(missions), first_hidden, keep)
        lpc = compute_lpc(routing, self.policy.expert_hidden_sizes)
        config = self.config
        loss, cross_entropy = imitation_loss(
            logits, labels, lpc, config["lpc_alpha"], config["normalize_lpc"], config["lpc_eps"], config["lpc_detach"]
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, config["grad_clip"] or math.inf)
        if not torch.isfinite(grad_norm):
            raise InputError(f"training diverged at update {self.update + 1}: the gradient is {grad_norm}; lower --lr")
        self.optimizer.step()
        self.update += 1
        is_correct = (logits.argmax(-1) == labels)[labels != NO_LABEL]
        return {
            "loss": loss.item(),
            "cross_entropy": cross_entropy.item(),
            "accuracy": is_correct.float().mean().item(),
            "lpc": lpc.mean().item(),
            "grad_norm": grad_norm.item(),
        }

    @torch.no_grad()
    def _rollout(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """T steps: obs (T, N, O), mission embeddings (T, N, encoder_dim), labels (T, N), keep (T, N), first hidden."""
        if not self._is_started:
            self._count(self.env.reset())
            self._is_started = True
        num_steps, arrays = self.config["unroll_len"], self.env.arrays
        shape = (num_steps, self.env.num_envs)
        obs, missions = torch.empty(*shape, arrays.obs.shape[1]), torch.empty(*shape, self.encoder.dim)
        labels, keep = torch.empty(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.bool)
        packed, lang = self.policy.pack(), None
        first_hidden = self.hidden
        for t in range(num_steps):
            if lang is None or arrays.done.any():  # a new episode brings a new mission
                embeddings = self.encoder.embed(self.env.missions)
                lang = self.lang_proj(embeddings.to(self.device))
            obs[t], labels[t] = torch.from_numpy(arrays.obs), torch.from_numpy(arrays.label)
            missions[t] = embeddings
            if t > 0:  # at t = 0 the hidden state is reset already
                keep[t] = torch.from_numpy(~arrays.done)
            logits, self.hidden = self.policy(obs[t].to(self.device), lang, self.hidden, packed=packed)
            self.env.step(logits.argmax(-1).cpu().numpy())
            self._count(arrays)
            if arrays.done.any():
                self.hidden = reset_hidden(self.hidden, torch.from_numpy(arrays.done).to(self.device))
        move = [tensor.to(self.device) for tensor in (obs, missions, labels, keep)]
        return (*move, first_hidden)

    def _count(self, arrays) -> None:
        """Episodes that ended in this step; those that the bot's failure ended are outside the success rate."""
        self.counts["bot_plan_failures"] += int(arrays.fresh_failures.sum())
        for i in np.flatnonzero(arrays.done):
            if arrays.failure[i] >= 0:
                self.counts[FAILURE_KINDS[arrays.failure[i]]] += 1
                continue
            self.counts["episodes"] += 1
            self.recent_success.append(float(arrays.reward[i] > 0))
            if arrays.expert_steps[i] > 0:
                self.recent_path_ratio.append(float(arrays.steps[i] / arrays.expert_steps[i]))

    @property
    def env_steps(self) -> int:
        """Environment steps learned from so far."""
        return self.update * self.config["unroll_len"] * self.config["num_envs"]

    def summary(self) -> dict[str, float]:
        """Recent success rate and path ratio (NaN before the first), and the counters."""

        def mean(values: deque) -> float:
            return sum(values) / len(values) if values else math.nan

        recent = {"success_rate": mean(self.recent_success), "path_ratio": mean(self.recent_path_ratio)}
        return recent | {f"failures_{k}" if k in FAILURE_KINDS else k: v for k, v in self.counts.items()}

    def checkpoint(self) -> dict:
        """What evaluation needs, as formats of the pipeline ask: weights, optimiser, config."""
        config = {key: value for key, value in self.config.items() if key not in ("resume", "overwrite")}
        return {
            "policy_state_dict": _to_cpu(self.policy.state_dict()),
            "lang_proj_state_dict": _to_cpu(self.lang_proj.state_dict()),
            "optimizer_state_dict": _to_cpu(self.optimizer.state_dict()),
            "update": self.update,
            "config": config,
        }

    def state(self) -> dict:
        """Everything that the rest of the run depends on, as tensors, numbers and texts."""
        if not self._is_started:
            self._count(self.env.reset())
            self._is_started = True
        return self.checkpoint() | {
            "hidden": self.hidden.detach().cpu().clone(),
            "env": {name: torch.from_numpy(array) for name, array in self.env.save().items()},
            "recent_success": list(self.recent_success),
            "recent_path_ratio": list(self.recent_path_ratio),
            "counts": dict(self.counts),
        }

    def load_state(self, state: dict) -> None:
        """Continue where `state()` was taken: the same updates follow, bit for bit on the same machine."""
        self.policy.load_state_dict(state["policy_state_dict"])
        self.lang_proj.load_state_dict(state["lang_proj_state_dict"])
        self.optimizer.load_state_dict(_to_cpu(state["optimizer_state_dict"]))  # a copy: Adam changes it in place
        self.env.restore({name: tensor.numpy() for name, tensor in state["env"].items()})
        self._is_started = True
        self.hidden = state["hidden"].to(self.device, copy=True)
        self.update = state["update"]
        self.recent_success = deque(state["recent_success"], RECENT_EPISODES)
        self.recent_path_ratio = deque(state["recent_path_ratio"], RECENT_EPISODES)
        self.counts = dict(state["counts"])

    def copy(self) -> "ImitationRun":
        """A fork with its own policy, optimiser and worlds, in the same state."""
        fork = ImitationRun(deepcopy(self.config), self.encoder, self.device)
        fork.load_state(self.state())
        return fork

    def close(self) -> None:
        """End the environment workers."""
        self.env.close()


def _to_cpu(value):
    """A copy of nested dictionaries and lists with every tensor detached on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    return [_to_cpu(item) for item in value] if isinstance(value, (list, tuple)) else value


class _Interruption:
    """Ctrl-C or SIGTERM: the update in progress is finished, then the run is saved; a second one stops at once."""

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self) -> "_Interruption":
        self._previous = {}
        with contextlib.suppress(ValueError):  # not in the main thread (a notebook): signals are somebody else's
            self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


def train(config: dict, given: Sequence[str] | set[str] = ()) -> Path:
    """Train one run to its final checkpoint and return the checkpoint's path.

    config: of `configuration.parse_config`, with `policy` ("mop" or "gru"); given: the keys that the user gave, which a
    resumed run must not contradict. Raises InputError; KeyboardInterrupt after a signal, when everything is saved.
    """
    key = runs.RunKey(config["task_id"], config["trial"], config["seed"])
    folder = key.folder(config["checkpoint_dir"])
    saved = _saved_state(folder, config, set(given))
    location = None  # of the encoder, where it is not the one that is recorded
    if saved is not None:
        if "lang_encoder" in given and config["lang_encoder"] not in ("auto", saved["config"]["lang_encoder"]):
            location = config["lang_encoder"]
        kept = set() if "num_updates" in given else {"num_updates"}  # a default must not cut the run short
        config = saved["config"] | {name: config[name] for name in RUNTIME_KEYS if name not in kept}
        if saved["update"] > config["num_updates"]:
            raise InputError(f"{folder} is at update {saved['update']}, past --num_updates {config['num_updates']}")
    else:
        config = config | {"seed": key.trial if key.seed is None else key.seed}
        check_teachable(config["task_id"], config["seed"])
    device = choose_device(config["device"])
    encoder = load_encoder(config["lang_encoder"], location)
    encoder.check_fingerprint(config.get("encoder_fingerprint"))
    config |= {"lang_encoder": encoder.name, "encoder_dim": encoder.dim, "encoder_fingerprint": encoder.fingerprint()}
    wandb_run = _start_wandb(config, key)
    for leftover in folder.glob(".*.tmp"):  # of a writer that was killed; a run has one writer
        leftover.unlink()

    run = ImitationRun(config, encoder, device)
    try:
        if saved is not None:
            run.load_state(saved)
            print(f"resuming {key.label} at update {run.update} of {config['num_updates']}")
        elif config["overwrite"]:
            _remove_old_run(folder)
        path = _train_loop(run, key, folder, wandb_run, (saved or {}).get("unfinished_row"))
    except OSError as error:  # no such folder, no permission, a full disk
        raise InputError(f"cannot write the files of the run: {error}") from error
    finally:
        run.close()
    return path


def _saved_state(folder: Path, config: dict, given: set[str]) -> dict | None:
    """The state to continue from, None for a new run. Raises InputError where files or settings are in the way."""
    state_path, final_path = folder / "training_state.pt", folder / "checkpoint_final.pt"
    if not config["resume"]:
        exists = state_path.exists() or any(folder.glob("checkpoint_*.pt"))
        if exists and not config["overwrite"]:
            raise InputError(
                f"{folder} holds a run already; continue it with --resume, replace it with --overwrite, "
                "or choose another --trial or --seed"
            )
        return None
    if not state_path.exists():
        if final_path.exists():
            raise InputError(f"{folder} has a final checkpoint but no training_state.pt to continue from")
        print(f"nothing to resume in {folder}: starting anew")
        return None
    state = runs.load_training_state(state_path)
    old = state.get("config", {})
    if "env" not in state or "policy" not in old:
        raise InputError(f"{state_path}: it is no training state; train anew with --overwrite")
    may_differ = {*RUNTIME_KEYS, "seed"}
    if config["lang_encoder"] == "auto" or old["lang_encoder"] != "vocab":
        may_differ.add("lang_encoder")  # it may lie elsewhere on this machine; its fingerprint is checked
    wrong = sorted(name for name in given - may_differ if name in old and old[name] != config[name])
    if old["policy"] != config["policy"]:
        raise InputError(f"{folder} holds a {old['policy']!r} run, not {config['policy']!r}; use the other script")
    if wrong:
        differences = ", ".join(f"{name} {old[name]}, not {config[name]}" for name in wrong)
        raise InputError(f"the run in {folder} has {differences}; leave these flags out to resume it")
    return state


def _remove_old_run(folder: Path) -> None:
    """What belongs to an old run must not be taken for the new one's (a log without a state goes in any case)."""
    for name in ("training_state.pt", "checkpoint_*.pt", "training_curve.png"):
        for path in folder.glob(name):
            path.unlink()


def _start_wandb(config: dict, key: runs.RunKey):
    if config["wandb_project"] is None:
        return None
    try:
        import wandb
    except ImportError:
        raise InputError("--wandb_project needs Weights & Biases: pip install wandb") from None
    return wandb.init(project=config["wandb_project"], name=key.label, config=config)


def _train_loop(run: ImitationRun, key: runs.RunKey, folder: Path, wandb_run, unfinished_row: dict | None) -> Path:
    config, final_path = run.config, folder / "checkpoint_final.pt"
    log = TrainingLog(folder / "training_log.csv", run, unfinished_row)
    saved_at, has_warned = time.monotonic(), False

    def save_state() -> None:
        if log.rows:
            log.save()
        runs.save_training_state(folder / "training_state.pt", run.state() | {"unfinished_row": log.unfinished_row})

    total = config["num_updates"]
    with (
        _Interruption() as interruption,
        tqdm(total=total, initial=run.update, desc=key.label, unit="update", dynamic_ncols=True) as bar,
    ):
        while run.update < total:
            measures = run.step_update()
            log.add(measures)
            bar.update()
            has_warned = has_warned or _warn_of_reward_for_errors(run, measures)
            if run.update % config["log_interval"] == 0 or run.update == total:
                row = log.write_row(run)
                bar.set_postfix_str(bar_text(row))
                if wandb_run is not None:
                    wandb_run.log(row, step=run.update)
            interval = config["checkpoint_interval"]
            if interval and run.update % interval == 0 and run.update < total:
                runs.save_checkpoint(folder / f"checkpoint_{run.update}.pt", run.checkpoint())
                save_state()
                saved_at = time.monotonic()
            elif time.monotonic() - saved_at > STATE_INTERVAL_S:
                save_state()
                saved_at = time.monotonic()
            if interruption.signal is not None and run.update < total:
                runs.save_checkpoint(folder / f"checkpoint_{run.update}.pt", run.checkpoint())
                save_state()
                bar.close()
                print(f"interrupted: saved {folder}/checkpoint_{run.update}.pt; the same command with --resume goes on")
                raise KeyboardInterrupt
    save_state()
    runs.save_checkpoint(final_path, run.checkpoint())
    if log.rows:
        from plotting_utils import plot_training_curve  # here: matplotlib takes most of a second to load

        figure = plot_training_curve(log.table(), key.label)
        runs.write_atomic(folder / "training_curve.png", lambda file: figure.savefig(file, format="png"))
        print(closing_table(log.rows[-1], final_path))
    if wandb_run is not None:
        wandb_run.finish()
    return final_path


def _warn_of_reward_for_errors(run: ImitationRun, measures: dict[str, float]) -> bool:
    """With a live denominator, below CE = sqrt(alpha x LPC) - eps a rise of the cross-entropy lowers the loss."""
    config = run.config
    if not config["normalize_lpc"] or config["lpc_detach"] or config["lpc_alpha"] == 0.0:
        return False
    threshold = math.sqrt(config["lpc_alpha"] * measures["lpc"]) - config["lpc_eps"]
    if measures["cross_entropy"] >= threshold:
        return False
    tqdm.write(
        f"warning: at update {run.update} the cross-entropy {measures['cross_entropy']:.4f} fell below "
        f"sqrt(lpc_alpha * LPC) - lpc_eps = {threshold:.4f}: from here on the normalised loss rewards errors; "
        "consider --lpc_detach, a larger --lpc_eps or a smaller --lpc_alpha"
    )
    return True


def train_from_command_line(policy: str, description: str) -> int:
    """The body of a training script: `policy` is "mop" or "gru". Returns the exit code, 130 after Ctrl-C."""
    config, given = parse_config(description)
    try:
        train(config | {"policy": policy}, given)
    except KeyboardInterrupt:
        return 130
    return 0
