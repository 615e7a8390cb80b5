"""The settings that the commands of attribution share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.recordings.format import SPLITS
from generative.simulators.evaluation import MIN_FIDELITY
from mop.common.cli import as_dict, required, setting
from mop.common.files import whole_digest

RUNTIME = ("out", "data_dir", "checkpoint", "min_fidelity")  # results do not depend on them


@dataclass(frozen=True, kw_only=True)
class AnalysisSettings:
    """Settings of every command of attribution."""

    data_dir: str = required("folder of a recording (python -m generative.record)")
    checkpoint: str | None = setting(None, "the recorded policy, if it lies elsewhere now")
    min_fidelity: float = setting(MIN_FIDELITY, "of a learned simulator", low=0, high=1)
    split: str = setting("test", "split of the episodes", choices=SPLITS)
    out: Path | None = setting(None, "folder of the results (default: a folder in plots/)")

    def recorded(self, *leave_out: str) -> dict[str, Any]:
        """The settings that a folder of results is made with; directions by the digest of their file."""
        settings = as_dict(self, (*RUNTIME, *leave_out))
        if (directions := settings.pop("directions", None)) is not None:
            settings["directions"] = whole_digest(directions)
        return settings
