"""What learning a simulator must know of a kind of world: one `Domain` for BabyAI, one for games.

The rest of `world_model`, `losses` and `learning` is the same for all. Which domain a recording or a simulator is of,
its config says (`domain_of`). How simulators are judged and shown: `generative.simulators.fidelity_protocol`.
Axis letters: N windows, T frames of them, X numbers of a view, S hidden units of the policy.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.domains.babyai.decoder import SymbolicViews
from generative.domains.babyai.egocentric_map import Nowhere, Places
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.coinrun.decoder import NUM_POINTS, WHITE, PixelViews, frame_views
from generative.domains.coinrun.policy import FrozenAgent
from generative.simulators.relaxation import NUM_CELLS, soften
from mop.common.errors import InputError

BABYAI_SIZES = {"deterministic": 192, "groups": 12, "classes": 12, "map_channels": 12, "width": 128, "encoded": 128}
LEAST_VARIANCE = 1e-4  # of a unit, so that one that never moves does not rule the loss
KL_DIMENSIONS = 128  # over which the paper's model takes the mean of its KL

_PAPER_WEIGHTS = {
    "loss_scale_obs": 1000.0, "loss_scale_hx": 1.0, "loss_scale_value": 0.0, "loss_scale_act_log_probs": 1e-5,
    "loss_scale_done": 0.1, "loss_scale_reward": 0.01, "loss_scale_kl": 1.0, "loss_scale_begin": 1.0,
}  # fmt: skip


class Domain(Protocol):
    """A kind of world."""

    name: str  # in configs
    presets: Mapping[str, Mapping[str, int]]  # of --param_name, the first one the default: sizes of the model
    defaults: Mapping[str, Mapping[str, float]]  # settings of a preset that differ from those of BabyAI
    terms: tuple[str, ...]  # of the loss
    arrays: tuple[str, ...]  # of a recording that the losses look at
    num_validation: int  # windows
    closeness_names: tuple[str, ...]  # of `closeness`
    closeness_brief: str  # of a row of the log, in a format with its names
    closeness_text: tuple[str, str]  # what it is called, and as `closeness_brief`
    loss_unit: str  # of the whole loss
    has_gpu: bool  # whether its policies run on a GPU

    def load_policy(self, path: Any, encoder: str | None) -> tuple[Any, dict]:
        """The frozen policy of a checkpoint and the checkpoint's config. Raises InputError."""

    def soften(self, obs: Tensor) -> Tensor:
        """Recorded observations as views (..., X), through which gradients pass."""

    def make_views(self, sizes: Mapping[str, int]) -> nn.Module:
        """How views are read, shown and judged: `likelihood.SymbolicViews`."""

    def make_places(self, sizes: Mapping[str, int], num_inputs: int) -> nn.Module:
        """What is remembered of places: `places.Places`."""

    def remembered(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """How many numbers that is of a cell, and of all cells in view."""

    def outcomes(self, by_time: Mapping[str, Tensor]) -> Tensor:
        """(T, N, 2) of recorded steps: whether the episode ended, and its success, or the reward."""

    def outcome_nats(self, said: Tensor, true: Tensor) -> Tensor:
        """The surprise (T, N, 2) at outcomes, in nats; said: of the model's head."""

    def variance(self, hidden: Tensor) -> Tensor:
        """What the squared error of the memory is measured by, (S,); hidden (M, S): rows of the recording."""

    def units(self, settings: Mapping[str, float], hidden_size: int) -> Mapping[str, float]:
        """For terms whose weights are not per nat: what a nat counts; 1 for all others."""

    def closeness(self, shown: Tensor, true: Tensor, mask: Tensor) -> dict[str, float]:
        """How close simulated views (T, N, X) are to the true ones: one step ahead, and over all steps."""


class BabyAI:
    """Observations of cells; all terms count in nats."""

    name = "babyai"
    presets: Mapping[str, Mapping[str, int]] = {
        "babyai": BABYAI_SIZES,
        "small": BABYAI_SIZES | {"deterministic": 64, "width": 48, "encoded": 48, "map_channels": 6},
    }
    defaults: Mapping[str, Mapping[str, float]] = {}
    terms = ("obs", "hx", "routing", "act_log_probs", "done", "reward", "kl", "begin")
    arrays = ("obs", "action", "hidden", "routing", "log_probs", "reward", "terminated")
    num_validation = 200
    closeness_names = ("val_exact_1", "val_exact")
    closeness_brief = "exact {val_exact:.1%}"
    closeness_text = ("exact views", "{val_exact_1:.1%} one step ahead, {val_exact:.1%} of all steps, at the end")
    loss_unit = "nats a step"
    has_gpu = False
    load_policy = staticmethod(FrozenPolicy.load)
    soften = staticmethod(soften)

    def make_views(self, sizes: Mapping[str, int]) -> SymbolicViews:
        return SymbolicViews(sizes["width"], sizes["map_channels"], sizes["encoded"])

    def make_places(self, sizes: Mapping[str, int], num_inputs: int) -> Places:
        return Places(sizes["map_channels"], num_inputs, sizes["width"])

    def remembered(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        return sizes["map_channels"], NUM_CELLS * sizes["map_channels"]

    def outcomes(self, by_time: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([by_time["terminated"].float(), (by_time["reward"] > 0).float()], -1)

    def outcome_nats(self, said: Tensor, true: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(said, true, reduction="none")

    def variance(self, hidden: Tensor) -> Tensor:
        return hidden.var(0).clamp(min=LEAST_VARIANCE)

    def units(self, settings: Mapping[str, float], hidden_size: int) -> Mapping[str, float]:
        return {}

    def closeness(self, shown: Tensor, true: Tensor, mask: Tensor) -> dict[str, float]:
        """The share of views that are wholly right."""
        return _near_and_all(self.closeness_names, (shown == true).all(-1).float(), mask)


class Games:
    """Frames. Terms are in nats of normal distributions of variance 1, and weights count as in the paper's command."""

    name = "game"
    presets: Mapping[str, Mapping[str, int]] = {
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
    defaults: Mapping[str, Mapping[str, float]] = {
        "small": _PAPER_WEIGHTS | {
            "num_updates": 3000, "lr": 1e-3, "batch_size": 16, "num_sim_steps": 16, "loss_scale_act_log_probs": 0.1,
            "loss_scale_done": 1.0,
        },
        "hard-rec": _PAPER_WEIGHTS | {"num_updates": 200_000, "lr": 1e-4},
        "tiny": _PAPER_WEIGHTS | {"num_updates": 200, "lr": 3e-3, "batch_size": 8, "num_sim_steps": 8},
    }  # fmt: skip
    terms = ("obs", "hx", "value", "act_log_probs", "done", "reward", "kl", "begin")
    arrays = ("obs", "action", "hidden", "value", "log_probs", "reward", "terminated")
    num_validation = 40
    closeness_names = ("val_error_1", "val_error")
    closeness_brief = "error of points {val_error:.4f}"
    closeness_text = ("frames", "squared error of a point {val_error_1:.5f} one step ahead, {val_error:.5f} in all")
    loss_unit = "(weighed)"
    has_gpu = True
    load_policy = staticmethod(FrozenAgent.load)
    soften = staticmethod(frame_views)

    def make_views(self, sizes: Mapping[str, int]) -> PixelViews:
        return PixelViews(sizes["width"], sizes["encoded"], sizes["channels"], sizes["frame_side"])

    def make_places(self, sizes: Mapping[str, int], num_inputs: int) -> Nowhere:
        return Nowhere()

    def remembered(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        return 0, 0

    def outcomes(self, by_time: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([by_time["terminated"].float(), by_time["reward"]], -1)

    def outcome_nats(self, said: Tensor, true: Tensor) -> Tensor:
        """The reward is normally distributed around what is said, with variance 1."""
        ended = F.binary_cross_entropy_with_logits(said[..., 0], true[..., 0], reduction="none")
        return torch.stack([ended, (said[..., 1] - true[..., 1]).square() / 2], -1)

    def variance(self, hidden: Tensor) -> Tensor:
        return torch.ones(hidden.shape[-1])

    def units(self, settings: Mapping[str, float], hidden_size: int) -> Mapping[str, float]:
        """A weight of 1 is that of the mean squared error of a number, as in the paper's loss, not of a nat.

        The KL of a whole window, divided by the 128 numbers of that model's z.
        """
        of_memory = 2 / max(hidden_size, 1)
        of_kl = settings["num_sim_steps"] / KL_DIMENSIONS
        return {"obs": 2 / NUM_POINTS, "hx": of_memory, "begin": of_memory, "reward": 2.0, "kl": of_kl}

    def closeness(self, shown: Tensor, true: Tensor, mask: Tensor) -> dict[str, float]:
        """The mean squared error of a point, from 0 to 1."""
        return _near_and_all(self.closeness_names, (shown - true).div(WHITE).square().mean(-1), mask)


def _near_and_all(names: tuple[str, ...], values: Tensor, mask: Tensor) -> dict[str, float]:
    """The mean of values (T, N) in the mask: of the first step, and of all."""
    return dict(zip(names, (values[0][mask[0]].mean().item(), values[mask].mean().item()), strict=True))


BABYAI, GAMES = BabyAI(), Games()
DOMAINS: Mapping[str, Domain] = {domain.name: domain for domain in (BABYAI, GAMES)}


def domain_of(config: Mapping) -> Domain:
    """The domain of the encoding of a recording, or of a simulator's config; BabyAI where it says nothing.

    Raises InputError for a domain that there is not.
    """
    name = config.get("domain", BABYAI.name)
    if name not in DOMAINS:
        raise InputError(f"there is no kind of world {name!r}; there are: {', '.join(DOMAINS)}")
    return DOMAINS[name]
