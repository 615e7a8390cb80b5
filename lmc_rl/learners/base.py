"""What an experiment asks of a kind of learner: runs that can be forked, and measures of the lines between policies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from lmc_rl.analysis.results import ExperimentPaths
from lmc_rl.analysis.table import LineKey
from lmc_rl.config import ExperimentConfig
from mop.artifacts.checkpoints import load_training_state, save_training_state
from mop.common.reading import reading
from mop.training.loop import Trainable, drive

_REMAKE = "remove it: with --resume the parent is trained once more, up to it"
Made = TypeVar("Made")
Config = TypeVar("Config", bound=ExperimentConfig)
Run = TypeVar("Run", bound=Trainable)


@dataclass(frozen=True)
class Line:
    """A line between two policies in files; the policy that acts at random has none."""

    key: LineKey
    first: Path | None = None
    second: Path | None = None
    is_played: bool = True

    @property
    def ends(self) -> tuple[Path, Path]:
        """Both files."""
        assert self.first is not None and self.second is not None, "the random policy has no file"
        return self.first, self.second


class WorkItem:
    """Rows of a file that are measured at once, in this process or in another."""

    def places(self) -> list[dict[str, Any]]:
        """What each of its rows says of where it belongs; known before they are measured."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Do once what several processes would do each."""

    def rows(self) -> list[dict[str, Any]]:
        """Measure."""
        raise NotImplementedError


class Learner(Generic[Config, Run]):
    """A kind of learner with the settings and files of an experiment; it can be sent to another process."""

    PACKAGES: ClassVar[tuple[str, ...]]  # whose versions config.json names
    DRAWN: ClassVar[tuple[str, ...]]  # kinds of trainings whose curve is drawn; of the others the log is enough

    def __init__(self, config: Config, paths: ExperimentPaths):
        self.config, self.paths = config, paths

    @classmethod
    def prepare(cls, config: Config) -> Config:
        """The settings with what this machine decides. Refuses what cannot be trained, before anything is written."""
        raise NotImplementedError

    def check_teaching(self) -> None:
        """Refuse a task that cannot be learned, where finding out takes seconds."""

    # --- training ---

    @property
    def trains_forks_together(self) -> bool:
        """Whether the children of a fork are one run."""
        return False

    def parent(self) -> Any:
        """The run that is forked, which is one of `SnapshotsAtForks` too."""
        raise NotImplementedError

    def parent_of(self, forks: Sequence[int], is_for_snapshots: bool = False) -> Run:
        """The parent, which leaves a snapshot at these forks, and apart from that learns as a run without forks.

        is_for_snapshots: whether it ends behind the last of them.
        """
        run = self.parent()
        updates = [step // self.config.steps_per_update for step in self.config.fork_steps]
        run.snapshots = {updates[fork]: self.paths.snapshot(fork) for fork in forks}
        run.is_for_snapshots = is_for_snapshots
        return run

    def independent(self) -> Run:
        """A run from other weights."""
        raise NotImplementedError

    def fork(self, fork: int, child: int) -> Run:
        """A child, from 1 on, that continues from the snapshot of a fork with noise of its own."""
        raise NotImplementedError

    def continued(self, fork: int, make: Callable[[dict], Made]) -> Made:
        """What is made of the snapshot of a fork."""
        path = self.paths.snapshot(fork)
        with reading(path, "snapshot of this experiment", _REMAKE):
            return make(load_training_state(path))

    def fork_together(self, fork: int) -> Run:
        """All children of a fork as one run, where `trains_forks_together`."""
        raise NotImplementedError

    @property
    def log_interval(self) -> int:
        """Updates between rows of the log."""
        raise NotImplementedError

    @property
    def checkpoint_interval(self) -> int:
        """Updates between checkpoints on the way; 0: there is none."""
        return 0

    def train(self, run: Run, folder: Path, label: str, saved: dict | None) -> None:
        """Train a run to its end."""
        drive(
            run,
            folder,
            self.config.total // self.config.steps_per_update,
            label,
            log_interval=self.log_interval,
            checkpoint_interval=self.checkpoint_interval,
            saved=saved,
            checkpoint_on_interrupt=False,
            is_over=lambda: isinstance(run, SnapshotsAtForks) and run.is_over,
        )

    def report(self, run: Run) -> str:
        """How a trained run ended, in words."""
        raise NotImplementedError

    # --- lines ---

    def lines(self, whole: Line) -> list[Line]:
        """The lines between two policies that are measured; whole: the one on which all weights move."""
        return [whole]

    def measures(self, lines: Sequence[Line]) -> Iterator[tuple[str, Any]]:
        """Name and value of what is measured once for the lines between two policies; also writes an aligned end."""
        raise NotImplementedError

    def work(self, lines: Sequence[Line]) -> Mapping[str, Sequence[WorkItem]]:
        """What is measured at each alpha and episode of all lines of an experiment: name of a file -> its pieces."""
        raise NotImplementedError


class SnapshotsAtForks:
    """Mixin before a run that is forked: it writes its state when it comes to a fork, and learns as one without."""

    snapshots: Mapping[int, Path] = {}  # update -> file
    is_for_snapshots = False  # whether nothing else is wanted of it
    update: int

    @property
    def is_over(self) -> bool:
        """Whether it has gone as far as it is wanted."""
        return self.is_for_snapshots and self.update > max(self.snapshots)

    def step_update(self) -> dict[str, float]:
        run: Any = super()
        if self.update in self.snapshots:
            save_training_state(self.snapshots[self.update], run.state())
        return run.step_update()
