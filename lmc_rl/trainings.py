"""The runs of an experiment: which there are, how each is trained to its end, and the walks between their policies.

What `experiment` (reinforcement learning) and `imitation` (pathways policies) share.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from lmc_rl.records import Places, Walk
from mop.artifacts.checkpoints import load_training_state, save_checkpoint
from mop.common.files import remove_leftovers
from mop.training.loop import FINAL_NAME, STATE_NAME, Trainable


@dataclass(frozen=True)
class Training:
    """A run to be trained: the parent, an independent one, a child, or all children of a fork that share a buffer."""

    settings: dict
    places: Places
    kind: str  # parent, independent, child, children, self
    fork: int | None = None
    child: int | None = None  # from 1 on

    @property
    def label(self) -> str:
        """Its name in what is printed, and of its folder."""
        return "_".join(str(part) for part in (self.kind, self.fork, self.child) if part is not None)

    @property
    def folder(self) -> Path:
        """Where its log is, and its state while it is trained."""
        return self.places.results / "training" / self.label

    @property
    def targets(self) -> list[Path]:
        """The files of its final weights."""
        names = {"parent": "final", "independent": "independent", "self": f"self_{self.fork}"}
        if self.kind in names:
            return [self.places.weights / f"{names[self.kind]}.pt"]
        children = [self.child] if self.kind == "child" else range(1, self.settings["children"] + 1)
        return [self.places.child(self.fork, child) for child in children]

    @property
    def is_finished(self) -> bool:
        """Whether all of its weights are there."""
        return all(path.exists() for path in self.targets)

    @property
    def has_curve(self) -> bool:
        """Whether its curve is drawn; where not, its log is enough: it is one of many."""
        raise NotImplementedError

    def make(self) -> Trainable:
        """The run at its beginning."""
        raise NotImplementedError

    def drive(self, run: Trainable, saved: dict | None, on_save: Callable[[], object]) -> None:
        """`loop.drive` with the intervals of its settings, quietly: its files are not where they will stay."""
        raise NotImplementedError

    def report(self, run: Trainable) -> str:
        """What to say of it once it is trained."""
        raise NotImplementedError

    def train(self, on_save: Callable[[], object] = lambda: None) -> None:
        """Train it to its end, from its last state if there is one; then only its weights and its log are kept.

        on_save: called when its files are a state to continue from.
        """
        state_path, final_path = self.folder / STATE_NAME, self.folder / FINAL_NAME
        if not self.is_finished:
            remove_leftovers(self.folder.glob(".*.tmp"))
            run = self.make()
            try:
                if not self.has_curve:
                    run.columns = replace(run.columns, plot=None)
                saved = load_training_state(state_path) if state_path.exists() else None
                with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                    self.drive(run, saved, on_save)
                for path, learner in zip(self.targets, getattr(run, "learners", [run]), strict=False):
                    save_checkpoint(path, learner.checkpoint())
                print(f"{self.label}: {self.report(run)}")
            finally:
                getattr(run, "close", lambda: None)()
        state_path.unlink(missing_ok=True)
        final_path.unlink(missing_ok=True)


Kind = TypeVar("Kind", bound=Training)


def plan(kind: type[Kind], settings: dict, places: Places, is_shared: bool = False) -> tuple[list[Kind], list[Kind]]:
    """What depends on nothing, and what needs the snapshots of the parent.

    is_shared: whether the children of a fork are trained together.
    """
    first = [kind(settings, places, "parent")]
    if "independent" in settings["controls"]:
        first.append(kind(settings, places, "independent"))
    forks, children = range(len(settings["fork_points"])), range(1, settings["children"] + 1)
    if is_shared:
        later = [kind(settings, places, "children", fork) for fork in forks]
    else:
        later = [kind(settings, places, "child", fork, child) for fork in forks for child in children]
    if "self" in settings["controls"] and settings["fork_points"]:
        later.append(kind(settings, places, "self", len(settings["fork_points"]) - 1))
    return first, later


def train_stages(stages: Sequence[Sequence[Training]], workers) -> None:
    """Train what is not trained, stage after stage; workers: `stages.Workers`."""
    for stage in stages:
        waiting = [training for training in stage if not training.is_finished]
        for training in stage:
            if training.is_finished:
                training.train()  # removes what a kill has left
        for _ in workers.in_order(Training.train, waiting, "training"):
            pass


def walks_between(settings: Mapping, places: Places) -> list[Walk]:
    """The controls, and a walk for each fork and pair of children."""
    last, found = len(settings["fork_points"]) - 1, []
    if "self" in settings["controls"] and last >= 0:
        found.append(Walk("self", last, None, places.child(last, 1), places.weights / f"self_{last}.pt"))
    if "independent" in settings["controls"]:
        found.append(Walk("independent", None, None, places.weights / "final.pt", places.weights / "independent.pt"))
    pairs = list(combinations(range(1, settings["children"] + 1), 2))
    for fork in range(last + 1):
        found += [Walk("fork", fork, pair, *(places.child(fork, child) for child in pair)) for pair in pairs]
    return found
