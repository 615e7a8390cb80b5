"""What the trainings of simulators and agents share: the state to resume from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mop.artifacts.checkpoints import load_training_state
from mop.common.errors import InputError
from mop.common.reading import check_types, reading
from mop.common.values import shown
from mop.training.loop import FINAL_NAME, STATE_NAME


def saved_state(folder: Path, config: Mapping, parts: Sequence[str], is_resumed: bool, in_the_way: str) -> dict | None:
    """The state to continue from; None for a new run.

    in_the_way: what is said of a run that is not to be resumed; parts: of its config, in which its settings must be
    these.
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
    with reading(path, "training state of such a run", "train anew"):
        check_types(saved, {"update": int, "config": dict})
        for part in parts:
            for name, value in config[part].items():
                if (was := saved["config"].get(part, {}).get(name)) != value:
                    raise InputError(f"the run in {folder} has {name} {shown(was)}, not {shown(value)}; keep its flags")
    return saved
