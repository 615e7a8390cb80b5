"""The recordings, episodes and simulators of a page, and which are shown first."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generative.recordings.format import BEHAVIOURS, CONFIG, SPLITS, Episode, Recording, load_config
from generative.simulators.base import EXACT
from mop.common.cli import as_flags
from mop.common.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

REPOSITORY = Path(__file__).parents[2]
RECORDINGS_DIR, SIMULATORS_DIR = "recordings", "simulators"
ZOO = "results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt"
SMALL: dict[str, Any] = {"num_steps": 4000, "name": "UnlockPickup"}  # the recording that the page offers to make
BABYAI = "babyai"  # the domain of recordings that the page shows


def find_recordings(data_dir: str | None) -> dict[str, str]:
    """The recordings that can be shown: name -> folder; the requested one first, then those next to it."""
    asked = Path(data_dir or RECORDINGS_DIR)
    root = asked.parent if (asked / CONFIG).is_file() else asked
    found = sorted(path.parent for path in root.glob(f"*/{CONFIG}")) if root.is_dir() else []
    found = [path for path in found if not _is_of_game(path)]
    if data_dir is not None and (asked / CONFIG).is_file():
        if _is_of_game(asked):
            raise InputError(f"{asked} is a recording of a game; the page shows those of BabyAI's worlds")
        found = [asked, *(path for path in found if path != asked)]
    if not found:
        raise InputError(
            f"there is no recording under {asked}/: `python -m generative.record --checkpoint {ZOO} "
            f"--num_steps {SMALL['num_steps']} --data_dir {RECORDINGS_DIR}/{SMALL['name']}` makes a small one"
        )
    return {path.name: path.as_posix() for path in found}


def _is_of_game(folder: Path) -> bool:
    """Whether a recording is of a game, which the page does not show; False if its config is damaged."""
    try:
        return load_config(folder)["encoding"].get("domain", BABYAI) != BABYAI
    except InputError:
        return False


def record_small(data_dir: str | None) -> str:
    """Make the small recording, in a process of its own; its folder."""
    folder = Path(data_dir or RECORDINGS_DIR) / SMALL["name"]
    given = {"checkpoint": REPOSITORY / ZOO, "num_steps": SMALL["num_steps"], "data_dir": folder.absolute()}
    words = [sys.executable, "-m", "generative.record", *as_flags(given)]
    words += ["--resume"] if (folder / CONFIG).is_file() else []
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(words, check=False, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise InputError(result.stderr.strip().splitlines()[-1].removeprefix("error: "))
    return folder.as_posix()


def list_episodes(recording: Recording) -> "pd.DataFrame":
    """What is known of each episode, a row for each."""
    import pandas as pd

    index = recording.index
    return pd.DataFrame(
        {
            "episode": np.arange(len(recording)),
            "who acts": np.array(BEHAVIOURS)[index["behaviour"]],
            "split": np.array(SPLITS)[index["split"]],
            "steps": index["num_rows"] - 1,
            "outcome": np.where(index["success"], "succeeded", "failed"),
            "mission": np.array(recording.missions)[index["mission"]],
        }
    )


def first_episode(recording: Recording) -> int:
    """The first to be shown: one in which the policy acts by its argmax, in a world of the test split."""
    index = recording.index
    argmax, test = BEHAVIOURS.index("argmax"), SPLITS.index("test")
    score = 2 * (index["behaviour"] == argmax) + (index["split"] == test)
    return int(score.argmax())


def num_steps_of(episode: Episode) -> int:
    """The number of actions of an episode; its steps are 0, 1, ... below that."""
    return len(episode["action"]) - 1


def first_step(episode: Episode) -> int:
    """The step that is shown first: the one on which the policy spends most, of those with some steps before them."""
    num_steps = num_steps_of(episode)
    after = min(4, num_steps - 1)
    return after + int(np.argmax(episode["lpc"][after:num_steps]))


def find_simulators(asked: str | None) -> dict[str, str]:
    """What a page offers: name -> folder of a simulator, EXACT first."""
    folders = sorted(path.parent.as_posix() for path in Path(SIMULATORS_DIR).glob("*/checkpoint_final.pt"))
    folders = [*([asked] if asked is not None and asked not in (EXACT, *folders) else []), *folders]
    return {"exact (Minigrid's rules)": EXACT} | {f"learned: {Path(folder).name}": folder for folder in folders}
