"""A policy's recorded steps computed again by the page's JavaScript: how far the numbers are from Python's."""

from typing import NamedTuple

import numpy as np
from javascript import as_text, floats_of
from recorded_steps import Recorded

MODULES = ("numbers", "missions", "policy")
# every episode from its first step on, each step with the hidden state of the page's own step before it
REPLAY = """
function replay({ policy, missions, lengths, obs }) {
  const own = new Policy(policy), all = bytesOf(obs), kept = { logits: [], routing: [], hidden: [] };
  const start = performance.now();
  let step = 0;
  lengths.forEach((length, k) => {
    const lang = own.lang(missions[k]);
    let hidden = own.zeroHidden();
    for (const end = step + length; step < end; step++) {
      const made = own.step(all.subarray(152 * step, 152 * (step + 1)), lang, hidden);
      hidden = made.hidden;
      kept.logits.push(made.logits);
      kept.routing.push(...made.routing);
      kept.hidden.push(hidden);
    }
  });
  const seconds = (performance.now() - start) / 1000;
  return { seconds, actions: kept.logits.map(argmax), logits: textOfFloats(kept.logits),
    routing: textOfFloats(kept.routing), hidden: textOfFloats(kept.hidden) };
}
"""


class Distance(NamedTuple):
    """Number of steps with another action, the largest differences, and how fast the page was."""

    num_steps: int
    other_actions: int
    logits: float
    routing: float
    hidden: float
    steps_per_s: float


def distance(page, packed: dict, recorded: Recorded) -> Distance:
    """Compute recorded steps in a page with MODULES and REPLAY, and compare."""
    asked = {"policy": packed, "missions": recorded.missions, "lengths": recorded.lengths}
    made = page.evaluate("asked => replay(asked)", asked | {"obs": as_text(recorded.obs)})
    names = ("logits", "routing", "hidden")
    expected = [getattr(recorded, name) for name in names]
    largest = [
        float(np.abs(floats_of(made[name]).reshape(values.shape) - values).max())
        for name, values in zip(names, expected, strict=True)
    ]
    others = int((np.array(made["actions"]) != recorded.action).sum())
    return Distance(len(recorded.obs), others, *largest, len(recorded.obs) / made["seconds"])
