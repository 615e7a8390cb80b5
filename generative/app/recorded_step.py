"""A moment of a recorded episode: why the policy answered as it did, and what came of it, also after an edit.

What comes after a moment is a future: rows as a recording has them, of the real world or of a simulator. In both, the
policy acts by its argmax, or what was recorded is done again. A future begins with what was there, or with one edit of
it (`generative.attribution.counterfactuals`), and its row i is i steps later.
Axis letters: T rows of a future, N futures, S hidden units, G numbers of a mission, C things.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, OBJECT_TO_IDX
from torch import Tensor

from generative.attribution.closed_loop import Trace, roll_out
from generative.attribution.counterfactuals import Edit, clone, edit_world, legal_edits
from generative.attribution.explanations import PATHS
from generative.attribution.integrated_gradients import ClosedLoopRollout, predict_effects
from generative.attribution.scenes import VIEW, Scene
from generative.domains.babyai.causes import Thing, code_of, place_name, thing_name
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.rollouts import greedy, play
from generative.domains.babyai.scenes import WorldScene
from generative.domains.base import Answer, Target
from generative.domains.registry import open_scenes
from generative.recordings.format import Episode, Recording, find_policy
from generative.simulators.base import EXACT, State
from generative.simulators.exact import cell_codes
from generative.simulators.relaxation import discretise
from mop.common.errors import InputError
from mop.envs.babyai import World
from mop.envs.geometry import DIRECTIONS, EMPTY
from mop.evaluation.evaluate import load_for_evaluation
from mop.training.policies import policy_from_checkpoint

NUM_POINTS = 8  # of an integral: twice as many change an attribution by some percent
Rows = Mapping[str, np.ndarray]
_WALL = OBJECT_TO_IDX["wall"]
_STATES = ("open", "closed", "locked")
_VERBS = {"open": "open", "closed": "close", "locked": "lock"}


class Cause(NamedTuple):
    """What a thing contributes to a target, `lag` steps later: minus the predicted effect of its absence, by path."""

    lag: int
    thing: Thing
    key: object  # the same for the same thing at other steps
    by_path: dict[str, float]  # of PATHS

    @property
    def total(self) -> float:
        """Along all paths."""
        return sum(self.by_path.values())


class Laboratory:
    """A recording's policy, its worlds, and a simulator of them."""

    def __init__(self, recording: Recording, simulator: str = EXACT, checkpoint: str | Path | None = None):
        """simulator: EXACT, or the folder of a learned one; checkpoint: where the policy lies now, if it was moved.

        Raises InputError where the policy or the simulator is missing, or is another one.
        """
        self.recording, self.simulator = recording, simulator
        encoding = recording.config["encoding"]
        self.task_id, self.max_steps = encoding["task_id"], encoding["max_steps"]
        self.policy = load_policy(recording, checkpoint)
        self.imagined = open_scenes(simulator, recording)
        self.is_exact = simulator == EXACT

    def worlds(self, episode: Episode, steps: range) -> Iterator[World]:
        """The real world of an episode at some steps, one after the other; it goes on with the next.

        Raises InputError where this Minigrid makes another world of the seed.
        """
        world = World(self.task_id, self.max_steps)
        world.reset(episode.seed)
        for step in range(steps.stop):
            if step in steps:
                if not np.array_equal(world.codes, episode["grid"][step]):
                    raise InputError(f"this Minigrid makes another world of seed {episode.seed}: record anew")
                yield world
            if step + 1 < steps.stop:
                world.step(int(episode["action"][step]))

    def scenes(self, episode: Episode, steps: range) -> Iterator[tuple[World, Scene]]:
        """The real world at some steps, and what the simulator begins with there."""
        for step, world in zip(steps, self.worlds(episode, steps), strict=True):
            yield world, self.imagined.at_world(world) if self.is_exact else self.imagined.at(episode, step, VIEW)


class Moment:
    """A step of an episode, in the real world and in a simulator. It is not changed by what is asked of it."""

    def __init__(self, laboratory: Laboratory, episode: Episode, step: int, is_recorded: bool = False):
        """is_recorded: what was recorded is done, rather than the policy's argmax."""
        self.laboratory, self.policy, self.episode = laboratory, laboratory.policy, episode
        self.step, self.is_recorded = step, is_recorded
        self._simulator = laboratory.imagined.simulator
        self.lang = torch.from_numpy(np.array(episode.lang))[None]
        ((self.world, self._scene),) = laboratory.scenes(episode, range(step, step + 1))
        self.steps_left = len(episode["action"]) - 1 - step

    def causes(self, target: Target, horizon: int) -> list[Cause]:
        """What each thing that was there up to `horizon` steps before contributes to the target, walls left out."""
        found = []
        steps = range(max(0, self.step - horizon), self.step + 1)
        for step, (world, scene) in zip(steps, self.laboratory.scenes(self.episode, steps), strict=True):
            things = [thing for thing in scene.things if thing.code[0] != _WALL]
            if things:
                loop, changed = self._loop(scene, step, self.step - step), scene.without(things)
                (effects,) = predict_effects(loop, scene.inputs, changed, [target], num_points=NUM_POINTS)
                by_path = {path: (-effects.total(path)).tolist() for path in PATHS}
                for number, thing in enumerate(things):
                    parts = {path: values[number] for path, values in by_path.items()}
                    found.append(Cause(self.step - step, thing, _key(thing, scene, world), parts))
        return found

    def real_futures(self, edits: Sequence[Edit | None], num_steps: int) -> list[Rows]:
        """What truly comes, up to `num_steps` steps later or to the end of the episode, after each edit or none."""
        num_steps = self._limited(num_steps)
        hidden = self._hidden(self.step).expand(len(edits), -1)
        choose = self._as_recorded() if self.is_recorded else greedy
        worlds = self._edited(edits)
        return play(self.policy, worlds, num_steps, choose, hidden, self.lang.expand(len(edits), -1))

    @torch.no_grad()
    def simulated_futures(self, edits: Sequence[Edit | None], num_steps: int) -> list[Rows]:
        """The same in the simulator, which knows no end of an episode."""
        num_steps = self._limited(num_steps)
        there = {name: torch.cat(parts) for name, *parts in _by_name([self._there(edit) for edit in edits])}
        state, first_view = self._scene.begin(there)
        hidden, lang = self._hidden(self.step), self.lang
        actions = self._actions(self.step, num_steps)
        trace = roll_out(
            self.policy, self._simulator, state, lang.expand(len(edits), -1), hidden.expand(len(edits), -1),
            num_steps + 1, None if actions is None else actions.expand(len(edits), -1), first_view=first_view,
        )  # fmt: skip
        return [_rows_of(trace, n, self.policy) for n in range(len(edits))]

    def predicted(self, edit: Edit, target: Target, num_steps: int) -> np.ndarray:
        """The change of the target that its gradients predict of an edit, 0, 1, ... steps later: (T,) float64."""
        changed, num_steps = self._there(edit), self._limited(num_steps)
        effects = []
        for lag in range(num_steps + 1):
            (effect,) = predict_effects(
                self._loop(self._scene, self.step, lag), self._scene.inputs, changed, [target], num_points=NUM_POINTS
            )
            effects.append(effect.total())
        return torch.cat(effects).double().numpy()

    def values(self, rows: Rows, target: Target) -> np.ndarray:
        """The target (T,) float64 in each row of a future; NaN where the episode is over."""
        sizes = [len(of_layer) for of_layer in self.policy.policy.expert_hidden_sizes]
        routing = list(torch.from_numpy(np.array(rows["routing"])).split(sizes, -1))
        values = target(Answer(torch.from_numpy(np.array(rows["log_probs"])), routing, None)).double().numpy()
        is_over = np.roll(rows["terminated"] | rows["truncated"], 1)
        return np.where(is_over, np.nan, values)

    @functools.cached_property
    def edits(self) -> list[Edit]:
        """Every edit that can be made now, those of what is nearest first, free floor last."""
        return sorted(legal_edits(self.world), key=lambda edit: (edit.before == EMPTY, self._distance(edit)))

    def cell_name(self, edit: Edit) -> str:
        """The cell of an edit in words: "red key, 2 ahead 1 left"."""
        held = (edit.x, edit.y) == self.world.position
        what = "nothing" if edit.before == EMPTY and held else "floor" if edit.before == EMPTY else _named(edit.before)
        return f"{what}, {'in the hand' if held else place_name(*self._place(edit))}"

    def _there(self, edit: Edit | None) -> State:
        """What the scene varies, (1, ...), after an edit."""
        if edit is None:
            return self._scene.inputs
        if self.laboratory.is_exact:
            return self._scene.edited([edit])
        return self._scene.seen(self._edited([edit])[0].obs[None].copy())

    def _edited(self, edits: Sequence[Edit | None]) -> list[World]:
        worlds = [clone(self.world) for _ in edits]
        for world, edit in zip(worlds, edits, strict=True):
            if edit is not None:
                edit_world(world, edit)
        return worlds

    def _loop(self, scene: Scene, step: int, lag: int) -> ClosedLoopRollout:
        """The closed loop from a step on."""
        actions = self._actions(step, lag)
        return ClosedLoopRollout(self.policy, self._simulator, scene.begin, self.lang, self._hidden(step), lag, actions)

    def _actions(self, step: int, num_steps: int) -> Tensor | None:
        """The actions (1, num_steps + 1) that are done again; the last one is not executed any more."""
        if not self.is_recorded:
            return None
        return torch.from_numpy(self.episode["action"][step : step + num_steps + 1].astype(np.int64)).clamp(0)[None]

    def _as_recorded(self) -> Callable[[Tensor], Tensor]:
        """The same for the real world."""
        left = iter(self.episode["action"][self.step :].tolist())
        return lambda logits: torch.full((len(logits),), max(0, next(left)))

    def _hidden(self, step: int) -> Tensor:
        return torch.from_numpy(np.array(self.episode["hidden"][step]))[None]

    def _limited(self, num_steps: int) -> int:
        return min(num_steps, self.steps_left) if self.is_recorded else num_steps

    def _place(self, edit: Edit) -> tuple[int, int]:
        """Cells ahead of the agent, and to its right."""
        (x, y), (dx, dy) = self.world.position, DIRECTIONS[self.world.direction]
        return dx * (edit.x - x) + dy * (edit.y - y), dx * (edit.y - y) - dy * (edit.x - x)

    def _distance(self, edit: Edit) -> int:
        return sum(map(abs, self._place(edit)))


# --- edits in words ---------------------------------------------------------------------------------------------------


def edit_words(edits: Sequence[Edit]) -> dict[str, Edit]:
    """Edits by their words in an address: "3,4:remove", "3,4:blue", "3,4:ball", "3,4:open", "3,4:red_key"."""
    return {f"{edit.x},{edit.y}:{_change(edit)}": edit for edit in edits}


def describe_edit(edit: Edit) -> str:
    """ "remove the red key", "open the locked red door", "put a red key there"."""
    what = f"the {_named(edit.before)}"
    change = _change(edit)
    return {
        "none": "change nothing",
        "remove": f"remove {what}",
        "color": f"make {what} {change}",
        "type": f"make {what} a {change}",
        "state": f"{_VERBS.get(change)} {what}",
        "put": f"put a {change.replace('_', ' ')} there",
    }[edit.kind]


def _change(edit: Edit) -> str:
    kind, color, state = code_of(edit.after)
    return {
        "none": "none",
        "remove": "remove",
        "color": IDX_TO_COLOR[color] if edit.kind == "color" else "",
        "type": IDX_TO_OBJECT[kind],
        "state": _STATES[state],
        "put": f"{IDX_TO_COLOR.get(color)}_{IDX_TO_OBJECT[kind]}",
    }[edit.kind]


def _named(code: int) -> str:
    return thing_name(code_of(code))


# --- what is loaded ---------------------------------------------------------------------------------------------------


def load_policy(recording: Recording, checkpoint: str | Path | None = None) -> FrozenPolicy:
    """The policy of a recording. It needs no mission encoder: the recording holds what it is given of its missions.

    Raises InputError where it is missing, or another one.
    """
    path = find_policy(recording, checkpoint, "--checkpoint")
    return _load_policy(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _load_policy(path: Path, version: int) -> FrozenPolicy:
    return FrozenPolicy(policy_from_checkpoint(load_for_evaluation(path))[0], None, None)


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows_of(trace: Trace, n: int, policy: FrozenPolicy) -> Rows:
    """The rows of world n of a trace."""
    routing = [weights[:, n] for weights in trace.routing]
    num_rows = len(trace.views)
    rows = {
        "obs": discretise(trace.views[:, n]).numpy().astype(np.uint8),
        "log_probs": trace.logits[:, n].log_softmax(-1).numpy(),
        "routing": torch.cat(routing, -1).numpy(),
        "lpc": policy.lpc(routing).numpy(),
        "student": trace.logits[:, n].argmax(-1).numpy(),
        "action": trace.actions[:, n].numpy(),
        "terminated": np.zeros(num_rows, bool),
        "truncated": np.zeros(num_rows, bool),
    }
    if "grid" in trace.states[0]:
        rows["grid"] = np.stack([cell_codes(state["grid"][n]).numpy() for state in trace.states])
        rows["carried"] = np.stack([cell_codes(state["carried"][n]).numpy() for state in trace.states])
        places = [np.argwhere(state["position"][n].numpy() > 0.5)[0, ::-1] for state in trace.states]
        rows["position"] = np.array(places)
    return rows


def _key(thing: Thing, scene: Scene, world: World) -> object:
    """What tells a thing from all others at every step: its number in its world; of a view, type and colour."""
    if not isinstance(scene, WorldScene):
        return thing.code[:2]
    return (world.carried if thing.is_carried else int(world.codes[thing.y, thing.x])) >> 20


def _by_name(states: Sequence[State]) -> Iterator[tuple]:
    """name, part of the first state, part of the second, ... of each name."""
    return ((name, *(state[name] for state in states)) for name in states[0])
