"""Children of a run: they continue from its snapshot, with the noise and the replay buffer that are asked for."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lmc_rl.learners.replay_buffer import ReplayMemory
from lmc_rl.learners.rl import Learner
from mop.common.seeding import stream_seed


def child_streams(streams: Mapping[str, int], split_noise: Sequence[str], step: int, child: int) -> dict[str, int]:
    """The streams of a child, from 0 on, of a fork at this step: of its own where noise is split, else its parent's.

    They depend on the step of the fork and not on which other forks there are.
    """
    own = {name: stream_seed(streams[name], f"fork at step {step}, child {child}") for name in split_noise}
    return dict(streams) | own


def child_of(
    settings: dict, snapshot: Mapping, step: int, child: int, device: torch.device, shared: ReplayMemory | None = None
) -> Learner:
    """A learner that continues from a snapshot, `Learner.state()` of its parent at this step.

    Its buffer is one of five, by `fork_buffer_strategy`. `copy`: all that the parent had. `fresh`: none. `split`: a
    random part of it, disjoint from those of the other children. `frozen`: a copy to which nothing is added, as the
    child does not act. `shared`: the one that is given, to which all children add.
    """
    learner = Learner(settings, device, snapshot["streams"])
    learner.load_state(snapshot)
    strategy = settings["fork_buffer_strategy"]
    if strategy == "fresh":
        learner.memory = learner.memory.empty()
    elif strategy == "split":
        rng = np.random.default_rng(stream_seed(snapshot["streams"]["replay"], f"split at step {step}"))
        learner.memory = learner.memory.part(child, settings["children"], rng)
    else:
        learner.memory = learner.memory.fork() if shared is None else shared
    learner.collects = strategy != "frozen"
    learner.draw_from(child_streams(snapshot["streams"], settings["split_noise"], step, child))
    if settings["perturb"] > 0 and child > 0:
        perturb(learner, settings["perturb"], stream_seed(settings["seed"], f"perturb at step {step}, child {child}"))
    return learner


def perturb(learner: Learner, share: float, seed: int) -> None:
    """Move the weights of actor and critics, not those of their targets, by Gaussian noise.

    Its standard deviation is this share of the root mean square of each tensor, so that layers are moved alike.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for network in (learner.model.actor, learner.model.critic):
            for weight in network.parameters():
                noise = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight += share * weight.square().mean().sqrt() * noise


class LockStep:
    """The children of a fork that share a replay buffer: in each update all of them act, then all of them learn.

    The buffer is a fork of the parent's; that of the parent is never written to.
    """

    def __init__(self, settings: dict, snapshot: Mapping, step: int, device: torch.device):
        first = child_of(settings, snapshot, step, 0, device)
        more = range(1, settings["children"])
        self.learners = [first, *(child_of(settings, snapshot, step, k, device, first.memory) for k in more)]
        self.columns = first.columns

    @property
    def update(self) -> int:
        """Updates done, by each child."""
        return self.learners[0].update

    @property
    def env_steps(self) -> int:
        """Environment steps of each child, the parent's included."""
        return self.learners[0].env_steps

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of each child, the parent's included."""
        return self.learners[0].gradient_steps

    def step_update(self) -> dict[str, float]:
        """An update of each child. Returns the means of their losses."""
        for learner in self.learners:
            learner.collect()
        losses = [learner.learn() for learner in self.learners]
        for learner in self.learners:
            learner.update += 1
            learner.after_update()
        return {name: float(np.mean([loss[name] for loss in losses])) for name in losses[0]}

    def summary(self) -> dict[str, float]:
        """The means of what the children tell."""
        told = [learner.summary() for learner in self.learners]
        return {name: float(np.mean([numbers[name] for numbers in told])) for name in told[0]}

    def warnings(self, measures: Mapping[str, float]) -> dict[str, str]:
        """None."""
        return {}

    def checkpoint(self) -> dict:
        """That of the first child."""
        return self.learners[0].checkpoint()

    def state(self) -> dict:
        """The states of all children, and once what they share."""
        states = [learner.state() for learner in self.learners]
        memory = states[0]["memory"]
        for state in states:
            del state["memory"]
        return {"children": states, "memory": memory}

    def load_state(self, state: Mapping) -> None:
        """Continue where `state()` was taken."""
        self.learners[0].memory.load_state(state["memory"])
        for learner, own in zip(self.learners, state["children"], strict=True):
            learner.load_all_but_memory(own)
