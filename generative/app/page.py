"""The page of the simulator: figures, flags, the files of a script, and the policy's microscope."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from generative.app.catalog import RECORDINGS_DIR, find_recordings, first_episode, first_step, num_steps_of
from generative.app.figures import plot_future, plot_now
from generative.app.state import OWN, RECORDED, Choices, PageState
from generative.figures.attribution import plot_strip
from generative.recordings.format import Recording, find_policy, open_recording
from generative.simulators.base import EXACT
from mop.apps.elements import View
from mop.apps.flags import SavingSettings
from mop.apps.template import Page, PageFigure, chosen
from mop.artifacts.run_paths import CACHE_DIR
from mop.common.cli import as_flags, setting
from mop.common.errors import InputError
from mop.common.task_mix import task_name
from mop.plotting.style import counted

APP = "simulator_viz.py"
ACTIONS = {"as recorded": RECORDED, "the policy's own": OWN}
NUM_WORLDS = 50  # of the microscope
ABOUT = "Why a policy did what it did at a step of a recorded episode, and what a learned simulator shows from there."


# --- figures ----------------------------------------------------------------------------------------------------------


def draw_now(state: PageState) -> Figure:
    """Draw the step."""
    return plot_now(state.episode, state.step, state.sizes)


def draw_why(state: PageState) -> Figure:
    """Draw the causes of the target."""
    if not len(state.explanation.lag):
        raise InputError("nothing but floor and walls was there: no cause to name")
    return plot_strip(state.explanation, [None])


def draw_future(state: PageState) -> Figure:
    """Draw the recorded future, and where the simulated one departs from it."""
    acting = "the policy acts in it" if state.is_own else "actions as recorded"
    title = f"Episode {state.number}, step {state.step}: simulator {Path(state.choices.simulator).name}, {acting}"
    return plot_future(*state.futures, state.step, title)


FIGURES = [  # they are drawn of a `PageState`
    PageFigure(
        "why",
        "What the things of earlier steps contribute to the target: minus the predicted effect of their absence, by "
        "path (integrated gradients; docs/generative.md), walls left out",
        draw_why,
    ),
    PageFigure(
        "now", "The step: world, view, probabilities of the actions, router weights, and LPC over the episode", draw_now
    ),
    PageFigure(
        "future",
        "What was seen from this step on, and below it where a learned simulator differs; wrong cells are framed",
        draw_future,
    ),
]


def shown_figures(state: PageState) -> list[str]:
    """The names of the figures that there are: the future only of a learned simulator."""
    return [figure.name for figure in FIGURES if figure.name != "future" or state.choices.simulator != EXACT]


def label_of(state: PageState, name: str) -> str:
    """The alternative text of a figure."""
    return f"{state.name}: {name}" + (f" {state.target_word}" if name == "why" else "")


def heading(state: PageState) -> str:
    """Which step of which episode is shown."""
    episode = state.episode
    task = task_name(state.recording.config["encoding"]["task_id"])
    outcome = "success" if episode.success else "failed"
    where = f"{task}, episode {state.number}, step {state.step} of {num_steps_of(episode)}"
    return f"{where} · {episode.behaviour}, {outcome} · {episode.mission}"


def link_to_step(state: PageState, view: View) -> Callable[[Mapping], str]:
    """The address of a step, behind the curve of LPC."""

    def address(values: Mapping) -> str:
        if "lpc" not in values or values["step"] >= num_steps_of(state.episode):
            return ""
        place = {"recording": state.recording.folder.name, "episode": state.number, "step": values["step"]}
        return view.here(place)

    return address


def microscope_of(recording: Recording, checkpoint: str | None) -> bytes:
    """The microscope of a recording's policy, in worlds of its evaluation."""
    from mop.evaluation.evaluate import load_for_evaluation
    from mop.microscope.document import microscope_document

    path = find_policy(recording, checkpoint, "--checkpoint")
    task_id = recording.config["encoding"]["task_id"]
    return microscope_document([load_for_evaluation(path)], task_id, NUM_WORLDS, cache_dir=CACHE_DIR).encode()


# --- flags and files --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Settings(SavingSettings, Choices):
    """The flags of the app."""

    data_dir: str | None = setting(None, f"a recording, or a folder of some (default: {RECORDINGS_DIR})")
    checkpoint: str | None = setting(None, "the policy of the recording, where it was moved")

    def choices(self, k: int, step: int) -> Choices:
        """A step of episode k, with the other choices of the flags."""
        return Choices(
            **dict[str, Any]({field.name: getattr(self, field.name) for field in fields(Choices)}, episode=k, step=step)
        )


def state_of(settings: Settings) -> PageState:
    """The selection of the flags."""
    recording = open_recording(next(iter(find_recordings(settings.data_dir).values())))
    k = settings.episode if settings.episode is not None else first_episode(recording)
    state = PageState(recording, settings.choices(k, 0), settings.checkpoint)
    step = settings.step if settings.step is not None else first_step(state.episode)
    return PageState(recording, settings.choices(k, step), settings.checkpoint)


def file_of(state: PageState, name: str) -> str:
    """The name of a figure's files, with the step and the target."""
    parts = [name, f"episode_{state.number}", f"step_{state.step}"]
    parts += [state.target_word.replace(":", "_")] if name == "why" else []
    return "_".join(parts)


def page_of(settings: Settings, state: PageState) -> Page:
    """The page of a step."""
    recording, folder = state.recording, state.recording.folder
    words = ["--data_dir", folder.as_posix(), *state.choices.flags, *as_flags({"checkpoint": settings.checkpoint})]

    def describe(name: str) -> list[str]:
        episode, choices, checkpoint = state.episode, state.choices, recording.config["checkpoint"]
        outcome = "success" if episode.success else "failed"
        lines = [
            f"Episode: {choices.episode} of {folder.name}, world {episode.seed} ({episode.split}), "
            f"{episode.behaviour}, {counted(num_steps_of(episode), 'step')}, {outcome}; mission: {episode.mission}.",
            f"Policy: {checkpoint['path']}, its SHA-256 begins with {checkpoint['sha256'][:16]}.",
        ]
        return lines + ([] if name == "now" else [f"Simulator: {choices.simulator}; target: {state.target_word}."])

    figures = [
        replace(figure.of(state), file=file_of(state, figure.name))
        for figure in FIGURES
        if figure.name in shown_figures(state)
    ]
    place = Path(settings.plots_dir) / "generative" / folder.name
    return Page(APP, words, place, figures, describe, settings.plots_dir)


def save_as_script(settings: Settings) -> None:
    """Save all figures of a step, or those that --only names."""
    state = state_of(settings)
    page = page_of(settings, state)
    names = chosen(page.figures.values(), settings.only)
    if state.choices.simulator != EXACT and names != ["now"]:
        print(f"note: {state.fidelity[0]}", file=sys.stderr)
    page.save_as_script(settings)
