"""What the page of the simulator shows: its figures and tables, its flags, and what a script saves."""

import functools
import html
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import numpy as np
from matplotlib.figure import Figure

from generative.app import views
from generative.app.catalog import RECORDINGS_DIR, SMALL, find_recordings, first_episode, first_step, num_steps_of
from generative.app.selection import DEFAULTS, OWN, RECORDED, TAKEN, Choices, Exhibit
from generative.domains.babyai.causes import thing_name
from generative.recordings.format import open_recording
from generative.simulators.base import EXACT
from mop.apps.export import Export
from mop.apps.flags import parse, saving_parser
from mop.apps.run_figures import Drawing, chosen, save_figures
from mop.apps.view import View
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.configuration import Parser, check_flags, choice, integer, optional, text
from mop.common.errors import InputError
from mop.common.task_mix import task_name
from mop.plotting.style import counted

if TYPE_CHECKING:
    from generative.app.recorded_step import Cause

APP = "simulator_viz.py"
ACTIONS = {"the policy's own": OWN, "as recorded": RECORDED}
PICTURES = {"worlds": views.WORLD, "views": views.VIEW}
MAX_HORIZON, MAX_STEPS = 16, 24
_TOP = 6  # things in the figure of causes
_IN_TABLE, _NEXT_TO_NOTHING = 8, 1e-3  # lines; share of the largest number
_TABLE_STYLE = """<style>.causes { border-collapse: collapse } .causes th, .causes td { padding: 2px 14px;
text-align: right; border-bottom: 1px solid #ddd } .causes th:nth-child(2), .causes td:nth-child(2) { text-align: left }
.causes a { text-decoration: underline }</style>"""


# --- figures ----------------------------------------------------------------------------------------------------------


def draw_now(exhibit: Exhibit) -> Figure:
    """`plot_now` of the moment."""
    episode, step = exhibit.episode, exhibit.choices.step
    outcome = "success" if episode.success else "failed"
    task = task_name(exhibit.recording.config["encoding"]["task_id"])
    title = f"{task}, {exhibit.title.lower()} of {num_steps_of(episode)} · {episode.behaviour}, {outcome}"
    title += f" · {episode.mission}"
    return views.plot_now(episode, step, exhibit.sizes, title)


def draw_why(exhibit: Exhibit) -> Figure:
    """`plot_causes` of the target. Raises InputError where there is nothing to be a cause."""
    causes, num_lags = exhibit.causes, min(exhibit.choices.horizon, exhibit.choices.step) + 1
    if not causes:
        raise InputError("nothing but floor and walls was there: no cause to name")
    sums = {path: np.zeros(num_lags) for path in views.PATH_HUES}
    for cause in causes:
        for path, value in cause.by_path.items():
            sums[path][cause.lag] += value
    since = "actions as recorded" if exhibit.choices.since == RECORDED else "the policy acts"
    title = f"{exhibit.title}: what contributes to {exhibit.target_word} · {simulator_name(exhibit)}, {since}"
    rows = rows_of(causes, num_lags)[:_TOP]
    return views.plot_causes(exhibit.episode, exhibit.choices.step, sums, rows, exhibit.target_word, title)


def rows_of(causes: Sequence["Cause"], num_lags: int) -> list[views.Row]:
    """A row for each thing, that with the largest contribution at any step first."""
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
        views.Row(names[key] + (f" {chr(97 + alike[key].index(key))}" if len(alike[key]) > 1 else ""), totals[key])
        for key in order
    ]


def draw_imagined(exhibit: Exhibit) -> Figure:
    """`plot_imagined` of the moment."""
    title = f"{exhibit.title}: {simulator_name(exhibit)} beside the truth, {_acting(exhibit)}"
    return views.plot_imagined(*exhibit.futures(False), exhibit.choices.step, exhibit.sizes, title)


def draw_edited(exhibit: Exhibit) -> Figure:
    """`plot_futures` of the moment and of its edit."""
    title = f"{exhibit.title}: {edit_name(exhibit)} · {simulator_name(exhibit)}, {_acting(exhibit)}"
    return views.plot_futures(
        all_futures(exhibit), exhibit.choices.step, exhibit.sizes, exhibit.choices.pictures, title
    )


def draw_effect(exhibit: Exhibit) -> Figure:
    """`plot_effect` of the edit."""
    moment = exhibit.moment(exhibit.choices.actions)
    values = {name: moment.values(rows, exhibit.target) for name, rows in all_futures(exhibit).items()}
    title = f"{exhibit.title}: {edit_name(exhibit)}"
    return views.plot_effect(values, changes_of(exhibit), exhibit.choices.step, exhibit.target_word, title)


def all_futures(exhibit: Exhibit) -> dict[str, views.Rows]:
    """The four of `views.FUTURES`."""
    real, simulated = exhibit.futures(False)
    real_edited, simulated_edited = exhibit.futures(True)
    return dict(zip(views.FUTURES, (real, real_edited, simulated, simulated_edited), strict=True))


def changes_of(exhibit: Exhibit) -> dict[str, np.ndarray]:
    """What the edit does to the target, step by step: of `views.EFFECTS`, (T,) each."""
    moment = exhibit.moment(exhibit.choices.actions)
    values = {name: moment.values(rows, exhibit.target) for name, rows in all_futures(exhibit).items()}
    return {
        views.MEASURED: _difference(values["real_edited"], values["real"]),
        views.SIMULATED: _difference(values["simulated_edited"], values["simulated"]),
        views.PREDICTED: exhibit.prediction,
    }


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    num_steps = min(len(one), len(other))
    return one[:num_steps] - other[:num_steps]


def edit_name(exhibit: Exhibit) -> str:
    """The edit in words, with its place."""
    from generative.app.recorded_step import describe_edit

    edit, moment = exhibit.edit, exhibit.moment(exhibit.choices.actions)
    return f"{describe_edit(edit)}, {moment.cell_name(edit).split(', ')[-1]}"


def simulator_name(exhibit: Exhibit) -> str:
    """What the simulator is called."""
    simulator = exhibit.choices.simulator
    return "exact simulator" if simulator == EXACT else f"simulator {Path(simulator).name}"


def _acting(exhibit: Exhibit) -> str:
    return "the policy acts" if exhibit.choices.actions == OWN else "actions as recorded"


FIGURES = {  # name -> what it shows, what draws it
    "now": (
        "The moment: world, view, probabilities of the actions, router weights, and LPC over the episode",
        draw_now,
    ),
    "why": (
        "What the things of earlier steps contribute to the target: minus the predicted effect of their absence, by "
        "path (integrated gradients; docs/generative.md), walls left out",
        draw_why,
    ),
    "imagined": (
        "What the simulator shows from this step on, below what really came; wrong cells are framed",
        draw_imagined,
    ),
    "edited": ("Real and simulated futures of this step, as it was and after the edit", draw_edited),
    "effect": (
        "The target over the steps after this one, with and without the edit, and the change it makes",
        draw_effect,
    ),
}


def drawings(exhibit: Exhibit) -> dict[str, Drawing]:
    """Every figure of the moment, by name."""
    return {name: Drawing(about, functools.partial(draw, exhibit)) for name, (about, draw) in FIGURES.items()}


def label_of(exhibit: Exhibit, name: str) -> str:
    """What a figure shows, for readers that cannot see it."""
    more = {"why": f" {exhibit.target_word}", "edited": " {0}", "effect": " {0} on " + exhibit.target_word}
    word = exhibit.edit_word if name in ("edited", "effect") else ""
    return f"{exhibit.name}: {name}{more.get(name, '').format(word)}"


# --- in words ---------------------------------------------------------------------------------------------------------


def facts(exhibit: Exhibit) -> list[tuple[str, str, str]]:
    """How the simulator agrees with the truth: value, name, remark."""
    found = exhibit.agreement
    if not found.num_steps:
        return [("0 steps", "to compare", "the episode ends here")]
    return [
        (f"{found.cells:.1%}", "cells right", f"if nothing changed: {found.copied_cells:.1%}"),
        (f"{found.views:.0%}", "views right", f"of {counted(found.num_steps, 'step')}"),
        (f"{found.actions:.0%}", "same action", "by the policy"),
        (f"{found.routing:.3f}", "router weights", "mean difference"),
        (f"{found.lpc:,.0f}", "LPC", "mean difference"),
    ]


def causes_table(exhibit: Exhibit, view: View) -> str:
    """The largest causes as a table in HTML; each links to the future of that step without it."""
    causes = sorted(exhibit.causes, key=lambda cause: -abs(cause.total))[:_IN_TABLE]
    largest = max((abs(cause.total) for cause in causes), default=0.0)
    causes = [cause for cause in causes if abs(cause.total) > _NEXT_TO_NOTHING * largest]
    words = ["steps before", "what was there", "contributes", *views.PATH_WORDS.values(), ""]
    lines = [_line(words, "th")]
    for cause in causes:
        numbers = [_signed(value, largest) for value in (cause.total, *cause.by_path.values())]
        word, address = link_to_edit(exhibit, view, cause)
        link = f'<a href="{html.escape(address)}">{word}</a>' if address else ""
        lines.append(_line([str(cause.lag or "now"), html.escape(str(cause.thing)), *numbers, link], "td"))
    return f'{_TABLE_STYLE}<table class="causes">{"".join(lines)}</table>'


def _line(cells: Sequence[str], kind: str) -> str:
    return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"


def link_to_edit(exhibit: Exhibit, view: View, cause: "Cause") -> tuple[str, str]:
    """What else could have been there, in words, and the address of that future up to the moment that is shown.

    "" where there is no such edit.
    """
    from generative.simulators.exact import DOOR, PORTABLE

    thing, choices = cause.thing, exhibit.choices
    if choices.simulator != EXACT or thing.code[0] not in (*PORTABLE, DOOR):
        return "", ""
    other_state = "closed" if thing.code[2] == 0 else "open"
    change = "remove" if thing.code[0] in PORTABLE else other_state
    asked = {
        **{"recording": exhibit.recording.folder.name, "episode": choices.episode, "step": choices.step - cause.lag},
        **{"tab": "Edit", "cell": f"{thing.x},{thing.y}", "change": change, "target": exhibit.target_word},
        **{"steps": max(1, cause.lag), "actions": choices.since},
    }
    word = "without it" if change == "remove" else f"if it were {change}"
    return word, "?" + urlencode({**view.words, **asked}, safe=",:/")


def link_to_moment(exhibit: Exhibit, view: View) -> Callable[[Mapping], str]:
    """For `show_figure`: from a step to that step, from a thing in the world to its edit."""

    def address(values: Mapping) -> str:
        kept = {**view.words, "recording": exhibit.recording.folder.name, "episode": exhibit.choices.episode}
        if "lpc" in values and values["step"] < num_steps_of(exhibit.episode):
            return "?" + urlencode({**kept, "step": values["step"]}, safe=",:/")
        if {"x", "y"} <= values.keys() and values["can_be_edited"]:
            here = {"step": exhibit.choices.step, "tab": "Edit", "cell": f"{values['x']},{values['y']}"}
            kept.pop("change", None)
            return "?" + urlencode({**kept, **here}, safe=",:/")
        return ""

    return address


def _signed(value: float, largest: float) -> str:
    """A number of a table; 0 where it is next to nothing beside the largest."""
    return f"{value:+.3g}" if abs(value) > _NEXT_TO_NOTHING * largest else "0"


def _some(words: Mapping[str, object]) -> str:
    shown = [*words][:12]
    return ", ".join(shown) + (f" and {len(words) - len(shown)} more" if len(words) > len(shown) else "")


# --- flags and files --------------------------------------------------------------------------------------------------


def parser() -> Parser:
    """The command line of the app."""
    added = saving_parser(
        "Why a policy did what it did at a step of a recorded episode, what a simulator imagines from there, and what "
        f"an edit of the world changes. `marimo run {APP} -- --data_dir {RECORDINGS_DIR}/{SMALL['name']}` opens the "
        "app; as a script, it saves its figures to plots/generative/<recording>/ and prints their paths."
    )
    add = added.add_argument
    add("--data_dir", help=f"a recording, or a folder of some (default: {RECORDINGS_DIR})")
    add("--episode", help="begin with this episode (default: one by argmax)")
    add("--step", help="... at this step (default: where LPC is largest)")
    add(
        "--target",
        default=TAKEN,
        help="what is explained: action:forward, routing:2.1, lpc, entropy (default: %(default)s)",
    )
    add("--horizon", default=DEFAULTS["horizon"], help="steps back at most (default: %(default)s)")
    add("--since", default=DEFAULTS["since"], help="what is done between: own, recorded (default: %(default)s)")
    add("--simulator", default=EXACT, help="exact, or the folder of a learned one (default: %(default)s)")
    add("--num_sim_steps", default=DEFAULTS["num_sim_steps"], help="steps ahead (default: %(default)s)")
    add("--actions", default=DEFAULTS["actions"], help="what is done ahead: own, recorded (default: %(default)s)")
    add("--edit", default="", help="such as 3,4:remove, 3,4:blue, 3,4:ball, 3,4:open, 3,4:red_key (default: the first)")
    add("--pictures", default=views.WORLD, help="of futures: world, view (default: %(default)s)")
    add("--checkpoint", help="the policy of the recording, where it was moved")
    return added


def checked(parser: Parser) -> Namespace:
    """The flags of this process. Raises InputError naming a wrong one."""
    args = parse(parser)
    check_flags(
        args,
        episode=optional(integer(0)),
        step=optional(integer(0)),
        target=text,
        horizon=integer(0, MAX_HORIZON),
        since=choice(OWN, RECORDED),
        simulator=text,
        num_sim_steps=integer(1, MAX_STEPS),
        actions=choice(OWN, RECORDED),
        pictures=choice(views.WORLD, views.VIEW),
    )
    return args


def exhibit_of(args: Namespace) -> Exhibit:
    """What the flags ask for. Raises InputError where it is not there."""
    recording = open_recording(next(iter(find_recordings(args.data_dir).values())))
    k = args.episode if args.episode is not None else first_episode(recording, recording.episodes())
    asked = {name: getattr(args, name) for name in DEFAULTS}
    exhibit = Exhibit(recording, Choices(k, 0, **asked), args.checkpoint)
    step = args.step if args.step is not None else first_step(exhibit.episode)
    return Exhibit(recording, replace(exhibit.choices, step=step), args.checkpoint)


def folder_of(args: Namespace, exhibit: Exhibit) -> Path:
    """Where the figures of a recording go."""
    return Path(args.plots_dir) / "generative" / exhibit.recording.folder.name


def file_of(exhibit: Exhibit, name: str) -> str:
    """What the files of a figure are called: other moments, targets and edits are other files."""
    parts = [name, f"episode_{exhibit.choices.episode}", f"step_{exhibit.choices.step}"]
    parts += [exhibit.target_word] if name in ("why", "effect") else []
    parts += [exhibit.edit_word] if name in ("edited", "effect") else []
    return "_".join(parts).replace(":", "_").replace(",", "_")


def caption_of(args: Namespace, exhibit: Exhibit, name: str, export: Export) -> str:
    """The caption of a figure, in lines; the last one is what makes it again."""
    recording, episode, choices = exhibit.recording, exhibit.episode, exhibit.choices
    words = ["python", APP, "--data_dir", recording.folder.as_posix(), *choices.flags, "--only", name, *export.flags]
    words += [] if args.plots_dir == PLOTS_DIR else ["--plots_dir", args.plots_dir]
    words += [] if args.checkpoint is None else ["--checkpoint", args.checkpoint]
    checkpoint = recording.config["checkpoint"]
    outcome = "success" if episode.success else "failed"
    lines = [
        f"{FIGURES[name][0]}.",
        f"Episode: {choices.episode} of {recording.folder.name}, world {episode.seed} ({episode.split}), "
        f"{episode.behaviour}, {counted(num_steps_of(episode), 'step')}, {outcome}; mission: {episode.mission}.",
        f"Policy: {checkpoint['path']}, its SHA-256 begins with {checkpoint['sha256'][:16]}.",
    ]
    if name != "now":
        lines.append(f"Simulator: {choices.simulator}; target: {exhibit.target_word}.")
    if name in ("edited", "effect"):
        lines.append(f"Edit: {edit_name(exhibit)} ({exhibit.edit_word}).")
    return "\n".join([*lines, f"Command: {shlex.join(words)}"])


def save_as_script(parser: Parser) -> None:
    """The app as a script: save every figure of a moment, or those that --only names.

    Raises InputError if a flag is wrong, there is no such moment, or no figure can be drawn.
    """
    args = checked(parser)
    exhibit, export = exhibit_of(args), Export(args.format, args.width)
    wanted = chosen(drawings(exhibit), args.only)
    if exhibit.choices.simulator != EXACT and wanted.keys() != {"now"}:
        print(f"note: {exhibit.fidelity[0]}", file=sys.stderr)
    names = {file_of(exhibit, name): name for name in wanted}
    save_figures(
        {file: wanted[name] for file, name in names.items()},
        folder_of(args, exhibit),
        export,
        lambda file: caption_of(args, exhibit, names[file], export),
    )
