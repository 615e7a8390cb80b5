"""What the rest of the package must know of a kind of world: a `Domain`.

There is one for BabyAI (`domains/babyai`) and one for the games of Procgen (`domains/coinrun`); `domains/registry` has
them by name. To add a kind of world, fill in another `Domain`: everything behind `make_decoder` has a default.

A policy sees *views*: tensors (N, X) that are made of observations (N, ...) and that gradients pass through.
Axis letters: N environments or slots, T steps, X numbers of a view, G numbers of a mission, A actions, S hidden units,
L layers, E experts, C causes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.attribution.explanations import Explanation
from generative.recordings.behaviours import CHOOSE
from generative.recordings.format import common_fields
from mop.common.errors import InputError

LEAST_VARIANCE = 1e-4  # of a hidden unit, so that one that never moves does not rule the loss

# --- policies ---------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """The output of a policy at one step."""

    logits: Tensor  # (N, A)
    routing: list[Tensor]  # L x (N, E_l)
    hidden: Tensor  # (N, S), after the step
    value: Tensor = torch.zeros(0)  # (N,), of a policy that has a critic; else empty


class Policy:
    """A trained policy without gradients of its own: `step` is functional, and gradients reach its inputs."""

    hidden_size: int
    num_actions: int
    lang_dim: int = 0
    expert_hidden_sizes: Sequence[Sequence[int]] = ()

    def step(self, views: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        """Take one step. views (N, X), lang (N, G), hidden (N, S) before the step."""
        raise NotImplementedError

    def run(self, views: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        """Take T steps; views (T, N, X). Each part of the answer has the axis T first."""
        answers = []
        for of_step in views:
            answers.append(self.step(of_step, lang, hidden))
            hidden = answers[-1].hidden
        return stack_answers(answers)

    def embed(self, missions: Sequence[str]) -> Tensor:
        """Return what the policy is given of N missions, (N, G)."""
        return torch.zeros(len(missions), self.lang_dim)

    def initial_hidden(self, num_envs: int) -> Tensor:
        """Return the hidden state (N, S) at the beginning of an episode."""
        return torch.zeros(num_envs, self.hidden_size)

    def untrained(self, config: Mapping) -> Self:
        """Build the policy before training, with weights of torch's present generator; config: its checkpoint's."""
        raise NotImplementedError

    def to(self, device: torch.device) -> "Policy":
        """Move the policy to a device; where the domain has no GPU, it stays."""
        return self

    def disagreement(self, answer: Answer, recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return, for each of `Domain.extra_arrays`, how far an answer is from what was recorded, in nats (T, N)."""
        return {}

    @property
    def hidden_layout(self) -> dict[str, list[int]]:
        """The blocks of the hidden state: name -> first column and end."""
        return {"memory": [0, self.hidden_size]}


def stack_answers(answers: Sequence[Answer]) -> Answer:
    """Join the answers of T steps into one with the axis T first."""
    routing = [torch.stack(weights) for weights in zip(*(answer.routing for answer in answers), strict=True)]
    parts = {name: torch.stack([getattr(answer, name) for answer in answers]) for name in ("logits", "hidden", "value")}
    return Answer(routing=routing, **parts)


@dataclass(frozen=True)
class Target:
    """A number (N,) of a policy's answer that is to be explained: a differentiable function of it."""

    name: str
    of: Callable[[Answer], Tensor]

    def __call__(self, answer: Answer) -> Tensor:
        return self.of(answer)


# --- worlds and actors, for the recorder ------------------------------------------------------------------------------


class Start(NamedTuple):
    """The beginning of an episode."""

    seed: int
    mission: str
    passed_over: dict[str, int]  # worlds tried before in which the teacher failed at once, by kind of failure


class Step(NamedTuple):
    """The outcome of an action."""

    reward: float
    terminated: bool
    truncated: bool
    failure: str | None  # how the teacher failed now, one of its kinds


class Worlds(Protocol):
    """Episodes in N slots."""

    obs: np.ndarray  # (N, ...), what each slot shows
    encoding: dict  # what a reader of the arrays must know, for the config of a recording: `domain`, `task_id`, ...
    versions: dict[str, str]  # of the packages that decide about the worlds

    def fields(self) -> list[tuple]:
        """The arrays of a recorded row that depend on the kind of world, as fields of a dtype; `obs` is one."""

    def begin(self, slot: int, seed_of: Callable[[int], int]) -> Start:
        """Begin the first of the worlds seed_of(0), seed_of(1), ... in which a teacher, if there is one, has an answer.

        The seed that is returned decides about the split.
        """

    def step(self, slot: int, action: int) -> Step:
        """Execute an action; the episode goes on until it is terminated or truncated."""

    def show(self, rows: np.ndarray, slots: Sequence[int]) -> None:
        """Write what some slots show now to their rows; rows (N,) of a dtype with `fields`."""


class Slots(Protocol):
    """N episodes that are recorded side by side."""

    obs: np.ndarray  # (N, ...)
    missions: Sequence[str]  # N
    active: np.ndarray  # (N,) bool: the others wait for nothing


class Actor:
    """A recorded policy, as `mop.evaluation.rollout` asks it, and what is recorded of its answers."""

    choose: Mapping[str, Callable] = CHOOSE  # behaviour -> actions of rows, see `generative.recordings.behaviours`
    extra_fields: Sequence[tuple] = ()  # arrays of a recorded row that only this kind of policy has

    def __init__(self, policy: Policy, worlds: Worlds, to_views: Callable[[np.ndarray], Tensor]):
        self.policy = policy
        self._to_views = to_views

    def fields(self) -> list[tuple]:
        """The arrays of a recorded row that are the policy's answers, as fields of a dtype."""
        return [*common_fields(self.policy.hidden_size, self.policy.num_actions), *self.extra_fields]

    def __call__(self, slots: Slots, hidden: Tensor) -> Answer:
        """Answer what the slots show; hidden (N, S)."""
        return self.policy.step(self._to_views(slots.obs), self.policy.embed(slots.missions), hidden)

    def columns(self, answer: Any) -> dict[str, np.ndarray]:
        """The arrays (N, ...) of `fields` that are made of an answer: all but the hidden state before it."""
        log_probs = answer.logits.log_softmax(-1).numpy()
        return {"log_probs": log_probs, "student": log_probs.argmax(-1)}


# --- parts of a domain ------------------------------------------------------------------------------------------------


Sums = dict[str, tuple[np.ndarray, np.ndarray]]  # measure -> sum and count of each trial, two arrays (T, N) float64


def masked_sums(sums: Mapping[str, Sequence[Any]], mask: np.ndarray) -> Sums:
    """Sums and counts as numbers, 0 outside the mask (T, N)."""
    brought, counts = ({k: np.where(mask, np.asarray(v[i], float), 0.0) for k, v in sums.items()} for i in (0, 1))
    return {name: (brought[name], counts[name]) for name in sums}


def explained(true: Tensor, predicted: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """What of the variance of numbers (..., N, K) is explained, and the variance, (..., N); around their mean over the
    trials in the mask (..., N).
    """
    weights = mask.float()[..., None]
    mean = (true * weights).sum(-2, keepdim=True) / weights.sum(-2, keepdim=True).clamp(min=1)
    variance = (true - mean).square().sum(-1)
    return variance - (true - predicted).square().sum(-1), variance


@dataclass(frozen=True)
class FidelityProtocol:
    """How simulators of a kind of world are measured in real worlds; see `generative.simulators.evaluation`."""

    measures: Mapping[str, str]  # name -> what it is
    actors: tuple[str, ...]  # of trials
    run_trials: Callable[..., Any]  # (moments, actor, policy, num_steps, seed) -> Trials
    baselines: Callable[..., Mapping[str, Callable]]  # recording -> forecasts that need no simulator, by name
    exact: Callable[..., Callable] | None  # recording -> the forecast of the exact simulator
    sums_of: Callable[..., Sums]  # (trials, forecast) -> sums


def lacks(*arguments: Any, **options: Any) -> Any:
    """Stand for a part that a domain has not."""
    raise InputError("there is nothing of this kind for these worlds")


@dataclass(frozen=True)
class Domain:
    """All that the rest of the package must know of a kind of world."""

    name: str  # in the configs of recordings and simulators
    # (path, mission encoder, needs_encoder) -> policy, config of its checkpoint
    load_policy: Callable[..., tuple[Policy, dict]]

    # worlds of a recording
    open_worlds: Callable[..., Any]  # `Worlds` of (config of the checkpoint, num_slots, max_steps, **world_flags)
    to_views: Callable[[np.ndarray | Tensor], Tensor]  # observations (..., O) -> views (..., X)

    # the simulator
    make_decoder: Callable[..., Any]  # sizes -> a module that encodes and decodes views, see `WorldModel`
    presets: Mapping[str, Mapping[str, int]]  # sizes of a world model by name, the default first

    # --- from here on, there are defaults ---
    title: str = ""  # what a person calls such worlds
    checkpoint_kind: str | None = None  # `kind` in the config of a policy's checkpoint
    world_flags: tuple[str, ...] = ()  # flags of generative.record that only these worlds have
    actor: type[Actor] = Actor  # the policy in the slots of a recorder
    behaviours: tuple[str, ...] = ("argmax", "sampled", "epsilon", "random")  # of a recording, by default
    start_arrays: tuple[str, ...] = ()  # arrays whose first rows tell worlds apart; (): only their seeds do

    make_memory: Callable[..., Any] | None = None  # (sizes, num_inputs) -> an egocentric map; None: no map
    extra_arrays: tuple[str, ...] = ()  # answers of the policy besides its actions that a simulator must preserve
    settings: Mapping[str, Mapping[str, float]] | None = None  # of a preset, where they differ from the defaults
    outcomes: Callable[[Mapping[str, Tensor]], Tensor] = lambda by_time: torch.stack(
        [by_time["terminated"].float(), (by_time["reward"] > 0).float()], -1
    )  # recorded steps -> (T, N, 2), end and reward
    outcome_nats: Callable[[Tensor, Tensor], Tensor] = lambda predicted, true: F.binary_cross_entropy_with_logits(
        predicted, true, reduction="none"
    )  # surprise (T, N, 2) in nats
    hidden_variance: Callable[[Tensor], Tensor] = lambda hidden: hidden.var(0).clamp(min=LEAST_VARIANCE)
    # rows (M, S) -> scale of the hidden-state loss (S,)
    loss_units: Callable[..., Mapping[str, float]] = lambda settings, hidden_size: {}  # term -> units per nat, if not 1
    loss_unit: str = "nats a step"  # of the sum of all terms
    # simulated and true views (T, N, X) -> how close they are (T, N), in the log of a training
    view_score: Callable[[Tensor, Tensor], Tensor] = lambda simulated, true: (simulated - true).square().mean(-1)
    score_name: str = "error"
    num_validation: int = 200  # windows
    has_gpu: bool = False  # whether the policies run on a GPU
    fidelity: FidelityProtocol = FidelityProtocol({}, (), lacks, lacks, None, lacks)

    # attribution
    find_causes: Callable[..., Callable[..., Any]] = lacks  # encoding -> (episode, step) -> causes
    remove_causes: Callable[..., np.ndarray] = lacks  # (obs, causes) -> observations (C, ...), each without one
    sum_channels: Callable[[Tensor], Tensor] = lambda numbers: numbers.sum(-1, keepdim=True)
    # numbers (C, X) of a view -> sums (C, channels)
    true_contributions: Callable[..., np.ndarray] | None = None  # (C, 2), see `generative.attribution.recorded_steps`
    explanation: type[Explanation] = Explanation
    agreement: Callable[..., Any] | None = None  # explanations -> a table of attribution against the truth
    exact_scenes: Callable[..., Any] | None = None  # (domain, encoding) -> scenes in an exact simulator
    parse_target: Callable[..., Target] = lacks  # (text, policy, directions, chosen action) -> target
    targets_help: str = ""
    num_points: int = 16  # of the integral
    max_beginnings: int = 1024  # closed loops side by side

    # probes, steering, films
    labeller: Callable[[Mapping], Callable[..., dict[str, np.ndarray]]] = lambda encoding: lambda episode: {}
    # encoding -> episode -> labels
    open_arena: Callable[..., Any] = lacks  # (policy, config, settings) -> a `steering.Arena`
    arena_flags: tuple[str, ...] = ()  # flags of generative.intervene that only these worlds have
    play_films: Callable[..., Iterator] = lacks  # films of what a policy does now
    recorded_film: Callable[..., Any] = lacks  # the film of a recorded episode
    simulated_film: Callable[..., Any] = lacks  # of a simulation next to the truth
    steps_per_second: float = 4

    def given_flags(self, settings: Any, names: Sequence[str], own: Sequence[str]) -> dict[str, Any]:
        """The flags among `names` that the user gave; refused are those that are not this domain's own."""
        given = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
        for name in given.keys() - set(own):
            raise InputError(f"--{name}: {settings.checkpoint} is a policy of {self.title}; leave it out")
        return given

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of a world model's loss."""
        return ("obs", "hx", *self.extra_arrays, "act_log_probs", "done", "reward", "kl", "begin")

    @property
    def arrays(self) -> tuple[str, ...]:
        """The arrays of a recording that the loss looks at."""
        return ("obs", "action", "hidden", *self.extra_arrays, "log_probs", "reward", "terminated")
