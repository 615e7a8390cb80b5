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

    from mop.apps import elements, episode_tab, intervention_page, intervention_tab, run_figures
    from mop.apps.episode_tab import Settings
    from mop.apps.run_figures import Shown
    from mop.common.cli import parse
    from mop.common.errors import InputError, run_script


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
        run_script(lambda: episode_tab.save_as_script("routing_viz.py", given_settings()))
    mo.md("# How a policy routes its computation")
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
def _(routing_data, view):
    tabs_about, note, beside = {}, None, ""
    if run_figures.has_routing(routing_data):
        tabs_about["Spatial"] = (
            "The dominant expert, or the cost, in each cell of the grid. Click a cell for its episodes."
        )
        tabs_about |= {tab: about for tab, (*_, about) in run_figures.CHARTS.items()}
        tabs_about[intervention_tab.TAB] = intervention_tab.ABOUT
        beside = ", with the router weights beside the world"
    else:
        note = elements.problem(run_figures.NO_ROUTERS, "info")
    tabs_about["Episodes"] = f"One episode, step by step{beside}."
    view_tabs = elements.tabs(view, tabs_about)
    mo.vstack([note, view_tabs]) if note else view_tabs
    return tabs_about, view_tabs


@app.cell
def _(args, routing_data, view):
    maps = {name: name for name in run_figures.MAPS}
    measure_dropdown = elements.choice_dropdown(view, "map", maps, next(iter(maps)), "Map")
    analyses = run_figures.analyses(routing_data)
    analysis_dropdown = elements.choice_dropdown(view, "analysis", analyses, "overall", "Analysis")
    action_dropdown = elements.action_dropdown(routing_data, view, args)
    min_steps_number = elements.min_steps_control(view, args)
    return action_dropdown, analysis_dropdown, measure_dropdown, min_steps_number


@app.cell
def _(routing_data, view):
    episode_filter = episode_tab.filter_controls(routing_data, view)
    return (episode_filter,)


@app.cell
def _(episode_filter, routing_data, view):
    episode_dropdown, no_episode = episode_tab.list_episodes(routing_data, episode_filter.value, view)
    return episode_dropdown, no_episode


@app.cell
def _(
    action_dropdown,
    analysis_dropdown,
    episode_dropdown,
    episode_filter,
    measure_dropdown,
    min_steps_number,
    tabs_about,
    view_tabs,
):
    tab_controls = {
        intervention_tab.TAB: [],
        "Spatial": [measure_dropdown, analysis_dropdown, action_dropdown, min_steps_number],
        "Episodes": [episode_filter, episode_dropdown],
    }
    shown_controls = tab_controls.get(view_tabs.value, [action_dropdown])
    elements.in_a_row(mo.md(tabs_about[view_tabs.value]), *shown_controls)
    return


@app.cell
def _(
    action_dropdown,
    analysis_dropdown,
    args,
    measure_dropdown,
    min_steps_number,
    num_fresh,
    routing_data,
    run,
    view_tabs,
):
    tab = view_tabs.value
    is_map, has_figure = tab == "Spatial", tab not in ("Episodes", intervention_tab.TAB)
    action = action_dropdown.value if has_figure else None
    shown = Shown(run, num_fresh, action, int(min_steps_number.value or 1) if is_map else 1)
    shown_data = run_figures.hold(routing_data, action)
    page = run_figures.page_of("routing_viz.py", shown, shown_data, run_figures.routing_figures, args.plots_dir)
    map_name = run_figures.grouped_name(run_figures.MAPS[measure_dropdown.value][0], analysis_dropdown.value)
    figure_name = map_name if is_map else run_figures.CHARTS[tab][0] if has_figure else None
    return figure_name, is_map, page, shown


@app.cell
def _(episode_dropdown, no_episode, routing_data, view, view_tabs):
    mo.stop(view_tabs.value != "Episodes")
    player = episode_tab.show_player(routing_data, episode_dropdown.value, no_episode)
    mo.vstack([notes, player]) if (notes := elements.absent(view)) else player
    return


@app.cell
def _(episode_dropdown, view_tabs):
    mo.stop(view_tabs.value != "Episodes" or episode_dropdown.value is None)
    ending_dropdown = mo.ui.dropdown(episode_tab.ENDINGS, next(iter(episode_tab.ENDINGS)), allow_select_none=False)
    save_episode_button = mo.ui.run_button(label=f"Save episode_{episode_dropdown.value}")
    mo.hstack([save_episode_button, ending_dropdown], justify="start")
    return ending_dropdown, save_episode_button


@app.cell
def _(args, ending_dropdown, episode_dropdown, routing_data, run, save_episode_button):
    mo.stop(not save_episode_button.value)
    episode_tab.save_episode(
        routing_data, episode_dropdown.value, run.key.artefacts(args.plots_dir), ending_dropdown.value
    )
    return


@app.cell
def _():
    get_text, set_text = mo.state(None)  # typed last: the controls are made anew for it
    get_world, set_world = mo.state(None)  # found last
    return get_text, get_world, set_text, set_world


@app.cell
def _(get_text, routing_data, view, view_tabs):
    mo.stop(view_tabs.value != intervention_tab.TAB)
    get_text()
    try:
        gates, not_shown = intervention_tab.controls(routing_data, view)
    except InputError as error:
        elements.stop(error)
    gate_elements = gates.given
    return gate_elements, gates, not_shown


@app.cell
def _(gate_elements, gates, set_text, view):
    gate_elements.value
    what_field = intervention_tab.text_field(gates, view, set_text)
    return (what_field,)


@app.cell
def _(gate_elements, gates, not_shown, routing_data, run, view, what_field):
    gate_elements.value
    mo.vstack(
        [
            *filter(None, [elements.absent(view)]),
            intervention_tab.controls_shown(gates),
            intervention_tab.text_shown(what_field, gates, run, routing_data, not_shown),
        ]
    )
    return


@app.cell
def _(get_world, routing_data, view, view_tabs):
    mo.stop(view_tabs.value != intervention_tab.TAB)
    get_world()
    world_dropdown = intervention_tab.world_dropdown(routing_data, view)
    find_button = intervention_tab.find_button()
    return find_button, world_dropdown


@app.cell
def _(find_button, routing_data, run, world_dropdown):
    try:
        with mo.status.spinner("Loading the policy; a new installation compiles for a minute first"):
            one_world = intervention_page.open_world(run, routing_data)
    except (InputError, OSError) as error:
        elements.stop(error, "warn")
    elements.in_a_row(world_dropdown, find_button)
    return (one_world,)


@app.cell
def _(find_button, gates, one_world, routing_data, set_world, view, world_dropdown):
    mo.stop(not find_button.value)
    found_world = intervention_tab.find_world(one_world, routing_data, gates, world_dropdown.value, view)
    mo.stop(
        found_world is None, elements.problem("it changes the outcome of none of the worlds that were tried", "info")
    )
    set_world(found_world)
    return


@app.cell
def _(gate_elements, gates, one_world, world_dropdown):
    gate_elements.value
    try:
        pair = intervention_page.play_pair(one_world, world_dropdown.value, gates.asked, gates.variant)
    except InputError as error:
        elements.stop(error, "warn")
    intervention_tab.pair_shown(pair)
    return (pair,)


@app.cell
def _(gates, pair):
    save_pair_button = mo.ui.run_button(label=f"Save {intervention_page.file_of(pair, gates.variant)}.html")
    save_pair_button
    return (save_pair_button,)


@app.cell
def _(args, gates, pair, run, save_pair_button):
    mo.stop(not save_pair_button.value)
    intervention_tab.save_pair(pair, gates.variant, run.key.artefacts(args.plots_dir))
    return


@app.cell
def _(refresh_button, routing_data, run, view_tabs):
    mo.stop(view_tabs.value != intervention_tab.TAB)
    refresh_button.value
    try:
        intervention_rows = intervention_page.rows_of(run, routing_data)
    except (InputError, OSError) as error:
        elements.stop(error, "info")
    return (intervention_rows,)


@app.cell
def _(gate_elements, gates, intervention_rows, routing_data, run):
    gate_elements.value
    matrix_variant = intervention_tab.variant_of(intervention_rows, gates.variant)
    intervention_tab.matrix_shown(run, routing_data, intervention_rows, matrix_variant)
    return (matrix_variant,)


@app.cell
def _(args, intervention_rows, matrix_variant, routing_data, run):
    matrix_page = intervention_page.matrix_page(run, intervention_rows, routing_data, matrix_variant, args.plots_dir)
    elements.download(matrix_page, next(iter(matrix_page.figures)))
    return


@app.cell
def _(figure_name, is_map, page, run, shown, view):
    mo.stop(figure_name is None)
    link = episode_tab.link_to_episodes(view) if is_map else None
    figure = elements.drawn(page, figure_name, f"{run.name}: {figure_name}{shown.part}", link)
    mo.vstack([*filter(None, [elements.absent(view)]), figure])
    return


if __name__ == "__main__":
    app.run()
