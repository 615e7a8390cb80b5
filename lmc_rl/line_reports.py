"""What is written about experiments on imitation runs: the figures and tables of one, or of several together."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lmc_rl.analysis import as_markdown, as_text
from lmc_rl.line_analysis import ALIGNMENT_HEAD, HEAD, LineExperiment, alignments_of, pooled_lines, table_of
from lmc_rl.line_figures import plot_all_lines, plot_line_instability, plot_lines, plot_parts
from mop.common.files import write_atomic, write_figure


def report_lines(experiments: Sequence[LineExperiment], folder: Path, say: Callable[[str], object] = print) -> None:
    """Write the figures and tables of these experiments to a folder, and tell the table.

    Of several, the figures of single forks are left out.
    """
    groups = pooled_lines(experiments)
    forked = {label: lines for label, lines in groups.items() if any(line.first.kind == "fork" for line in lines)}
    if forked:
        write_figure(folder / "instability_over_time.png", plot_line_instability(forked))
        write_figure(folder / "rise_by_part.png", plot_parts(forked))
    for experiment in experiments:
        title = f"{experiment.label}, seed {experiment.seed}"
        more = "" if len(experiments) == 1 else f"_{experiment.results.name}"
        write_figure(folder / f"all_interpolations{more}.png", plot_all_lines(experiment, title))
        for kind, fork in dict.fromkeys((line.kind, line.fork) for line in experiment.lines):
            if len(experiments) > 1:
                break  # they are in the folder of each experiment
            own = [line for line in experiment.lines if (line.kind, line.fork) == (kind, fork)]
            name = f"interp_fork_{fork}" if kind == "fork" else f"interp_{kind}"
            what = f"forked at {own[0].fraction:.1%} of the training" if kind == "fork" else kind
            write_figure(folder / f"{name}.png", plot_lines(own, f"{title}: {what}"))
    rows, aligned = table_of(groups), alignments_of(experiments)
    text = as_markdown(HEAD, rows) + ("\n" + as_markdown(ALIGNMENT_HEAD, aligned) if aligned else "")
    write_atomic(folder / "instability.md", lambda file: file.write(text.encode()))
    say(as_text(HEAD, rows))
    say(f"figures and tables: {folder}")
