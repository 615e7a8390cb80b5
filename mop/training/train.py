"""From a config to the final checkpoint of an imitation run, a new one or one that is continued."""

from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

from mop.artifacts.checkpoints import load_training_state
from mop.artifacts.run_paths import RunKey
from mop.common.errors import InputError
from mop.common.files import check_writable, only_process, remove_leftovers
from mop.common.reading import reading
from mop.common.task_mix import slots_by_task
from mop.common.train_config import KEYS, RUNTIME_KEYS, parse_config
from mop.envs.babyai import check_teachable
from mop.envs.missions import load_encoder
from mop.training.devices import use_device
from mop.training.imitation import ImitationRun
from mop.training.log import Columns, TrainingLog
from mop.training.loop import CURVE_NAME, FINAL_NAME, LOG_NAME, STATE_NAME, draw_curve, drive
from mop.training.policies import check_weights


def train_from_command_line(policy: str, description: str) -> int:
    """The body of a training script: `policy` is "mop" or "gru". Returns the exit code, 130 after Ctrl-C."""
    config, given = parse_config(description)
    try:
        train(config | {"policy": policy}, given)
    except KeyboardInterrupt:
        return 130
    return 0


def train(
    config: dict, given: Collection[str] = (), on_save: Callable[[], object] = lambda: None,
    checkpoint_on_interrupt: bool = True,
) -> Path:  # fmt: skip
    """Train one run to its final checkpoint and return the checkpoint's path.

    config: of `train_config.parse_config`, with `policy` ("mop" or "gru"); given: the keys that the user gave, which a
    resumed run must not contradict; what was not given stays as the run had it; on_save: called whenever the files on
    disk are a state to continue from, and at the end; checkpoint_on_interrupt: of `drive`. Raises InputError;
    KeyboardInterrupt after a signal, when everything is saved.
    """
    key = RunKey(config["task_id"], config["trial"], config["seed"])
    folder = key.folder(config["checkpoint_dir"])
    with only_process(folder, "another --trial or --seed"):
        saved = _saved_state(folder, config, set(given))
        location = None  # of the encoder, where it is not the one that is recorded
        if saved is not None:
            location = _other_location(saved["config"], config, given)
            config = _continued(saved, config, set(given), folder)
            if saved["update"] == config["num_updates"] and (folder / FINAL_NAME).exists():
                return _finished(folder, key, saved["update"], on_save)
        device = use_device(config["device"])
        if saved is None:
            config = config | {"seed": key.trial if key.seed is None else key.seed}
            check_writable(folder, "--checkpoint_dir")
            for task in slots_by_task(config):
                check_teachable(task.task_id, config["seed"], config["max_steps"])
        encoder = load_encoder(config["lang_encoder"], location)
        encoder.check_fingerprint(config.get("encoder_fingerprint"))
        with nullcontext() if saved is None else reading(folder / STATE_NAME, "training state"):
            run = ImitationRun(config, encoder, device)
        return _train(run, key, folder, saved, on_save, checkpoint_on_interrupt)


def _train(
    run: ImitationRun, key: RunKey, folder: Path, saved: dict | None, on_save: Callable[[], object],
    checkpoint_on_interrupt: bool,
) -> Path:  # fmt: skip
    """Drive a run that was just made, and end its workers."""
    config = run.config
    try:
        if len(run.tasks) > 1:
            slots = ((task.name, range(config["num_envs"])[task.slots]) for task in run.tasks)
            print("slots:", ", ".join(f"{name} {of_task[0]} to {of_task[-1]}" for name, of_task in slots))
        wandb_run = _start_wandb(config, key)
        remove_leftovers(folder.glob(".*.tmp"))
        if saved is None and config["overwrite"]:
            _remove_old_run(folder)

        def on_row(row: dict[str, float]) -> None:
            if wandb_run is not None:
                wandb_run.log(row, step=run.update)

        final_path = drive(
            run, folder, config["num_updates"], key.label, log_interval=config["log_interval"],
            checkpoint_interval=config["checkpoint_interval"], saved=saved, on_save=on_save, on_row=on_row,
            checkpoint_on_interrupt=checkpoint_on_interrupt,
        )  # fmt: skip
        if wandb_run is not None:
            wandb_run.finish()
        return final_path
    finally:
        run.close()


def _finished(folder: Path, key: RunKey, update: int, on_save: Callable[[], object]) -> Path:
    """The final checkpoint of a run that is trained already; draws its curve if it was killed before it had one."""
    remove_leftovers(folder.glob(".*.tmp"))
    if not (folder / CURVE_NAME).exists() and (folder / LOG_NAME).exists():
        log = TrainingLog(folder / LOG_NAME, SimpleNamespace(update=update, columns=Columns()))
        draw_curve(folder, ImitationRun.columns, log.table(), key.label)
        on_save()
    print(f"{key.label} is trained already: {folder / FINAL_NAME} (more: --resume --num_updates N)")
    return folder / FINAL_NAME


# --- a run that is continued ----------------------------------------------------------------------------------------


def _saved_state(folder: Path, config: dict, given: set[str]) -> dict | None:
    """The state to continue from, None for a new run. Raises InputError where files or settings are in the way."""
    state_path, final_path = folder / STATE_NAME, folder / FINAL_NAME
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
            raise InputError(f"{folder} has a final checkpoint but no {STATE_NAME} to continue from")
        if "name" in given and not {"task_id", "tasks"} & given:  # a name alone, mistyped?
            raise InputError(f"there is no run in {folder}; to begin one of this --name, add --task_id or --tasks")
        print(f"nothing to resume in {folder}: starting anew")
        return None
    with reading(state_path, "training state", "train anew with --overwrite"):
        state = load_training_state(state_path)
        keys = state["config"].keys()
        odd = (config.keys() - keys - {"resume", "overwrite", "checkpoint_dir"}) | (keys - set(KEYS))
        if odd:
            names = ", ".join(sorted(odd))
            raise InputError(f"it is of another version ({names} of its config); train anew with --overwrite")
        if len(state["hidden"]) != state["config"]["num_envs"] or type(state["update"]) is not int:
            raise InputError("it is no training state; train anew with --overwrite")
        check_weights(state["config"], state["policy_state_dict"])
    _check_given(state["config"], config, given, folder)
    return state


def _check_given(old: dict, config: dict, given: set[str], folder: Path) -> None:
    """Raises InputError where what the user gave contradicts the run's own config `old`."""
    if old["policy"] != config["policy"]:
        raise InputError(f"{folder} holds a {old['policy']!r} run, not {config['policy']!r}; use the other script")
    may_differ = {*RUNTIME_KEYS, "seed"}
    if config["lang_encoder"] == "auto" or old["lang_encoder"] != "vocab":
        may_differ.add("lang_encoder")  # it may lie elsewhere on this machine; its fingerprint is checked
    if "task_id" in given and config["tasks"] is not None:  # it named several; `task_id` is the folder's now
        given = given | {"tasks"}
    wrong = sorted(name for name in given - may_differ if name in old and old[name] != config[name])
    if wrong:
        differences = ", ".join(f"{name} {old[name]}, not {config[name]}" for name in wrong)
        raise InputError(f"the run in {folder} has {differences}; leave these flags out to resume it")


def _other_location(old: dict, config: dict, given: Collection[str]) -> str | None:
    """Where the run's encoder lies on this machine, if the user says so; None: it is found by its recorded name."""
    is_other = "lang_encoder" in given and config["lang_encoder"] not in ("auto", old["lang_encoder"])
    return config["lang_encoder"] if is_other else None


def _continued(saved: dict, config: dict, given: set[str], folder: Path) -> dict:
    """The run's own config with the changes that the user may make and made.

    Raises InputError where the run cannot be continued to the number of updates asked for.
    """
    now = {"resume", "overwrite", "checkpoint_dir"} | (given & set(RUNTIME_KEYS))
    config = saved["config"] | {name: config[name] for name in now}
    num_updates, scheduled = config["num_updates"], config["scheduled_updates"]
    if saved["update"] > num_updates:
        raise InputError(f"{folder} is at update {saved['update']}, past --num_updates {num_updates}")
    if config["lr_decay"] and num_updates > scheduled:
        raise InputError(
            f"the learning rate of the run in {folder} falls to 0 at update {scheduled}; to train on to "
            f"{num_updates}, train anew with --overwrite, or another --trial"
        )
    return config


def _remove_old_run(folder: Path) -> None:
    """Remove the files of an old run that could be taken for those of the new one; `TrainingLog` removes the log."""
    for name in (STATE_NAME, "checkpoint_*.pt", CURVE_NAME):
        for path in folder.glob(name):
            path.unlink()


def _start_wandb(config: dict, key: RunKey):
    """A run of Weights & Biases, None where none is asked for. Raises InputError where it is not installed."""
    if config["wandb_project"] is None:
        return None
    try:
        import wandb
    except ImportError:
        raise InputError("--wandb_project needs Weights & Biases: pip install wandb") from None
    return wandb.init(project=config["wandb_project"], name=key.label, config=config)
