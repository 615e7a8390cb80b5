"""Why a policy did what it did, what a simulator imagines, what an edit changes: marimo run simulator_viz.py"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Simulator of agent and world")

with app.setup:
    from dataclasses import replace

    import marimo as mo

    from generative.app import catalog, controls, page, selection
    from generative.app.selection import PageState
    from generative.recordings.format import open_recording
    from mop.apps import elements
    from mop.apps.export import Export
    from mop.common.errors import InputError, run_script


@app.function
def show(state, name, link=lambda values: ""):
    """A figure, or why it cannot be drawn."""
    return elements.drawn(lambda: page.drawings(state)[name](), page.label_of(state, name), link)


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
        mo.stop(True, elements.problem(error))
    now = show(present, "now", page.link_to_moment(present, view))
    mo.vstack([*filter(None, [elements.absent(view)]), now])
    return (present,)


@app.cell
def _(args, view):
    tabs = elements.tabs(view, controls.TABS)
    simulator_dropdown = elements.choice_dropdown(
        view, "simulator", catalog.find_simulators(args.simulator), args.simulator, "Simulator"
    )
    tabs
    return simulator_dropdown, tabs


@app.cell
def _(args, recording, view):
    target_dropdown = controls.target_dropdown(recording, view, args)
    since_dropdown = elements.choice_dropdown(view, "since", page.ACTIONS, args.since, "Actions in between")
    actions_dropdown = elements.choice_dropdown(view, "actions", page.ACTIONS, args.actions, "Actions")
    pictures_dropdown = elements.choice_dropdown(view, "pictures", page.PICTURES, args.pictures, "Pictures")
    horizon_slider = controls.number_slider(view, "horizon", 0, selection.MAX_HORIZON, args.horizon, "Steps back")
    steps_slider = controls.number_slider(view, "steps", 1, selection.MAX_STEPS, args.num_sim_steps, "Steps ahead")
    return actions_dropdown, horizon_slider, pictures_dropdown, since_dropdown, steps_slider, target_dropdown


@app.cell
def _(
    actions_dropdown,
    horizon_slider,
    pictures_dropdown,
    simulator_dropdown,
    since_dropdown,
    steps_slider,
    tabs,
    target_dropdown,
):
    tab_controls = {
        "Why": [target_dropdown, horizon_slider, since_dropdown, simulator_dropdown],
        "Imagine": [steps_slider, actions_dropdown, simulator_dropdown],
        "Edit": [target_dropdown, steps_slider, actions_dropdown, simulator_dropdown, pictures_dropdown],
    }
    elements.in_a_row(*tab_controls[tabs.value])
    return


@app.cell
def _(
    actions_dropdown,
    args,
    horizon_slider,
    present,
    pictures_dropdown,
    recording,
    simulator_dropdown,
    since_dropdown,
    steps_slider,
    target_dropdown,
):
    wanted = replace(
        present.choices,
        target=target_dropdown.value,
        horizon=horizon_slider.value,
        since=since_dropdown.value,
        simulator=simulator_dropdown.value,
        num_sim_steps=steps_slider.value,
        actions=actions_dropdown.value,
        pictures=pictures_dropdown.value,
    )
    asked = PageState(recording, wanted, args.checkpoint)
    return asked, wanted


@app.cell
def _(asked, tabs, view):
    try:
        cell_dropdown = controls.cell_dropdown(asked, view) if tabs.value == "Edit" else None
    except InputError as error:
        mo.stop(True, elements.problem(error))
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
    return (shown,)


@app.cell
def _(shown, tabs, view):
    try:
        around = controls.around_figures(tabs.value, shown, view)
    except InputError as error:
        mo.stop(True, elements.problem(error))
    mo.vstack([around["above"], *(show(shown, name) for name in controls.FIGURES[tabs.value]), around["below"]])
    return


@app.cell
def _(args, tabs):
    format_dropdown, width_dropdown = elements.save_controls(args)
    names = [*controls.FIGURES[tabs.value], "now"]
    figure_dropdown = mo.ui.dropdown(names, names[0], label="Figure", allow_select_none=False)
    return figure_dropdown, format_dropdown, width_dropdown


@app.cell
def _(figure_dropdown, format_dropdown, shown, width_dropdown):
    export = Export(format_dropdown.value, width_dropdown.value)
    file_name = f"{export.stem(page.file_of(shown, figure_dropdown.value))}.{export.format}"
    save_button = mo.ui.run_button(label=f"Save {file_name}")
    mo.hstack([figure_dropdown, save_button, format_dropdown, width_dropdown], justify="start", gap=2, wrap=True)
    return export, save_button


@app.cell
def _(args, export, figure_dropdown, save_button, shown):
    mo.stop(not save_button.value)
    name = figure_dropdown.value
    elements.save_figure(
        page.drawings(shown)[name],
        page.folder_of(args, shown),
        page.file_of(shown, name),
        export,
        page.caption_of(args, shown, name, export),
    )
    return


if __name__ == "__main__":
    app.run()
