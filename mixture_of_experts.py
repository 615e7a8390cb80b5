"""The policies as equations: a mixture of pathways through GRU experts of different sizes, and the plain GRU baseline.

A policy is a stack of layers; each has experts of different sizes and a router. At each step,

    x       = W_in [observation, mission] + b_in     the input of the first layer, or `FilmProjection`
    weights = softmax(W_r router_state + b_r)        router_state = GRU(x, router_state)
    E_e(x)  = P_e state_e + b_e                      state_e = GRU_e(x, state_e);  E_e(x) = x for a skip, size 0
    y       = sum over experts e of weights_e E_e(x) the input of the next layer; with `residual`, LayerNorm(x + y)
    logits  = W_out y + b_out                        of the last layer's y
    LPC     = sum over layers and experts of weights_e size_e^2, the layered parameter cost of the step

and GRU is `gru_step`. These equations are written below in plain torch, one step at a time: `step`, `forward_encoded`.
They run on any device, have derivatives with respect to all inputs, and take interventions on the router's weights.
Training and evaluation call `mop.training.execution`, which gives the same numbers faster on a CPU. To change an
equation, change it here and give `MixtureOfExpertsPolicy.equations` another name, or put it into a class of your own:
the compiled code then refuses the policy, which learns and acts by the torch code of this file.

Axis letters: T steps of an unroll, N environments, D width, H hidden units of a layer, E experts of a layer, L layers,
A actions, S all hidden units of a policy; I numbers of an observation, G of a mission (`lang`), K of an encoded
observation; C numbers of a cell's embedding, F of its features.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (layer, the router's weights (N, E)) -> the weights (N, E) to mix the experts with in their place
Intervention = Callable[[int, Tensor], Tensor]

NUM_CELLS = 49  # of the agent's view, 7 x 7
CATEGORIES = (11, 6, 3)  # Minigrid's object types, colours and states: the channels of the image, one after the other


def category_edges(obs_encoding: str) -> Tensor:
    """First one-hot column of each integer of an observation that is encoded, then their number: int64.

    "raw": none is encoded, [0]. "one_hot": the 147 integers of the image; integer k of value v is a one in column
    edges[k] + v of 980.
    """
    sizes = {"raw": (), "one_hot": CATEGORIES}[obs_encoding]
    return torch.tensor([0, *itertools.accumulate(size for size in sizes for _ in range(NUM_CELLS))])


def encoded_dim(input_dim: int, obs_encoding: str) -> int:
    """Number of inputs that an observation of `input_dim` numbers becomes."""
    sizes = {"raw": (), "one_hot": CATEGORIES}[obs_encoding]
    num_encoded = NUM_CELLS * len(sizes)
    if input_dim < num_encoded:
        raise ValueError(f"observations of {input_dim} numbers have no image of {num_encoded} integers to encode")
    return NUM_CELLS * sum(sizes) + input_dim - num_encoded


def gru_step(gru: nn.GRU, x: Tensor, state: Tensor) -> Tensor:
    """One step of `torch.nn.GRU` (Cho et al. 2014, with the reset gate behind the product).

    x (N, D), state (N, H) -> state (N, H).
    """
    weight_ih, weight_hh, bias_ih, bias_hh = gru.all_weights[0]
    input_r, input_z, input_n = F.linear(x, weight_ih, bias_ih).chunk(3, -1)
    state_r, state_z, state_n = F.linear(state, weight_hh, bias_hh).chunk(3, -1)
    r, z = torch.sigmoid(input_r + state_r), torch.sigmoid(input_z + state_z)
    n = torch.tanh(input_n + r * state_n)
    return (1 - z) * n + z * state


class Film(NamedTuple):
    """Sizes of a `FilmProjection`."""

    cell_dim: int = 32
    num_features: int = 8


class FilmProjection(nn.Module):
    """An input projection in which the mission says what to look for in each cell (FiLM: Perez et al. 2018).

        e           = W_cells [type, colour, state]        of each of the 49 cells
        gamma, beta = W_film mission + b_film
        f           = relu(W_f relu((1 + gamma) * e + beta) + b_f)
        x           = W_out [f of all cells, direction, carrying, mission] + b_out

    A cell whose categories are spread over several columns has the mean of their embeddings.
    """

    def __init__(self, num_others: int, lang_dim: int, width: int, sizes: Film):
        """num_others: numbers of an observation that are no cells; sizes: C and F."""
        super().__init__()
        self.num_others, self.lang_dim = num_others, lang_dim
        self.cells = nn.Linear(sum(CATEGORIES), sizes.cell_dim, bias=False)
        self.film = nn.Linear(lang_dim, 2 * sizes.cell_dim)
        self.features = nn.Linear(sizes.cell_dim, sizes.num_features)
        self.output = nn.Linear(NUM_CELLS * sizes.num_features + num_others + lang_dim, width)
        nn.init.uniform_(self.cells.weight, -0.5, 0.5)
        bound = (NUM_CELLS + num_others + lang_dim) ** -0.5
        nn.init.uniform_(self.output.weight, -bound, bound)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., K + G) of one-hot observations and the mission, or soft ones -> x (..., D)."""
        planes = [NUM_CELLS * size for size in CATEGORIES]
        *planes, others, lang = inputs.split([*planes, self.num_others, self.lang_dim], -1)
        by_cell = [plane.unflatten(-1, (NUM_CELLS, size)) for plane, size in zip(planes, CATEGORIES, strict=True)]
        cells = self.cells(torch.cat(by_cell, -1))
        gamma, beta = self.film(lang).unsqueeze(-2).chunk(2, -1)
        features = F.relu(self.features(F.relu((1 + gamma) * cells + beta)))
        return self.output(torch.cat([features.flatten(-2), others, lang], -1))


class WordProjection(nn.Module):
    """What a policy sees of a mission, read word by word; trained with the policy.

    x_k  = W_words word_k + W_places place_k           of each word
    y_k  = relu(W_near [x_k-1, x_k, x_k+1] + b_near)   as adjective and noun are neighbours
    lang = W_out [sum over k of softmax_k(W_ask y_k)_h y_k, of each head h] + b_out
    """

    def __init__(self, num_words: int, max_words: int, lang_dim: int, width: int = 64, num_heads: int = 4):
        """num_words: of the vocabulary; max_words: of a mission."""
        super().__init__()
        self.in_features = max_words
        self.words = nn.Embedding(1 + num_words, width)
        self.places = nn.Embedding(max_words, width)
        self.near = nn.Linear(3 * width, width)
        self.ask = nn.Linear(width, num_heads, bias=False)
        self.output = nn.Linear(num_heads * width, lang_dim)

    def forward(self, numbers: Tensor) -> Tensor:
        """numbers (N, max_words) float32: of each mission's words, from 1 on, 0 behind the last -> lang (N, G)."""
        is_word = (numbers > 0).unsqueeze(-1)
        length = int(is_word.sum(1).max())
        numbers, is_word = numbers[:, :length].long(), is_word[:, :length]
        x = F.pad((self.words(numbers) + self.places.weight[:length]) * is_word, (0, 0, 1, 1))
        y = F.relu(self.near(torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], -1)))
        weights = self.ask(y).masked_fill(~is_word, -torch.inf).softmax(1)
        return self.output((weights.transpose(1, 2) @ y).flatten(1))


class Expert(nn.Module):
    """One expert of a layer: a GRU of `hidden_size` units and a projection back to the layer's width.

    Size 0 is the skip expert: the identity, without parameters.
    """

    def __init__(self, width: int, hidden_size: int, gain: float = 1.0):
        """gain: of the projection's first weights, as a multiple of torch's default."""
        super().__init__()
        self.hidden_size = hidden_size
        if hidden_size > 0:
            self.gru = nn.GRU(width, hidden_size)
            self.projection = nn.Linear(hidden_size, width)
            with torch.no_grad():
                self.projection.weight.mul_(gain)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, D), state (N, size) -> output (N, D), state (N, size)."""
        if self.hidden_size == 0:
            return x, state
        state = gru_step(self.gru, x, state)
        return self.projection(state), state


class Router(nn.Module):
    """A GRU that looks at the layer's input, and softmax weights over the layer's experts."""

    def __init__(self, width: int, hidden_size: int, num_experts: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.gru = nn.GRU(width, hidden_size)
        self.fc = nn.Linear(hidden_size, num_experts)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, D), state (N, R) -> weights (N, E), which are positive and sum to 1, and state (N, R)."""
        state = gru_step(self.gru, x, state)
        return self.fc(state).softmax(-1), state


class ExpertDropout(NamedTuple):
    """Leaves out experts that the router hardly uses (arXiv 2506.02813, eq. 3), in training mode.

    An expert of weight w below `threshold` (gamma) is dropped with probability `rate` x (1 - w / threshold) (beta), by
    torch's random numbers; the other weights stay as they are.
    """

    rate: float
    threshold: float

    def __call__(self, weights: Tensor) -> Tensor:
        """weights (..., E), with zeros where an expert is dropped."""
        dropped = torch.rand_like(weights) < self.rate * (1.0 - weights.detach() / self.threshold)
        return weights.masked_fill(dropped, 0.0)


class MoELayer(nn.Module):
    """Experts of different sizes, mixed by a router: y = sum over e of weight_e * expert_e(x).

    With `residual`, the block of the Mixture-of-Pathways paper: LayerNorm(x + y).
    """

    def __init__(
        self,
        width: int,
        expert_sizes: Sequence[int],
        router_hidden_size: int,
        residual: bool = False,
        dropout: ExpertDropout | None = None,
        expert_gain: float = 1.0,
    ):
        super().__init__()
        self.expert_sizes, self.dropout = list(expert_sizes), dropout
        self.router = Router(width, router_hidden_size, len(self.expert_sizes))
        self.experts = nn.ModuleList(Expert(width, size, expert_gain) for size in self.expert_sizes)
        self.norm = nn.LayerNorm(width) if residual else None

    def forward(
        self, x: Tensor, states: Tensor, intervene: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, D), states (N, H) -> output (N, D), weights (N, E), states (N, H); H: the router's units, the experts'.

        intervene: the router's weights (N, E) -> those to be used and returned. An expert that is dropped keeps its
        weight in what is returned.
        """
        router_state, *expert_states = states.split([self.router.hidden_size, *self.expert_sizes], -1)
        weights, router_state = self.router(x, router_state)
        if intervene is not None:
            weights = intervene(weights)
        used = self.dropout(weights) if self.dropout is not None and self.training else weights
        y, after = torch.zeros_like(x), [router_state]
        for weight, expert, state in zip(used.split(1, -1), self.experts, expert_states, strict=True):
            output, state = expert(x, state)
            y = y + weight * output
            after.append(state)
        return (y if self.norm is None else self.norm(x + y)), weights, torch.cat(after, -1)


class RecurrentPolicy(nn.Module):
    """The shared part of both policies: input projection, head, one hidden state, one interface.

    The hidden state is one float tensor (N, S), so that it can be saved, copied and reset as a whole. A subclass sets
    `hidden_layout` (the name of each GRU -> its columns of the hidden state), `expert_hidden_sizes` and `layers`,
    computes these in `recur`, and names its equations in `equations`, by which `mop.fast` recognises them.
    """

    equations: str
    hidden_layout: dict[str, slice]
    expert_hidden_sizes: list[list[int]]
    edges: Tensor

    def __init__(
        self,
        input_dim: int,
        lang_dim: int,
        width: int,
        head_dim: int,
        num_actions: int,
        obs_encoding: str = "raw",
        film: Film | None = None,
    ):
        """Set up what both policies share.

        obs_encoding: "raw", or "one_hot" for each category of the image as a column of ones and zeros; film: sizes of a
        `FilmProjection`, which needs one-hot observations, None for a linear input projection.
        """
        super().__init__()
        self.input_dim, self.lang_dim, self.width, self.num_actions = input_dim, lang_dim, width, num_actions
        self.obs_encoding, self.film = obs_encoding, film
        self.input_projection = self._input_projection()
        self.register_buffer("edges", category_edges(obs_encoding), persistent=False)
        num_encoded = len(self.edges) - 1
        self.num_columns = encoded_dim(input_dim, obs_encoding) - input_dim + num_encoded  # of the one-hot categories
        self.head = nn.Linear(head_dim, num_actions)

    def _input_projection(self) -> nn.Module:
        if self.film is not None:
            if self.obs_encoding != "one_hot":
                raise ValueError(f"the FiLM projection needs one-hot observations, not {self.obs_encoding} ones")
            num_others = self.input_dim - NUM_CELLS * len(CATEGORIES)
            return FilmProjection(num_others, self.lang_dim, self.width, self.film)
        linear = nn.Linear(encoded_dim(self.input_dim, self.obs_encoding) + self.lang_dim, self.width)
        if self.obs_encoding != "raw":  # torch's default for as many inputs as differ from zero at once
            bound = (self.input_dim + self.lang_dim) ** -0.5
            nn.init.uniform_(linear.weight, -bound, bound)
        return linear

    def encode(self, obs: Tensor, lang: Tensor) -> Tensor:
        """Input of the projection (..., K + G): obs (..., I) with its categories as ones and zeros, then lang.

        lang (..., G). Raises ValueError for categories that Minigrid does not have.
        """
        if self.obs_encoding == "raw":
            return torch.cat([obs, lang], -1)
        self.check_categories(obs)
        categories, others = obs.tensor_split([len(self.edges) - 1], -1)
        columns = categories.long() + self.edges[:-1]
        one_hot = obs.new_zeros(*obs.shape[:-1], self.num_columns).scatter_(-1, columns, 1.0)
        return torch.cat([one_hot, others, lang], -1)

    def check_categories(self, obs: Tensor) -> None:
        """Raises ValueError where a category of one-hot observations (..., I) is none of Minigrid's."""
        categories = obs[..., : len(self.edges) - 1]
        if not ((categories >= 0) & (categories < self.edges.diff())).all():
            raise ValueError("an observation has a category that Minigrid does not have")

    @property
    def layers(self) -> Iterable[nn.Module]:
        """The modules between input projection and head."""
        raise NotImplementedError

    def recur(self, x: Tensor, hidden: Tensor, intervene: Intervention | None) -> tuple[Tensor, list[Tensor], Tensor]:
        """The layers between input projection and head, at one step.

        x (N, D), hidden (N, S) -> input of the head (N, ...), router weights L x (N, E_l), hidden (N, S).
        """
        raise NotImplementedError

    def step(
        self, inputs: Tensor, hidden: Tensor, intervene: Intervention | None = None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """The equations at one step: inputs (N, K + G) of `encode`, or soft ones, and hidden (N, S).

        Returns logits (N, A), router weights L x (N, E_l), hidden (N, S).
        """
        x, routing, hidden = self.recur(self.input_projection(inputs), hidden, intervene)
        return self.head(x), routing, hidden

    def forward_encoded(
        self, inputs: Tensor, hidden: Tensor, keep: Tensor | None = None, intervene: Intervention | None = None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """The equations over a sequence, or at one step: `get_routing_info` for inputs ([T,] N, K + G) of `encode`.

        The inputs need not be ones and zeros; gradients reach them. keep: only with a sequence. intervene: see
        `Intervention`; the weights that it gives are those that are returned. The baseline has no router, and so
        nothing to intervene on.
        """
        if inputs.dim() == 2:
            return self.step(inputs, hidden, intervene)
        logits, routing = [], []
        for t, step_inputs in enumerate(inputs):
            if keep is not None:
                hidden = reset_hidden(hidden, ~keep[t])
            step_logits, weights, hidden = self.step(step_inputs, hidden, intervene)
            logits.append(step_logits)
            routing.append(weights)
        return torch.stack(logits), [torch.stack(weights) for weights in zip(*routing, strict=True)], hidden

    def get_routing_info(
        self,
        obs: Tensor,
        lang: Tensor,
        hidden: Tensor,
        keep: Tensor | None = None,
        intervene: Intervention | None = None,
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Logits, router weights and the new hidden state, for one step or a sequence.

        obs (N, I) or (T, N, I) float; lang (N, G) or (T, N, G) float; hidden (N, S) float; keep (T, N) bool, only
        with a sequence: False where an episode begins, so that step starts from a zero state; intervene: see
        `Intervention`. Returns logits ([T,] N, A), a list over L of router weights ([T,] N, E_l), hidden (N, S) after
        the last step.
        """
        return self.forward_encoded(self.encode(obs, lang), hidden, keep, intervene)

    def forward(self, obs: Tensor, lang: Tensor, hidden: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `get_routing_info`, without the routing: logits ([T,] N, A), hidden (N, S)."""
        logits, _, hidden = self.get_routing_info(obs, lang, hidden, keep)
        return logits, hidden

    @property
    def hidden_size(self) -> int:
        """S, all hidden units of the policy."""
        return max(columns.stop for columns in self.hidden_layout.values())

    def initial_hidden(self, num_envs: int) -> Tensor:
        """Zeros (N, S), the state at the beginning of an episode."""
        return self.head.weight.new_zeros(num_envs, self.hidden_size)

    def hidden_by_name(self, hidden: Tensor) -> dict[str, Tensor]:
        """Views (1, N, size) of hidden (N, S), one for each GRU: `router_0`, `expert_0_1`, ... (layer, expert)."""
        return {name: hidden[None, :, columns] for name, columns in self.hidden_layout.items()}


class MixtureOfExpertsPolicy(RecurrentPolicy):
    """Input projection, L layers of routed GRU experts, a linear head (Mixture-of-Pathways, adapted to stepping)."""

    equations = "GRU experts mixed by the softmax of a GRU router"

    def __init__(
        self,
        input_dim: int = 152,
        lang_dim: int = 32,
        intermediate_dim: int = 64,
        expert_hidden_sizes: Sequence = ((0, 16, 32),) * 3,
        router_hidden_size: int = 64,
        num_actions: int = 7,
        residual: bool = False,
        obs_encoding: str = "raw",
        dropout: ExpertDropout | None = None,
        expert_gain: float = 1.0,
        film: Film | None = None,
    ):
        """expert_hidden_sizes: a list for each layer, a flat list means one layer; expert_gain: see `Expert`."""
        super().__init__(input_dim, lang_dim, intermediate_dim, intermediate_dim, num_actions, obs_encoding, film)
        is_flat = all(isinstance(size, int) for size in expert_hidden_sizes)
        layers = [expert_hidden_sizes] if is_flat else expert_hidden_sizes
        self.expert_hidden_sizes = [list(sizes) for sizes in layers]
        self.moe_layers = nn.ModuleList(
            MoELayer(intermediate_dim, sizes, router_hidden_size, residual, dropout, expert_gain)
            for sizes in self.expert_hidden_sizes
        )
        self.router_hidden_size = router_hidden_size
        self.hidden_layout, start = {}, 0
        for layer, sizes in enumerate(self.expert_hidden_sizes):
            named = {f"router_{layer}": router_hidden_size}
            named |= {f"expert_{layer}_{e}": size for e, size in enumerate(sizes) if size > 0}
            for name, size in named.items():
                self.hidden_layout[name] = slice(start, start := start + size)

    @property
    def layers(self) -> list[MoELayer]:
        return cast(list[MoELayer], list(self.moe_layers))

    def recur(self, x, hidden, intervene):
        routing, after = [], []
        units = [self.router_hidden_size + sum(sizes) for sizes in self.expert_hidden_sizes]
        for number, (layer, states) in enumerate(zip(self.moe_layers, hidden.split(units, -1), strict=True)):
            of_layer = None if intervene is None else functools.partial(intervene, number)
            x, weights, states = layer(x, states, of_layer)
            routing.append(weights)
            after.append(states)
        return x, routing, torch.cat(after, -1)


class GRUPolicy(RecurrentPolicy):
    """The baseline: input projection, one GRU, a linear head.

    For the measures it is a mixture with a single pathway: one layer, one expert, weight 1.
    """

    equations = "one GRU"

    def __init__(
        self,
        input_dim: int = 152,
        lang_dim: int = 32,
        intermediate_dim: int = 64,
        gru_hidden_size: int = 64,
        num_actions: int = 7,
        obs_encoding: str = "raw",
        film: Film | None = None,
    ):
        super().__init__(input_dim, lang_dim, intermediate_dim, gru_hidden_size, num_actions, obs_encoding, film)
        self.gru = nn.GRU(intermediate_dim, gru_hidden_size)
        self.expert_hidden_sizes = [[gru_hidden_size]]
        self.hidden_layout = {"gru": slice(0, gru_hidden_size)}

    @property
    def layers(self) -> list[nn.GRU]:
        return [self.gru]

    def recur(self, x, hidden, intervene):
        state = gru_step(self.gru, x, hidden)
        return state, [state.new_ones(len(state), 1)], state


def reset_hidden(hidden: Tensor, done: Tensor) -> Tensor:
    """hidden (N, S) with zeros where done (N,) is True; also where the old state was NaN or infinite."""
    return torch.where(done.unsqueeze(-1), hidden.new_zeros(()), hidden)


def compute_lpc(routing: Sequence[Tensor], expert_hidden_sizes: Sequence[Sequence[int]]) -> Tensor:
    """Layered parameter cost of each sample: sum over layers and experts of router weight x expert size squared.

    The measure of the Mixture-of-Pathways paper (arXiv 2506.02813), called learned pathway complexity there.
    routing: list over L of (..., E_l); returns (...).
    Uniform routing over three layers of [0, 16, 32] costs 1280, all weight on the largest experts 3072.
    """
    costs = (
        weights @ weights.new_tensor([float(size) ** 2 for size in sizes])
        for weights, sizes in zip(routing, expert_hidden_sizes, strict=True)
    )
    return functools.reduce(torch.add, costs)


def routing_measures(routing: Sequence[Tensor], expert_hidden_sizes: Sequence[Sequence[int]]) -> dict[str, float]:
    """Of each layer with a choice: mean entropy of the router's weights in nats, and mean weight of the skip experts.

    routing: list over L of (..., E_l). Names `router_entropy_<l>` and `skip_share_<l>`; the latter only where a layer
    has experts of size 0.
    """
    measures = {}
    for layer, (weights, sizes) in enumerate(zip(routing, expert_hidden_sizes, strict=True)):
        weights, skips = weights.detach(), [e for e, size in enumerate(sizes) if size == 0]
        if len(sizes) > 1:
            measures[f"router_entropy_{layer}"] = torch.special.entr(weights).sum(-1).mean().item()
            if skips:
                measures[f"skip_share_{layer}"] = weights[..., skips].sum(-1).mean().item()
    return measures
