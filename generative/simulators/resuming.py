"""From where a training of this package goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mop.artifacts.checkpoints import load_training_state
from mop.common.errors import InputError
from mop.common.values import shown
from mop.training.loop import FINAL_NAME, STATE_NAME


def saved_state(folder: Path, config: Mapping, parts: Sequence[str], is_resumed: bool, in_the_way: str) -> dict | None:
    """The state to continue from; None for a new run.

    Raises InputError where there is a run that is not to be resumed, with `in_the_way` for what it holds and the ways
    out; and where the settings of the saved run, in these parts of its config, are others.
    """
    path = folder / STATE_NAME
    if not is_resumed:
        if path.exists() or (folder / FINAL_NAME).exists():
            raise InputError(f"{folder} holds {in_the_way}")
        return None
    if not path.exists():
        print(f"nothing to resume in {folder}: starting anew")
        return None
    saved = load_training_state(path)
    old = saved.get("config", {})
    for part in parts:
        for name, value in config[part].items():
            was = old.get(part, {}).get(name)
            if was != value:
                raise InputError(f"the run in {folder} has {name} {shown(was)}, not {shown(value)}; keep its flags")
    return saved
