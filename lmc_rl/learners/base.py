"""What an experiment asks of a kind of learner: runs that can be forked, and measures of the lines between policies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from lmc_rl.analysis.results import ExperimentPaths, pair_name
from lmc_rl.config import ExperimentConfig
from mop.artifacts.checkpoints import save_training_state
from mop.training.loop import Trainable

REMAKE = "remove it: with --resume the parent is trained once more, up to it"  # of a snapshot
Config = TypeVar("Config", bound=ExperimentConfig)
Run = TypeVar("Run", bound=Trainable)


@dataclass(frozen=True)
class PolicyPair:
    """Two policies in files; kind random: the policy that acts at random, which has none."""

    kind: str  # fork, self, independent, other, random
    fork: int | None = None
    children: tuple[int, int] | None = None  # of that fork, from 1 on
    first: Path | None = None
    second: Path | None = None

    @property
    def name(self) -> str:
        """What its files are called."""
        return pair_name(self.kind, self.fork, self.children)

    @property
    def ends(self) -> tuple[Path, Path]:
        """Both files."""
        assert self.first is not None and self.second is not None, "the random policy has no file"
        return self.first, self.second

    @property
    def identity(self) -> dict[str, Any]:
        """How rows name it."""
        return {"kind": self.kind, "fork": self.fork, "children": list(self.children) if self.children else None}


@dataclass(frozen=True)
class Line:
    """A line between two policies on which a part of the weights moves."""

    pair: PolicyPair
    part: str = "all"
    is_aligned: bool = False  # whether the second end is the aligned one
    is_played: bool = True

    @property
    def identity(self) -> dict[str, Any]:
        """How rows name it."""
        return self.pair.identity | {"part": self.part, "aligned": self.is_aligned}


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
        run.snapshots = {self.config.fork_steps[fork]: self.paths.snapshot(fork) for fork in forks}
        run.is_for_snapshots = is_for_snapshots
        return run

    def independent(self) -> Run:
        """A run from other weights."""
        raise NotImplementedError

    def fork(self, fork: int, child: int) -> Run:
        """A child, from 1 on, that continues from the snapshot of a fork with noise of its own."""
        raise NotImplementedError

    def fork_together(self, fork: int) -> Run:
        """All children of a fork as one run, where `trains_forks_together`."""
        raise NotImplementedError

    def train(self, run: Run, folder: Path, label: str, saved: dict | None, on_save: Callable) -> None:
        """Train a run to its end, by `mop.training.loop.drive`."""
        raise NotImplementedError

    def report(self, run: Run) -> str:
        """How a trained run ended, in words."""
        raise NotImplementedError

    # --- lines ---

    def lines(self, pair: PolicyPair) -> list[Line]:
        """The lines between two policies that are measured."""
        return [Line(pair)]

    def measures(self, lines: Sequence[Line]) -> Iterator[tuple[str, Any]]:
        """Name and value of what is measured once for the lines between two policies; also writes an aligned end."""
        raise NotImplementedError

    def work(self, lines: Sequence[Line]) -> Mapping[str, Sequence[WorkItem]]:
        """What is measured at each alpha and episode of all lines of an experiment: name of a file -> its pieces."""
        raise NotImplementedError


class SnapshotsAtForks:
    """Mixin before a run that is forked: it writes its state when it comes to a fork, and learns as one without."""

    snapshots: Mapping[int, Path] = {}  # position -> file
    is_for_snapshots = False  # whether nothing else is wanted of it

    @property
    def position(self) -> int:
        """How far the run is, in what `fork_steps` counts."""
        raise NotImplementedError

    @property
    def is_over(self) -> bool:
        """Whether it has gone as far as it is wanted."""
        return self.is_for_snapshots and self.position > max(self.snapshots)

    def step_update(self) -> dict[str, float]:
        run: Any = super()
        if self.position in self.snapshots:
            save_training_state(self.snapshots[self.position], run.state())
        return run.step_update()
