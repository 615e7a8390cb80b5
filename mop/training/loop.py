"""The training loop of any run: log, progress bar, checkpoints, and a state on disk from which a killed run continues.

What is learned, and from what, is the run's own affair: see `Trainable`, of which `imitation.ImitationRun` is one.
"""

import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from mop.artifacts.checkpoints import save_checkpoint, save_training_state
from mop.common.files import write_figure
from mop.common.interruption import Interruption
from mop.common.reading import reading
from mop.training.log import Columns, Logged, TrainingLog
from mop.training.states import check_form

if TYPE_CHECKING:
    import pandas as pd

LOG_NAME = "training_log.csv"
STATE_NAME = "training_state.pt"
BRANCH_NAME = "state_before_decay.pt"  # the state from which a longer run branches off
FINAL_NAME = "checkpoint_final.pt"
CURVE_NAME = "training_curve.png"
STATE_INTERVAL_S = 120.0  # time between states on disk from which a killed run continues


class Trainable(Logged, Protocol):
    """A training run, as one object that can be stepped, shown, saved and restored."""

    def step_update(self) -> dict[str, float]:
        """Do one update. Returns measures of it, of the same names each time; the log shows their means."""

    def warnings(self, measures: Mapping[str, float]) -> dict[str, str]:
        """What the user must know of the update with these measures: kind -> text. A kind is told once in a run."""
        return {}

    def checkpoint(self) -> dict:
        """What is kept of the run: the result so far, with a dictionary `config` of plain values.

        Refuse where the result is worth nothing: then nothing is written.
        """

    def state(self) -> dict:
        """Everything that the rest of the run depends on, as nested dictionaries and lists of tensors and numbers."""

    def load_state(self, state: Any) -> None:
        """Continue where `state()` was taken. Keys that it does not know are not its own, and it leaves them alone."""


@dataclass(frozen=True)
class FileNames:
    """What the files of a run are called: its log, its checkpoints on the way, and the last one."""

    log: str = LOG_NAME
    periodic: Callable[[Trainable], str] = lambda run: f"checkpoint_{run.update}.pt"
    final: Callable[[Trainable], str] = lambda run: FINAL_NAME


_USUAL = FileNames()
_LONG_S = 86_400.0  # which no user waits for unasked
# short, so that 80 columns have room for the most important numbers
_BAR = "{desc} {n_fmt}/{total_fmt} {remaining} left{postfix}"


def drive(
    run: Trainable, folder: Path, num_updates: int, label: str, *, log_interval: int = 10, checkpoint_interval: int = 0,
    checkpoint_updates: Container[int] = (), branch_update: int | None = None, names: FileNames = _USUAL,
    saved: Mapping | None = None, on_row: Callable[[dict[str, float]], object] = lambda row: None,
    checkpoint_on_interrupt: bool = True, kept_updates: Container[int] = (),
    is_over: Callable[[], bool] = lambda: False,
) -> Path:  # fmt: skip
    """Train a run up to `num_updates` updates; the path of its final checkpoint, in `folder`.

    label: the name of the run in what is printed; log_interval: updates between rows of training_log.csv;
    checkpoint_interval: updates between checkpoints checkpoint_<U>.pt, 0 for none; checkpoint_updates: further updates
    after which there is one; branch_update: after it, the state is also kept as BRANCH_NAME; names: of files that are
    called otherwise; saved: what training_state.pt holds, to continue from it; on_row: called with each new row of the
    log; checkpoint_on_interrupt: whether an interruption leaves a checkpoint_<U>.pt besides the state; kept_updates: of
    checkpoints that are there already and stay; is_over: asked after each update, whether the run ends here, before
    `num_updates`. Raises KeyboardInterrupt after SIGINT or SIGTERM, when everything is saved; it says where.
    """
    unfinished_row = None
    if saved is not None:
        with reading(folder / STATE_NAME, "training state of this run", "train anew"):
            run.load_state(saved)
            unfinished_row = saved.get("unfinished_row") or {}
            check_form(list(unfinished_row.values()), [0.0], "unfinished_row")
        print(f"resuming {label} at update {run.update} of {num_updates}")
    log = TrainingLog(folder / names.log, run, unfinished_row)
    files = _Files(run, folder, log)

    def is_due() -> bool:
        at_interval = checkpoint_interval and run.update % checkpoint_interval == 0
        return (bool(at_interval) or run.update in checkpoint_updates) and run.update not in kept_updates

    if saved is not None and saved.get("is_interrupted") and not is_due():
        (folder / names.periodic(run)).unlink(missing_ok=True)  # it was written for the interruption alone
    files.save_state()  # at once: it marks the folder as in use, and a run can be resumed from its first second on
    told: set[str] = set()
    with (
        Interruption() as interruption,
        tqdm(total=num_updates, initial=run.update, desc=label, dynamic_ncols=True, bar_format=_BAR) as bar,
    ):
        begun, first_update = time.monotonic(), run.update
        while run.update < num_updates and not is_over():
            measures = run.step_update()
            log.add(measures)
            bar.update()
            left_s = (num_updates - run.update) * (time.monotonic() - begun) / (run.update - first_update)
            _tell(run.warnings(measures) | _of_long_runs(left_s), told, run.update)
            if run.update == branch_update:
                files.save_state(BRANCH_NAME)
            is_last = run.update == num_updates or is_over()
            if is_last or run.update % log_interval == 0:
                row = log.write_row(run)
                bar.set_postfix_str(run.columns.bar_text(row), refresh=False)  # forced, it is a line in a log file
                on_row(row)
            if is_last:
                break
            if interruption.signal is not None:
                if checkpoint_on_interrupt and run.update not in kept_updates:
                    path = files.save_checkpoint(names.periodic(run), is_interrupted=True)
                else:
                    path = files.save_state()
                bar.close()
                raise KeyboardInterrupt(f"saved {path}; the same command with --resume goes on")
            if is_due():
                files.save_checkpoint(names.periodic(run))
            elif time.monotonic() - files.saved_at > STATE_INTERVAL_S:
                files.save_state()
    final_path = files.save_checkpoint(names.final(run))
    if log.rows:
        curve_path = draw_curve(folder, run.columns, log.table(), label)
        print(_closing_table(run.columns, log, final_path, curve_path))
    return final_path


def draw_curve(folder: Path, columns: Columns, table: "pd.DataFrame", label: str) -> Path | None:
    """Draw the curve of a run from all rows of its log; its path, None where such runs have no curve."""
    return None if columns.plot is None else write_figure(folder / CURVE_NAME, columns.plot(table, label))


class _Files:
    def __init__(self, run: Trainable, folder: Path, log: TrainingLog):
        self._run, self._folder, self._log = run, folder, log

    def save_state(self, name: str = STATE_NAME, is_interrupted: bool = False) -> Path:
        """Write log and state, which belong together; the state's path.

        is_interrupted: whether there is a checkpoint of this update because the run was interrupted.
        """
        if self._log.rows:
            self._log.save()
        state = self._run.state() | {"unfinished_row": self._log.unfinished_row}
        state |= {"is_interrupted": True} if is_interrupted else {}
        save_training_state(self._folder / name, state)
        self.saved_at = time.monotonic()
        return self._folder / name

    def save_checkpoint(self, name: str, is_interrupted: bool = False) -> Path:
        """Write a checkpoint, then the state; a run that is killed in between continues from the state before."""
        save_checkpoint(self._folder / name, self._run.checkpoint())
        self.save_state(is_interrupted=is_interrupted)
        return self._folder / name


def _of_long_runs(left_s: float) -> dict[str, str]:
    if left_s < _LONG_S:
        return {}
    days = f"about {left_s / 86_400:.0f} days are left at this speed, on this machine"
    return {"long": f"{days}; Ctrl-C and --resume lose nothing"}


def _tell(warnings: Mapping[str, str], told: set[str], update: int) -> None:
    """Print the warnings of kinds that are not in `told` yet, and put them there."""
    for kind, text in warnings.items():
        if kind not in told:
            tqdm.write(f"warning: at update {update} {text}")
            told.add(kind)


def _closing_table(columns: Columns, log: TrainingLog, final_path: Path, curve_path: Path | None) -> str:
    lines = dict(columns.closing_lines(log.rows[-1])) | {"checkpoint": str(final_path)}
    lines |= {"log": str(log.path)} if curve_path is None else {"log, curve": f"{log.path}, {curve_path}"}
    return "\n".join(f"{name:>15}  {text}" for name, text in lines.items())
