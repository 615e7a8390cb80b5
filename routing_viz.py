"""Where, when and for what a policy uses its experts: marimo run routing_viz.py"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import marimo

__generated_with = "0.25.2"
app = marimo.App(
    width="full",
    app_title="Routing of a policy",
    css_file="mop/apps/page.css",
    html_head_file="mop/apps/head.html",
)

with app.setup:
    import marimo as mo

    from mop.apps import elements, microscope_tab, run_controls, run_figures, use_and_need
    from mop.apps.flags import RunSettings
    from mop.apps.run_figures import Shown
    from mop.common.errors import InputError
    from mop.plotting.measures import MEASURES


@app.cell
def _():
    args = elements.start(
        "routing_viz.py",
        RunSettings,
        "Where, when and for what a policy uses its experts.",
        "plots/<run key>/",
        lambda args: run_figures.save_as_script("routing_viz.py", args, run_figures.routing_figures),
    )
    return (args,)


@app.cell
def _():
    view = elements.open_view()
    return (view,)


@app.cell
def _():
    refresh_button = mo.ui.run_button(label="Refresh", tooltip="Look for new runs, caches and checkpoints")
    return (refresh_button,)


@app.cell
def _():
    first_tab = run_figures.MAPS  # of logit_viz.py, which embeds this page: the actions
    return (first_tab,)


@app.cell
def _(args, refresh_button, view):
    refresh_button.value  # pressed: look again
    found_runs, run_dropdown = run_controls.choose_from_runs(args, view, refresh_button)
    return found_runs, run_dropdown


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
def _(first_tab, routing_data, view):
    tabs_about = run_figures.tabs_about(routing_data)
    if run_figures.has_routing(routing_data):
        tabs_about[use_and_need.TAB] = use_and_need.ABOUT
    tabs_about[microscope_tab.TAB] = microscope_tab.ABOUT
    view_tabs = elements.tabs(view, tabs_about, first_tab)
    view_tabs
    return tabs_about, view_tabs


@app.cell
def _(args, routing_data, view):
    map_control, expert_control, analysis_control, scale_control, min_steps_control, steps_control = (
        run_controls.figure_controls(view, args, routing_data)
    )
    return analysis_control, expert_control, map_control, min_steps_control, scale_control, steps_control


@app.cell
def _(
    analysis_control,
    expert_control,
    map_control,
    min_steps_control,
    scale_control,
    steps_control,
    tabs_about,
    view_tabs,
):
    figure_controls = run_controls.FigureControls(
        map_control, expert_control, analysis_control, scale_control, min_steps_control, steps_control
    )
    tab = view_tabs.value
    measure = MEASURES[figure_controls.value["map"]] if tab == run_figures.MAPS else None
    elements.in_a_row(*run_controls.of_tab(figure_controls, tab, measure), mo.md(tabs_about[tab]))
    return figure_controls, measure, tab


@app.cell
def _(args, figure_controls, measure, num_fresh, routing_data, run, tab, view):
    mo.stop(tab in (use_and_need.TAB, microscope_tab.TAB))
    chosen = figure_controls.value
    shown = Shown.of(run, num_fresh, chosen, measure)
    shown_data = run_figures.part_of(routing_data, shown.steps)
    page = run_figures.page_of("routing_viz.py", shown, shown_data, run_figures.routing_figures, args.plots_dir)
    figure_name = run_figures.figure_name(tab, chosen)
    more = {"tab": "Specialisation"} if measure and run_figures.has_routing(routing_data) else {}  # one cell is no map
    name = f"{run.name}: {figure_name}{shown.part}"
    link = run_controls.link_to_steps(view, shown.steps, **more)
    elements.below_absent(view, elements.drawn(page, figure_name, name, link))
    return


@app.cell
def _(args, routing_data, run, tab):
    mo.stop(tab != use_and_need.TAB)
    use_and_need.shown(run, routing_data, args.plots_dir)
    return


@app.cell
def _(routing_data, run, tab):
    mo.stop(tab != microscope_tab.TAB)
    try:
        with mo.status.spinner("Playing the worlds; a new installation compiles for a minute first"):
            document = microscope_tab.document_of(run, routing_data)
    except (InputError, OSError) as error:
        elements.stop(error, "warn")
    return (document,)


@app.cell
def _(document, routing_data, view):
    mo.stop(not document)
    episode_table = microscope_tab.episode_table(routing_data, view)
    return (episode_table,)


@app.cell
def _(document, episode_table, figure_controls, routing_data, view):
    episode_table.value  # chosen: another world
    shown_part = run_figures.part_of(routing_data, figure_controls.steps.value)
    elements.below_absent(view, microscope_tab.frame(document, view, shown_part))
    return


@app.cell
def _(document, episode_table, run):
    mo.vstack([microscope_tab.download(document, run), episode_table])
    return


@app.cell
def _(view):
    elements.footer(view)
    return


if __name__ == "__main__":
    app.run()
