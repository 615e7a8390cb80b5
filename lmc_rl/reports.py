"""What is written about experiments: the figures and the table of one, or of several together."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lmc_rl.analysis import HEAD, Experiment, as_markdown, as_text, labels_of, pooled_groups, table_of
from lmc_rl.figures import plot_all_paths, plot_instability, plot_path
from mop.common.errors import InputError
from mop.common.files import write_atomic, write_figure


def report(experiments: Sequence[Experiment], folder: Path, say: Callable[[str], object] = print) -> None:
    """Write the figures and the table of these experiments to a folder, and tell the table.

    Raises InputError where there is neither a fork nor a control.
    """
    if not any(experiment.forks or experiment.controls for experiment in experiments):
        raise InputError(f"{experiments[0].results} has no fork and no control: there is no path to show")
    names = _names(experiments)
    paths = {
        name: (*experiment.forks, *(c for c in experiment.controls if c.kind == "independent"))
        for name, experiment in zip(names, experiments, strict=True)
    }
    paths = {name: results for name, results in paths.items() if results}
    if paths:
        write_figure(
            folder / "all_interpolations.png", plot_all_paths(paths, "Return between the children of each fork")
        )
    for fork in sorted({result.fork for experiment in experiments for result in experiment.forks}):
        of_fork = {
            name: result
            for name, experiment in zip(names, experiments, strict=True)
            for result in experiment.forks
            if result.fork == fork
        }
        fractions = sorted({f"{result.fraction:.0%}" for result in of_fork.values()})
        title = f"Return between the children of fork {fork}, at {' and '.join(fractions)} of the training"
        write_figure(folder / f"interp_fork_{fork}.png", plot_path(of_fork, title))
    groups = pooled_groups(experiments)
    with_forks = {label: points for label, points in groups.items() if any(p.kind == "fork" for p in points)}
    if with_forks:
        write_figure(folder / "instability_over_time.png", plot_instability(with_forks))
    rows = table_of(groups)
    write_atomic(folder / "instability.md", lambda file: file.write(as_markdown(HEAD, rows).encode()))
    say(as_text(HEAD, rows))
    say(f"figures and table: {folder}")


def _names(experiments: Sequence[Experiment]) -> list[str]:
    """What the panels of experiments are called."""
    if len(experiments) == 1:
        return [f"{labels_of([experiments[0].settings])[0]}, seed {experiments[0].seed}"]
    labels = labels_of([experiment.settings for experiment in experiments])
    return [f"{label}, seed {experiment.seed}" for label, experiment in zip(labels, experiments, strict=True)]
