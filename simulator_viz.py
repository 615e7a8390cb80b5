"""Why a policy did what it did, and what a learned simulator makes of it: marimo run simulator_viz.py"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import marimo

__generated_with = "0.25.2"
app = marimo.App(
    width="full",
    app_title="Simulator of agent and world",
    css_file="mop/apps/page.css",
    html_head_file="mop/apps/head.html",
)

with app.setup:
    from dataclasses import replace

    import marimo as mo

    from generative.app import answer, catalog, controls, page
    from generative.app.state import PageState
    from generative.recordings.format import open_recording
    from mop.apps import elements
    from mop.common.errors import InputError


@app.cell
def _():
    args = elements.start(page.APP, page.Settings, page.ABOUT, "plots/generative/<recording>/", page.save_as_script)
    refresh_button = mo.ui.run_button(label="Refresh", tooltip="Look for new recordings and simulators")
    record_button = mo.ui.run_button(label="Record a small one", tooltip="10 s; a new installation compiles first")
    return args, record_button, refresh_button


@app.cell
def _(args, record_button, refresh_button):
    refresh_button.value  # pressed: look again
    try:
        view = elements.open_view()
        if record_button.value:
            with mo.status.spinner("Recording a policy of the zoo"):
                catalog.record_small(args.data_dir)
        found = catalog.find_recordings(args.data_dir)
    except (InputError, OSError) as error:
        elements.stop(error, "warn", mo.hstack([record_button, refresh_button], justify="start"))
    recording_dropdown = controls.recording_dropdown(found, view)
    return found, recording_dropdown, view


@app.cell
def _(found, recording_dropdown, refresh_button, view):
    try:
        recording = open_recording(found[recording_dropdown.value])
    except InputError as error:
        mo.stop(True, mo.vstack([recording_dropdown, elements.problem(error), refresh_button]))
    episode_table = controls.episode_table(recording, view)
    return episode_table, recording


@app.cell
def _(args, episode_table, recording, view):
    episode_table.value  # chosen: another episode
    number = controls.chosen_episode(recording, view, args)
    step_slider = controls.step_slider(recording.episode(number), view, args)
    return number, step_slider


@app.cell
def _(recording_dropdown, refresh_button, step_slider):
    elements.beside(elements.in_a_row(recording_dropdown, refresh_button), step_slider, least_px=400)
    return


@app.cell
def _(args, recording, view):
    step_controls = controls.step_controls(recording, view, args)
    microscope_button = controls.microscope_button(recording, args.checkpoint)
    return microscope_button, step_controls


@app.cell
def _(microscope_button, step_controls):
    elements.in_a_row(*controls.shown_controls(step_controls), microscope_button)
    return


@app.cell
def _(args, number, recording, step_controls, step_slider, view):
    try:
        moment = args.choices(number, step_slider.value)
        state = PageState(recording, replace(moment, **step_controls.value), args.checkpoint)
        causes = mo.ui.table(state.explanation.rows(), selection=None)
    except InputError as error:
        elements.stop(error)
    shown_page = page.page_of(args, state)
    told = mo.Html(answer.why(state, view))
    now = elements.drawn(shown_page, "now", page.label_of(state, "now"), page.link_to_step(state, view))
    head = mo.md(f"**{page.heading(state)}**")
    elements.below_absent(view, head, elements.beside(told, now, least_px=450))
    return causes, shown_page, state


@app.cell
def _(shown_page, state):
    elements.drawn(shown_page, "why", page.label_of(state, "why"))
    return


@app.cell
def _(shown_page, state):
    mo.stop("future" not in shown_page.figures)
    line, is_enough = state.fidelity
    note = elements.problem(line, "info" if is_enough else "warn")
    mo.vstack([note, elements.drawn(shown_page, "future", page.label_of(state, "future"))])
    return


@app.cell
def _(causes, episode_table):
    mo.accordion({"All causes, as numbers": causes, "Episodes: a row opens one": episode_table})
    return


@app.cell
def _(view):
    elements.footer(view)
    return


if __name__ == "__main__":
    app.run()
