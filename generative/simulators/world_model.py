"""The learned simulator: a recurrent state-space model of worlds, which the policy sees through `likelihood`.

The state of a world is what it deterministically became (h), what chance has decided (z, categorical variables), a map
of the places around the agent (m), C numbers of each cell of a square with the agent at its centre, and what goes with
the agent: the direction that it faces (d), and C numbers of what is in its hand (o). One step:

    h' = GRU(h, [z, action, mission, m ahead of the agent])
    m* = sum over motions k of w_k motion_k(m)          w = softmax(MLP([h', action, m ahead])); d' too
    p(z' | h', m* in view)                              the prior, with which the model is a simulator
    q(z' | h', m* in view, observation)                 the posterior, with which it learns, and begins
    m' = m*, changed in view as [h', z', m* in view] say; o' too
    observation, end, success ~ heads([h', z', m' in view], d')

The agent's own cell in view shows its hand; so "in view" is with o in that cell. The motions are to stay, to turn to
either side, and to step ahead; which one an action is, and when a way is blocked, is learned. In the first frames,
which the model is shown, the posterior is used, what is seen also enters h' by another GRU, and m, o and d become what
is seen. Hafner et al. 2021 (arXiv 2010.02193) for h and z; Parisotto and Salakhutdinov 2018 (arXiv 1702.08360) for m.
Where observations have no cells (the frames of a game), the map, the direction and the hand are empty (`places`).
Axis letters: N worlds, T steps, A actions, X numbers of a soft observation, G of a mission, S hidden units of the
policy, Z = groups x classes of z, C numbers of a cell of the map.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.domains.base import BABYAI, BABYAI_SIZES, Domain, domain_of
from generative.simulators.base import State
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.errors import InputError
from mop.envs.babyai import NUM_ACTIONS
from mop.training.loop import FINAL_NAME

SIZES = BABYAI_SIZES
UNIFORM = 0.01  # share of the uniform distribution in that of z, so that no surprise is infinite
OUTCOMES = ("terminated", "success")  # of a game, the reward in place of success


class Foresight(NamedTuple):
    """The next state of N worlds, all but what chance decides."""

    deterministic: Tensor  # (N, H)
    places: Tensor  # (N, 13, 13, C), moved
    in_view: Tensor  # (N, 7, 7, C)
    heading: Tensor  # (N, 4), turned
    features: Tensor  # (N, W)
    prior: Tensor  # (N, Z), logits of z


class WorldModel(nn.Module):
    """A simulator (`simulators.Simulator`) that is learned from a recording."""

    def __init__(
        self, lang_dim: int, hidden_size: int, sizes: Mapping[str, int] = SIZES, domain: Domain = BABYAI,
        num_actions: int = NUM_ACTIONS,
    ):  # fmt: skip
        """lang_dim: G; hidden_size: S of the policy; sizes: as those of the domain's presets; num_actions: A."""
        super().__init__()
        self.domain, self.num_actions = domain, num_actions
        deterministic, width, encoded = (sizes[name] for name in ("deterministic", "width", "encoded"))
        self.groups, self.classes = sizes["groups"], sizes["classes"]
        self.stochastic = self.groups * self.classes
        channels, in_view = domain.remembered(sizes)
        self.views = domain.make_views(sizes)
        self.gru = nn.GRUCell(self.stochastic + num_actions + lang_dim + channels, deterministic)
        self.take_in = nn.GRUCell(encoded, deterministic)
        self.places = domain.make_places(sizes, deterministic + num_actions)
        self.look_ahead = nn.Linear(deterministic + in_view, width)
        self.prior = nn.Linear(width, self.stochastic)
        self.posterior = nn.Sequential(nn.Linear(width + encoded, width), nn.ELU(), nn.Linear(width, self.stochastic))
        self.settle_in = nn.Linear(width + self.stochastic, width)
        self.trunk = nn.Linear(deterministic + self.stochastic + in_view, width)
        self.outcome_heads = nn.Linear(width, len(OUTCOMES))
        self.memory_head = nn.Sequential(nn.Linear(width, width), nn.ELU(), nn.Linear(width, hidden_size), nn.Tanh())

    # --- the simulator ----------------------------------------------------------------------------------------------

    def begin(self, frames: Tensor, actions: Tensor, lang: Tensor, noise: Tensor | None = None) -> State:
        """The state after the first frames of a window: soft observations (N, T, X), seen with T - 1 actions between.

        T may be 0. actions (N, T - 1, A) ones and zeros; lang (N, G); noise (T, N, groups, classes): see `choose`.
        """
        state, encoded = self.blank(lang), self.views.encode(frames)
        before = [lang.new_zeros(len(lang), self.num_actions), *actions.unbind(1)]
        for t in range(frames.shape[1]):
            action = before[t]
            state, *_ = self.filter(state, action, encoded[:, t], frames[:, t], None if noise is None else noise[t])
        return state

    def observe(self, state: State) -> Tensor:
        """What the agent sees, (N, X): the likeliest observation, with gradients behind it."""
        return self.views.decode(self.views(*self.shown(state), state["heading"]))

    def step(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        """The state after an action (N, A), with the likeliest z, or one that is drawn with `noise` (see `choose`)."""
        foresight = self.foresee(state, action)
        return self.settle(state, foresight, self.choose(foresight.prior, noise))

    def outcome(self, state: State) -> Tensor:
        """(N, 2) of OUTCOMES: the log-odds that the episode ended on arrival here, and those of success, or the reward
        itself, as the domain has it."""
        return self.outcome_heads(self.shown(state)[0])

    def memory(self, state: State) -> Tensor:
        """The policy's memory (N, S) before it sees this state, as the model guesses it."""
        return self.memory_head(self.shown(state)[0])

    # --- its parts --------------------------------------------------------------------------------------------------

    def blank(self, lang: Tensor) -> State:
        """Before anything is known but the mission (N, G)."""
        num_worlds = len(lang)
        return {
            "deterministic": lang.new_zeros(num_worlds, self.gru.hidden_size),
            "stochastic": lang.new_zeros(num_worlds, self.stochastic),
            "places": self.places.empty(num_worlds),
            "heading": lang.new_zeros(num_worlds, self.places.num_headings),
            "hand": lang.new_zeros(num_worlds, self.places.channels),
            "mission": lang,
        }

    def foresee(self, state: State, action: Tensor) -> Foresight:
        """All of the next state but z, and the probabilities of that."""
        parts = [state["stochastic"], action, state["mission"], self.places.ahead(state["places"])]
        deterministic = self.gru(torch.cat(parts, -1), state["deterministic"])
        weights = self.places.motions(state["places"], torch.cat([deterministic, action], -1))
        places, heading = self.places.moved(state["places"], weights), self.places.turned(state["heading"], weights)
        in_view = self.places.view(places, state["hand"])
        features = F.elu(self.look_ahead(torch.cat([deterministic, in_view.flatten(1)], -1)))
        return Foresight(deterministic, places, in_view, heading, features, self.prior(features))

    def look(self, foresight: Foresight, encoded: Tensor) -> Tensor:
        """The posterior of z: logits (N, Z), given an encoded observation (N, E)."""
        return self.posterior(torch.cat([foresight.features, encoded], -1))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Those of z, (..., groups, classes), with their share of the uniform distribution; logits (..., Z)."""
        probabilities = logits.unflatten(-1, (self.groups, self.classes)).softmax(-1)
        return torch.add(UNIFORM / self.classes, probabilities, alpha=1 - UNIFORM)

    def choose(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """z (N, Z), ones and zeros with gradients behind them: the likeliest, or what the noise decides.

        logits (N, Z); noise (N, groups, classes), draws of a standard exponential distribution: the class that comes
        first in the race, at the rates of the probabilities, has been drawn from them.
        """
        probabilities = self.probabilities(logits)
        rates = probabilities if noise is None else probabilities / noise
        chosen = F.one_hot(rates.detach().argmax(-1), self.classes).to(probabilities)
        return (chosen + (probabilities - probabilities.detach())).flatten(1)

    def settle(self, state: State, foresight: Foresight, z: Tensor) -> State:
        """The next state, once z (N, Z) is decided."""
        features = F.elu(self.settle_in(torch.cat([foresight.features, z], -1)))
        places, hand = self.places.changed(foresight.places, state["hand"], foresight.in_view, features)
        return {
            "deterministic": foresight.deterministic,
            "stochastic": z,
            "places": places,
            "heading": foresight.heading,
            "hand": hand,
            "mission": state["mission"],
        }

    def filter(
        self, state: State, action: Tensor, encoded: Tensor, soft: Tensor, noise: Tensor | None
    ) -> tuple[State, Tensor, Tensor]:
        """A step in which the observation is shown, encoded (N, E) and soft (N, X).

        Returns the state, and prior and posterior of z, logits (N, Z).
        """
        foresight = self.foresee(state, action)
        posterior = self.look(foresight, encoded)
        foresight = foresight._replace(deterministic=self.take_in(encoded, foresight.deterministic))
        foresight = foresight._replace(heading=self.views.heading(soft))
        state = self.settle(state, foresight, self.choose(posterior, noise))
        in_view, seen = self.in_view(state), self.views.remember(soft)
        places, hand = self.places.written(state["places"], state["hand"], in_view, *seen)
        return {**state, "places": places, "hand": hand}, foresight.prior, posterior

    def in_view(self, state: State) -> Tensor:
        """What is remembered of the cells in view, (N, 7, 7, C)."""
        return self.places.view(state["places"], state["hand"])

    def shown(self, state: State) -> tuple[Tensor, Tensor]:
        """What the heads see of a state: features (N, W), and the cells of the map in view (N, 7, 7, C)."""
        in_view = self.in_view(state)
        return self.features(state["deterministic"], state["stochastic"], in_view), in_view

    def features(self, deterministic: Tensor, z: Tensor, in_view: Tensor) -> Tensor:
        """(N, W) of h (N, H), z (N, Z) and the map in view (N, 7, 7, C); several axes may stand in the place of N."""
        return F.elu(self.trunk(torch.cat([deterministic, z, in_view.flatten(-3)], -1)))


def make_world_model(config: Mapping) -> WorldModel:
    """An untrained model, as the config of a simulator has it, with weights drawn from torch's present generator."""
    num_actions = len(config["actions"]) if "actions" in config else NUM_ACTIONS
    return WorldModel(config.get("lang_dim", 0), config["hidden_size"], config["sizes"], domain_of(config), num_actions)


def load_world_model(path: str | Path) -> tuple[WorldModel, dict]:
    """A trained world model, without gradients of its own, and its config.

    path: of its folder, or of a checkpoint. Raises InputError where there is none.
    """
    path = Path(path)
    path = path / FINAL_NAME if path.is_dir() else path
    if not path.exists():
        raise InputError(f"{path} is missing; train a simulator with python -m generative.train_gen_model")
    checkpoint = load_checkpoint(path)
    config = checkpoint["config"]
    if config.get("kind") != "world_model":
        raise InputError(f"{path} is a checkpoint, but of no simulator; train one with generative.train_gen_model")
    try:
        model = make_world_model(config)
        model.load_state_dict(checkpoint["policy_state_dict"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: weights and config disagree ({' '.join(str(error).split())[:200]})") from None
    return model.eval().requires_grad_(False), config
