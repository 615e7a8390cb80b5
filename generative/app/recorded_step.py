"""A recorded step in the real world and in a simulator: causes of its answer, futures, and the effects of edits.

A future is the rows that follow a step, as a recording has them, in the real world or in a simulator; row i is i steps
later. In both, the policy acts by its argmax, or the recorded actions are repeated. A future begins with the recorded
state, or with one edit of it (`generative.attribution.counterfactuals`).
Axis letters: T rows of a future, N futures, S hidden units, G numbers of a mission, C things.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, OBJECT_TO_IDX
from torch import Tensor

from generative.attribution.closed_loop import Trace, roll_out
from generative.attribution.counterfactuals import Edit, clone, edit_world, legal_edits
from generative.attribution.explanations import PATHS
from generative.attribution.integrated_gradients import ClosedLoopRollout, predict_effects
from generative.attribution.loop_inputs import VIEW, Scene, Scenes, ViewScene
from generative.domains.babyai.causes import Thing, code_of, place_name, thing_name
from generative.domains.babyai.cells import cell_codes
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.rollouts import play
from generative.domains.babyai.scenes import ExactScenes, WorldScene
from generative.domains.babyai.targets import parse_target
from generative.domains.base import Answer
from generative.domains.registry import open_scenes
from generative.recordings.format import Episode, Recording, find_policy
from generative.simulators.base import State
from generative.simulators.relaxation import discretise
from mop.common.errors import InputError
from mop.envs.babyai import World
from mop.envs.geometry import DIRECTIONS, EMPTY
from mop.evaluation.evaluate import load_for_evaluation
from mop.evaluation.rollout import Choose, greedy
from mop.training.policies import policy_from_checkpoint

NUM_POINTS = 8  # of an integral: twice as many change an attribution by some percent
Rows = Mapping[str, np.ndarray]
_WALL = OBJECT_TO_IDX["wall"]
_STATES = ("open", "closed", "locked")
_VERBS = {"open": "open", "closed": "close", "locked": "lock"}


class Cause(NamedTuple):
    """The contribution of a thing to a target `lag` steps later: minus the predicted effect of its absence, by path."""

    lag: int
    thing: Thing
    key: object  # the same for the same thing at other steps
    by_path: dict[str, float]  # of PATHS

    @property
    def total(self) -> float:
        """Along all paths."""
        return sum(self.by_path.values())


@dataclass(frozen=True, eq=False)
class RecordingContext:
    """A recording with its policy and the scenes of a simulator."""

    recording: Recording
    policy: FrozenPolicy
    scenes: Scenes

    def worlds(self, episode: Episode, steps: range) -> Iterator[World]:
        """The real world of an episode at some steps; it is the same object each time."""
        encoding = self.recording.config["encoding"]
        world = World(encoding["task_id"], encoding["max_steps"])
        world.reset(episode.seed)
        for step in range(steps.stop):
            if step in steps:
                if world.codes is None or not np.array_equal(world.codes, episode["grid"][step]):
                    raise InputError(f"this Minigrid makes another world of seed {episode.seed}: record anew")
                yield world
            if step + 1 < steps.stop:
                world.step(int(episode["action"][step]))

    def scenes_at(self, episode: Episode, steps: range) -> Iterator[tuple[World, Scene]]:
        """The real world at some steps, and the beginning of a simulation there."""
        scenes = self.scenes
        for step, world in zip(steps, self.worlds(episode, steps), strict=True):
            if isinstance(scenes, ExactScenes):
                yield world, cast(Scene, scenes.at_world(world))
            else:
                yield world, scenes.at(episode, step, VIEW)


@dataclass(frozen=True, eq=False)
class RecordedStep:
    """A step of an episode, in the real world and in a simulator."""

    context: RecordingContext
    episode: Episode
    step: int
    repeats_actions: bool  # the recorded actions are executed, rather than the policy's argmax
    world: World  # copy it before it steps
    scene: Scene

    @property
    def lang(self) -> Tensor:
        """The policy's mission vector (1, G)."""
        return torch.from_numpy(np.array(self.episode.lang))[None]

    def hidden(self, step: int) -> Tensor:
        """The recorded hidden state (1, S) before a step."""
        return torch.from_numpy(np.array(self.episode["hidden"][step]))[None]

    def horizon(self, num_steps: int) -> int:
        """A number of steps, at most the recorded ones if these are repeated."""
        return min(num_steps, len(self.episode["action"]) - 1 - self.step) if self.repeats_actions else num_steps

    def actions(self, step: int, num_steps: int) -> Tensor | None:
        """The repeated actions (1, num_steps + 1), of which the last one is not executed; None: the policy acts."""
        if not self.repeats_actions:
            return None
        return torch.from_numpy(self.episode["action"][step : step + num_steps + 1].astype(np.int64)).clamp(0)[None]

    def loop(self, scene: Scene, step: int, lag: int) -> ClosedLoopRollout:
        """The closed loop from a step on."""
        simulator = self.context.scenes.simulator
        actions = self.actions(step, lag)
        return ClosedLoopRollout(
            self.context.policy, simulator, scene.begin, self.lang, self.hidden(step), lag, actions
        )

    def edited_worlds(self, edits: Sequence[Edit | None]) -> list[World]:
        """Copies of the world, each with an edit."""
        worlds = [clone(self.world) for _ in edits]
        for world, edit in zip(worlds, edits, strict=True):
            if edit is not None:
                edit_world(world, edit)
        return worlds

    def inputs(self, edit: Edit | None) -> State:
        """The inputs of the scene (1, ...), after an edit."""
        if edit is None:
            return self.scene.inputs
        if isinstance(self.scene, WorldScene):
            return self.scene.edited([edit])
        assert isinstance(self.scene, ViewScene), "a learned simulator begins with a view"
        return self.scene.seen(self.edited_worlds([edit])[0].obs[None].copy())


@functools.lru_cache(maxsize=4)
def open_context(recording: Recording, simulator: str, checkpoint: str | None) -> RecordingContext:
    """Open policy and simulator of a recording.

    simulator: EXACT, or the folder of a learned one; checkpoint: where the policy lies now, if it was moved. The policy
    needs no mission encoder: the recording holds the mission vectors.
    """
    torch.set_num_threads(1)  # matrices are small: more threads wait for each other
    path = find_policy(recording, checkpoint, "--checkpoint")
    policy = _load_policy(path, path.stat().st_mtime_ns)
    return RecordingContext(recording, policy, open_scenes(simulator, recording))


@functools.lru_cache(maxsize=8)
def _load_policy(path: Path, version: int) -> FrozenPolicy:
    return FrozenPolicy(policy_from_checkpoint(load_for_evaluation(path))[0], None, None)


@functools.lru_cache(maxsize=16)
def open_step(context: RecordingContext, k: int, step: int, repeats_actions: bool) -> RecordedStep:
    """A step of episode k."""
    episode = context.recording.episode(k)
    ((world, scene),) = context.scenes_at(episode, range(step, step + 1))
    return RecordedStep(context, episode, step, repeats_actions, world, scene)


@functools.lru_cache(maxsize=64)
def find_causes(at: RecordedStep, target: str, horizon: int) -> list[Cause]:
    """The contributions to a target of all things but walls, at this step and up to `horizon` steps before."""
    parsed = parse_target(target, at.context.policy)
    causes = []
    steps = range(max(0, at.step - horizon), at.step + 1)
    for step, (world, scene) in zip(steps, at.context.scenes_at(at.episode, steps), strict=True):
        things = [thing for thing in scene.things if isinstance(thing, Thing) and thing.code[0] != _WALL]
        if not things:
            continue
        loop = at.loop(scene, step, at.step - step)
        (effects,) = predict_effects(loop, scene.inputs, scene.without(things), [parsed], num_points=NUM_POINTS)
        by_path = {path: (-effects.total(path)).tolist() for path in PATHS}
        for number, thing in enumerate(things):
            parts = {path: values[number] for path, values in by_path.items()}
            causes.append(Cause(at.step - step, thing, _key(thing, scene, world), parts))
    return causes


@functools.lru_cache(maxsize=64)
def find_futures(at: RecordedStep, edit: Edit | None, num_steps: int) -> tuple[Rows, Rows]:
    """The real and the simulated future after an edit, `num_steps` steps or to the end of the episode.

    The simulator knows no end of an episode.
    """
    num_steps = at.horizon(num_steps)
    hidden, lang, policy = at.hidden(at.step), at.lang, at.context.policy
    choose = _repeat(at.episode["action"][at.step :]) if at.repeats_actions else greedy
    (real,) = play(policy, at.edited_worlds([edit]), num_steps, choose, hidden, lang)
    with torch.no_grad():
        state, first_view = at.scene.begin(at.inputs(edit))
        simulator, actions = at.context.scenes.simulator, at.actions(at.step, num_steps)
        trace = roll_out(policy, simulator, state, lang, hidden, num_steps + 1, actions, first_view=first_view)
    return real, _rows_of(trace, policy)


@functools.lru_cache(maxsize=64)
def predict_effect(at: RecordedStep, edit: Edit, target: str, num_steps: int) -> np.ndarray:
    """The effect of an edit on a target, predicted by gradients, 0, 1, ... steps later: (T,) float64."""
    parsed = parse_target(target, at.context.policy)
    changed = at.inputs(edit)
    effects = []
    for lag in range(at.horizon(num_steps) + 1):
        loop = at.loop(at.scene, at.step, lag)
        (effect,) = predict_effects(loop, at.scene.inputs, changed, [parsed], num_points=NUM_POINTS)
        effects.append(effect.total())
    return torch.cat(effects).double().numpy()


def target_values(policy: FrozenPolicy, rows: Rows, target: str) -> np.ndarray:
    """A target (T,) float64 in each row of a future; NaN after the end of the episode."""
    sizes = [len(of_layer) for of_layer in policy.policy.expert_hidden_sizes]
    routing = list(torch.from_numpy(np.array(rows["routing"])).split(sizes, -1))
    answer = Answer(torch.from_numpy(np.array(rows["log_probs"])), routing, torch.empty(0))
    values = parse_target(target, policy)(answer).double().numpy()
    is_over = np.roll(rows["terminated"] | rows["truncated"], 1)
    return np.where(is_over, np.nan, values)


def _repeat(actions: np.ndarray) -> Choose:
    """A choice of actions in one real world that repeats recorded ones."""
    left = iter(actions.tolist())
    return lambda *_: np.array([max(0, next(left))])


# --- edits in words ---------------------------------------------------------------------------------------------------


def edits_at(at: RecordedStep) -> dict[str, Edit]:
    """All legal edits, the nearest things first and free floor last, by their words (`edit_words`)."""
    return edit_words(sorted(legal_edits(at.world), key=lambda edit: (edit.before == EMPTY, _distance(at, edit))))


def cell_name(at: RecordedStep, edit: Edit) -> str:
    """The cell of an edit in words: "red key, 2 ahead 1 left"."""
    held = (edit.x, edit.y) == at.world.position
    what = "nothing" if edit.before == EMPTY and held else "floor" if edit.before == EMPTY else _named(edit.before)
    return f"{what}, {'in the hand' if held else place_name(*_place(at, edit))}"


def _place(at: RecordedStep, edit: Edit) -> tuple[int, int]:
    """Cells ahead of the agent, and to its right."""
    (x, y), (dx, dy) = at.world.position, DIRECTIONS[at.world.direction]
    return dx * (edit.x - x) + dy * (edit.y - y), dx * (edit.y - y) - dy * (edit.x - x)


def _distance(at: RecordedStep, edit: Edit) -> int:
    return sum(map(abs, _place(at, edit)))


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


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows_of(trace: Trace, policy: FrozenPolicy) -> Rows:
    """The rows of the only world of a trace."""
    n = 0
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
    """An identifier of a thing at all steps: its number in its world; in a view, type and colour."""
    if not isinstance(scene, WorldScene):
        return thing.code[:2]
    assert world.codes is not None, "the world was reset"
    return (world.carried if thing.is_carried else int(world.codes[thing.y, thing.x])) >> 20
