"""Runs beside each other: results, tasks, success against cost, two runs, many seeds: marimo run cross_task_viz.py"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import marimo

__generated_with = "0.25.2"
app = marimo.App(
    width="full",
    app_title="Runs beside each other",
    css_file="mop/apps/page.css",
    html_head_file="mop/apps/head.html",
)

with app.setup:
    from dataclasses import replace

    import marimo as mo

    from mop.apps import comparison_page, elements, runs, samples, statistics_page
    from mop.apps.comparison_page import ALL, Settings
    from mop.apps.runs import load_routing
    from mop.common.errors import InputError


@app.cell
def _():
    args = elements.start(
        "cross_task_viz.py",
        Settings,
        "Runs beside each other: results, tasks, success against cost, two runs compared.",
        "plots/",
        comparison_page.save_as_script,
    )
    return (args,)


@app.cell
def _(args):
    try:
        results, unreadable = comparison_page.load_table(args.cache_dir, args.results_path)
        defaults = comparison_page.complete(args, results)
    except InputError as error:
        elements.stop(error)
    view = elements.open_view()
    mo.vstack([elements.problem(message, "warn") for message in unreadable])
    return defaults, results, view


@app.cell
def _(defaults, results, view):
    worlds = {comparison_page.worlds_name(word): word for word in [*comparison_page.common_worlds(results), ALL]}
    worlds_dropdown = elements.choice_dropdown(view, "worlds", worlds, defaults.worlds, "Worlds")
    alphas = [*comparison_page.penalties(results), ALL]
    alpha_dropdown = elements.choice_dropdown(
        view, "lpc_alpha", alphas, defaults.lpc_alpha, "lpc_alpha of mixtures by task"
    )
    task_dropdown = elements.choice_dropdown(view, "measure", [*comparison_page.MEASURES], "failures", "Measure")
    color_dropdown = elements.choice_dropdown(view, "color", [*comparison_page.COLORS], "task", "By")
    policies = {"all": ALL} | comparison_page.POLICIES
    policy_dropdown = elements.choice_dropdown(view, "policy", policies, defaults.policy, "Policy")
    scales = {"failures (log axis)": "failures", "success": "success"}
    scale_dropdown = elements.choice_dropdown(view, "scale", scales, "failures", "Show")
    elements.in_a_row(worlds_dropdown, alpha_dropdown)
    return (
        alpha_dropdown,
        color_dropdown,
        policy_dropdown,
        scale_dropdown,
        task_dropdown,
        worlds_dropdown,
    )


@app.cell
def _(alpha_dropdown, defaults, results, view, worlds_dropdown):
    filters = replace(defaults, worlds=worlds_dropdown.value, lpc_alpha=alpha_dropdown.value)
    try:
        shown_results = comparison_page.filtered(filters, results, of_any_alpha=True)
        comparison_page.filtered(filters, results)  # raises where no task is left
    except InputError as error:
        elements.stop(error)
    mo.vstack([elements.problem(note, "warn") for note in comparison_page.result_notes(shown_results)])
    return filters, shown_results


@app.cell
def _(color_dropdown, filters, policy_dropdown, results, scale_dropdown, task_dropdown, view):
    choices = replace(filters, policy=policy_dropdown.value)
    page = comparison_page.page_of(choices, results)
    tasks_name = comparison_page.tasks_name(task_dropdown.value)
    tradeoff_name = comparison_page.tradeoff_name(scale_dropdown.value, color_dropdown.value)
    link = comparison_page.link_to_run(view)
    elements.beside(
        mo.vstack([mo.md("## By task"), task_dropdown, elements.drawn(page, tasks_name, link=link)]),
        mo.vstack(
            [
                mo.md("## Success against cost"),
                elements.in_a_row(color_dropdown, policy_dropdown, scale_dropdown),
                elements.drawn(page, tradeoff_name, link=link),
            ]
        ),
    )
    return (choices,)


@app.cell
def _(shown_results, view):
    links = map(comparison_page.link_to_run(view), shown_results.to_dict("records"))
    elements.table(
        comparison_page.as_shown(shown_results).assign(**elements.opened_by(links)),
        format_mapping=comparison_page.FORMATS,
        label="**Results** of greedy episodes in fixed worlds, with 95 % intervals",
    )
    return


@app.cell
def _(args, view):
    try:
        cached_runs = runs.find_cached_runs(args.checkpoint_dir, args.cache_dir)
    except InputError as error:
        mo.stop(True, mo.vstack([mo.md("## Two runs"), elements.problem(error)]))
    words = comparison_page.run_words(cached_runs)
    first_words = [*words.values()][: comparison_page.NUM_COMPARED]
    runs_choice = elements.several_dropdown(view, "runs", words, first_words, "Runs")
    mo.md("## Two runs")
    return cached_runs, runs_choice, words


@app.cell
def _(args, cached_runs, view, words):
    try:
        first_left, first_right = comparison_page.choose_pair(cached_runs, args.left, args.right)
    except InputError as error:
        elements.stop(error)
    left_dropdown = elements.choice_dropdown(view, "left", words, comparison_page.word_of(first_left), "Left")
    right_dropdown = elements.choice_dropdown(view, "right", words, comparison_page.word_of(first_right), "Right")
    elements.in_a_row(left_dropdown, right_dropdown)
    return left_dropdown, right_dropdown


@app.cell
def _(cached_runs, left_dropdown, right_dropdown, view):
    try:
        left_run, right_run = comparison_page.choose_pair(cached_runs, left_dropdown.value, right_dropdown.value)
        left_data, right_data = load_routing(left_run), load_routing(right_run)
    except InputError as error:
        mo.stop(True, elements.below_absent(view, elements.problem(error)))
    numbers, pair_notes = comparison_page.compare_in_numbers(left_data, right_data)
    mo.vstack([*(elements.problem(note, "info") for note in pair_notes), *([mo.md(numbers)] if numbers else [])])
    return left_data, left_run, right_data, right_run


@app.cell
def _(args, left_data, right_data, view):
    analyses = comparison_page.common_analyses(left_data, right_data)
    first_analysis = args.analysis if args.analysis in analyses.values() else "overall"
    analysis_dropdown = elements.choice_dropdown(view, "analysis", analyses, first_analysis, "Analysis")
    return (analysis_dropdown,)


@app.cell
def _(analysis_dropdown, args, left_data, right_data, view):
    measures = comparison_page.measures_of(left_data, right_data, analysis_dropdown.value)
    mo.stop(not measures, elements.problem("one has no LPC, and the layers differ: there is no map of a difference"))
    first_measure = args.map if args.map in measures else measures[0]
    measure_dropdown = elements.choice_dropdown(view, "map", measures, first_measure, "Map")
    elements.in_a_row(analysis_dropdown, measure_dropdown)
    return (measure_dropdown,)


@app.cell
def _(analysis_dropdown, choices, left_dropdown, left_run, measure_dropdown, results, right_dropdown, right_run, view):
    pair = {"left": left_dropdown.value, "right": right_dropdown.value}
    pair_choices = replace(choices, **pair, analysis=analysis_dropdown.value, map=measure_dropdown.value)
    pair_page = comparison_page.page_of(pair_choices, results)
    shown_names = f"difference, {left_run.name}, {right_run.name}: {measure_dropdown.value}, {analysis_dropdown.value}"
    elements.below_absent(view, elements.drawn(pair_page, "difference", shown_names))
    return


@app.cell
def _(runs_choice):
    mo.vstack([mo.md("## Routing side by side"), runs_choice])
    return


@app.cell
def _(cached_runs, choices, results, runs_choice):
    chosen_runs = [run for run in cached_runs.values() if comparison_page.word_of(run) in runs_choice.value]
    side_page = comparison_page.page_of(choices, results, chosen_runs)
    side_names = ", ".join(["routing_side_by_side", *(run.name for run in chosen_runs)])
    elements.drawn(side_page, "routing_side_by_side", side_names)
    return


@app.cell
def _(args, view):
    seed_tasks = [statistics_page.NO_TASK, *samples.tasks_with_runs(args.cache_dir)]
    seeds_dropdown = elements.choice_dropdown(view, "seeds_of", seed_tasks, statistics_page.NO_TASK, "Task")
    phase_words = samples.phase_words()
    phases_dropdown = elements.choice_dropdown(view, "phases", phase_words, samples.AUTO_PHASES, "Phases")
    mo.vstack(
        [
            mo.md("## Many seeds\n\nThe runs of a task as a sample of trainings: intervals are over seeds."),
            elements.in_a_row(seeds_dropdown, phases_dropdown),
        ]
    )
    return phases_dropdown, seeds_dropdown


@app.cell
def _(args, phases_dropdown, seeds_dropdown):
    mo.stop(seeds_dropdown.value == statistics_page.NO_TASK)
    asked = samples.Asked(seeds_dropdown.value, phases_dropdown.value, cache_dir=args.cache_dir)
    try:
        seed_tables = statistics_page.analyse(asked, elements.with_bar)
    except InputError as error:
        elements.stop(error)
    seed_notes = [elements.problem(note, "warn") for note in seed_tables.notes]
    in_numbers = elements.table(statistics_page.in_numbers(seed_tables).round(4))
    mo.vstack([*seed_notes, mo.accordion({"In numbers": in_numbers})])
    return (seed_tables,)


@app.cell
def _(args, seed_tables, view):
    seed_page = statistics_page.page_of(seed_tables, args.plots_dir)
    seed_names = {name.replace("_", " "): name for name in seed_page.figures}
    figure_dropdown = elements.choice_dropdown(view, "figure", seed_names, next(iter(seed_names.values())), "Figure")
    figure_dropdown
    return figure_dropdown, seed_page


@app.cell
def _(figure_dropdown, seed_page, seed_tables):
    elements.drawn(seed_page, figure_dropdown.value, f"{figure_dropdown.value} of {seed_tables.asked.task_id}")
    return


@app.cell
def _(view):
    elements.footer(view)
    return


if __name__ == "__main__":
    app.run()
