"""Why a policy did what it did, what a simulator imagines, what an edit changes: marimo run simulator_viz.py"""

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

    from generative.app import catalog, controls, page
    from generative.app.selection import PageState
    from generative.recordings.format import open_recording
    from mop.apps import elements
    from mop.common.errors import InputError, run_script


@app.cell
def _():
    if mo.app_meta().mode == "script":
        run_script(page.save_as_script)
    mo.md("# Why did it do that, and what if?")
    return


@app.cell
def _():
    refresh_button = mo.ui.run_button(label="Refresh", tooltip="Look for new recordings and simulators")
    record_button = mo.ui.run_button(label="Record a small one", tooltip="10 s; a new installation compiles first")
    return record_button, refresh_button


@app.cell
def _(record_button, refresh_button):
    refresh_button.value  # pressed: look again
    try:
        args = page.parse_settings()
        view = elements.open_view()
        if record_button.value:
            with mo.status.spinner("Recording a policy of the zoo"):
                catalog.record_small(args.data_dir)
        found = catalog.find_recordings(args.data_dir)
    except (InputError, OSError) as error:
        buttons = mo.hstack([record_button, refresh_button], justify="start")
        mo.stop(True, mo.vstack([elements.problem(error, "warn"), buttons]))
    return args, found, view


@app.cell
def _(found, view):
    recording_dropdown = controls.recording_dropdown(found, view)
    filter_controls = controls.filter_controls(view)
    return filter_controls, recording_dropdown


@app.cell
def _(filter_controls, found, recording_dropdown, refresh_button):
    try:
        recording = open_recording(found[recording_dropdown.value])
    except InputError as error:
        mo.stop(True, mo.vstack([recording_dropdown, elements.problem(error), refresh_button]))
    elements.in_a_row(recording_dropdown, filter_controls, refresh_button)
    return (recording,)


@app.cell
def _(args, filter_controls, recording, view):
    episode_dropdown = controls.episode_dropdown(recording, filter_controls.value, view, args)
    mo.stop(episode_dropdown is None, elements.problem("no episode passes this filter: ask for fewer things", "warn"))
    return (episode_dropdown,)


@app.cell
def _(args, episode_dropdown, recording, view):
    step_slider = controls.step_slider(recording.episode(episode_dropdown.value), view, args)
    mo.vstack([episode_dropdown, step_slider])
    return (step_slider,)


@app.cell
def _(args, episode_dropdown, recording, step_slider, view):
    try:
        present = PageState(recording, args.choices(episode_dropdown.value, step_slider.value), args.checkpoint)
    except InputError as error:
        elements.stop(error)
    now = elements.drawn(
        page.page_of(args, present), "now", page.label_of(present, "now"), page.link_to_moment(present, view)
    )
    mo.vstack([*filter(None, [elements.absent(view)]), now])
    return (present,)


@app.cell
def _(view):
    tabs = elements.tabs(view, controls.TABS)
    tabs
    return (tabs,)


@app.cell
def _(args, recording, view):
    step_controls = controls.step_controls(recording, view, args)
    return (step_controls,)


@app.cell
def _(step_controls, tabs):
    about = mo.md(controls.TABS[tabs.value])
    elements.in_a_row(about, *(step_controls[name] for name in controls.CONTROLS[tabs.value]))
    return


@app.cell
def _(args, present, recording, step_controls):
    asked = PageState(recording, replace(present.choices, **step_controls.value), args.checkpoint)
    return (asked,)


@app.cell
def _(asked, tabs, view):
    try:
        cell_dropdown = controls.cell_dropdown(asked, view) if tabs.value == "Edit" else None
    except InputError as error:
        elements.stop(error)
    return (cell_dropdown,)


@app.cell
def _(asked, cell_dropdown, view):
    change_dropdown = controls.change_dropdown(asked, cell_dropdown, view)
    controls.edit_row(cell_dropdown, change_dropdown, view)
    return (change_dropdown,)


@app.cell
def _(args, asked, cell_dropdown, change_dropdown, recording):
    edit = asked.choices.edit if cell_dropdown is None else f"{cell_dropdown.value}:{change_dropdown.value}"
    shown = PageState(recording, replace(asked.choices, edit=edit), args.checkpoint)
    shown_page = page.page_of(args, shown)
    return shown, shown_page


@app.cell
def _(shown, shown_page, tabs, view):
    try:
        around = controls.around_figures(tabs.value, shown, view)
        labels = {name: page.label_of(shown, name) for name in controls.FIGURES[tabs.value]}
    except InputError as error:
        elements.stop(error)
    figures = (elements.drawn(shown_page, name, label) for name, label in labels.items())
    mo.vstack([around["above"], *figures, around["below"]])
    return


if __name__ == "__main__":
    app.run()
