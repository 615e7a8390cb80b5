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

    from mop.apps import elements, run_figures
    from mop.apps.flags import RELATIVE, SCALES
    from mop.apps.flags import RunSettings as Settings
    from mop.apps.run_figures import Shown
    from mop.common.cli import parse
    from mop.common.errors import run_script
    from mop.plotting.measures import MEASURES


@app.function
def given_settings():
    """The flags of this app."""
    return parse(
        Settings,
        "Which actions a policy chooses, and where it is uncertain. `marimo run logit_viz.py` opens the app "
        "(flags go behind a --); as a script, it saves its figures to plots/<run key>/ and prints their paths.",
    )


@app.cell
def _():
    if mo.app_meta().mode == "script":
        run_script(lambda: run_figures.save_as_script("logit_viz.py", given_settings(), run_figures.action_figures))
    refresh_button = mo.ui.run_button(label="Refresh", tooltip="Look for new runs, caches and checkpoints")
    return (refresh_button,)


@app.cell
def _(refresh_button):
    refresh_button.value  # pressed: look again
    args, view, found_runs, run_dropdown = elements.choose_from_runs(given_settings, refresh_button)
    return args, found_runs, run_dropdown, view


@app.cell
def _(args, found_runs, run_dropdown, view):
    checkpoints = found_runs[run_dropdown.value]
    run_controls = elements.run_controls(checkpoints, view, args)
    return checkpoints, run_controls


@app.cell
def _(checkpoints, refresh_button, run_controls, run_dropdown):
    run = elements.chosen_run(checkpoints, run_controls)
    elements.controls_row(checkpoints, run_dropdown, run_controls, refresh_button)
    return (run,)


@app.cell
def _(run, run_controls):
    num_fresh, routing_data = elements.load_or_evaluate(run, run_controls)
    elements.metrics_row(run, routing_data, num_fresh is not None)
    return num_fresh, routing_data


@app.cell
def _(args, routing_data, view):
    figures = {"action frequency": "frequency"} | {name: name for name in run_figures.ACTION_MAPS}
    figure_dropdown = elements.choice_dropdown(view, "map", figures, "frequency", "Figure")
    analyses = {"overall": "overall", "by carrying phase": "by_carrying"} | run_figures.analyses(routing_data)
    analysis_dropdown = elements.choice_dropdown(view, "analysis", analyses, "overall", "Analysis")
    scale_dropdown = elements.choice_dropdown(view, "scale", SCALES, args.scale, "Scale")
    steps_dropdown = elements.steps_dropdown(run_figures.selections(routing_data), view, args)
    min_steps_number = elements.min_steps_control(view, args)
    return analysis_dropdown, figure_dropdown, min_steps_number, scale_dropdown, steps_dropdown


@app.cell
def _(
    analysis_dropdown,
    args,
    figure_dropdown,
    min_steps_number,
    num_fresh,
    routing_data,
    run,
    scale_dropdown,
    steps_dropdown,
):
    is_map = figure_dropdown.value in run_figures.ACTION_MAPS
    least, scale = (int(min_steps_number.value or 1), scale_dropdown.value) if is_map else (1, RELATIVE)
    shown = Shown(run, num_fresh, steps_dropdown.value, least, scale)
    shown_data = run_figures.part_of(routing_data, steps_dropdown.value)
    page = run_figures.page_of("logit_viz.py", shown, shown_data, run_figures.action_figures, args.plots_dir)
    stem = MEASURES[figure_dropdown.value].file if is_map else "action_frequency"
    figure_name = run_figures.grouped_name(stem, analysis_dropdown.value)
    of_map = [scale_dropdown, min_steps_number] if is_map else []
    elements.in_a_row(figure_dropdown, analysis_dropdown, steps_dropdown, *of_map)
    return figure_name, page, shown


@app.cell
def _(figure_name, page, run, shown, view):
    figure = elements.drawn(page, figure_name, f"{run.name}: {figure_name}{shown.part}")
    elements.below_absent(view, figure)
    return


@app.cell
def _(view):
    elements.footer(view)
    return


if __name__ == "__main__":
    app.run()
