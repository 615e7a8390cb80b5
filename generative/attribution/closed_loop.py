"""Policy and simulator as one recurrent network: the policy acts on what the simulator shows, and its acts step it.

    view_i    = view(state_i)                               the first may be given: what was really seen
    answer_i  = policy(view_i, mission, memory_i)           logits, routing, memory_i+1
    action_i  = argmax of the logits, or what was recorded  backwards, the gradient of softmax(logits)
    state_i+1 = step(state_i, action_i)

From step to step causes travel on two paths: the policy's memory (memory_i -> memory_i+1), and the world (state_i and
action_i -> state_i+1). Either can be cut for gradients: the numbers stay the same, only what flows back differs.
Axis letters: N worlds, T steps, A actions, X numbers of a soft observation, S hidden units, L layers, E experts.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.domains.base import Answer, Policy, stack_answers
from generative.simulators.base import Simulator, State
from generative.simulators.relaxation import straight_through
from mop.common.seeding import stream_seed

AnyPolicy = TypeVar("AnyPolicy", bound=Policy)


class Paths(NamedTuple):
    """Along which paths gradients pass from one step to the next."""

    memory: bool = True  # of the policy
    world: bool = True  # the state of the simulator, with the actions that enter it


EVERY_PATH = Paths()


class Trace(NamedTuple):
    """T steps of N worlds."""

    views: Tensor  # (T, N, X), what the policy was shown
    logits: Tensor  # (T, N, A)
    routing: list[Tensor]  # L x (T, N, E_l)
    hidden: Tensor  # (T, N, S), the hidden state after each step; a recording has it one row later
    value: Tensor  # (T, N), of a policy with a critic; else (T, 0)
    actions: Tensor  # (T, N) int64, what was executed
    states: list[State]  # T, the state that each view is of

    def answer(self, i: int) -> Answer:
        """The policy's answer at step i."""
        return Answer(self.logits[i], [weights[i] for weights in self.routing], self.hidden[i], self.value[i])


def roll_out(
    policy: Policy,
    simulator: Simulator,
    state: State,
    lang: Tensor,
    hidden: Tensor,
    num_steps: int,
    actions: Tensor | None = None,
    paths: Paths = EVERY_PATH,
    first_view: Tensor | None = None,
) -> Trace:
    """The policy in the simulator for `num_steps` = T >= 1 steps; the simulator is stepped between them, T - 1 times.

    lang (N, G); hidden (N, S), the memory before the first step; actions (N, T) int64: what is executed at each step,
    by default the policy's own argmax; first_view (N, X): what the policy sees at the first step, by default what the
    simulator shows. Gradients reach `state`, `hidden`, `lang` and `first_view` along `paths`.
    """
    if num_steps < 1 or (actions is not None and actions.shape != (len(hidden), num_steps)):
        given = None if actions is None else tuple(actions.shape)
        raise ValueError(f"{num_steps} steps of {len(hidden)} worlds do not go with actions of shape {given}")
    views, answers, taken, states = [], [], [], []
    for i in range(num_steps):
        view = simulator.view(state) if i > 0 or first_view is None else first_view
        answer = policy.step(view, lang, hidden)
        own = straight_through(answer.logits.softmax(-1))
        action = own if actions is None else F.one_hot(actions[:, i], own.shape[-1]).to(own)
        views.append(view)
        answers.append(answer)
        taken.append(action)
        states.append(state)
        hidden = answer.hidden if paths.memory else answer.hidden.detach()
        if i + 1 < num_steps:
            if not paths.world:
                state, action = {name: part.detach() for name, part in state.items()}, action.detach()
            state = simulator.step(state, action)
    return Trace(torch.stack(views), *stack_answers(answers), torch.stack(taken).argmax(-1), states)


def repeat_state(state: State, times: int) -> State:
    """Each of N worlds `times` times, one after the other: (N * times, ...)."""
    return {name: part.repeat_interleave(times, 0) for name, part in state.items()}


def untrained(policy: AnyPolicy, config: Mapping, seed: int) -> AnyPolicy:
    """Return the policy as it could have been before training: a control. config: of its checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "untrained policy"))
        return policy.untrained(config)
