"""A checkpoint as the numbers that `policy.js` reads."""

import base64
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mixture_of_experts import GRUPolicy
from mop.envs.missions import EMBEDDED, MAX_WORDS, WORDS, MissionEncoder, code_of_word
from mop.evaluation.evaluate import encoder_for, prepare


def pack_policy(
    checkpoint: Mapping,
    mean_routing: Sequence[Sequence[float]],
    missions: Sequence[str] = (),
    encoder: MissionEncoder | None = None,
) -> dict:
    """Pack a policy, its mission projection and its mean router weights, ready for JSON.

    checkpoint: of `load_checkpoint`; mean_routing: L lists of E_l, the weights that `mean` gives; missions: those to
    project here where the encoder is a model of its own; encoder: by default the one of `encoder_for`.
    """
    encoder = encoder_for(checkpoint) if encoder is None else encoder
    policy, projected = prepare(checkpoint, encoder)
    is_embedded = encoder.name in EMBEDDED
    tensors = policy.state_dict() | _mission_tensors(encoder.name, checkpoint["lang_proj_state_dict"])
    return {
        "kind": "gru" if isinstance(policy, GRUPolicy) else "mop",
        "expert_hidden_sizes": policy.expert_hidden_sizes,
        "router_hidden_size": getattr(policy, "router_hidden_size", None),
        "width": policy.width,
        "lang_dim": policy.lang_dim,
        "num_actions": policy.num_actions,
        "residual": any(getattr(layer, "norm", None) is not None for layer in policy.layers),
        "obs_encoding": policy.obs_encoding,
        "film": None if policy.film is None else policy.film._asdict(),
        "lang_encoder": encoder.name,
        "hidden_layout": {name: [units.start, units.stop] for name, units in policy.hidden_layout.items()},
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "data": _as_base64(tensors.values()),
        "words": list(WORDS),
        "missions": {} if is_embedded else {text: projected.lang([text])[0].tolist() for text in missions},
        "mean_routing": [np.asarray(weights, np.float32).tolist() for weights in mean_routing],
    }


def _mission_tensors(encoder: str, projection: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by which the page reads missions: none where it knows them projected alone.

    projection: weights of the mission projection. The codes of `vocab` are projected here, (MAX_WORDS, words, G), as
    the page has no SHAKE-256.
    """
    if encoder == "words":
        return {f"lang_proj.{name}": tensor for name, tensor in projection.items()}
    if encoder == "vocab":
        codes = torch.from_numpy(np.stack([[code_of_word(k, word) for word in WORDS] for k in range(MAX_WORDS)]))
        projected = codes.double() @ projection["weight"].double().T
        return {"lang_proj.codes": projected.float(), "lang_proj.bias": projection["bias"]}
    return {"lang_proj.none": projection["weight"][:, 0] + projection["bias"]} if encoder == "none" else {}


def _as_base64(tensors: Iterable[Tensor]) -> str:
    """The numbers of all tensors, one after the other, as float32, little endian."""
    numbers = [tensor.detach().cpu().numpy().astype("<f4").tobytes() for tensor in tensors]
    return base64.b64encode(b"".join(numbers)).decode("ascii")
