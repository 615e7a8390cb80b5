"""Small functions of tensors that several packages need."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kl_divergence(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """KL(p || q) (...) in nats of log-probabilities (..., K), all of them finite."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
