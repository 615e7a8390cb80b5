"""When does a run commit to its basin? Trainings, their forks, the paths between children: marimo run lmc_viz.py"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Linear mode connectivity")

with app.setup:
    import marimo as mo

    from lmc_rl.app import catalog, figures, page
    from mop.apps import elements
    from mop.apps.export import Export
    from mop.common.cli import parse
    from mop.common.errors import InputError, run_script


@app.function
def given_settings():
    """The flags of this app."""
    return parse(
        page.Settings,
        "When does a run commit to its basin? Trainings, their forks, the paths between children, several runs. "
        "`marimo run lmc_viz.py` opens the app (flags go behind a --); as a script, it saves its figures to "
        "plots/lmc/<run>/ and prints their paths.",
    )


@app.function
def show(choices, draw, name, view):
    """A figure whose fork points lead to their paths, or why it cannot be drawn."""
    return elements.drawn(draw, f"{choices.shown.title}: {name}", page.link_to_fork(view))


@app.cell
def _():
    if mo.app_meta().mode == "script":
        run_script(lambda: page.save_as_script(given_settings()))
    mo.md("# When does a run commit to its basin?")
    return


@app.cell
def _():
    refresh_button = mo.ui.run_button(label="Refresh", tooltip="Look for new experiments, and what is new in them")
    return (refresh_button,)


@app.cell
def _(refresh_button):
    refresh_button.value  # pressed: look again
    try:
        args = given_settings()
        view = elements.open_view()
        found = catalog.find_experiments(args.results_dir)
        first_run = page.choose_runs(found, [args.run] if args.run else None, next(iter(found.values())))[0]
    except (InputError, OSError) as error:
        mo.stop(True, elements.problem(error))
    run_dropdown = elements.choice_dropdown(view, "run", found, first_run, "Run")
    elements.in_a_row(run_dropdown, refresh_button)
    return args, first_run, found, run_dropdown, view


@app.cell
def _(args, run_dropdown):
    try:
        shown = catalog.load_shown(args.results_dir, run_dropdown.value)
    except InputError as error:
        mo.stop(True, elements.problem(error))
    facts = [mo.stat(value, name, remark, bordered=True) for value, name, remark in page.facts(shown)]
    notes = [elements.problem(shown.note, "warn")] if shown.note else []
    mo.vstack([*notes, mo.hstack(facts, justify="start", align="stretch", wrap=True)])
    return (shown,)


@app.cell
def _(args, first_run, shown, view):
    try:
        asked_fork, asked_part = (args.fork, args.part) if shown.word == first_run else (None, None)
        first_path, first_part = page.choose_path(shown, asked_fork), page.choose_part(shown, asked_part)
    except InputError as error:
        mo.stop(True, elements.problem(error))
    curves = {curve.replace("_", " "): curve for curve in figures.curves_of(shown.log)} or {"none": ""}
    curve_dropdown = elements.choice_dropdown(view, "curve", curves, next(iter(curves.values())), "Curve")
    paths = page.path_names(shown) or {"none yet": ""}
    path_dropdown = elements.choice_dropdown(view, "fork", paths, first_path, "Path")
    moving = page.part_names(shown)
    part_dropdown = elements.choice_dropdown(view, "part", moving, first_part, "What moves") if moving else None
    return curve_dropdown, part_dropdown, path_dropdown


@app.cell
def _(found, shown, view):
    several_select, unknown_runs = page.runs_select(found, shown.word, view)
    kinds = {several.title: name for name, several in page.several_of(shown).items()}
    kind_dropdown = elements.choice_dropdown(view, "show", kinds, "barrier", "Show")
    seeds_dropdown = elements.choice_dropdown(view, "seeds", page.SEEDS, page.POOLED, "Seeds")
    return kind_dropdown, seeds_dropdown, several_select, unknown_runs


@app.cell
def _(args, part_dropdown, path_dropdown, several_select, shown, unknown_runs):
    several, several_problems = page.load_several(args.results_dir, several_select.value, shown)
    several_problems = [*unknown_runs, *several_problems]
    part = part_dropdown.value if part_dropdown else ""
    choices = page.Choices(args.results_dir, shown, path_dropdown.value, several, part)
    drawings = page.drawings(choices)
    return choices, drawings, several_problems


@app.cell
def _(args):
    format_dropdown, width_dropdown = elements.save_controls(args)
    return format_dropdown, width_dropdown


@app.cell
def _(choices, curve_dropdown, drawings, format_dropdown, kind_dropdown, seeds_dropdown, width_dropdown):
    export = Export(format_dropdown.value, width_dropdown.value)
    path_name = choices.path_file
    training_name = f"training_{curve_dropdown.value}"
    several_name = choices.several_file(kind_dropdown.value, seeds_dropdown.value)
    names = [training_name, f"path_{path_name}", f"measures_{path_name}", several_name]
    save_training, save_path, save_measures, save_several = (
        mo.ui.run_button(label=f"Save {export.stem(name)}.{export.format}", disabled=name not in drawings)
        for name in names
    )
    return export, names, save_measures, save_path, save_several, save_training


@app.cell
def _(choices, curve_dropdown, names, save_training, view):
    mo.vstack(
        [
            *filter(None, [elements.absent(view)]),
            mo.md("## Training\n\nThe lines are fork points; a click on one shows the path between its children."),
            curve_dropdown,
            show(choices, lambda: page.draw_training(choices, curve_dropdown.value), names[0], view),
            save_training,
        ]
    )
    return


@app.cell
def _(choices, names, part_dropdown, path_dropdown, save_measures, save_path, view):
    path_figure = mo.vstack([show(choices, lambda: page.draw_path(choices), names[1], view), save_path])
    if part_dropdown is None:
        measures = mo.vstack([show(choices, lambda: page.draw_measures(choices), names[2], view), save_measures])
        path_figure = elements.beside(path_figure, measures)
    path_controls = mo.hstack([*filter(None, [path_dropdown, part_dropdown])], justify="start", gap=2, wrap=True)
    mo.vstack([mo.md("## Path"), path_controls, path_figure])
    return


@app.cell
def _(
    choices,
    kind_dropdown,
    names,
    save_several,
    seeds_dropdown,
    several_problems,
    several_select,
    view,
):
    mo.vstack(
        [
            mo.md("## Several runs"),
            several_select,
            *(elements.problem(line, "warn") for line in several_problems),
            mo.hstack([kind_dropdown, seeds_dropdown], justify="start", gap=2, wrap=True),
            show(
                choices,
                lambda: page.draw_several(choices, kind_dropdown.value, seeds_dropdown.value),
                ", ".join([names[3], *(other.word for other in choices.several)]),
                view,
            ),
            save_several,
            mo.md(page.as_table(choices)),
        ]
    )
    return


@app.cell
def _(format_dropdown, width_dropdown):
    mo.hstack([format_dropdown, width_dropdown, mo.md("of every saved figure")], justify="start", gap=2)
    return


@app.cell
def _(args, choices, drawings, export, names, save_measures, save_path, save_several, save_training):
    pressed = [
        name
        for name, button in zip(names, (save_training, save_path, save_measures, save_several), strict=True)
        if button.value
    ]
    mo.stop(not pressed)
    drawing = drawings[pressed[0]]
    elements.save_figure(
        drawing,
        page.folder_of(args, choices),
        pressed[0],
        export,
        page.caption_of(args, choices, pressed[0], drawing.about, export),
    )
    return


if __name__ == "__main__":
    app.run()
