"""Which policy a config describes, and the trained one of a checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mixture_of_experts import ExpertDropout, Film, GRUPolicy, MixtureOfExpertsPolicy, RecurrentPolicy, WordProjection
from mop.common.errors import InputError, one_line
from mop.envs.missions import WORDS


def build_policy(config: Mapping) -> RecurrentPolicy:
    """The untrained policy that a run's config describes; `policy` is "mop" or "gru".

    config: with every key, as that of a run and of a loaded checkpoint.
    """
    try:
        keys = ("input_dim", "lang_dim", "intermediate_dim", "num_actions", "obs_encoding")
        shared = {key: config[key] for key in keys}
        if config["input_encoder"] == "film":
            if config["obs_encoding"] != "one_hot":
                raise InputError("--input_encoder film needs --obs_encoding one_hot")
            shared["film"] = Film(config["film_cell_dim"], config["film_features"])
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


def build_lang_proj(encoder: str | None, encoder_dim: int, lang_dim: int) -> nn.Linear | WordProjection:
    """The untrained map from an encoder's embedding of a mission to what the policy sees of it."""
    return WordProjection(len(WORDS), encoder_dim, lang_dim) if encoder == "words" else nn.Linear(encoder_dim, lang_dim)


def policy_from_checkpoint(checkpoint: Mapping) -> tuple[RecurrentPolicy, nn.Linear | WordProjection]:
    """Make the trained policy and its mission projection (encoder -> lang_dim), in evaluation mode on the CPU.

    checkpoint: of `load_checkpoint`, made here or elsewhere; one whose weights and config disagree is refused.
    """
    config = checkpoint["config"]
    weights = checkpoint["policy_state_dict"]
    check_weights(config, weights)
    policy = build_policy(config)
    policy.load_state_dict(weights)
    try:
        projection = checkpoint["lang_proj_state_dict"]
        encoder = config.get("lang_encoder")
        encoder_dim = projection["places.weight"].shape[0] if encoder == "words" else projection["weight"].shape[-1]
        lang_proj = build_lang_proj(encoder, encoder_dim, policy.lang_dim)
        lang_proj.load_state_dict(projection)
    except Exception as error:  # nearly anything may stand in a checkpoint from elsewhere
        raise InputError(f"the checkpoint has no lang_proj_state_dict of its config ({one_line(error)})") from error
    return policy.eval().requires_grad_(False), lang_proj.eval().requires_grad_(False)


def check_weights(config: Mapping, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of the policy that a config describes, before anything of it is allocated."""
    try:
        with torch.device("meta"):
            build_policy(config).load_state_dict(weights, assign=True)
    except (RuntimeError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"weights and config of the checkpoint disagree: {one_line(error)}") from error
