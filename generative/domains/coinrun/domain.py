"""The games of Procgen as a `Domain`: observations are frames.

Terms of a simulator's loss are in nats of normal distributions of variance 1, and their weights count as in the command
of the paper (docs/coinrun.md): a weight of 1 belongs to the mean squared error of a number, not to a nat.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.agents.networks import KIND
from generative.domains.base import Domain
from generative.domains.coinrun.causes import FrameExplanation, find_causes, without_each
from generative.domains.coinrun.decoder import NUM_POINTS, WHITE, FrameDecoder, frame_views
from generative.domains.coinrun.envs import DOMAIN, GameActor, open_worlds
from generative.domains.coinrun.labels import labeller
from generative.domains.coinrun.policy import FrozenAgent
from generative.domains.coinrun.render import STEPS_PER_SECOND, play_films, recorded_film, simulated_film
from generative.domains.coinrun.rollouts import GameArena
from generative.domains.coinrun.scenes import agreement_of_patches, true_contributions
from generative.domains.coinrun.targets import TARGETS_HELP, parse_target
from generative.domains.coinrun.trials import PROTOCOL

KL_DIMENSIONS = 128  # over which the paper's model takes the mean of its KL

_PAPER_WEIGHTS = {"obs": 1000.0, "hx": 1.0, "value": 0.0, "act_log_probs": 1e-5, "done": 0.1, "reward": 0.01, "kl": 1.0}
_PAPER = {f"loss_scale_{name}": weight for name, weight in (_PAPER_WEIGHTS | {"begin": 1.0}).items()}
_SIZES = ("deterministic", "groups", "classes", "width", "encoded", "channels", "frame_side")
_PRESETS = {
    "small": dict(zip(_SIZES, (192, 12, 12, 192, 128, 16, 32), strict=True)),
    "hard-rec": dict(zip(_SIZES, (512, 32, 32, 512, 512, 48, 64), strict=True)),
    "tiny": dict(zip(_SIZES, (32, 4, 4, 32, 16, 4, 16), strict=True)),
}
_SMALL = {"num_updates": 3000, "lr": 1e-3, "batch_size": 16, "num_sim_steps": 16}
_SETTINGS = {
    "small": _PAPER | _SMALL | {"loss_scale_act_log_probs": 0.1, "loss_scale_done": 1.0},
    "hard-rec": _PAPER | {"num_updates": 200_000, "lr": 1e-4},
    "tiny": _PAPER | {"num_updates": 200, "lr": 3e-3, "batch_size": 8, "num_sim_steps": 8},
}


def _outcome_nats(predicted: Tensor, true: Tensor) -> Tensor:
    """The reward is normally distributed around the prediction, with variance 1."""
    ended = F.binary_cross_entropy_with_logits(predicted[..., 0], true[..., 0], reduction="none")
    return torch.stack([ended, (predicted[..., 1] - true[..., 1]).square() / 2], -1)


def _loss_units(settings: Mapping[str, float], hidden_size: int) -> dict[str, float]:
    """The KL is that of a whole window, divided by the 128 numbers of the paper's z."""
    of_hidden = 2 / max(hidden_size, 1)
    of_kl = settings["num_sim_steps"] / KL_DIMENSIONS
    return {"obs": 2 / NUM_POINTS, "hx": of_hidden, "begin": of_hidden, "reward": 2.0, "kl": of_kl}


COINRUN = Domain(
    name=DOMAIN,
    title="games",
    checkpoint_kind=KIND,
    load_policy=FrozenAgent.load,
    open_worlds=open_worlds,
    world_flags=("num_levels", "start_level", "distribution_mode", "param_name"),
    actor=GameActor,
    behaviours=("argmax", "sampled", "noisy", "random"),
    to_views=frame_views,
    make_decoder=lambda sizes: FrameDecoder(sizes["width"], sizes["encoded"], sizes["channels"], sizes["frame_side"]),
    presets=_PRESETS,
    settings=_SETTINGS,
    extra_arrays=("value",),
    outcomes=lambda by_time: torch.stack([by_time["terminated"].float(), by_time["reward"]], -1),
    outcome_nats=_outcome_nats,
    hidden_variance=lambda hidden: torch.ones(hidden.shape[-1]),
    loss_units=_loss_units,
    loss_unit="(weighed)",
    view_score=lambda simulated, true: (simulated - true).div(WHITE).square().mean(-1),
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
    open_arena=GameArena,
    arena_flags=("policy", "max_steps"),
    play_films=play_films,
    recorded_film=recorded_film,
    simulated_film=simulated_film,
    steps_per_second=STEPS_PER_SECOND,
)
