"""The page of the simulator: figures, tables, links, flags, and the files of a script."""

import functools
import html
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
from matplotlib.figure import Figure

from generative.app.catalog import RECORDINGS_DIR, SMALL, find_recordings, first_episode, first_step, num_steps_of
from generative.app.future_figures import VIEW, WORLD, plot_effect, plot_futures, plot_imagined
from generative.app.selection import OWN, RECORDED, Choices, PageState
from generative.app.step_figures import PATH_HUES, PATH_WORDS, Row, plot_causes, plot_now
from generative.domains.babyai.causes import thing_name
from generative.recordings.format import open_recording
from generative.simulators.base import EXACT
from mop.apps.elements import View
from mop.apps.flags import SavingSettings
from mop.apps.template import Page, PageFigure, chosen
from mop.common.cli import as_flags, parse, setting
from mop.common.errors import InputError
from mop.common.task_mix import task_name
from mop.plotting.style import counted

if TYPE_CHECKING:
    from generative.app.recorded_step import Cause

APP = "simulator_viz.py"
ACTIONS = {"the policy's own": OWN, "as recorded": RECORDED}
PICTURES = {"worlds": WORLD, "views": VIEW}
ABOUT = f"""Why a policy did what it did at a step of a recorded episode, what a simulator imagines from there, and what
an edit of the world changes. `marimo run {APP} -- --data_dir {RECORDINGS_DIR}/{SMALL["name"]}` opens the app; as a
script, it saves its figures to plots/generative/<recording>/ and prints their paths."""
_TOP = 6  # things in the figure of causes
_IN_TABLE, _NEXT_TO_NOTHING = 8, 1e-3  # lines; share of the largest number
_TABLE_STYLE = """<style>.causes { border-collapse: collapse } .causes th, .causes td { padding: 2px 14px;
text-align: right; border-bottom: 1px solid #ddd } .causes th:nth-child(2), .causes td:nth-child(2) { text-align: left }
.causes a { text-decoration: underline }</style>"""


# --- figures ----------------------------------------------------------------------------------------------------------


def draw_now(state: PageState) -> Figure:
    """Draw the step."""
    episode, step = state.episode, state.step
    outcome = "success" if episode.success else "failed"
    task = task_name(state.recording.config["encoding"]["task_id"])
    title = f"{task}, {state.title.lower()} of {num_steps_of(episode)} · {episode.behaviour}, {outcome}"
    title += f" · {episode.mission}"
    return plot_now(episode, step, state.sizes, title)


def draw_why(state: PageState) -> Figure:
    """Draw the causes of the target."""
    causes, num_lags = state.causes, min(state.choices.horizon, state.step) + 1
    if not causes:
        raise InputError("nothing but floor and walls was there: no cause to name")
    sums = {path: np.zeros(num_lags) for path in PATH_HUES}
    for cause in causes:
        for path, value in cause.by_path.items():
            sums[path][cause.lag] += value
    since = "actions as recorded" if state.choices.since == RECORDED else "the policy acts"
    title = f"{state.title}: what contributes to {state.target_word} · {simulator_name(state)}, {since}"
    rows = rows_of(causes, num_lags)[:_TOP]
    return plot_causes(state.episode, state.step, sums, rows, state.target_word, title)


def rows_of(causes: Sequence["Cause"], num_lags: int) -> list[Row]:
    """A row for each thing, the largest contribution at any step first."""
    totals: dict[object, np.ndarray] = {}
    names: dict[object, str] = {}
    for cause in causes:
        totals.setdefault(cause.key, np.full(num_lags, np.nan))
        before = totals[cause.key][cause.lag]
        totals[cause.key][cause.lag] = cause.total + (0.0 if np.isnan(before) else before)
        names.setdefault(cause.key, " ".join(thing_name(cause.thing.code).split()[-2:]))
    order = sorted(totals, key=lambda key: -np.nanmax(np.abs(totals[key])))
    alike = {key: [other for other in order if names[other] == names[key]] for key in order}
    return [
        Row(names[key] + (f" {chr(97 + alike[key].index(key))}" if len(alike[key]) > 1 else ""), totals[key])
        for key in order
    ]


def draw_imagined(state: PageState) -> Figure:
    """Draw the simulated future below the real one."""
    title = f"{state.title}: {simulator_name(state)} beside the truth, {_acting(state)}"
    return plot_imagined(*state.futures(False), state.step, state.sizes, title)


def draw_edited(state: PageState) -> Figure:
    """Draw the futures with and without the edit."""
    title = f"{state.title}: {edit_name(state)} · {simulator_name(state)}, {_acting(state)}"
    return plot_futures(state.all_futures, state.step, state.sizes, state.choices.pictures, title)


def draw_effect(state: PageState) -> Figure:
    """Draw the effect of the edit on the target."""
    title = f"{state.title}: {edit_name(state)}"
    return plot_effect(state.values, state.effects, state.step, state.target_word, title)


def edit_name(state: PageState) -> str:
    """The edit in words, with its place."""
    from generative.app.recorded_step import cell_name, describe_edit

    return f"{describe_edit(state.edit)}, {cell_name(state.here, state.edit).split(', ')[-1]}"


def simulator_name(state: PageState) -> str:
    """The name of the simulator."""
    simulator = state.choices.simulator
    return "exact simulator" if simulator == EXACT else f"simulator {Path(simulator).name}"


def _acting(state: PageState) -> str:
    return "the policy acts" if state.choices.actions == OWN else "actions as recorded"


FIGURES = [  # they are drawn of a `PageState`
    PageFigure(
        "now", "The step: world, view, probabilities of the actions, router weights, and LPC over the episode", draw_now
    ),
    PageFigure(
        "why",
        "What the things of earlier steps contribute to the target: minus the predicted effect of their absence, by "
        "path (integrated gradients; docs/generative.md), walls left out",
        draw_why,
    ),
    PageFigure(
        "imagined",
        "What the simulator shows from this step on, below what really came; wrong cells are framed",
        draw_imagined,
    ),
    PageFigure("edited", "Real and simulated futures of this step, as it was and after the edit", draw_edited),
    PageFigure(
        "effect",
        "The target over the steps after this one, with and without the edit, and the change it makes",
        draw_effect,
    ),
]


def label_of(state: PageState, name: str) -> str:
    """The alternative text of a figure."""
    more = {"why": f" {state.target_word}", "edited": " {0}", "effect": " {0} on " + state.target_word}
    word = state.edit_word if name in ("edited", "effect") else ""
    return f"{state.name}: {name}{more.get(name, '').format(word)}"


# --- in words ---------------------------------------------------------------------------------------------------------


def facts(state: PageState) -> list[tuple[str, str, str]]:
    """The agreement of the simulator with the real world: value, name, remark."""
    agreement = state.agreement
    if not agreement.num_steps:
        return [("0 steps", "to compare", "the episode ends here")]
    return [
        (f"{agreement.cells:.1%}", "cells right", f"if nothing changed: {agreement.copied_cells:.1%}"),
        (f"{agreement.views:.0%}", "views right", f"of {counted(agreement.num_steps, 'step')}"),
        (f"{agreement.actions:.0%}", "same action", "by the policy"),
        (f"{agreement.routing:.3f}", "router weights", "mean difference"),
        (f"{agreement.lpc:,.0f}", "LPC", "mean difference"),
    ]


def causes_table(state: PageState, view: View) -> str:
    """The largest causes as a table in HTML; each links to the future of that step without it."""
    causes = sorted(state.causes, key=lambda cause: -abs(cause.total))[:_IN_TABLE]
    largest = max((abs(cause.total) for cause in causes), default=0.0)
    lines = [_line(["steps before", "what was there", "contributes", *PATH_WORDS.values(), ""], "th")]
    for cause in causes:
        if abs(cause.total) <= _NEXT_TO_NOTHING * largest:
            continue
        numbers = [_signed(value, largest) for value in (cause.total, *cause.by_path.values())]
        word, address = link_to_edit(state, view, cause)
        link = f'<a href="{html.escape(address)}">{word}</a>' if address else ""
        lines.append(_line([str(cause.lag or "now"), html.escape(str(cause.thing)), *numbers, link], "td"))
    return f'{_TABLE_STYLE}<table class="causes">{"".join(lines)}</table>'


def _line(cells: Sequence[str], kind: str) -> str:
    return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"


def link_to_edit(state: PageState, view: View, cause: "Cause") -> tuple[str, str]:
    """An edit of a cause in words, and the address of its future up to the present step; "" without such an edit."""
    from generative.simulators.exact import DOOR, PORTABLE

    thing, choices = cause.thing, state.choices
    if choices.simulator != EXACT or thing.code[0] not in (*PORTABLE, DOOR):
        return "", ""
    other_state = "closed" if thing.code[2] == 0 else "open"
    change = "remove" if thing.code[0] in PORTABLE else other_state
    asked = {
        **{"recording": state.recording.folder.name, "episode": choices.episode, "step": state.step - cause.lag},
        **{"tab": "Edit", "cell": f"{thing.x},{thing.y}", "change": change, "target": state.target_word},
        **{"steps": max(1, cause.lag), "actions": choices.since},
    }
    word = "without it" if change == "remove" else f"if it were {change}"
    return word, "?" + urlencode({**view.words, **asked}, safe=",:/")


def link_to_moment(state: PageState, view: View) -> Callable[[Mapping], str]:
    """Addresses behind a figure: of a step, and of the edit of a thing in the world."""

    def address(values: Mapping) -> str:
        kept = {**view.words, "recording": state.recording.folder.name, "episode": state.choices.episode}
        if "lpc" in values and values["step"] < num_steps_of(state.episode):
            return "?" + urlencode({**kept, "step": values["step"]}, safe=",:/")
        if {"x", "y"} <= values.keys() and values["can_be_edited"]:
            here = {"step": state.step, "tab": "Edit", "cell": f"{values['x']},{values['y']}"}
            kept.pop("change", None)
            return "?" + urlencode({**kept, **here}, safe=",:/")
        return ""

    return address


def _signed(value: float, largest: float) -> str:
    """A number of a table; 0 where it is negligible compared with the largest."""
    return f"{value:+.3g}" if abs(value) > _NEXT_TO_NOTHING * largest else "0"


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


def parse_settings() -> Settings:
    """The flags of this process; a "--" in front of them is left out."""
    words = sys.argv[1:]
    return parse(Settings, ABOUT, words[1:] if words[:1] == ["--"] else words)


def state_of(settings: Settings) -> PageState:
    """The selection of the flags."""
    recording = open_recording(next(iter(find_recordings(settings.data_dir).values())))
    k = settings.episode if settings.episode is not None else first_episode(recording, recording.episodes())
    state = PageState(recording, settings.choices(k, 0), settings.checkpoint)
    step = settings.step if settings.step is not None else first_step(state.episode)
    return PageState(recording, settings.choices(k, step), settings.checkpoint)


def file_of(state: PageState, name: str) -> str:
    """The name of a figure's files, with the step, the target and the edit."""
    parts = [name, f"episode_{state.choices.episode}", f"step_{state.step}"]
    parts += [state.target_word] if name in ("why", "effect") else []
    parts += [state.edit_word] if name in ("edited", "effect") else []
    return "_".join(parts).replace(":", "_").replace(",", "_")


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
        lines += [] if name == "now" else [f"Simulator: {choices.simulator}; target: {state.target_word}."]
        return lines + ([f"Edit: {edit_name(state)} ({state.edit_word})."] if name in ("edited", "effect") else [])

    figures = [replace(figure.of(state), file=functools.partial(file_of, state, figure.name)) for figure in FIGURES]
    place = Path(settings.plots_dir) / "generative" / folder.name
    return Page(APP, words, place, figures, describe, settings.plots_dir)


def save_as_script() -> None:
    """Save all figures of a step, or those that --only names."""
    settings = parse_settings()
    state = state_of(settings)
    names = chosen(FIGURES, settings.only)
    if state.choices.simulator != EXACT and names != ["now"]:
        print(f"note: {state.fidelity[0]}", file=sys.stderr)
    page_of(settings, state).save_as_script(settings)
