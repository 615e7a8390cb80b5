"""From a config to a final checkpoint: log, progress bar, and a state on disk from which a killed run continues."""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from mop.base.configuration import BEFORE, RUNTIME_KEYS, parse_config
from mop.base.errors import InputError
from mop.base.files import claimed, write_figure
from mop.kernels.devices import use_device
from mop.learning.imitation import ImitationRun
from mop.learning.log import TrainingLog, bar_text, closing_table
from mop.store.checkpoints import load_training_state, save_checkpoint, save_training_state
from mop.store.run_keys import RunKey
from mop.worlds.missions import load_encoder
from mop.worlds.world import check_teachable

STATE_INTERVAL_S = 120.0  # time between states on disk from which a killed run continues
COLLAPSED_SHARE = 0.98  # mean weight of the skip experts from which routing counts as collapsed


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


def train(config: dict, given: Sequence[str] | set[str] = (), on_save: Callable[[], object] = lambda: None) -> Path:
    """Train one run to its final checkpoint and return the checkpoint's path.

    config: of `configuration.parse_config`, with `policy` ("mop" or "gru"); given: the keys that the user gave, which a
    resumed run must not contradict; what was not given stays as the run had it; on_save: called whenever the files on
    disk are a state to continue from, and at the end. Raises InputError; KeyboardInterrupt after a signal, when
    everything is saved.
    """
    key = RunKey(config["task_id"], config["trial"], config["seed"])
    folder = key.folder(config["checkpoint_dir"])
    with claimed(folder) as is_ours:
        if not is_ours:
            raise InputError(f"another process is training the run in {folder}; choose another --trial or --seed")
        return _train_claimed(config, set(given), key, folder, on_save)


def _train_claimed(config: dict, given: set[str], key: RunKey, folder: Path, on_save: Callable[[], object]) -> Path:
    saved = _saved_state(folder, config, given)
    location = None  # of the encoder, where it is not the one that is recorded
    if saved is not None:
        if "lang_encoder" in given and config["lang_encoder"] not in ("auto", saved["config"]["lang_encoder"]):
            location = config["lang_encoder"]
        now = {"resume", "overwrite", "checkpoint_dir"} | (given & set(RUNTIME_KEYS))
        config = saved["config"] | {name: config[name] for name in now}
        if saved["update"] > config["num_updates"]:
            raise InputError(f"{folder} is at update {saved['update']}, past --num_updates {config['num_updates']}")
        final_path = key.checkpoint(config["checkpoint_dir"])
        scheduled = config.get("scheduled_updates", config["num_updates"])
        if config["lr_decay"] and config["num_updates"] > scheduled:
            raise InputError(
                f"the learning rate of the run in {folder} falls to 0 at update {scheduled}; to train on to "
                f"{config['num_updates']}, train anew with --overwrite, or another --trial"
            )
        if saved["update"] == config["num_updates"] and final_path.exists():
            print(f"{key.label} is trained already: {final_path} (more: --resume --num_updates N)")
            return final_path
    device = use_device(config["device"])
    if saved is None:
        config = config | {"seed": key.trial if key.seed is None else key.seed}
        config["scheduled_updates"] = config["num_updates"]
        check_teachable(config["task_id"], config["seed"])
    encoder = load_encoder(config["lang_encoder"], location)
    encoder.check_fingerprint(config.get("encoder_fingerprint"))
    config |= {"lang_encoder": encoder.name, "encoder_dim": encoder.dim, "encoder_fingerprint": encoder.fingerprint()}
    wandb_run = _start_wandb(config, key)
    for leftover in folder.glob(".*.tmp"):  # of a writer that was killed
        leftover.unlink()

    run = ImitationRun(config, encoder, device)
    try:
        if saved is not None:
            run.load_state(saved)
            print(f"resuming {key.label} at update {run.update} of {config['num_updates']}")
        elif config["overwrite"]:
            _remove_old_run(folder)
        return _train_loop(run, key, folder, wandb_run, (saved or {}).get("unfinished_row"), on_save)
    finally:
        run.close()


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
    state = load_training_state(state_path)
    old = state["config"] = BEFORE | state.get("config", {})
    needed = {"env", "hidden", "update", "counts", "policy_state_dict", "optimizer_state_dict", "minigrid_version"}
    if not needed <= state.keys() or "policy" not in old:
        raise InputError(f"{state_path}: it is no training state of this version; train anew with --overwrite")
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


def _start_wandb(config: dict, key: RunKey):
    if config["wandb_project"] is None:
        return None
    try:
        import wandb
    except ImportError:
        raise InputError("--wandb_project needs Weights & Biases: pip install wandb") from None
    return wandb.init(project=config["wandb_project"], name=key.label, config=config)


def _train_loop(
    run: ImitationRun,
    key: RunKey,
    folder: Path,
    wandb_run,
    unfinished_row: dict | None,
    on_save: Callable[[], object],
) -> Path:
    config, total = run.config, run.config["num_updates"]
    log = TrainingLog(folder / "training_log.csv", run, unfinished_row)
    saved_at, checks = 0.0, [_reward_for_errors, _collapse]

    def save_state() -> None:
        nonlocal saved_at
        if log.rows:
            log.save()
        save_training_state(folder / "training_state.pt", run.state() | {"unfinished_row": log.unfinished_row})
        on_save()
        saved_at = time.monotonic()

    def save(path: Path) -> None:
        save_checkpoint(path, run.checkpoint())
        save_state()

    save_state()  # at once: it marks the folder as in use, and a run can be resumed from its first second on
    with (
        _Interruption() as interruption,
        tqdm(total=total, initial=run.update, desc=key.label, unit="update", dynamic_ncols=True) as bar,
    ):
        while run.update < total:
            measures = run.step_update()
            log.add(measures)
            bar.update()
            for check in list(checks):
                warning = check(run, measures)
                if warning is not None:
                    tqdm.write(f"warning: at update {run.update} {warning}")
                    checks.remove(check)  # once is enough
            if run.update % config["log_interval"] == 0 or run.update == total:
                row = log.write_row(run)
                bar.set_postfix_str(bar_text(row))
                if wandb_run is not None:
                    wandb_run.log(row, step=run.update)
            periodic_path = folder / f"checkpoint_{run.update}.pt"
            if run.update == total:
                break
            if interruption.signal is not None:
                save(periodic_path)
                bar.close()
                print(f"interrupted: saved {periodic_path}; the same command with --resume goes on")
                raise KeyboardInterrupt
            if config["checkpoint_interval"] and run.update % config["checkpoint_interval"] == 0:
                save(periodic_path)
            elif time.monotonic() - saved_at > STATE_INTERVAL_S:
                save_state()
    final_path = folder / "checkpoint_final.pt"
    save(final_path)
    if log.rows:
        from plotting_utils import plot_training_curve  # here: matplotlib takes most of a second to load

        figure = plot_training_curve(log.table(), key.label)
        write_figure(folder / "training_curve.png", figure)
        on_save()
        print(closing_table(log.rows[-1], final_path))
    if wandb_run is not None:
        wandb_run.finish()
    return final_path


def _reward_for_errors(run: ImitationRun, measures: dict[str, float]) -> str | None:
    """With a live denominator, below CE = sqrt(alpha x LPC) - eps a rise of the cross-entropy lowers the loss."""
    config = run.config
    if not config["normalize_lpc"] or config["lpc_detach"] or config["lpc_alpha"] == 0.0:
        return None
    threshold = math.sqrt(config["lpc_alpha"] * measures["lpc"]) - config["lpc_eps"]
    if measures["cross_entropy"] >= threshold:
        return None
    return (
        f"the cross-entropy {measures['cross_entropy']:.4f} fell below sqrt(lpc_alpha * LPC) - lpc_eps = "
        f"{threshold:.4f}: from here on the normalised loss rewards errors; "
        "consider --lpc_detach, a larger --lpc_eps or a smaller --lpc_alpha"
    )


def _collapse(run: ImitationRun, measures: dict[str, float]) -> str | None:
    """Where every layer skips, the policy is nearly linear and has no memory: its routing means little."""
    shares = [value for name, value in measures.items() if name.startswith("skip_share_")]
    if len(shares) < len(run.policy.expert_hidden_sizes) or min(shares) < COLLAPSED_SHARE:
        return None
    config = run.config
    remedies = [] if config["residual"] else ["--residual", "a larger --expert_gain"]
    remedies += ["a larger --lr", "a larger --replay"]
    remedies += ["a smaller --lpc_alpha"] * (config["lpc_alpha"] > 0)
    return (
        f"the routing has collapsed: every layer gives {min(shares):.1%} or more to its skip experts (mean LPC "
        f"{measures['lpc']:.0f}); it may come back; {' or '.join(remedies)} can prevent it"
    )


def train_from_command_line(policy: str, description: str) -> int:
    """The body of a training script: `policy` is "mop" or "gru". Returns the exit code, 130 after Ctrl-C."""
    config, given = parse_config(description)
    try:
        train(config | {"policy": policy}, given)
    except KeyboardInterrupt:
        return 130
    return 0
