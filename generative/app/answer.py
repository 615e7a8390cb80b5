"""The answer of a page in words: why the policy did that."""

import html

import numpy as np

from generative.app.state import PageState
from generative.attribution.explanations import PATHS, short_number
from mop.apps.elements import View
from mop.common.conventions import ACTION_NAMES
from mop.plotting.style import counted

VERBS = ("turns left", "turns right", "goes forward", "picks up", "drops", "toggles", "is done")
HOW = dict(zip(PATHS, ("seen now", "seen, and remembered", "still in the world", "by world and memory"), strict=True))
UNITS = {"action": "to its logit", "routing": "to the weight", "lpc": "parameters", "entropy": "nats"}
_NUM_CAUSES, _NEXT_TO_NOTHING = 5, 0.01  # things that are named; share of the largest that is not worth a line


def amounts(state: PageState) -> np.ndarray:
    """What each cause contributes: in truth, where a copy of the real world without it tells; else by attribution."""
    true = state.explanation.contribution[:, 0 if state.is_own else 1]
    return np.where(np.isnan(true), state.explanation.total, true)


def largest_causes(state: PageState) -> list[int]:
    """The row of the explanation in which each thing contributes most, the largest first: one for a thing, not all."""
    found: dict[int, int] = {}
    sizes = np.abs(amounts(state))
    for row in np.argsort(-sizes, kind="stable").tolist():
        if sizes[row] > _NEXT_TO_NOTHING * sizes.max():
            found.setdefault(state.explanation.object_number(row), row)
    return [*found.values()][:_NUM_CAUSES]


def what_happens(state: PageState) -> str:
    """The first half of the sentence: what the policy does, or what the target is."""
    action = int(state.episode["action"][state.step])
    share = np.exp(float(state.episode["log_probs"][state.step, action]))
    does = f"It {VERBS[action]} ({share:.0%})"
    kind, _, name = state.target_word.partition(":")
    if kind != "action":
        return f"{does}; {state.target_word} is {short_number(float(state.explanation.value))}"
    is_taken = ACTION_NAMES[action].replace("turn ", "").replace(" ", "") == name
    return does if is_taken else f"{does}; what speaks for {name} here"


def why(state: PageState, view: View) -> str:
    """Why, in HTML: a sentence with the largest cause, then the others, each a link to its step."""
    rows = largest_causes(state)
    if not rows:
        return f"<p>{what_happens(state)}. Nothing but floor and walls was there: no cause to name.</p>"
    first, *others = (_cause(state, view, row) for row in rows)
    because = "because of" if amounts(state)[rows[0]] > 0 else "in spite of"
    lines = "".join(f"<li>{line}</li>" for line in others)
    more = f"<ul style='list-style: disc; padding-left: 1.2em'>{lines}</ul>"
    note = "<p>In truth: measured with the thing taken out of a copy of the real world.</p>"
    return f"<p><b>{what_happens(state)}, most of all {because} {first}.</b></p>{more}{note}"


def _cause(state: PageState, view: View, row: int) -> str:
    """ "the red key, 3 steps earlier: in truth +8.8 to its logit; by attribution +9.3 (seen, and remembered)"."""
    explanation = state.explanation
    lag, total, amount = int(explanation.lag[row]), float(explanation.total[row]), float(amounts(state)[row])
    asked = {"recording": state.recording.folder.name, "episode": state.number, "step": state.step - lag}
    address = html.escape(view.here(asked))
    when = f'<a href="{address}">{counted(lag, "step")} earlier</a>' if lag else "now"
    path = HOW[PATHS[int(np.abs(explanation.by_path[row]).argmax())]]
    unit = UNITS[state.target_word.partition(":")[0]]
    is_measured = np.isfinite(explanation.contribution[row, 0 if state.is_own else 1])
    truth = f"in truth {short_number(amount, 3, '+')} {unit}; " if is_measured else ""
    unit = "" if is_measured else f" {unit}"
    return f"the {explanation.thing(row)}, {when}: {truth}by attribution {short_number(total, 3, '+')}{unit} ({path})"
