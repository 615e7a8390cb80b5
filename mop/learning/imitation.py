"""Imitation: the student acts, or the bot in its place, the bot labels every state, the student learns the labels.

`ImitationRun` is the whole state of a training run as one object that can be saved, restored and copied;
`training.train` drives it from a config to a final checkpoint.
Axis letters: T steps of an unroll, N environments, A actions, G numbers of the mission (`lang_dim`).
"""

import math
import zlib
from collections import deque
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixture_of_experts import compute_lpc, detach_hidden, routing_measures
from mop.base.configuration import BEFORE
from mop.base.errors import InputError
from mop.kernels import fast
from mop.learning.log import RECENT_EPISODES
from mop.learning.policies import build_policy
from mop.learning.replay import Batch, Replay
from mop.learning.rollout import Rollouts, Unroll
from mop.worlds.missions import MissionEncoder
from mop.worlds.teacher import FAILURE_KINDS
from mop.worlds.vector_env import StepArrays
from mop.worlds.world import MINIGRID_VERSION, NO_LABEL


def stream_seed(seed: int, name: str) -> int:
    """The seed of a named random stream of a run, so that streams do not depend on each other's use."""
    return int(np.random.SeedSequence((seed, zlib.crc32(name.encode()))).generate_state(1)[0])


def imitation_loss(
    logits: Tensor, labels: Tensor, lpc: Tensor, alpha: float = 0.0, normalize: bool = False, eps: float = 1e-2,
    detach: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Loss and its cross-entropy part, both scalars.

    Mean cross-entropy in nats over the labels that are there, plus alpha x mean LPC, or with `normalize` the form of
    the Mixture-of-Pathways paper, alpha x mean LPC / (cross-entropy + eps); `detach`: no gradient through that
    denominator. logits (T, N, A); labels (T, N) int64, NO_LABEL where the teacher is silent; lpc (T, N).
    """
    num_labels = (labels != NO_LABEL).sum().clamp(min=1)
    cross_entropy = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="sum"
    ) / num_labels  # fmt: skip
    if alpha == 0.0:
        return cross_entropy, cross_entropy
    denominator = 1.0
    if normalize:
        denominator = (cross_entropy.detach() if detach else cross_entropy) + eps
    return cross_entropy + alpha * lpc.mean() / denominator, cross_entropy


class _Step(NamedTuple):
    """What an optimiser step saw, of which the measures of an update are made; replayed steps need none."""

    loss: Tensor
    cross_entropy: Tensor
    lpc: Tensor  # (T, N)
    grad_norm: Tensor
    logits: Tensor  # (T, N, A)
    routing: list[Tensor]  # L of (T, N, E_l)


class ImitationRun:
    """Policy, optimiser, hidden state, environments with their bots, unrolls kept for replay, and counters of one run.

    `state()` is plain tensors and numbers: a world in progress is its number and the actions taken in it, and replaying
    them restores environment and bot exactly. Initial weights, worlds, the bot's turns, what is replayed and dropped
    experts come from named streams of `config["seed"]`; nothing else is random.
    """

    def __init__(self, config: dict, encoder: MissionEncoder, device: torch.device):
        config = BEFORE | config
        self.config, self.encoder, self.device = config, encoder, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(config["seed"], "weights"))
            self.policy = build_policy(config).to(device)
            self.lang_proj = nn.Linear(encoder.dim, config["lang_dim"]).to(device)
        self.lang_proj.requires_grad_(config["train_lang_proj"])
        self.parameters = [p for p in (*self.policy.parameters(), *self.lang_proj.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config["lr"], fused=True)
        student = fast.student_of(self.policy, self.lang_proj, config["num_workers"])
        self.rollouts = Rollouts(
            config["task_id"], config["num_envs"], config["seed"], config["max_steps"], config["num_workers"],
            student=student, num_steps=config["unroll_len"],
        )  # fmt: skip
        self.hidden = torch.from_numpy(self.rollouts.hidden)  # on the CPU, where the student acts
        self.replay = Replay(config["replay_size"])
        self.update = 0
        self.recent_success: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.recent_path_ratio: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.counts = {name: 0 for name in ("episodes", "bot_plan_failures", *FAILURE_KINDS)}
        self._is_started = False

    def step_update(self) -> dict[str, float]:
        """One update: an unroll of the student's actions, then `learn` from it. Returns its measures."""
        return self.learn(*self.act())

    def act(self) -> tuple[Unroll, Tensor]:
        """An unroll of the student's actions, and the hidden state before it, where gradients are truncated.

        In a share `bot_share` of the steps, drawn at random, the bot acts. Its arrays are overwritten by the next one.
        """
        self._start_worlds()
        first_hidden = detach_hidden(self.hidden).to(self.device, copy=True)
        fast.refresh_student(self.rollouts.student, self.policy, self.lang_proj)
        bot_acts = self.rollouts.bot_acts
        bot_acts[:] = self._rng("turns").random(bot_acts.shape) < self.bot_share
        unroll = self.rollouts.unroll(lambda mission: self.encoder.embed([mission])[0].numpy())
        self._count(unroll.steps)
        return unroll, first_hidden

    def learn(self, unroll: Unroll, first_hidden: Tensor) -> dict[str, float]:
        """One Adam step on what `act` returned, then `replay` steps, each on an earlier unroll.

        Returns measures of the new unroll before the first step.
        """
        batch = Batch.of(unroll, first_hidden)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(stream_seed(self.config["seed"], f"dropout {self.update}"))
            step = self._fit(batch)
            rng = self._rng("replay")
            for _ in range(self.config["replay"] if len(self.replay) > 0 else 0):
                self._fit(self.replay.sample(rng))
        if self.config["replay"] > 0:
            self.replay.add(batch)
        measures = self._measures(step, batch.label) | {"bot_share": self.bot_share, "lr": self.lr}
        self.update += 1
        return measures

    def _fit(self, batch: Batch) -> _Step:
        """One Adam step. Returns what the policy did before it."""
        obs, labels, keep, mission, first_hidden = (tensor.to(self.device) for tensor in batch[:-1])
        obs, labels, mission = obs.float(), labels.long(), mission.long()
        lang = self.lang_proj(self.encoder.embed(batch.missions).to(self.device))[mission]
        logits, routing, _ = self.policy.get_routing_info(obs, lang, first_hidden, keep)
        lpc = compute_lpc(routing, self.policy.expert_hidden_sizes)
        config = self.config
        loss, cross_entropy = imitation_loss(
            logits, labels, lpc, config["lpc_alpha"], config["normalize_lpc"], config["lpc_eps"], config["lpc_detach"]
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, config["grad_clip"] or math.inf)
        if not torch.isfinite(grad_norm):
            raise InputError(f"training diverged at update {self.update + 1}: the gradient is {grad_norm}; lower --lr")
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        self.optimizer.step()
        return _Step(loss, cross_entropy, lpc, grad_norm, logits, routing)

    def _measures(self, step: _Step, labels: Tensor) -> dict[str, float]:
        labels = labels.to(self.device)
        is_correct = (step.logits.argmax(-1) == labels)[labels != NO_LABEL]
        return {
            "loss": step.loss.item(),
            "cross_entropy": step.cross_entropy.item(),
            "accuracy": is_correct.float().mean().item(),
            "lpc": step.lpc.mean().item(),
            "grad_norm": step.grad_norm.item(),
            **routing_measures(step.routing, self.policy.expert_hidden_sizes),
        }

    def _rng(self, name: str) -> np.random.Generator:
        """The random numbers of one purpose in the present update."""
        return np.random.default_rng((stream_seed(self.config["seed"], name), self.update))

    @property
    def bot_share(self) -> float:
        """Probability that the bot acts in a step of the next update: from 1 to 0 over the first `teacher_mix`."""
        num_mixed = self.config["teacher_mix"] * self.scheduled_updates
        return max(0.0, 1.0 - self.update / num_mixed) if num_mixed > 0 else 0.0

    @property
    def lr(self) -> float:
        """The learning rate of the next update; with `lr_decay` it falls linearly and is 0 after the last."""
        progress = self.update / self.scheduled_updates if self.config["lr_decay"] else 0.0
        return self.config["lr"] * max(0.0, 1.0 - progress)

    @property
    def scheduled_updates(self) -> int:
        """Updates that the schedules were made for: a run that is resumed for more of them keeps its schedules."""
        return self.config.get("scheduled_updates", self.config["num_updates"])

    def _start_worlds(self) -> None:
        """The first world of every slot, unless there is one already."""
        if not self._is_started:
            self._count(self.rollouts.env.reset())
            self._is_started = True

    def _count(self, arrays: StepArrays) -> None:
        """Episodes that ended in a step or unroll; those that the bot's failure ended are outside the success rate."""
        self.counts["bot_plan_failures"] += int(arrays.fresh_failures.sum())
        for i in zip(*np.nonzero(arrays.done), strict=True):  # in the order of time
            if arrays.failure[i] >= 0:
                self.counts[FAILURE_KINDS[arrays.failure[i]]] += 1
                continue
            self.counts["episodes"] += 1
            self.recent_success.append(float(arrays.reward[i] > 0))
            if arrays.bot_steps[i] > 0:
                self.recent_path_ratio.append(float(arrays.steps[i] / arrays.bot_steps[i]))

    @property
    def env_steps(self) -> int:
        """Environment steps learned from so far."""
        return self.update * self.config["unroll_len"] * self.config["num_envs"]

    def summary(self) -> dict[str, float]:
        """Recent success rate and path ratio (NaN before the first), and the counters."""

        def mean(values: deque) -> float:
            return sum(values) / len(values) if values else math.nan

        recent = {"success_rate": mean(self.recent_success), "path_ratio": mean(self.recent_path_ratio)}
        return recent | {f"failures_{k}" if k in FAILURE_KINDS else k: v for k, v in self.counts.items()}

    def checkpoint(self) -> dict:
        """What evaluation needs, as formats of the pipeline ask: weights, optimiser, config."""
        config = {key: value for key, value in self.config.items() if key not in ("resume", "overwrite")}
        return {
            "policy_state_dict": _to_cpu(self.policy.state_dict()),
            "lang_proj_state_dict": _to_cpu(self.lang_proj.state_dict()),
            "optimizer_state_dict": _to_cpu(self.optimizer.state_dict()),
            "update": self.update,
            "config": config,
        }

    def state(self) -> dict:
        """Everything that the rest of the run depends on, as tensors, numbers and texts."""
        self._start_worlds()
        return self.checkpoint() | {
            "hidden": self.hidden.clone(),
            "env": {name: torch.from_numpy(array) for name, array in self.rollouts.env.save().items()},
            "replay": self.replay.state(),
            "recent_success": list(self.recent_success),
            "recent_path_ratio": list(self.recent_path_ratio),
            "counts": dict(self.counts),
            "minigrid_version": MINIGRID_VERSION,
        }

    def load_state(self, state: dict) -> None:
        """Continue where `state()` was taken: the same updates follow, bit for bit on the same machine.

        Raises InputError for a state of another Minigrid, whose worlds may differ, or one that its worlds contradict.
        """
        if state["minigrid_version"] != MINIGRID_VERSION:
            raise InputError(f"the state is of minigrid {state['minigrid_version']}, here is {MINIGRID_VERSION}")
        self.policy.load_state_dict(state["policy_state_dict"])
        self.lang_proj.load_state_dict(state["lang_proj_state_dict"])
        self.optimizer.load_state_dict(_to_cpu(state["optimizer_state_dict"]))  # a copy: Adam changes it in place
        for group in self.optimizer.param_groups:
            group["fused"] = True  # states of earlier versions are not
        self.rollouts.env.restore({name: tensor.numpy() for name, tensor in state["env"].items()})
        self._is_started = True
        self.hidden.copy_(state["hidden"])
        self.replay.load_state(state.get("replay", {}))
        self.update = state["update"]
        self.recent_success = deque(state["recent_success"], RECENT_EPISODES)
        self.recent_path_ratio = deque(state["recent_path_ratio"], RECENT_EPISODES)
        self.counts = dict(state["counts"])

    def copy(self) -> "ImitationRun":
        """A fork with its own policy, optimiser and worlds, in the same state."""
        fork = ImitationRun(deepcopy(self.config), self.encoder, self.device)
        fork.load_state(self.state())
        return fork

    def close(self) -> None:
        """End the environment workers."""
        self.rollouts.close()


def _to_cpu(value):
    """A copy of nested dictionaries and lists with every tensor detached on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    return [_to_cpu(item) for item in value] if isinstance(value, (list, tuple)) else value
