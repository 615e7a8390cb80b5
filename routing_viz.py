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

    from mop.apps import elements, microscope_tab, run_figures, use_and_need
    from mop.apps.flags import RELATIVE, SCALES
    from mop.apps.flags import RoutingSettings as Settings
    from mop.apps.run_figures import Shown
    from mop.common.cli import parse
    from mop.common.errors import InputError, run_script
    from mop.plotting.measures import MEASURES, experts_of


@app.function
def given_settings():
    """The flags of this app."""
    return parse(
        Settings,
        "Where, when and for what a policy uses its experts. `marimo run routing_viz.py` opens the app "
        "(flags go behind a --); as a script, it saves its figures to plots/<run key>/ and prints their paths.",
    )


@app.cell
def _():
    if mo.app_meta().mode == "script":
        run_script(lambda: run_figures.save_as_script("routing_viz.py", given_settings(), run_figures.routing_figures))
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
def _(routing_data, view):
    tabs_about = {"Spatial": "A number of the steps in each cell of the grid. Click a cell to see a step there."}
    if run_figures.has_routing(routing_data):
        tabs_about |= {name: about for name, (*_, about) in run_figures.CHARTS.items()}
        tabs_about[use_and_need.TAB] = use_and_need.ABOUT
    tabs_about[microscope_tab.TAB] = microscope_tab.ABOUT
    view_tabs = elements.tabs(view, tabs_about)
    view_tabs
    return tabs_about, view_tabs


@app.cell
def _(args, routing_data, view):
    maps = run_figures.maps_of(routing_data)
    measure_dropdown = elements.choice_dropdown(view, "map", maps, maps[0], "Map")
    experts = {name: str(number) for number, name in enumerate(experts_of(routing_data))} or {"expert": "0"}
    expert_dropdown = elements.choice_dropdown(view, "expert", experts, "0", "Expert")
    analyses = run_figures.analyses(routing_data)
    analysis_dropdown = elements.choice_dropdown(view, "analysis", analyses, "overall", "Analysis")
    scale_dropdown = elements.choice_dropdown(view, "scale", SCALES, args.scale, "Scale")
    steps_dropdown = elements.steps_dropdown(run_figures.selections(routing_data), view, args)
    min_steps_number = elements.min_steps_control(view, args)
    return analysis_dropdown, expert_dropdown, measure_dropdown, min_steps_number, scale_dropdown, steps_dropdown


@app.cell
def _(
    analysis_dropdown,
    expert_dropdown,
    measure_dropdown,
    min_steps_number,
    scale_dropdown,
    steps_dropdown,
    tabs_about,
    view_tabs,
):
    tab, measure = view_tabs.value, MEASURES[measure_dropdown.value]
    is_map, is_chart = tab == "Spatial", tab in run_figures.CHARTS
    of_map = [measure_dropdown, *([expert_dropdown] if measure.of_expert else []), analysis_dropdown]
    of_map += [*([] if measure.parts is None else [scale_dropdown]), min_steps_number]
    shown_controls = [*(of_map if is_map else []), *([steps_dropdown] if is_map or is_chart else [])]
    elements.in_a_row(*shown_controls, mo.md(tabs_about[tab]))
    return is_chart, is_map, measure, tab


@app.cell
def _(
    analysis_dropdown,
    args,
    expert_dropdown,
    is_chart,
    is_map,
    measure,
    measure_dropdown,
    min_steps_number,
    num_fresh,
    routing_data,
    run,
    scale_dropdown,
    steps_dropdown,
    tab,
    view,
):
    mo.stop(not is_map and not is_chart)
    least = int(min_steps_number.value or 1) if is_map else 1
    scale = scale_dropdown.value if is_map and measure.parts else RELATIVE
    shown = Shown(run, num_fresh, steps_dropdown.value, least, scale)
    shown_data = run_figures.part_of(routing_data, steps_dropdown.value)
    page = run_figures.page_of("routing_viz.py", shown, shown_data, run_figures.routing_figures, args.plots_dir)
    map_name = run_figures.map_name(measure_dropdown.value, analysis_dropdown.value, int(expert_dropdown.value))
    figure_name = map_name if is_map else run_figures.CHARTS[tab][0]
    link = microscope_tab.link_to_cell(shown_data, view) if is_map else None
    figure = elements.drawn(page, figure_name, f"{run.name}: {figure_name}{shown.part}", link)
    elements.below_absent(view, figure)
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
def _(document, episode_table, view):
    episode_table.value  # chosen: another world
    elements.below_absent(view, microscope_tab.frame(document, view))
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
