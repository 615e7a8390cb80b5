"""Children of a run: they continue from its snapshot, with the noise and the replay buffer that are asked for."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lmc_rl.config import RLConfig
from lmc_rl.learners.replay_buffer import ReplayBuffer
from lmc_rl.learners.sac_ddpg import RLRun
from mop.common.seeding import stream_seed


def child_streams(streams: Mapping[str, int], split_noise: Sequence[str], step: int, child: int) -> dict[str, int]:
    """The streams of a child, from 0 on, of a fork at this step: of its own where noise is split, else its parent's.

    They depend on the step of the fork and not on which other forks there are.
    """
    own = {name: stream_seed(streams[name], f"fork at step {step}, child {child}") for name in split_noise}
    return dict(streams) | own


def child_of(
    config: RLConfig, snapshot: Mapping, step: int, child: int, device: torch.device, shared: ReplayBuffer | None = None
) -> RLRun:
    """Continue from a snapshot, the `RLRun.state()` of a parent at this step.

    Its buffer, by `fork_buffer_strategy`. `copy`: a copy of the parent's. `fresh`: empty. `split`: a random part,
    disjoint from the parts of other children. `frozen`: a copy to which nothing is added, as the child does not act.
    `shared`: the given one, to which all children add.
    """
    run = RLRun(config, device, snapshot["streams"])
    run.load_state(snapshot)
    strategy = config.fork_buffer_strategy
    if strategy == "fresh":
        run.buffer = run.buffer.empty()
    elif strategy == "split":
        rng = np.random.default_rng(stream_seed(snapshot["streams"]["replay"], f"split at step {step}"))
        run.buffer = run.buffer.part(child, config.children, rng)
    else:
        run.buffer = run.buffer.fork() if shared is None else shared
    run.collects = strategy != "frozen"
    run.draw_from(child_streams(snapshot["streams"], config.split_noise, step, child))
    if config.perturb > 0 and child > 0:
        perturb(run, config.perturb, stream_seed(config.drawn_seed, f"perturb at step {step}, child {child}"))
    return run


def perturb(run: RLRun, share: float, seed: int) -> None:
    """Add Gaussian noise to the weights of actor and critics, but not of their targets.

    Its standard deviation is this share of the root mean square of each tensor, so that layers are moved alike.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for network in (run.model.actor, run.model.critic):
            for weight in network.parameters():
                noise = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight += share * weight.square().mean().sqrt() * noise


class LockStep:
    """The children of a fork that share a replay buffer: in each update all of them act, then all of them learn.

    The buffer is a fork of the parent's, which is never written to.
    """

    def __init__(self, config: RLConfig, snapshot: Mapping, step: int, device: torch.device):
        first = child_of(config, snapshot, step, 0, device)
        more = range(1, config.children)
        self.runs = [first, *(child_of(config, snapshot, step, k, device, first.buffer) for k in more)]
        self.columns = first.columns
        self.update = first.update  # updates done, by each child

    @property
    def env_steps(self) -> int:
        """Environment steps of each child, the parent's included."""
        return self.runs[0].env_steps

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of each child, the parent's included."""
        return self.runs[0].gradient_steps

    def step_update(self) -> dict[str, float]:
        """An update of each child. Returns the means of their losses."""
        for run in self.runs:
            run.collect()
        losses = [run.learn() for run in self.runs]
        for run in self.runs:
            run.update += 1
            run.after_update()
        self.update += 1
        return {name: float(np.mean([loss[name] for loss in losses])) for name in losses[0]}

    def summary(self) -> dict[str, float]:
        """The means over the children."""
        summaries = [run.summary() for run in self.runs]
        return {name: float(np.mean([one[name] for one in summaries])) for name in summaries[0]}

    def warnings(self, measures: Mapping[str, float]) -> dict[str, str]:
        """None."""
        return {}

    def checkpoint(self) -> dict:
        """The one of the first child."""
        return self.runs[0].checkpoint()

    def state(self) -> dict:
        """The states of all children, and once what they share."""
        states = [run.state() for run in self.runs]
        memory = states[0]["memory"]
        for state in states:
            del state["memory"]
        return {"children": states, "memory": memory}

    def load_state(self, state: Mapping) -> None:
        """Continue where `state()` was taken."""
        self.runs[0].buffer.load_state(state["memory"])
        for run, own in zip(self.runs, state["children"], strict=True):
            run.load_all_but_buffer(own)
        self.update = self.runs[0].update
