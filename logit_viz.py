"""Which actions a policy chooses, and where it is uncertain: marimo run logit_viz.py"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import marimo

__generated_with = "0.25.2"
app = marimo.App(
    width="full",
    app_title="Actions of a policy",
    css_file="mop/apps/page.css",
    html_head_file="mop/apps/head.html",
)

with app.setup:
    import marimo as mo

    from mop.apps import elements, run_controls, run_figures
    from mop.apps.flags import RunSettings
    from mop.apps.run_figures import Shown
    from mop.plotting.measures import MEASURES


@app.cell
def _():
    args = elements.start(
        "logit_viz.py",
        RunSettings,
        "Which actions a policy chooses, and where it is uncertain.",
        "plots/<run key>/",
        lambda args: run_figures.save_as_script("logit_viz.py", args, run_figures.action_figures),
    )
    refresh_button = mo.ui.run_button(label="Refresh", tooltip="Look for new runs, caches and checkpoints")
    return args, refresh_button


@app.cell
def _(args, refresh_button):
    refresh_button.value  # pressed: look again
    view, found_runs, run_dropdown = run_controls.choose_from_runs(args, refresh_button)
    return found_runs, run_dropdown, view


@app.cell
def _(args, found_runs, run_dropdown, view):
    checkpoints = found_runs[run_dropdown.value]
    evaluation_controls = run_controls.evaluation_controls(checkpoints, view, args)
    return checkpoints, evaluation_controls


@app.cell
def _(checkpoints, evaluation_controls, refresh_button, run_dropdown):
    run = run_controls.chosen_run(checkpoints, evaluation_controls)
    run_controls.controls_row(checkpoints, run_dropdown, evaluation_controls, refresh_button)
    return (run,)


@app.cell
def _(evaluation_controls, run):
    num_fresh, routing_data = run_controls.load_or_evaluate(run, evaluation_controls)
    run_controls.metrics_row(run, routing_data, num_fresh is not None)
    return num_fresh, routing_data


@app.cell
def _(args, routing_data, view):
    figures = {"action frequency": "frequency"} | {name: name for name in run_figures.ACTION_MAPS}
    analyses = run_figures.analyses_of_actions(routing_data)
    map_control, expert_control, analysis_control, scale_control, min_steps_control, steps_control = (
        run_controls.figure_controls(view, args, routing_data, figures, "Figure", analyses)
    )
    return analysis_control, expert_control, map_control, min_steps_control, scale_control, steps_control


@app.cell
def _(
    analysis_control,
    args,
    expert_control,
    map_control,
    min_steps_control,
    num_fresh,
    routing_data,
    run,
    scale_control,
    steps_control,
):
    figure_controls = run_controls.FigureControls(
        map_control, expert_control, analysis_control, scale_control, min_steps_control, steps_control
    )
    chosen = figure_controls.value
    measure = MEASURES.get(chosen["map"])  # None of the frequency
    shown = Shown.of(run, num_fresh, chosen, measure)
    shown_data = run_figures.part_of(routing_data, shown.steps)
    page = run_figures.page_of("logit_viz.py", shown, shown_data, run_figures.action_figures, args.plots_dir)
    figure_name = run_figures.grouped_name(measure.file if measure else "action_frequency", chosen["analysis"])
    elements.in_a_row(*run_controls.of_map(figure_controls, measure))
    return figure_name, page, shown


@app.cell
def _(figure_name, page, run, shown, view):
    link = run_controls.link_to_steps(view)
    figure = elements.drawn(page, figure_name, f"{run.name}: {figure_name}{shown.part}", link)
    elements.below_absent(view, figure)
    return


@app.cell
def _(view):
    elements.footer(view)
    return


if __name__ == "__main__":
    app.run()
