"""What a world model is to learn of a recording: terms of a loss, all in nats.

A window is `num_init` frames, in which the model filters what it sees, and then frames through which it simulates: the
actions are those of the recording, the policy inside sees the simulated frames and begins with its true memory. Each
term is a mean over the steps before the end of the episode:

    obs             surprise at the observation, the sum over its parts
    hx              half the squared error of the policy's memory over its variance, the sum over units
    routing         KL of the router's weights, the true from the simulated, the sum over layers; of BabyAI
    value           half the squared error of the agent's value; of games
    act_log_probs   KL of the policy's actions, the true from the simulated
    done, reward    surprise at the end of the episode, and at success, or at the reward
    kl              KL of the prior from the posterior, of which the first `FREE_NATS` cost nothing
    begin           half the squared error of the guess of the first memory, over its variance

What an observation, a success and a variance are, the `Domain` says.
Axis letters: T frames of a window, N windows, A actions, X numbers of a soft observation, S hidden units of the policy.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.domains.base import Domain, Policy
from generative.simulators.world_model import WorldModel
from mop.statistics.information import kl_divergence

FREE_NATS = 1.0
PRIOR_SHARE = 0.8  # of the KL that moves the prior; the rest moves the posterior (Hafner et al. 2021)


class Frames(NamedTuple):
    """Windows as tensors, the axis of time first."""

    views: Tensor  # (T, N, X)
    actions: Tensor  # (T, N, A), that led to each frame; zeros in the first
    mask: Tensor  # (T, N) bool, False after the end of the episode
    outcomes: Tensor  # (T, N, 2), 1 where the frame is the end of the episode, and a success; or the reward
    hidden: Tensor  # (T, N, S) of the policy, before it saw the frame
    routing: Tensor  # (T, N, sum of E_l), or (T, N, 0)
    value: Tensor  # (T, N), or (T, N, 0)
    log_probs: Tensor  # (T, N, A)
    lang: Tensor  # (N, G)

    @classmethod
    def of(cls, batch: Mapping[str, np.ndarray], domain: Domain) -> "Frames":
        """Make tensors of `Windows.batch`, with the domain's arrays."""
        arrays = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in batch.items()}
        by_time = {name: values.transpose(0, 1) for name, values in arrays.items() if name != "lang"}
        mask = by_time["mask"].contiguous()
        num_actions, nothing = by_time["log_probs"].shape[-1], torch.zeros(*mask.shape, 0)
        actions = F.one_hot(by_time["action"].long() + 1, num_actions + 1)[..., 1:].float()  # -1 is no action
        answers = ("hidden", "routing", "value", "log_probs")
        return cls(
            domain.to_views(by_time["obs"]) * mask[..., None],
            _after(actions),
            mask,
            _after(domain.outcomes(by_time)),
            *(by_time.get(name, nothing).float().contiguous() for name in answers),
            arrays["lang"].float(),
        )

    def to(self, device: torch.device) -> "Frames":
        """The same on a device."""
        return Frames(*(part.to(device) for part in self))


def _after(values: Tensor) -> Tensor:
    """What belongs to a step, (T, N, K), at the frame that it led to."""
    return torch.cat([torch.zeros_like(values[:1]), values[:-1]])


class Simulated(NamedTuple):
    """The output of a model over windows."""

    logits: Tensor  # (T, N, X) of the decoder
    outcomes: Tensor  # (T, N, 2), log-odds, or the reward
    prior: Tensor  # (T, N, groups, classes), log-probabilities of z
    posterior: Tensor  # as prior
    memory: Tensor  # (N, S), the guess before the first simulated frame


def simulate(model: WorldModel, frames: Frames, num_init: int, is_free: Tensor, noise: Tensor | None) -> Simulated:
    """Run a model over windows. is_free (T, N) bool: where z comes from the prior, in simulated frames.

    noise: see `WorldModel.sample_latent`, (T, N, groups, classes). All heads are computed at once, as nothing in the
    loop needs them.
    """
    encoded = model.views.encode(frames.views)
    state = model.blank(frames.lang)
    states, in_views, priors, posteriors = [], [], [], []
    for t, action in enumerate(frames.actions):
        of_step = None if noise is None else noise[t]
        if t < num_init:
            state, prior, posterior = model.observe_step(state, action, encoded[t], frames.views[t], of_step)
        else:
            prediction = model.predict(state, action)
            prior, posterior = prediction.prior, model.posterior_of(prediction, encoded[t])
            z = model.sample_latent(torch.where(is_free[t][:, None], prior, posterior), of_step)
            state = model.update(state, prediction, z)
        states.append(state)
        in_views.append(model.in_view(state))
        priors.append(prior)
        posteriors.append(posterior)
    deterministic, z = (torch.stack([state[name] for state in states]) for name in ("deterministic", "stochastic"))
    in_view = heading = None
    if model.places is not None:
        in_view = torch.stack(in_views)
        heading = torch.stack([state["heading"] for state in states])
    features = model.features(deterministic, z, in_view)
    return Simulated(
        model.decode(features, in_view, heading),
        model.outcome_heads(features),
        *(model.probabilities(torch.stack(logits)).log() for logits in (priors, posteriors)),
        model.memory_head(features[num_init - 1]),
    )


def losses(
    model: WorldModel, policy: Policy, frames: Frames, simulated: Simulated, num_init: int, variance: Tensor
) -> dict[str, Tensor]:
    """Each of the domain's terms, in nats of a step. variance (S,): see `Domain.hidden_variance`."""
    mask, later = frames.mask, frames.mask[num_init:]
    answer = policy.run(model.views.decode(simulated.logits[num_init:]), frames.lang, frames.hidden[num_init])
    hidden_error = (answer.hidden[:-1] - frames.hidden[num_init + 1 :]).square().div(variance).sum(-1) / 2
    outcomes = model.domain.outcome_nats(simulated.outcomes, frames.outcomes)
    recorded = {"routing": frames.routing[num_init:], "value": frames.value[num_init:]}
    disagreement = policy.disagreement(answer, recorded)
    first_error = (simulated.memory - frames.hidden[num_init]).square().div(variance).sum(-1) / 2
    return {
        "obs": _mean(model.views.nats(simulated.logits, frames.views), mask),
        "hx": _mean(hidden_error, later[1:]),
        **{name: _mean(nats, later) for name, nats in disagreement.items()},
        "act_log_probs": _mean(kl_divergence(frames.log_probs[num_init:], answer.logits.log_softmax(-1)), later),
        "done": _mean(outcomes[..., 0], mask),
        "reward": _mean(outcomes[..., 1], mask),
        "kl": _mean(_balanced(simulated.posterior, simulated.prior), mask),
        "begin": _mean(first_error, frames.mask[num_init]),
    }


def _balanced(posterior: Tensor, prior: Tensor) -> Tensor:
    """KL (T, N) of the prior from the posterior, with more weight on the prior's side; both (T, N, groups, classes)."""
    of_prior = kl_divergence(posterior.detach(), prior).sum(-1).clamp(min=FREE_NATS)
    of_posterior = kl_divergence(posterior, prior.detach()).sum(-1).clamp(min=FREE_NATS)
    return PRIOR_SHARE * of_prior + (1 - PRIOR_SHARE) * of_posterior


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the steps of the mask; 0 where there is none."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
