"""The Microscope tab: the policy of a run in its page, and the episodes of its evaluation, which open there."""

import functools
import html
from pathlib import Path
from typing import cast
from urllib.parse import urlencode

import marimo as mo
import numpy as np

from mop.apps.elements import View, table
from mop.apps.runs import Run, checkpoint_name, file_version
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError

TAB = "Microscope"
ABOUT = "The policy in its worlds: play, take over, change its routers, edit the world, ask why."
WORLD, STEP = "world", "step"  # words of the address, of the page and of the microscope
MOST_WORLDS = 200  # in one document


def document_of(run: Run, data: RoutingData) -> str:
    """The microscope of the checkpoint of a run, in the first worlds of its evaluation."""
    if run.checkpoint is None or not run.checkpoint.is_file():
        raise InputError(
            f"`{checkpoint_name(run, data)}` is not on this machine, and the microscope needs the policy itself: copy "
            "it there (`python modal_app.py download` brings what the cloud trained), or name its folder with "
            "`--checkpoint_dir`"
        )
    num_worlds, seed = min(len(data.episodes), MOST_WORLDS), data.header.get("eval_seed") or 0
    stat = file_version(run.checkpoint)
    return _document(run.checkpoint, stat, run.key.task_id, num_worlds, seed, run.cache_dir)


@functools.lru_cache(maxsize=4)  # 1.2 MB each; visitors share them
def _document(path: Path, version: tuple, task_id: str, num_worlds: int, eval_seed: int, cache_dir: str) -> str:
    from mop.evaluation.evaluate import load_for_evaluation
    from mop.microscope.document import microscope_document

    checkpoint = load_for_evaluation(path)
    return microscope_document([checkpoint], task_id, num_worlds, eval_seed, cache_dir)


def frame(document: str, view: View, part: RoutingData) -> mo.Html:
    """The document within a page, at the world and the step of the address, else at the first of some steps.

    It lies in the page itself. `mo.iframe` would make it a file of the session, which can be gone before the browser
    asks for it.
    """
    from mop.microscope.document import open_at

    place = {name: view.words[name] for name in (WORLD, STEP) if name in view.words} or _first_place(part)
    shown = html.escape(open_at(document, urlencode(place)))
    return mo.Html(f'<iframe class="microscope" title="microscope" srcdoc="{shown}"></iframe>')


def _first_place(part: RoutingData) -> dict[str, int]:
    """The world and the step of the first step of a part of an evaluation; nothing of a whole one."""
    steps = part.steps
    if part.whole is None or steps.t_step is None or steps.episode[0] >= MOST_WORLDS:
        return {}
    return {WORLD: int(steps.episode[0]), STEP: int(steps.t_step[0])}


def download(document: str, run: Run):
    """The very file, for the visitor."""
    name = f"{run.folder.replace('/', '_')}_microscope.html"
    return mo.download(document.encode(), name, "text/html", label="Download this page")


def episode_table(data: RoutingData, view: View):
    """A table of the episodes of an evaluation, to be sorted and searched; a row opens its world in the microscope."""
    rows = list_episodes(data)[:MOST_WORLDS]
    keep = view.keep(WORLD, None, forgets=(STEP,))

    def open_there(chosen: object) -> None:
        if isinstance(chosen, list) and chosen:
            keep(cast("dict", chosen[0])["world"])

    return table(rows, 5, selection="single", on_change=open_there)


def list_episodes(data: RoutingData) -> list[dict]:
    """What is known of each episode, a row for each."""
    lengths = np.bincount(data.steps.episode, minlength=len(data.episodes)).tolist()
    outcomes = {True: "solved", False: "failed"}
    rows = []
    for number, (episode, length) in enumerate(zip(data.episodes, lengths, strict=True)):
        steps, of_bot = episode.get("steps", length), episode.get("expert_steps")
        row = {"world": number, "mission": episode.get("mission", ""), "steps": steps}
        row |= {"outcome": outcomes.get(episode.get("success"), "")}
        rows.append(row | {"path ratio": round(steps / of_bot, 2) if of_bot else None})
    return rows
