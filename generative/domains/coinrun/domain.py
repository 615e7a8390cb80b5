"""The games of Procgen as a `Domain`: observations are frames.

Terms of a simulator's loss are in nats of normal distributions of variance 1, and their weights count as in the command
of the paper (docs/coinrun.md): a weight of 1 belongs to the mean squared error of a number, not to a nat.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.agents.networks import KIND
from generative.domains.base import Domain, ViewScore
from generative.domains.coinrun.causes import FrameExplanation, find_causes, without_each
from generative.domains.coinrun.decoder import NUM_POINTS, WHITE, FrameDecoder, frame_views
from generative.domains.coinrun.envs import DOMAIN, AgentActor, open_worlds
from generative.domains.coinrun.labels import labeller
from generative.domains.coinrun.policy import FrozenAgent
from generative.domains.coinrun.render import STEPS_PER_SECOND, play_films, recorded_film, simulated_film
from generative.domains.coinrun.rollouts import open_arena
from generative.domains.coinrun.scenes import agreement_of_patches, true_contributions
from generative.domains.coinrun.targets import TARGETS_HELP, parse_target
from generative.domains.coinrun.trials import PROTOCOL

KL_DIMENSIONS = 128  # over which the paper's model takes the mean of its KL

_PAPER_WEIGHTS = {
    "loss_scale_obs": 1000.0, "loss_scale_hx": 1.0, "loss_scale_value": 0.0, "loss_scale_act_log_probs": 1e-5,
    "loss_scale_done": 0.1, "loss_scale_reward": 0.01, "loss_scale_kl": 1.0, "loss_scale_begin": 1.0,
}  # fmt: skip
_PRESETS = {
    "small": {
        "deterministic": 192, "groups": 12, "classes": 12, "width": 192, "encoded": 128, "channels": 16,
        "frame_side": 32,
    },
    "hard-rec": {
        "deterministic": 512, "groups": 32, "classes": 32, "width": 512, "encoded": 512, "channels": 48,
        "frame_side": 64,
    },
    "tiny": {
        "deterministic": 32, "groups": 4, "classes": 4, "width": 32, "encoded": 16, "channels": 4, "frame_side": 16,
    },
}  # fmt: skip
_SETTINGS = {
    "small": _PAPER_WEIGHTS | {
        "num_updates": 3000, "lr": 1e-3, "batch_size": 16, "num_sim_steps": 16, "loss_scale_act_log_probs": 0.1,
        "loss_scale_done": 1.0,
    },
    "hard-rec": _PAPER_WEIGHTS | {"num_updates": 200_000, "lr": 1e-4},
    "tiny": _PAPER_WEIGHTS | {"num_updates": 200, "lr": 3e-3, "batch_size": 8, "num_sim_steps": 8},
}  # fmt: skip


def _make_decoder(sizes: Mapping[str, int]) -> FrameDecoder:
    return FrameDecoder(sizes["width"], sizes["encoded"], sizes["channels"], sizes["frame_side"])


def _end_and_reward(by_time: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([by_time["terminated"].float(), by_time["reward"]], -1)


def _outcome_nats(predicted: Tensor, true: Tensor) -> Tensor:
    """The reward is normally distributed around the prediction, with variance 1."""
    ended = F.binary_cross_entropy_with_logits(predicted[..., 0], true[..., 0], reduction="none")
    return torch.stack([ended, (predicted[..., 1] - true[..., 1]).square() / 2], -1)


def _loss_units(settings: Mapping[str, float], hidden_size: int) -> dict[str, float]:
    """The KL is that of a whole window, divided by the 128 numbers of the paper's z."""
    of_hidden = 2 / max(hidden_size, 1)
    of_kl = settings["num_sim_steps"] / KL_DIMENSIONS
    return {"obs": 2 / NUM_POINTS, "hx": of_hidden, "begin": of_hidden, "reward": 2.0, "kl": of_kl}


def _squared_error(simulated: Tensor, true: Tensor) -> Tensor:
    return (simulated - true).div(WHITE).square().mean(-1)


COINRUN = Domain(
    name=DOMAIN,
    title="games",
    checkpoint_kind=KIND,
    load_policy=FrozenAgent.load,
    open_worlds=open_worlds,
    world_flags=("num_levels", "start_level", "distribution_mode", "param_name"),
    actor=AgentActor,
    behaviours=("argmax", "sampled", "noisy", "random"),
    to_views=frame_views,
    make_decoder=_make_decoder,
    presets=_PRESETS,
    settings=_SETTINGS,
    extra_arrays=("value",),
    outcomes=_end_and_reward,
    outcome_nats=_outcome_nats,
    hidden_variance=lambda hidden: torch.ones(hidden.shape[-1]),
    loss_units=_loss_units,
    loss_unit="(weighed)",
    view_score=ViewScore(
        of=_squared_error,
        brief="error of points {val_error:.4f}",
        title="frames",
        text="squared error of a point {val_error_1:.5f} one step ahead, {val_error:.5f} in all",
    ),
    num_validation=40,
    has_gpu=True,
    fidelity=PROTOCOL,
    find_causes=find_causes,
    remove_causes=without_each,
    true_contributions=true_contributions,
    explanation=FrameExplanation,
    agreement=agreement_of_patches,
    parse_target=parse_target,
    targets_help=TARGETS_HELP,
    num_points=2,
    max_beginnings=64,  # a frame and what is computed of it are large
    labeller=labeller,
    open_arena=open_arena,
    arena_flags=("policy", "max_steps"),
    play_films=play_films,
    recorded_film=recorded_film,
    simulated_film=simulated_film,
    steps_per_second=STEPS_PER_SECOND,
)
