"""The learned simulator: a recurrent state-space model of worlds, which the policy sees through a decoder.

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
Where observations have no cells (the frames of a game), there is no map, no direction and no hand.
Axis letters: N worlds, T steps, A actions, X numbers of a soft observation, G of a mission, S hidden units of the
policy, Z = groups x classes of z, C numbers of a cell of the map.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.domains.base import Domain
from generative.simulators.base import State
from generative.simulators.relaxation import NUM_CELLS
from mop.envs.babyai import NUM_ACTIONS

UNIFORM = 0.01  # share of the uniform distribution in that of z, so that no surprise is infinite
MEMORY = ("places", "heading", "hand")  # parts of a state that belong to the map
OUTCOMES = ("terminated", "success")  # of a game, the reward in place of success


class Prediction(NamedTuple):
    """The next state of N worlds before its z is drawn."""

    deterministic: Tensor  # (N, H)
    memory: State  # map, heading and hand, moved; {} where there is no map
    in_view: Tensor | None  # (N, 7, 7, C) of that map
    features: Tensor  # (N, W)
    prior: Tensor  # (N, Z), logits of z


class WorldModel(nn.Module):
    """A simulator that is learned from a recording."""

    views: Any  # the domain's decoder
    places: Any  # the domain's map, or None

    def __init__(
        self, domain: Domain, sizes: Mapping[str, int], hidden_size: int, lang_dim: int = 0,
        num_actions: int = NUM_ACTIONS,
    ):  # fmt: skip
        """sizes: as those of the domain's presets; hidden_size: S of the policy; lang_dim: G; num_actions: A."""
        super().__init__()
        self.domain = domain
        self.num_actions = num_actions
        deterministic, width, encoded = sizes["deterministic"], sizes["width"], sizes["encoded"]
        self.groups = sizes["groups"]
        self.classes = sizes["classes"]
        self.stochastic = self.groups * self.classes
        channels = 0 if domain.make_memory is None else sizes["map_channels"]
        self.views = domain.make_decoder(sizes)
        self.gru = nn.GRUCell(self.stochastic + num_actions + lang_dim + channels, deterministic)
        self.take_in = nn.GRUCell(encoded, deterministic)
        self.places = None if domain.make_memory is None else domain.make_memory(sizes, deterministic + num_actions)
        in_view = channels * NUM_CELLS
        self.look_ahead = nn.Linear(deterministic + in_view, width)
        self.prior = nn.Linear(width, self.stochastic)
        self.posterior = nn.Sequential(nn.Linear(width + encoded, width), nn.ELU(), nn.Linear(width, self.stochastic))
        self.settle_in = nn.Linear(width + self.stochastic, width)
        self.trunk = nn.Linear(deterministic + self.stochastic + in_view, width)
        self.outcome_heads = nn.Linear(width, len(OUTCOMES))
        self.memory_head = nn.Sequential(nn.Linear(width, width), nn.ELU(), nn.Linear(width, hidden_size), nn.Tanh())

    # --- the simulator ----------------------------------------------------------------------------------------------

    def observe(self, views: Tensor, actions: Tensor, lang: Tensor) -> State:
        """Return the state after the first views (N, T, X) of a window, with T - 1 actions between them.

        T may be 0. actions (N, T - 1, A) ones and zeros; lang (N, G).
        """
        state, encoded = self.blank(lang), self.views.encode(views)
        before = [lang.new_zeros(len(lang), self.num_actions), *actions.unbind(1)]
        for t in range(views.shape[1]):
            state, *_ = self.observe_step(state, before[t], encoded[:, t], views[:, t], None)
        return state

    def imagine(self, state: State, actions: Tensor) -> list[State]:
        """Return the states after each of the actions (T, N, A), with the likeliest z."""
        states = []
        for action in actions:
            state = self.step(state, action)
            states.append(state)
        return states

    def step(self, state: State, action: Tensor) -> State:
        """Return the state after an action (N, A), with the likeliest z."""
        prediction = self.predict(state, action)
        return self.update(state, prediction, self.sample_latent(prediction.prior, None))

    def view(self, state: State) -> Tensor:
        """What the agent sees, (N, X): the likeliest observation, with gradients behind it."""
        in_view = self.in_view(state)
        features = self.features(state["deterministic"], state["stochastic"], in_view)
        return self.views.decode(self.decode(features, in_view, state.get("heading")))

    def outcome(self, state: State) -> Tensor:
        """(N, 2) of OUTCOMES: the log-odds that the episode ended on arrival here, and those of success, or the reward
        itself, as the domain has it."""
        return self.outcome_heads(self.features_of(state))

    def memory(self, state: State) -> Tensor:
        """The policy's hidden state (N, S) before it sees this state, as the model guesses it."""
        return self.memory_head(self.features_of(state))

    # --- its parts --------------------------------------------------------------------------------------------------

    def blank(self, lang: Tensor) -> State:
        """Before anything is known but the mission (N, G)."""
        num_worlds = len(lang)
        return {
            "deterministic": lang.new_zeros(num_worlds, self.gru.hidden_size),
            "stochastic": lang.new_zeros(num_worlds, self.stochastic),
            "mission": lang,
            **({} if self.places is None else self.places.blank(num_worlds)),
        }

    def predict(self, state: State, action: Tensor) -> Prediction:
        """Predict all of the next state but z, and the prior of z."""
        ahead = [] if self.places is None else [self.places.ahead(state)]
        inputs = torch.cat([state["stochastic"], action, state["mission"], *ahead], -1)
        deterministic = self.gru(inputs, state["deterministic"])
        memory = {name: state[name] for name in MEMORY if name in state}
        if self.places is not None:
            memory = self.places.moved(memory, torch.cat([deterministic, action], -1))
        in_view = self.in_view(memory)
        features = F.elu(self.look_ahead(_join([deterministic], in_view)))
        return Prediction(deterministic, memory, in_view, features, self.prior(features))

    def posterior_of(self, prediction: Prediction, encoded: Tensor) -> Tensor:
        """The posterior of z: logits (N, Z), given an encoded observation (N, E)."""
        return self.posterior(torch.cat([prediction.features, encoded], -1))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Those of z, (..., groups, classes), with their share of the uniform distribution; logits (..., Z)."""
        probabilities = logits.unflatten(-1, (self.groups, self.classes)).softmax(-1)
        return torch.add(UNIFORM / self.classes, probabilities, alpha=1 - UNIFORM)

    def sample_latent(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """z (N, Z), ones and zeros with gradients behind them: the likeliest, or what the noise decides.

        logits (N, Z); noise (N, groups, classes), draws of a standard exponential distribution: the class that comes
        first in the race, at the rates of the probabilities, has been drawn from them.
        """
        probabilities = self.probabilities(logits)
        rates = probabilities if noise is None else probabilities / noise
        chosen = F.one_hot(rates.detach().argmax(-1), self.classes).to(probabilities)
        return (chosen + (probabilities - probabilities.detach())).flatten(1)

    def update(self, state: State, prediction: Prediction, z: Tensor) -> State:
        """Return the next state, once z (N, Z) is decided."""
        memory = prediction.memory
        if self.places is not None:
            features = F.elu(self.settle_in(torch.cat([prediction.features, z], -1)))
            memory = self.places.changed(memory, prediction.in_view, features)
        return {**state, **memory, "deterministic": prediction.deterministic, "stochastic": z}

    def observe_step(
        self, state: State, action: Tensor, encoded: Tensor, view: Tensor, noise: Tensor | None
    ) -> tuple[State, Tensor, Tensor]:
        """Take a step in which the observation is shown, encoded (N, E) and as a view (N, X).

        Returns the state, and prior and posterior of z, logits (N, Z).
        """
        prediction = self.predict(state, action)
        posterior = self.posterior_of(prediction, encoded)
        prediction = prediction._replace(deterministic=self.take_in(encoded, prediction.deterministic))
        state = self.update(state, prediction, self.sample_latent(posterior, noise))
        if self.places is not None:
            seen = {**state, "heading": self.views.heading(view)}
            state = self.places.written(seen, self.in_view(seen), *self.views.remember(view))
        return state, prediction.prior, posterior

    def in_view(self, state: State) -> Tensor | None:
        """What is remembered of the cells in view, (N, 7, 7, C)."""
        return None if self.places is None else self.places.view(state)

    def features_of(self, state: State) -> Tensor:
        """What the heads see of a state, (N, W)."""
        return self.features(state["deterministic"], state["stochastic"], self.in_view(state))

    def features(self, deterministic: Tensor, z: Tensor, in_view: Tensor | None) -> Tensor:
        """(N, W) of h (N, H), z (N, Z) and the map in view (N, 7, 7, C); several axes may stand in the place of N."""
        return F.elu(self.trunk(_join([deterministic, z], in_view)))

    def decode(self, features: Tensor, in_view: Tensor | None, heading: Tensor | None) -> Tensor:
        """Logits (N, X) of an observation, given features (N, W), the map in view and the heading (N, 4)."""
        return self.views(features) if in_view is None else self.views(features, in_view, heading)


def _join(parts: list[Tensor], in_view: Tensor | None) -> Tensor:
    """Parts (N, ...) side by side, and the cells in view (N, 7, 7, C) behind them."""
    return torch.cat(parts if in_view is None else [*parts, in_view.flatten(-3)], -1)


def make_world_model(config: Mapping, domain: Domain) -> WorldModel:
    """Make an untrained model, given a simulator's config, with weights drawn from torch's present generator."""
    num_actions = len(config["actions"]) if "actions" in config else NUM_ACTIONS
    return WorldModel(domain, config["sizes"], config["hidden_size"], config.get("lang_dim", 0), num_actions)
