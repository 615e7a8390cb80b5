"""Where, when and for what a policy uses its experts: marimo run routing_viz.py"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Routing of a policy")

with app.setup:
    import marimo as mo

    from mop.base.errors import InputError, run_script
    from mop.pages import episode_tab, episodes, figures, flags, parts, runs


@app.function
def parser():
    """The command line of this app."""
    added = flags.run_parser(
        "Where, when and for what a policy uses its experts. `marimo run routing_viz.py` opens the app "
        "(flags go behind a --); as a script, it saves its figures to plots/<run key>/ and prints their paths."
    )
    return episode_tab.add_flags(added)


@app.function
def plot_view(data, tab: str, measure: str, group_by: str, images: dict):
    """The name and the figure of a tab. Raises InputError where the data does not support it."""
    if tab == "Spatial":
        name = figures.grouped_name(figures.MAPS[measure][0], group_by)
        return name, figures.plot_map(data, measure, group_by, images)
    name, plot, _ = figures.CHARTS[tab]
    return name, plot(data)


@app.cell
def _():
    if mo.app_meta().mode == "script":
        run_script(lambda: episode_tab.save_as_script(parser()))
    mo.md("# How a policy routes its computation")
    return


@app.cell
def _():
    try:
        args = flags.parse(parser())
        found_runs = runs.find_runs(args.checkpoint_dir, args.cache_dir)
        first_run = runs.choose_run(found_runs, args)
    except InputError as error:
        mo.stop(True, parts.problem(error))
    return args, first_run, found_runs


@app.cell
def _(args, first_run, found_runs):
    checkpoint_dropdown, use_cache_toggle, num_episodes_slider, num_envs_slider = parts.run_controls(
        found_runs, first_run, args
    )
    return checkpoint_dropdown, num_envs_slider, num_episodes_slider, use_cache_toggle


@app.cell
def _(checkpoint_dropdown, found_runs, num_envs_slider, num_episodes_slider, use_cache_toggle):
    run = found_runs[checkpoint_dropdown.value]
    parts.controls_row(run, checkpoint_dropdown, use_cache_toggle, num_episodes_slider, num_envs_slider)
    return (run,)


@app.cell
def _(num_envs_slider, num_episodes_slider, run, use_cache_toggle):
    try:
        routing_data = parts.load_or_evaluate(
            run, use_cache_toggle.value, num_episodes_slider.value, num_envs_slider.value
        )
    except (InputError, OSError) as error:
        mo.stop(True, parts.problem(error))
    parts.metrics_row(run, routing_data, use_cache_toggle.value)
    return (routing_data,)


@app.cell
def _():
    tabs_about = {
        "Spatial": "The dominant expert, or the cost, in each cell of the grid. Click a cell for its episodes."
    }
    tabs_about |= {tab: about for tab, (*_, about) in figures.CHARTS.items()}
    tabs_about["Episodes"] = "One episode, step by step, with the router weights beside the world."
    asked_tab = mo.query_params().get("tab")
    view_tabs = mo.ui.tabs(
        {tab: mo.md(about) for tab, about in tabs_about.items()}, asked_tab if asked_tab in tabs_about else None
    )
    view_tabs
    return (view_tabs,)


@app.cell
def _(routing_data):
    measure_dropdown = mo.ui.dropdown(list(figures.MAPS), "dominant expert", label="Map", allow_select_none=False)
    analysis_dropdown = mo.ui.dropdown(
        figures.analyses(routing_data), "overall", label="Analysis", allow_select_none=False
    )
    return analysis_dropdown, measure_dropdown


@app.cell
def _(routing_data):
    episode_filter = episode_tab.filter_controls(routing_data, mo.query_params().get(episode_tab.CELL, ""))
    return (episode_filter,)


@app.cell
def _(episode_filter, routing_data):
    episode_dropdown, no_episode = episode_tab.list_episodes(routing_data, episode_filter.value)
    return episode_dropdown, no_episode


@app.cell
def _(analysis_dropdown, episode_dropdown, episode_filter, measure_dropdown, view_tabs):
    tab_controls = {"Spatial": [measure_dropdown, analysis_dropdown], "Episodes": [episode_filter, episode_dropdown]}
    shown_controls = tab_controls.get(view_tabs.value)
    mo.hstack(shown_controls, justify="start", gap=2, wrap=True) if shown_controls else None
    return


@app.cell
def _(analysis_dropdown, routing_data):
    room_env_images = episodes.example_images(routing_data, analysis_dropdown.value)
    return (room_env_images,)


@app.cell
def _(episode_dropdown, no_episode, routing_data, view_tabs):
    mo.stop(view_tabs.value != "Episodes")
    episode_tab.show_player(routing_data, episode_dropdown.value, no_episode)
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
def _(analysis_dropdown, measure_dropdown, room_env_images, routing_data, view_tabs):
    mo.stop(view_tabs.value == "Episodes")
    try:
        figure_name, fig_heatmap = plot_view(
            routing_data, view_tabs.value, measure_dropdown.value, analysis_dropdown.value, room_env_images
        )
    except InputError as error:
        mo.stop(True, parts.problem(error))
    return fig_heatmap, figure_name


@app.cell
def _(fig_heatmap, figure_name, run, view_tabs):
    to_episodes = episode_tab.link_to_episodes(mo.query_params().to_dict())
    links = {"link": to_episodes} if view_tabs.value == "Spatial" else {}
    parts.show_figure(fig_heatmap, f"{run.key.label}: {figure_name}", **links)
    return


@app.cell
def _(figure_name):
    save_button = mo.ui.run_button(label=f"Save {figure_name}.png")
    save_button
    return (save_button,)


@app.cell
def _(args, fig_heatmap, figure_name, run, save_button):
    mo.stop(not save_button.value)
    parts.save_figure(fig_heatmap, run.key.artefacts(args.plots_dir), figure_name)
    return


if __name__ == "__main__":
    app.run()
