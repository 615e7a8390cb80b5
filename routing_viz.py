"""Where, when and for what a policy uses its experts: marimo run routing_viz.py"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Routing of a policy")

with app.setup:
    import marimo as mo

    from mop.base.errors import InputError, run_script
    from mop.pages import episodes, figures, flags, parts, runs
    from plotting_utils import plot_episode_routing


@app.function
def parser():
    """The command line of this app."""
    return flags.run_parser(
        "Where, when and for what a policy uses its experts. `marimo run routing_viz.py` opens the app "
        "(flags go behind a --); as a script, it saves its figures to plots/<run key>/ and prints their paths."
    )


@app.function
def plot_view(data, tab: str, measure: str, group_by: str, images: dict, episode: int, t_step: int):
    """The name and the figure of a tab. Raises InputError where the data does not support it."""
    if tab == "Spatial":
        name = figures.grouped_name(figures.MAPS[measure][0], group_by)
        return name, figures.plot_map(data, measure, group_by, images)
    if tab == "Episodes":
        return f"episode_{episode}", plot_episode_routing(data, episode, t_step)
    name, plot, _ = figures.CHARTS[tab]
    return name, plot(data)


@app.cell
def _():
    if mo.app_meta().mode == "script":
        run_script(lambda: figures.save_figures_of_run(parser(), figures.routing_figures))
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
    tabs_about = {"Spatial": "The dominant expert, or the cost, in each cell of the grid."}
    tabs_about |= {tab: about for tab, (*_, about) in figures.CHARTS.items()}
    tabs_about["Episodes"] = "One episode, frame by frame, with the router weights beside it."
    view_tabs = mo.ui.tabs({tab: mo.md(about) for tab, about in tabs_about.items()})
    view_tabs
    return (view_tabs,)


@app.cell
def _(routing_data):
    measure_dropdown = mo.ui.dropdown(list(figures.MAPS), "dominant expert", label="Map", allow_select_none=False)
    analysis_dropdown = mo.ui.dropdown(
        figures.analyses(routing_data), "overall", label="Analysis", allow_select_none=False
    )
    episode_dropdown = mo.ui.dropdown(
        labels := episodes.episode_labels(routing_data), next(iter(labels)), label="Episode", allow_select_none=False
    )
    return analysis_dropdown, episode_dropdown, measure_dropdown


@app.cell
def _(episode_dropdown, routing_data):
    num_steps = int((routing_data.steps.episode == episode_dropdown.value).sum())
    step_slider = mo.ui.slider(0, max(num_steps - 1, 1), label="Step", include_input=True)
    return (step_slider,)


@app.cell
def _(analysis_dropdown, episode_dropdown, measure_dropdown, step_slider, view_tabs):
    tab_controls = {"Spatial": [measure_dropdown, analysis_dropdown], "Episodes": [episode_dropdown, step_slider]}
    shown_controls = tab_controls.get(view_tabs.value)
    mo.hstack(shown_controls, justify="start", gap=2, wrap=True) if shown_controls else None
    return


@app.cell
def _(analysis_dropdown, routing_data):
    room_env_images = episodes.example_images(routing_data, analysis_dropdown.value)
    return (room_env_images,)


@app.cell
def _(analysis_dropdown, episode_dropdown, measure_dropdown, room_env_images, routing_data, step_slider, view_tabs):
    spatial = measure_dropdown.value, analysis_dropdown.value, room_env_images
    episode = episode_dropdown.value, step_slider.value
    try:
        figure_name, fig_heatmap = plot_view(routing_data, view_tabs.value, *spatial, *episode)
    except InputError as error:
        mo.stop(True, parts.problem(error))
    return fig_heatmap, figure_name


@app.cell
def _(episode_dropdown, fig_heatmap, figure_name, routing_data, run, step_slider, view_tabs):
    frame, shown_step = [], ""
    if view_tabs.value == "Episodes":
        frame = [parts.episode_frame(routing_data, episode_dropdown.value, step_slider.value)]
        shown_step = f", step {step_slider.value}"
    shown_figure = parts.show_figure(fig_heatmap, f"{run.key.label}: {figure_name}{shown_step}")
    mo.hstack([*frame, shown_figure], justify="start", align="start", wrap=True)
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
