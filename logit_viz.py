"""Which actions a policy chooses, and where it is uncertain: marimo run logit_viz.py"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Actions of a policy")

with app.setup:
    import marimo as mo

    from mop.apps import elements, run_figures
    from mop.apps.export import Export, Shown, caption_of
    from mop.apps.flags import RunSettings as Settings
    from mop.common.cli import parse
    from mop.common.errors import InputError, run_script
    from plotting_utils import plot_action_frequency


@app.function
def given_settings():
    """The flags of this app."""
    return parse(
        Settings,
        "Which actions a policy chooses, and where it is uncertain. `marimo run logit_viz.py` opens the app "
        "(flags go behind a --); as a script, it saves its figures to plots/<run key>/ and prints their paths.",
    )


@app.function
def plot_view(data, tab: str, group_by: str, min_steps: int, width_in: float | None = None):
    """The name and the figure of a tab. Raises InputError where the data does not support it."""
    if tab == "Action entropy":
        return "action_entropy_heatmap", run_figures.plot_entropy(data, min_steps, width_in)
    group_by = group_by if tab == "By phase" else "overall"
    return run_figures.grouped_name("action_frequency", group_by), plot_action_frequency(data, group_by)


@app.cell
def _():
    if mo.app_meta().mode == "script":
        run_script(
            lambda: run_figures.save_figures_of_run("logit_viz.py", given_settings(), run_figures.action_figures)
        )
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
    update_slider = elements.update_slider(checkpoints, view, args)
    return checkpoints, update_slider


@app.cell
def _(args, view):
    use_cache_toggle, num_episodes_slider, num_envs_slider = elements.evaluation_controls(view, args)
    return num_envs_slider, num_episodes_slider, use_cache_toggle


@app.cell
def _(checkpoints, num_envs_slider, num_episodes_slider, refresh_button, run_dropdown, update_slider, use_cache_toggle):
    run = checkpoints[min(update_slider.value, len(checkpoints) - 1)]
    run_controls = run_dropdown, update_slider, refresh_button, use_cache_toggle, num_episodes_slider, num_envs_slider
    elements.controls_row(checkpoints, run, *run_controls)
    return (run,)


@app.cell
def _(num_envs_slider, num_episodes_slider, run, use_cache_toggle):
    num_fresh, routing_data = elements.load_or_evaluate(run, use_cache_toggle, num_episodes_slider, num_envs_slider)
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
    return (view_tabs,)


@app.cell
def _(args, routing_data, view):
    analyses = {name: key for name, key in run_figures.analyses(routing_data).items() if key != "overall"}
    first_analysis = "by_carrying" if "by_carrying" in analyses.values() else next(iter(analyses.values()), None)
    analysis_dropdown = (
        elements.choice_dropdown(view, "analysis", analyses, first_analysis, "Analysis")
        if analyses
        else mo.ui.dropdown(["by carrying phase"], "by carrying phase", label="Analysis")
    )
    action_dropdown = elements.action_dropdown(routing_data, view, args)
    min_steps_number = elements.min_steps_control(view, args)
    return action_dropdown, analysis_dropdown, min_steps_number


@app.cell
def _(action_dropdown, analysis_dropdown, min_steps_number, view_tabs):
    tab_controls = {"By phase": [analysis_dropdown], "Action entropy": [action_dropdown, min_steps_number]}
    mo.hstack(tab_controls.get(view_tabs.value, []), justify="start", gap=2, wrap=True)
    return


@app.cell
def _(action_dropdown, min_steps_number, num_fresh, routing_data, run, view_tabs):
    is_map = view_tabs.value == "Action entropy"
    action = action_dropdown.value if is_map else None
    shown = Shown(run, num_fresh, action, int(min_steps_number.value or 1) if is_map else 1)
    shown_data = run_figures.hold(routing_data, action)
    return shown, shown_data


@app.cell
def _(analysis_dropdown, shown, shown_data, view, view_tabs):
    chosen_view = shown_data, view_tabs.value, analysis_dropdown.value, shown.min_steps
    try:
        figure_name, fig_heatmap = plot_view(*chosen_view)
    except InputError as error:
        mo.stop(True, elements.problem(error))
    elements.absent(view)
    return chosen_view, fig_heatmap, figure_name


@app.cell
def _(fig_heatmap, figure_name, run, shown):
    elements.show_figure(fig_heatmap, f"{run.name}: {figure_name}{shown.part}")
    return


@app.cell
def _(args):
    format_dropdown, width_dropdown = elements.save_controls(args)
    return format_dropdown, width_dropdown


@app.cell
def _(figure_name, format_dropdown, shown, width_dropdown):
    export = Export(format_dropdown.value, width_dropdown.value, shown.part)
    save_button = elements.save_button(export, figure_name)
    elements.in_a_row(save_button, format_dropdown, width_dropdown)
    return export, save_button


@app.cell
def _(args, chosen_view, export, figure_name, save_button, shown, shown_data):
    mo.stop(not save_button.value)
    about = run_figures.action_figures(shown_data)[figure_name].about
    caption = caption_of("logit_viz.py", shown, shown_data, figure_name, about, export, args.plots_dir)
    folder = shown.run.key.artefacts(args.plots_dir)
    elements.save_figure(
        lambda: plot_view(*chosen_view, width_in=export.width_in)[1], folder, figure_name, export, caption
    )
    return


if __name__ == "__main__":
    app.run()
