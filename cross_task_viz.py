"""Runs beside each other: results, success against cost, routing: marimo run cross_task_viz.py"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Runs beside each other")

with app.setup:
    import marimo as mo

    from mop.base.errors import InputError, run_script
    from mop.pages import comparison, flags, parts, runs


@app.function
def parser():
    """The command line of this app."""
    added = flags.parser(
        "Runs beside each other: results, success against cost, routing. `marimo run cross_task_viz.py` opens the app "
        "(flags go behind a --); as a script, it saves its figures to plots/ and prints their paths."
    )
    added.add_argument(
        "--results_path",
        nargs="+",
        default=flags.RESULTS_PATHS,
        metavar="CSV",
        help="tables beside the cached results",
    )
    return added


@app.cell
def _():
    if mo.app_meta().mode == "script":
        run_script(lambda: comparison.save_comparison(parser()))
    mo.md("# Runs beside each other")
    return


@app.cell
def _():
    try:
        args = flags.parse(parser())
        results, unreadable = comparison.load_table(args.cache_dir, args.results_path)
    except InputError as error:
        mo.stop(True, parts.problem(error))
    mo.vstack([parts.problem(message, "warn") for message in unreadable])
    return args, results


@app.cell
def _(results):
    percent = dict.fromkeys(("success_rate", "success_low", "success_high"), "{:.1%}")
    mo.ui.table(
        results.dropna(axis="columns", how="all"),
        selection=None,
        page_size=10,
        show_column_summaries=False,
        show_data_types=False,
        format_mapping=percent | {"path_ratio": "{:.2f}", "mean_lpc": "{:,.0f}"},
        label="**Results** of greedy episodes in fixed worlds, with 95 % intervals",
    )
    return


@app.cell
def _(results):
    color_dropdown = mo.ui.dropdown(list(comparison.COLORS), "task", label="Colour by", allow_select_none=False)
    policies = [name for name, policy in comparison.POLICIES.items() if policy in set(results["policy"])]
    policy_dropdown = mo.ui.dropdown(
        {"all": None} | {name: comparison.POLICIES[name] for name in policies},
        "all",
        label="Policy",
        allow_select_none=False,
    )
    mo.vstack([mo.md("## Success against cost"), mo.hstack([color_dropdown, policy_dropdown], justify="start", gap=2)])
    return color_dropdown, policy_dropdown


@app.cell
def _(color_dropdown, policy_dropdown, results):
    try:
        fig_tradeoff = comparison.plot_tradeoff(results, color_dropdown.value, policy_dropdown.value)
    except InputError as error:
        mo.stop(True, parts.problem(error))
    tradeoff_name = f"success_against_lpc_by_{color_dropdown.value}"
    parts.show_figure(fig_tradeoff, tradeoff_name)
    return fig_tradeoff, tradeoff_name


@app.cell
def _(tradeoff_name):
    save_tradeoff = mo.ui.run_button(label=f"Save {tradeoff_name}.png")
    save_tradeoff
    return (save_tradeoff,)


@app.cell
def _(args, fig_tradeoff, save_tradeoff, tradeoff_name):
    mo.stop(not save_tradeoff.value)
    parts.save_figure(fig_tradeoff, args.plots_dir, tradeoff_name)
    return


@app.cell
def _(args):
    try:
        cached_runs = runs.find_cached_runs(args.checkpoint_dir, args.cache_dir)
    except InputError as error:
        mo.stop(True, parts.problem(error))
    runs_choice = mo.ui.multiselect(
        cached_runs, list(cached_runs)[: comparison.NUM_COMPARED], label="Runs", full_width=True
    )
    mo.vstack([mo.md("## Routing side by side"), runs_choice])
    return (runs_choice,)


@app.cell
def _(runs_choice):
    try:
        fig_heatmap = comparison.plot_comparison(runs_choice.value)
    except InputError as error:
        mo.stop(True, parts.problem(error))
    heatmap_name = "routing_side_by_side"
    parts.show_figure(fig_heatmap, ", ".join([heatmap_name, *(run.key.label for run in runs_choice.value)]))
    return fig_heatmap, heatmap_name


@app.cell
def _(heatmap_name):
    save_heatmap = mo.ui.run_button(label=f"Save {heatmap_name}.png")
    save_heatmap
    return (save_heatmap,)


@app.cell
def _(args, fig_heatmap, heatmap_name, save_heatmap):
    mo.stop(not save_heatmap.value)
    parts.save_figure(fig_heatmap, args.plots_dir, heatmap_name)
    return


if __name__ == "__main__":
    app.run()
