"""Which actions a policy chooses, and where it is uncertain: marimo run logit_viz.py"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Actions of a policy")

with app.setup:
    import marimo as mo

    from mop.base.errors import InputError, run_script
    from mop.pages import figures, flags, parts, runs
    from plotting_utils import plot_action_frequency


@app.function
def parser():
    """The command line of this app."""
    return flags.run_parser(
        "Which actions a policy chooses, and where it is uncertain. `marimo run logit_viz.py` opens the app "
        "(flags go behind a --); as a script, it saves its figures to plots/<run key>/ and prints their paths."
    )


@app.function
def plot_view(data, tab: str, group_by: str):
    """The name and the figure of a tab. Raises InputError where the data does not support it."""
    if tab == "Action entropy":
        return "action_entropy_heatmap", figures.plot_entropy(data)
    group_by = group_by if tab == "By phase" else "overall"
    return figures.grouped_name("action_frequency", group_by), plot_action_frequency(data, group_by)


@app.cell
def _():
    if mo.app_meta().mode == "script":
        run_script(lambda: figures.save_figures_of_run(parser(), figures.action_figures))
    mo.md("# What a policy does, and how sure it is")
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
        "Action frequency": "How often each action was chosen.",
        "By phase": "The same, for the steps of each phase: with empty hands and carrying, or any other analysis.",
        "Action entropy": "The mean entropy of the policy in each cell, in nats: high where it is uncertain.",
    }
    view_tabs = mo.ui.tabs({tab: mo.md(about) for tab, about in tabs_about.items()})
    view_tabs
    return (view_tabs,)


@app.cell
def _(routing_data):
    analyses = {name: key for name, key in figures.analyses(routing_data).items() if key != "overall"}
    first_analysis = next((name for name, key in analyses.items() if key == "by_carrying"), next(iter(analyses), None))
    analysis_dropdown = mo.ui.dropdown(analyses, first_analysis, label="Analysis")
    return (analysis_dropdown,)


@app.cell
def _(analysis_dropdown, view_tabs):
    analysis_dropdown if view_tabs.value == "By phase" else None
    return


@app.cell
def _(analysis_dropdown, routing_data, view_tabs):
    try:
        figure_name, fig_heatmap = plot_view(routing_data, view_tabs.value, analysis_dropdown.value or "by_carrying")
    except InputError as error:
        mo.stop(True, parts.problem(error))
    return fig_heatmap, figure_name


@app.cell
def _(fig_heatmap, figure_name, run):
    parts.show_figure(fig_heatmap, f"{run.key.label}: {figure_name}")
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
