"""From a config to the final checkpoint of an imitation run, a new one or one that is continued."""

from collections.abc import Collection
from contextlib import closing, nullcontext
from pathlib import Path

from mop.artifacts.checkpoints import load_checkpoint, load_training_state, quick_config
from mop.artifacts.run_paths import RunKey
from mop.common.errors import InputError
from mop.common.files import open_output_dir
from mop.common.reading import reading
from mop.common.task_mix import tasks_of
from mop.common.train_config import KEYS, RUNTIME_KEYS
from mop.envs.babyai import check_teachable
from mop.envs.missions import EMBEDDED, load_encoder
from mop.training.devices import choose_device
from mop.training.imitation import ImitationRun, decay_start
from mop.training.log import read_log
from mop.training.loop import BRANCH_NAME, CURVE_NAME, FINAL_NAME, LOG_NAME, STATE_NAME, draw_curve, drive
from mop.training.policies import check_weights


def train(config: dict, given: Collection[str] = ()) -> Path:
    """Train one run to its final checkpoint and return the checkpoint's path.

    config: of `parse_config`, with `policy` ("mop" or "gru"); given: the settings that the user gave, which a resumed
    run must not contradict. Raises KeyboardInterrupt after a signal, when everything is saved.
    """
    key = RunKey(config["task_id"], config["trial"], config["seed"])
    root = key.folder(config["checkpoint_dir"])
    with open_output_dir(root, flag="--checkpoint_dir", other="another --trial or --seed") as folder:
        saved, location, is_longer = _saved_state(folder, config, given), None, False
        if saved is None:
            config = config | {"seed": key.trial if key.seed is None else key.seed}
            for task_id, _ in tasks_of(config):
                check_teachable(task_id, config["seed"], config["max_steps"])
        else:
            location = _encoder_location(saved["config"], config, given)
            if is_longer := _is_longer(saved["config"], config, given):
                saved = _before_decay(folder, saved, config["num_updates"])
            config = _continued(saved["config"], saved["update"], config, given, folder)
            if saved["update"] == config["num_updates"] and (folder / FINAL_NAME).exists():
                return _finished(folder, key, saved["update"])
        device = choose_device(config["device"])
        encoder = load_encoder(config["lang_encoder"], location)
        encoder.check_fingerprint(config.get("encoder_fingerprint"))
        with nullcontext() if saved is None else reading(folder / STATE_NAME, "training state"):
            new_run = ImitationRun(config, encoder, device)
        with closing(new_run) as run:
            _tell_slots(run)
            wandb_run = _start_wandb(config["wandb_project"], key.label, run.config)
            if saved is None and config["overwrite"]:
                _remove_old_run(folder)
            if saved is not None and is_longer and (folder / FINAL_NAME).exists():
                with reading(folder / FINAL_NAME, "checkpoint"):
                    update = load_checkpoint(folder / FINAL_NAME)["update"]
                end = (folder / FINAL_NAME).rename(folder / f"checkpoint_{update}.pt")
                print(f"going on from update {saved['update']}, before the learning rate fell; the end so far is {end}")
            final_path = drive(
                run, folder, config["num_updates"], key.label, log_interval=config["log_interval"],
                checkpoint_interval=config["checkpoint_interval"], saved=saved, branch_update=run.decay_update,
                kept_updates=_old_ends(folder), on_row=lambda row: wandb_run and wandb_run.log(row, step=run.update),
            )  # fmt: skip
            if wandb_run is not None:
                wandb_run.finish()
            return final_path


def _tell_slots(run: ImitationRun) -> None:
    slots = [(task.name, range(run.config["num_envs"])[task.slots]) for task in run.tasks]
    if len(slots) > 1:
        print("slots:", ", ".join(f"{name} {of_task[0]} to {of_task[-1]}" for name, of_task in slots))


def _finished(folder: Path, key: RunKey, update: int) -> Path:
    """The final checkpoint of a run that is trained already; draws its curve if it was killed before it had one."""
    if not (folder / CURVE_NAME).exists() and (folder / LOG_NAME).exists():
        log = read_log(folder / LOG_NAME, update)
        draw_curve(folder, ImitationRun.columns, log, key.label)
    print(f"{key.label} is trained already: {folder / FINAL_NAME} (more: --resume --num_updates N)")
    return folder / FINAL_NAME


# --- a run that is continued ----------------------------------------------------------------------------------------


def _saved_state(folder: Path, config: dict, given: Collection[str]) -> dict | None:
    """The state to continue from; None for a new run, whose folder must be free."""
    state_path = folder / STATE_NAME
    has_checkpoint = any(folder.glob("checkpoint_*.pt"))
    if not config["resume"]:
        if (state_path.exists() or has_checkpoint) and not config["overwrite"]:
            raise InputError(
                f"{folder} holds a run already; continue it with --resume, replace it with --overwrite, "
                "or choose another --trial or --seed"
            )
        return None
    if state_path.exists():
        return _load_state(state_path, set(config) - {"resume", "overwrite", "checkpoint_dir"})
    if (folder / FINAL_NAME).exists():
        raise InputError(f"{folder} has a final checkpoint but no {STATE_NAME} to continue from")
    if "name" in given and "task_id" not in given and "tasks" not in given:  # a name alone, mistyped?
        raise InputError(f"there is no run in {folder}; to begin one of this --name, add --task_id or --tasks")
    print(f"nothing to resume in {folder}: starting anew")
    return None


def _load_state(path: Path, needed: set[str]) -> dict:
    """A state of this version, with the needed keys in its config and with the weights which its config describes."""
    with reading(path, "training state", "train anew with --overwrite"):
        state = load_training_state(path)
        keys = set(state["config"])
        if odd := (needed - keys) | (keys - set(KEYS)):
            names = ", ".join(sorted(odd))
            raise InputError(f"it is of another version ({names} of its config); train anew with --overwrite")
        if len(state["hidden"]) != state["config"]["num_envs"] or type(state["update"]) is not int:
            raise InputError("it is no training state; train anew with --overwrite")
        check_weights(state["config"], state["policy_state_dict"])
        return state


def _encoder_location(old: dict, asked: dict, given: Collection[str]) -> str | None:
    """Where the run's encoder lies on this machine, if the user says so; its fingerprint is checked.

    old: the run's own config. None: the encoder is found by its recorded name.
    """
    name = asked["lang_encoder"]
    return None if "lang_encoder" not in given or name == old["lang_encoder"] else name


def _continued(old: dict, update: int, asked: dict, given: Collection[str], folder: Path) -> dict:
    """The run's own config `old` with the settings of the machine that the user gave; other changes are refused."""
    if old["policy"] != asked["policy"]:
        raise InputError(f"{folder} holds a {old['policy']!r} run, not {asked['policy']!r}; use the other script")
    fixed = {*given, "tasks"} if "task_id" in given and asked["tasks"] is not None else {*given}  # it named several
    fixed -= {*RUNTIME_KEYS, "seed"} | (set() if old["lang_encoder"] in EMBEDDED else {"lang_encoder"})
    wrong = sorted(name for name in fixed & old.keys() if old[name] != asked[name])
    if wrong:
        differences = ", ".join(f"{name} {old[name]}, not {asked[name]}" for name in wrong)
        raise InputError(f"the run in {folder} has {differences}; leave these flags out to resume it")
    now = {"resume", "overwrite", "checkpoint_dir"} | (set(given) & set(RUNTIME_KEYS))
    config = old | {name: asked[name] for name in now}
    if update > config["num_updates"]:
        raise InputError(f"{folder} is at update {update}, past --num_updates {config['num_updates']}")
    return config


def _is_longer(old: dict, asked: dict, given: Collection[str]) -> bool:
    """Whether more updates are asked for than the learning rate falls over."""
    return bool(old["lr_decay"]) and "num_updates" in given and asked["num_updates"] > old["scheduled_updates"]


def _before_decay(folder: Path, state: dict, num_updates: int) -> dict:
    """The state, or the one before the learning rate fell, as that of a run of more updates."""
    path, config = folder / BRANCH_NAME, state["config"]
    if state["update"] > decay_start(config):
        if not path.exists():
            raise InputError(
                f"the learning rate of the run in {folder} falls to 0 at update {config['scheduled_updates']}, and "
                f"there is no {BRANCH_NAME} from which to go on to {num_updates}: train anew with --overwrite, or "
                "another --trial"
            )
        state = _load_state(path, set(config))
    state["config"]["scheduled_updates"] = num_updates
    return state


def _old_ends(folder: Path) -> set[int]:
    """Updates at which the run ended before it was lengthened; a checkpoint on the way is of less than its run's."""
    told = map(quick_config, folder.glob("checkpoint_[0-9]*.pt"))
    return {about["update"] for about in told if about.get("update", -1) == about.get("num_updates")}


def _remove_old_run(folder: Path) -> None:
    """Remove the files of an old run that could be taken for those of the new one; `TrainingLog` removes the log."""
    for name in (STATE_NAME, BRANCH_NAME, "checkpoint_*.pt", CURVE_NAME):
        for path in folder.glob(name):
            path.unlink()


def _start_wandb(project: str | None, name: str, config: dict):
    if project is None:
        return None
    try:
        import wandb
    except ImportError:
        raise InputError("--wandb_project needs Weights & Biases: pip install wandb") from None
    return wandb.init(project=project, name=name, config=config)
