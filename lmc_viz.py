"""When does a run commit to its basin? Trainings, their forks, the paths between children: marimo run lmc_viz.py"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import marimo

__generated_with = "0.25.2"
app = marimo.App(
    width="full",
    app_title="Linear mode connectivity",
    css_file="mop/apps/page.css",
    html_head_file="mop/apps/head.html",
)

with app.setup:
    import marimo as mo

    from lmc_rl.app import catalog
    from lmc_rl.app import page as lmc
    from mop.apps import elements
    from mop.common.errors import InputError


@app.cell
def _():
    args = elements.start(
        "lmc_viz.py",
        lmc.Settings,
        "When does a run commit to its basin? Trainings, their forks, the paths between children, several runs.",
        "plots/lmc/<run>/",
        lmc.save_as_script,
    )
    refresh_button = mo.ui.run_button(label="Refresh", tooltip="Look for new experiments, and what is new in them")
    mo.md("# When does a run commit to its basin?")
    return args, refresh_button


@app.cell
def _(args, refresh_button):
    refresh_button.value  # pressed: look again
    try:
        view = elements.open_view()
        found = catalog.find_experiments(args.results_dir)
        first_run = lmc.first_run(found, args.run)
    except (InputError, OSError) as error:
        elements.stop(error)
    run_dropdown = elements.choice_dropdown(view, "run", found, first_run, "Run")
    elements.in_a_row(run_dropdown, refresh_button)
    return first_run, found, run_dropdown, view


@app.cell
def _(args, run_dropdown):
    try:
        shown = catalog.load_shown(args.results_dir, run_dropdown.value)
    except InputError as error:
        elements.stop(error)
    notes = [elements.problem(shown.note, "warn")] if shown.note else []
    mo.vstack([*notes, elements.in_a_line(lmc.facts(shown))])
    return (shown,)


@app.cell
def _(args, first_run, found, shown, view):
    try:
        asked = (args.fork, args.part) if shown.word == first_run else (None, None)
        first_choices = lmc.choose(args.results_dir, shown, (), *asked)
    except InputError as error:
        elements.stop(error)
    line_controls = lmc.line_controls(shown, first_choices, view)
    several_controls = lmc.several_controls(found, shown, view)
    return line_controls, several_controls


@app.cell
def _(args, line_controls, several_controls, shown):
    chosen = line_controls.value | several_controls.value
    several, several_problems = lmc.load_several(args.results_dir, chosen["runs"], shown)
    choices = lmc.Choices(args.results_dir, shown, chosen["fork"], several, chosen.get("part", catalog.EVERY))
    page = lmc.page_of(choices, args.plots_dir)
    return choices, chosen, page, several_problems


@app.cell
def _(choices, page, view):
    def show(name, more=""):
        """A figure whose fork points lead to their paths, or why it cannot be drawn."""
        return elements.drawn(page, name, f"{choices.shown.title}: {name}{more}", lmc.link_to_fork(view))

    return (show,)


@app.cell
def _(line_controls, show, view):
    about_training = (
        "## Training\n\nThe lines are fork points; a click on one shows the path between its children. A curve begins "
        "with the first row of the log. The cross-entropy of an imitation run is of the states it visits: it rises "
        "while the policy takes over from the bot (*bot share*)."
    )
    elements.below_absent(
        view, mo.md(about_training), line_controls["curve"], show(f"training_{line_controls.value['curve']}")
    )
    return


@app.cell
def _(choices, line_controls, show):
    path_figure = show(f"path_{choices.path_file}")
    if "part" not in line_controls.value:
        path_figure = elements.beside(path_figure, show(f"measures_{choices.path_file}"))
    words = mo.md(
        "Two children of a fork train on with different random numbers. **B** is the largest fall of the policies on "
        "the line between them below the *chord*, **I** below the mean of the two. Without a fall, the run had "
        "committed to its *basin* before the fork; *self* and *independent* are the controls without and with one."
    )
    about = mo.hstack([lmc.explained(), words], justify="start", align="center", gap=2, wrap=True)
    path_controls = elements.in_a_row(*(line_controls[name] for name in line_controls.value if name != "curve"))
    mo.vstack([mo.md("## Path"), about, path_controls, path_figure])
    return


@app.cell
def _(choices, chosen, several_controls, several_problems, show):
    several_file = choices.several_file(chosen["show"], chosen["seeds"])
    mo.vstack(
        [
            mo.md("## Several runs"),
            several_controls["runs"],
            *(elements.problem(line, "warn") for line in several_problems),
            elements.in_a_row(several_controls["show"], several_controls["seeds"]),
            show(several_file, "".join(f", {other.word}" for other in choices.several)),
            lmc.as_table(choices),
        ]
    )
    return


@app.cell
def _(view):
    elements.footer(view)
    return


if __name__ == "__main__":
    app.run()
