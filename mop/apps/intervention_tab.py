"""The Interventions tab: controls of the routers' weights, two players in one, use against need."""

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import marimo as mo

from mop.apps import intervention_page
from mop.apps.elements import View, as_html, in_a_row, problem, show_figure, told
from mop.apps.episode_records import episode_labels
from mop.apps.episode_tab import frame
from mop.apps.intervention_page import AFTER, MEMORIES, SOURCES, Experts, Pair, Place
from mop.apps.runs import Run
from mop.artifacts.intervention_rows import in_words
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
from mop.common.files import write_atomic
from mop.common.intervention_grammar import GATE_ONLY, NONE, Intervention
from mop.plotting.bars import lesioned_variants

if TYPE_CHECKING:
    from mop.evaluation.intervention_runs import OneWorld

TAB = "Interventions"
ABOUT = "Other weights in place of the routers': what the policy does then, in one world and in all."
WHAT, MEMORY, WORLD = "what", "memory", "world"  # words of the address
_LEAST_PX = 860  # of the matrix: its numbers can be read, and a narrow page scrolls
_STYLE = """
.gates { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 332px), 1fr)); gap: 0.75rem 1.5rem }
.gates section > div:first-child { display: flex; gap: 1rem; align-items: center; margin-bottom: 0.25rem }
.gates .expert { display: grid; grid-template-columns: minmax(6rem, max-content) 6.7rem 1fr; gap: 0 0.5rem;
  align-items: center; margin-bottom: 0.4rem; white-space: nowrap }
.gates .expert b { font-weight: 500 } .gates .expert b::before { content: ""; display: inline-block; width: 0.7em;
  height: 0.7em; margin-right: 0.4em; border-radius: 2px; background: var(--hue) }
.gates .expert > :nth-child(2) { grid-column: 2 / 4 } .gates .expert small { grid-column: 2; color: #555 }
"""


class Controls(NamedTuple):
    """What is set of the routers: the experts, where their sliders stand while they learn, and all controls by name."""

    experts: Experts
    homes: Mapping[Place, float]
    given: Any  # a dictionary of marimo's elements

    @property
    def asked(self) -> Intervention:
        """The intervention that is set."""
        return intervention_page.asked_for(self.given.value, self.homes)

    @property
    def variant(self) -> str:
        """What becomes of the memory of an expert without weight."""
        return MEMORIES[self.given.value["memory"]]


def controls(data: RoutingData, view: View) -> tuple[Controls, str]:
    """The controls as the address of the page has them, and why they cannot show what it asks for, or ""."""
    experts, reason = intervention_page.experts_of(data), ""
    try:
        begun = intervention_page.begin(view.words.get(WHAT, NONE), experts)
    except InputError as error:
        begun, reason = Intervention(NONE), str(error)
    homes = intervention_page.homes_of(experts, begun)
    values = intervention_page.values_of(begun, experts, homes)
    memory = {variant: name for name, variant in MEMORIES.items()}[view.pick(MEMORY, MEMORIES.values(), GATE_ONLY)]

    def keep(chosen: Mapping[str, Any]) -> None:
        view.put(WHAT, intervention_page.asked_for(chosen, homes), Intervention(NONE))
        view.put(MEMORY, MEMORIES[chosen["memory"]], GATE_ONLY)

    elements = {name: _element(name, value, homes) for name, value in values.items()}
    elements["memory"] = mo.ui.dropdown([*MEMORIES], memory, label="Memory at weight 0", allow_select_none=False)
    return Controls(experts, homes, mo.ui.dictionary(elements, on_change=keep)), reason


def _element(name: str, value: Any, homes: Mapping[Place, float]):
    kind, _, place = name.partition(" ")
    if kind == "from":
        return mo.ui.dropdown([*SOURCES], value, label="weights", allow_select_none=False)
    if kind == "out":
        return mo.ui.switch(value, label="leave out")
    if kind == "after":
        return mo.ui.dropdown([*AFTER], value, label="Then, in all layers", allow_select_none=False)
    extra = {value, *(home for other, home in homes.items() if str(other) == place)}
    steps = sorted({step / 100 for step in range(101)} | extra)
    label = "below" if kind == "threshold" else ""
    return mo.ui.slider(steps=steps, value=value, label=label, debounce=True, show_value=True)


def controls_shown(made: Controls) -> mo.Html:
    """The controls, layer by layer, with what they make of each expert in words."""
    given, values = made.given, made.given.value
    sections = []
    for layer in dict.fromkeys(place.layer for place in made.experts):
        rows = "".join(
            f'<div class="expert"><b style="--hue: {expert.hue}">{place} {html.escape(expert.name)}</b>'
            f"{given[f'weight {place}']}"
            f"<small>{intervention_page.state_of(place, expert, values, made.homes)}</small>"
            f"{given[f'out {place}']}</div>"
            for place, expert in made.experts.items()
            if place.layer == layer
        )
        sections.append(f"<section><div><strong>layer {layer}</strong>{given[f'from {layer}']}</div>{rows}</section>")
    last = [given["after"], *([given["threshold"]] if values["after"] == "threshold" else []), given["memory"]]
    grid = mo.Html(f'<style>{_STYLE}</style><div class="gates">{"".join(sections)}</div>')
    return mo.vstack([grid, in_a_row(*last)])


def text_field(made: Controls, view: View, on_text: Callable[[str], None]):
    """The field that shows what is set as a text, in which another text can be typed; on_text: called with that."""

    def keep(text: str) -> None:
        view.put(WHAT, text.strip() or NONE, NONE)
        on_text(text)

    return mo.ui.text(str(made.asked), label="As a text", full_width=True, on_change=keep)


def text_shown(field, made: Controls, run: Run, data: RoutingData, reason: str) -> mo.Html:
    """The field, why it could not be shown by the controls, and the command that measures the same in all worlds."""
    command = intervention_page.command_of(run, data, made.asked, made.variant)
    line = mo.Html(as_html(f"In all worlds: `{command}`"))
    return mo.vstack([*([problem(reason, "warn")] if reason else []), field, line])


# --- one world --------------------------------------------------------------------------------------------------------


def world_dropdown(data: RoutingData, view: View):
    """A dropdown of the worlds of the evaluation, with that of the address."""
    labels = episode_labels(data)
    default = next(iter(labels.values()))
    number = view.pick_number(WORLD, 0, len(data.episodes) - 1, default)
    first = next((name for name, index in labels.items() if index == number), next(iter(labels)))
    return mo.ui.dropdown(
        labels,
        first,
        label="World",
        allow_select_none=False,
        searchable=len(labels) > 20,
        on_change=view.keep(WORLD, default),
    )


def find_button():
    """What looks for a world that is solved only with or only without the intervention."""
    return mo.ui.run_button(
        label="Next world with another outcome", tooltip="The next that is solved only with, or only without it"
    )


def find_world(world: "OneWorld", data: RoutingData, made: Controls, after: int, view: View) -> int | None:
    """The number of such a world, which the address then has; None if there is none."""
    with mo.status.spinner("Playing other worlds", remove_on_exit=True):
        found = intervention_page.find_changed(world, len(data.episodes), after, made.asked, made.variant)
    if found is not None:
        view.put(WORLD, found, None)
    return found


def pair_shown(pair: Pair) -> mo.Html:
    """What becomes of the world in a sentence, above both episodes side by side."""
    try:
        player = frame(intervention_page.document_of(pair), "both episodes")
    except InputError as error:
        player = problem(error, "warn")
    return mo.vstack([mo.callout(mo.Html(as_html(intervention_page.tell(pair)))), player])


def save_pair(pair: Pair, variant: str, folder: str | Path) -> mo.Html:
    """Write the player of both as one HTML file, and say where it is."""
    path = Path(folder) / f"{intervention_page.file_of(pair, variant)}.html"
    try:
        content = intervention_page.document_of(pair).encode()
        write_atomic(path, lambda file: file.write(content))
    except (InputError, OSError) as error:
        return problem(error)
    return told(f"saved: `{path}`")


# --- use against need -------------------------------------------------------------------------------------------------


def matrix_shown(run: Run, data: RoutingData, rows: list[Mapping], variant: str) -> mo.Html:
    """The matrix of a memory variant with the table of all rows below."""
    notes = [problem(note, "warn") for note in [intervention_page.other_checkpoint(run, rows, data)] if note]
    try:
        figure = show_figure(
            intervention_page.plot_matrix(run, rows, variant), f"{run.name}: use against need, {variant}"
        )
        shown = mo.Html(
            f'<div style="overflow-x: auto"><div style="min-width: {_LEAST_PX}px">{figure.text}</div></div>'
        )
    except InputError as error:
        shown = problem(error, "warn")
    table = mo.ui.table(
        [*map(in_words, rows)],
        selection=None,
        page_size=10,
        show_column_summaries=False,
        show_data_types=False,
        label="**Interventions in all worlds**: differences paired by world, with 95 % intervals",
    )
    return mo.vstack([*notes, shown, table])


def variant_of(rows: list[Mapping], chosen: str) -> str:
    """The memory variant of the matrix: the chosen one, where experts were left out with it, else one of those."""
    known = lesioned_variants(rows)
    return chosen if chosen in known or not known else known[0]
