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
    from mop.apps.flags import RunSettings as Settings
    from mop.apps.run_figures import Shown
    from mop.common.cli import parse
    from mop.common.errors import run_script


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
    mo.md("# What a policy does, and how sure it is")
    return


@app.cell
def _():
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
def _(view):
    tabs_about = {
        "Action frequency": "How often each action was chosen.",
        "By phase": "The same, for the steps of each phase: with empty hands and carrying, or any other analysis.",
        "Action entropy": "The mean entropy of the policy in each cell, in nats: high where it is uncertain.",
    }
    view_tabs = elements.tabs(view, tabs_about)
    view_tabs
    return tabs_about, view_tabs


@app.cell
def _(args, routing_data, view):
    analyses = {name: key for name, key in run_figures.analyses(routing_data).items() if key != "overall"}
    analyses = analyses or {"by carrying phase": "by_carrying"}  # its figure says what is missing
    first_analysis = "by_carrying" if "by_carrying" in analyses.values() else next(iter(analyses.values()))
    analysis_dropdown = elements.choice_dropdown(view, "analysis", analyses, first_analysis, "Analysis")
    action_dropdown = elements.action_dropdown(routing_data, view, args)
    min_steps_number = elements.min_steps_control(view, args)
    return action_dropdown, analysis_dropdown, min_steps_number


@app.cell
def _(action_dropdown, analysis_dropdown, min_steps_number, tabs_about, view_tabs):
    tab_controls = {"By phase": [analysis_dropdown], "Action entropy": [action_dropdown, min_steps_number]}
    elements.in_a_row(mo.md(tabs_about[view_tabs.value]), *tab_controls.get(view_tabs.value, []))
    return


@app.cell
def _(action_dropdown, analysis_dropdown, args, min_steps_number, num_fresh, routing_data, run, view_tabs):
    is_map = view_tabs.value == "Action entropy"
    action = action_dropdown.value if is_map else None
    shown = Shown(run, num_fresh, action, int(min_steps_number.value or 1) if is_map else 1)
    shown_data = run_figures.hold(routing_data, action)
    page = run_figures.page_of("logit_viz.py", shown, shown_data, run_figures.action_figures, args.plots_dir)
    analysis = analysis_dropdown.value if view_tabs.value == "By phase" else "overall"
    figure_name = "action_entropy_heatmap" if is_map else run_figures.grouped_name("action_frequency", analysis)
    return figure_name, page, shown


@app.cell
def _(figure_name, page, run, shown, view):
    figure = elements.drawn(page, figure_name, f"{run.name}: {figure_name}{shown.part}")
    mo.vstack([*filter(None, [elements.absent(view)]), figure])
    return


if __name__ == "__main__":
    app.run()
