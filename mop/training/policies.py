"""Which policy a config describes, and the trained one of a checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mixture_of_experts import ExpertDropout, GRUPolicy, MixtureOfExpertsPolicy, RecurrentPolicy, encoded_dim
from mop.common.errors import InputError


def build_policy(config: Mapping) -> RecurrentPolicy:
    """The untrained policy that a run's config describes; `policy` is "mop" or "gru".

    config: with every key, as that of a run and of a loaded checkpoint. Raises InputError where one is missing that the
    policy needs.
    """
    try:
        keys = ("input_dim", "lang_dim", "intermediate_dim", "num_actions", "obs_encoding")
        shared = {key: config[key] for key in keys}
        if config["policy"] == "gru":
            return GRUPolicy(gru_hidden_size=config["gru_hidden_size"], **shared)
        rate = config["expert_dropout"]
        return MixtureOfExpertsPolicy(
            expert_hidden_sizes=config["expert_hidden_sizes"],
            router_hidden_size=config["router_hidden_size"],
            residual=config["residual"],
            expert_gain=config["expert_gain"],
            dropout=ExpertDropout(rate, config["expert_dropout_below"]) if rate > 0 else None,
            **shared,
        )
    except KeyError as missing:
        raise InputError(f"the config lacks {missing}, which the policy needs") from None


def count_weights(config: Mapping) -> int:
    """How many numbers the policy of a config learns, without making it.

    config: as for `build_policy`. Raises InputError where a key is missing that the policy needs.
    """
    try:
        width = config["intermediate_dim"]
        inputs = encoded_dim(config["input_dim"], config["obs_encoding"]) + config["lang_dim"]
        is_gru = config["policy"] == "gru"
        total = _linear(inputs, width) + _linear(config["gru_hidden_size"] if is_gru else width, config["num_actions"])
        if is_gru:
            return total + _gru(width, config["gru_hidden_size"])
        router = config["router_hidden_size"]
        for sizes in config["expert_hidden_sizes"]:
            total += _gru(width, router) + _linear(router, len(sizes)) + 2 * width * config["residual"]
            total += sum(_gru(width, size) + _linear(size, width) for size in sizes if size > 0)
        return total
    except KeyError as missing:
        raise InputError(f"the config lacks {missing}, which the policy needs") from None


def hidden_units(config: Mapping) -> int:
    """S, the hidden units of the policy of a config, as `RecurrentPolicy.hidden_size`."""
    if config["policy"] == "gru":
        return config["gru_hidden_size"]
    return sum(config["router_hidden_size"] + sum(sizes) for sizes in config["expert_hidden_sizes"])


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def _gru(inputs: int, units: int) -> int:
    return 3 * units * (inputs + units + 2)


def policy_from_checkpoint(checkpoint: Mapping) -> tuple[RecurrentPolicy, nn.Linear]:
    """The trained policy and its mission projection (encoder -> lang_dim), in evaluation mode on the CPU.

    checkpoint: of `load_checkpoint`, made here or elsewhere. Raises InputError where weights and config disagree.
    """
    described = count_weights(checkpoint["config"])
    found = sum(value.numel() for value in checkpoint["policy_state_dict"].values())
    if described > found:  # before they are allocated, as a damaged config may describe any number
        raise InputError(
            f"weights and config of the checkpoint disagree: the config describes {described:,} weights, the file has "
            f"{found:,}"
        )
    policy = build_policy(checkpoint["config"])
    projection = checkpoint.get("lang_proj_state_dict")
    is_projection = isinstance(projection, Mapping) and set(projection) == {"weight", "bias"}
    if not is_projection or not all(isinstance(p, Tensor) and p.dim() > 0 for p in projection.values()):
        raise InputError("the checkpoint has no lang_proj_state_dict with weight and bias")
    lang_proj = nn.Linear(projection["weight"].shape[-1], policy.lang_dim)
    try:
        policy.load_state_dict(checkpoint["policy_state_dict"])
        lang_proj.load_state_dict(projection)
    except RuntimeError as error:
        raise InputError(f"weights and config of the checkpoint disagree: {' '.join(str(error).split())}") from None
    if not all(torch.isfinite(p).all() for p in (*policy.parameters(), *lang_proj.parameters())):
        raise InputError("the checkpoint holds weights that are no finite numbers: its training diverged")
    return policy.eval().requires_grad_(False), lang_proj.eval().requires_grad_(False)
