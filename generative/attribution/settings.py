"""What the commands of attribution share: settings, and the folder of their results."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.recordings.format import SPLITS
from generative.simulators.evaluation import MIN_FIDELITY
from mop.common.cli import as_dict, required, setting
from mop.common.files import check_writable, open_output_dir, whole_digest

RUNTIME = ("out", "data_dir", "checkpoint", "lang_encoder", "min_fidelity")  # results do not depend on them


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
        if settings.pop("directions", None) is not None:
            settings["directions"] = whole_digest(self.directions)
        return settings


@contextmanager
def open_results(out: Path, record: dict[str, Any]) -> Iterator[None]:
    """Hold the folder of an analysis, and write what it is made with, or check that it is the same."""
    check_writable(out, "--out")
    with open_output_dir(out, record):
        yield
