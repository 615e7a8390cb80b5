"""Adam for a policy whose weights are one tensor: the arithmetic on the whole, the state by parameter."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mop.fast.policy import FlatWeights

_MOMENTS = ("exp_avg", "exp_avg_sq")


class FlatAdam(torch.optim.Adam):
    """`torch.optim.Adam` on the weights of a policy and on other parameters.

    Its state is that of Adam on the policy's parameters and then the others: it does not tell how weights lie in
    memory.
    """

    def __init__(self, flat: FlatWeights, others: Sequence[Tensor], lr: float):
        """others: parameters that are not the policy's."""
        super().__init__([flat.weights, *others], lr=lr, fused=True)
        self.flat = flat

    def state_dict(self) -> dict:
        """As of one parameter each; moments are views."""
        own, last = super().state_dict(), self.flat.num_parameters - 1
        state = {}
        for number, moments in own["state"].items():
            if number == 0:
                parts = zip(*(self.flat.views(moments[name]) for name in _MOMENTS), strict=True)
                for i, part in enumerate(parts):
                    state[i] = {"step": moments["step"], **dict(zip(_MOMENTS, part, strict=True))}
            else:
                # under the same names, not equal ones of a loaded file: pickle tells these apart
                state[number + last] = {name: moments[name] for name in ("step", *_MOMENTS)}
        (group,) = own["param_groups"]
        return {"state": state, "param_groups": [group | {"params": list(range(len(group["params"]) + last))}]}

    def load_state_dict(self, state_dict: dict) -> None:
        """A state as of one parameter each."""
        given, last = state_dict["state"], self.flat.num_parameters - 1
        state = {}
        if 0 in given:
            state[0] = {"step": given[0]["step"]}
            for name in _MOMENTS:
                state[0][name] = torch.zeros_like(self.flat.weights.detach())
                for number, view in enumerate(self.flat.views(state[0][name])):
                    view.copy_(given[number][name])
        state |= {
            number - last: moments for number, moments in given.items() if number > last
        }  # in order, as files are
        (group,) = state_dict["param_groups"]
        own = group | {"params": list(range(len(group["params"]) - last))}
        super().load_state_dict({"state": state, "param_groups": [own]})
