"""Imitation: the student, or the bot in its place, acts; the bot labels every state; the student learns the labels.

`ImitationRun` is the whole state of a training run as one object that can be saved, restored, copied and forked;
`training.train` makes one from a config, and `loop.drive` brings it to its final checkpoint.
Axis letters: T steps of an unroll, N environments, A actions, G numbers of the mission (`lang_dim`).
"""

import math
import os
from collections.abc import Mapping
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mixture_of_experts import compute_lpc, routing_measures
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.common.task_mix import slots_by_task
from mop.common.train_config import check_declared
from mop.common.values import shown
from mop.common.workers import num_bytes
from mop.envs.babyai import MINIGRID_VERSION, NO_LABEL, OBS_DIM
from mop.envs.missions import MissionEncoder
from mop.envs.vector_env import StepArrays
from mop.training import execution, imitation_log
from mop.training.episode_stats import EpisodeStats
from mop.training.loss import ComplexityPenalty, loss_of_tasks
from mop.training.policies import build_lang_proj, build_policy
from mop.training.replay import Batch, Replay
from mop.training.states import adam_form, check_form, copied_to_cpu
from mop.training.unroll import Rollouts, Unroll


def linear_decay(update: int, start: float, end: float) -> float:
    """A share that is 1 up to update `start`, and falls linearly to 0 in update `end`."""
    if update < start:
        return 1.0
    return max(0.0, (end - update) / (end - start)) if end > start else 0.0


def decay_start(config: Mapping) -> float:
    """The last update before the learning rate falls, perhaps between two; infinite where it never does."""
    return (1.0 - config["lr_decay"]) * config["scheduled_updates"] if config["lr_decay"] else math.inf


class Step(NamedTuple):
    """What the policy did just before an optimiser step; the measures of an update are computed from it."""

    loss: Tensor
    cross_entropies: list[Tensor]  # of each task
    lpc: Tensor  # (T, N)
    grad_norm: Tensor
    logits: Tensor  # (T, N, A)
    routing: list[Tensor]  # L of (T, N, E_l)


class ImitationRun:
    """Policy, optimiser, hidden state, environments with their bots, unrolls kept for replay, and counters of one run.

    `state()` is plain tensors and numbers. Of a world in progress it holds the number and the actions taken, because
    repeating them restores environment and bot exactly.

    Only these are random: initial weights, worlds, the bot's turns, which unrolls are replayed, which experts are
    dropped. They come from named streams of `stream_seed`, which is `config["seed"]` or, in a fork that was given a
    seed of its own, another number.
    """

    columns = imitation_log.COLUMNS

    def __init__(self, config: dict, encoder: MissionEncoder, device: torch.device):
        """config: the flags of config.yaml, `policy` and an integer `seed`; the run adds the other declared keys."""
        config, self.tasks = _carried(config, encoder), slots_by_task(config)
        check_memory(config)
        self.config, self.encoder, self.device = config, encoder, device
        self.stream_seed: int = config["seed"]
        self.penalty = ComplexityPenalty(
            config["lpc_alpha"], config["normalize_lpc"], config["lpc_eps"], config["lpc_detach"]
        )
        self._max_grad_norm = config["grad_clip"] or math.inf
        self._num_replayed, self._steps_of_update = config["replay"], config["unroll_len"] * config["num_envs"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(config["seed"], "weights"))
            self.policy = build_policy(config).to(device)
            self.lang_proj = build_lang_proj(encoder.name, encoder.dim, config["lang_dim"]).to(device)
        self.lang_proj.requires_grad_(config["train_lang_proj"])
        self.parameters = [p for p in (*self.policy.parameters(), *self.lang_proj.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config["lr"], fused=True)
        student = execution.student_of(self.policy, config["num_workers"])
        task_ids = [task.task_id for task in self.tasks for _ in range(config["num_envs"])[task.slots]]
        self.rollouts = Rollouts(
            task_ids, config["num_envs"], config["seed"], config["max_steps"], config["num_workers"],
            student=student, num_steps=config["unroll_len"],
        )  # fmt: skip
        self.hidden = torch.from_numpy(self.rollouts.hidden)  # on the CPU, where the student acts
        self.replay = Replay(config["replay_size"])
        self.update = 0
        self.tally = EpisodeStats(config["num_envs"], self.tasks)
        self._is_started = False

    def step_update(self) -> dict[str, float]:
        """One update: an unroll of the student's actions, then `learn` from it. Returns its measures."""
        return self.learn(*self.act())

    def act(self) -> tuple[Unroll, Tensor]:
        """An unroll of the student's actions, and the hidden state before it, where gradients are truncated.

        In a random share `bot_share` of the steps the bot acts instead. The next unroll overwrites these arrays.
        """
        self._start_worlds()
        first_hidden = self.hidden.to(self.device, copy=True)
        execution.refresh_student(self.rollouts.student, self.policy)
        bot_acts = self.rollouts.bot_acts
        bot_acts[:] = self._rng("turns").random(bot_acts.shape) < self.bot_share
        with torch.no_grad():
            unroll = self.rollouts.unroll(lambda mission: self._lang([mission])[0].cpu().numpy())
        self.tally.add(unroll.steps, self.bot_share > 0)
        return unroll, first_hidden

    def learn(self, unroll: Unroll, first_hidden: Tensor) -> dict[str, float]:
        """One Adam step on what `act` returned, then `replay` steps, each on an earlier unroll.

        Returns measures of the new unroll before the first step.
        """
        batch = Batch.of(unroll, first_hidden)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(stream_seed(self.stream_seed, f"dropout {self.update}"))
            step = self.fit(batch)
            rng = self._rng("replay")
            for _ in range(self._num_replayed if len(self.replay) > 0 else 0):
                self.fit(self.replay.sample(rng))
        if self._num_replayed > 0:
            self.replay.add(batch)
        measures = self._measures(step, batch.label) | {"bot_share": self.bot_share, "lr": self.lr}
        self.update += 1
        return measures

    def _lang(self, missions: list[str]) -> Tensor:
        return self.lang_proj(self.encoder.embed(missions).to(self.device))

    def fit(self, batch: Batch) -> Step:
        """One Adam step on a batch. Returns what the policy did before it."""
        obs, labels, keep, mission, first_hidden = (tensor.to(self.device) for tensor in batch[:-1])
        obs, labels, mission = obs.float(), labels.long(), mission.long()
        lang = self._lang(batch.missions)[mission]
        logits, routing, _ = execution.run(self.policy, obs, lang, first_hidden, keep)
        lpc = compute_lpc(routing, self.policy.expert_hidden_sizes)
        loss, cross_entropies = loss_of_tasks(logits, labels, lpc, self.tasks, self.penalty)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        (group,) = self.optimizer.param_groups
        grad_norm = nn.utils.clip_grad_norm_(group["params"], self._max_grad_norm)
        if not torch.isfinite(grad_norm):
            raise InputError(f"training diverged at update {self.update + 1}: the gradient is {grad_norm}; lower --lr")
        group["lr"] = self.lr
        self.optimizer.step()
        return Step(loss, cross_entropies, lpc, grad_norm, logits, routing)

    def _check_finite(self) -> None:
        """Refuse weights that are not finite, so that they are not saved.

        Checked when the run is saved; before that, the gradient of the next step says so.
        """
        squares = [moments["exp_avg_sq"] for moments in self.optimizer.state.values()]
        largest = nn.utils.get_total_norm([*self.parameters, *squares], math.inf)
        if not torch.isfinite(largest):
            raise InputError(f"training diverged at update {self.update}: weights are not finite; lower --lr")

    def _measures(self, step: Step, labels: Tensor) -> dict[str, float]:
        labels = labels.to(self.device)
        has_label, is_correct = labels != NO_LABEL, step.logits.argmax(-1) == labels

        def of_slots(slots: slice) -> dict[str, float]:
            accuracy = is_correct[:, slots][has_label[:, slots]].float().mean().item()
            return {"accuracy": accuracy, "lpc": step.lpc[:, slots].mean().item()}

        entropies = [entropy.item() for entropy in step.cross_entropies]
        measures = {
            "loss": step.loss.item(),
            "cross_entropy": sum(task.share * entropy for task, entropy in zip(self.tasks, entropies, strict=True)),
            **of_slots(slice(None)),
            "grad_norm": step.grad_norm.item(),
            **routing_measures(step.routing, self.policy.expert_hidden_sizes),
        }
        for task, entropy in zip(self.tasks, entropies, strict=True) if len(self.tasks) > 1 else ():
            of_task = {"cross_entropy": entropy} | of_slots(task.slots)
            measures |= {imitation_log.column(name, task.name): value for name, value in of_task.items()}
        return measures

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng((stream_seed(self.stream_seed, name), self.update))

    @property
    def bot_share(self) -> float:
        """Probability that the bot acts in a step of the next update: 1 at first, 0 after the part `teacher_mix`."""
        return linear_decay(self.update, 0, self.config["teacher_mix"] * self.config["scheduled_updates"])

    @property
    def lr(self) -> float:
        """The learning rate of the next update; it falls linearly over the last part, `lr_decay`, to 0."""
        return self.config["lr"] * linear_decay(self.update, decay_start(self.config), self.config["scheduled_updates"])

    @property
    def decay_update(self) -> int | None:
        """The last update before the learning rate falls; None where it never does."""
        start = decay_start(self.config)
        return None if math.isinf(start) else int(start)

    def _start_worlds(self) -> None:
        """Begin the first world of every slot, unless there is one already."""
        if not self._is_started:
            self.tally.reset(self.rollouts.env.reset())
            self._is_started = True

    @property
    def env_steps(self) -> int:
        """Environment steps learned from so far."""
        return self.update * self._steps_of_update

    def summary(self) -> dict[str, float]:
        """How the latest episodes ended, and counters."""
        return self.tally.summary()

    def warnings(self, measures: Mapping[str, float]) -> dict[str, str]:
        """Whether the loss rewards errors, and whether the routing has collapsed."""
        num_layers = len(self.policy.expert_hidden_sizes)
        skip_shares = [measures.get(f"skip_share_{layer}", 0.0) for layer in range(num_layers)]
        texts = {
            "collapse": imitation_log.collapse(
                skip_shares, measures["lpc"], self.config["residual"], self.penalty.alpha
            )
        }
        for name in [task.name for task in self.tasks] if len(self.tasks) > 1 else [""]:
            entropy, lpc = (measures[imitation_log.column(what, name)] for what in ("cross_entropy", "lpc"))
            text = imitation_log.reward_for_errors(entropy, lpc, self.penalty)
            texts[f"errors {name}"] = text and (f"of {name}, {text}" if name else text)
        return {kind: text for kind, text in texts.items() if text is not None}

    def checkpoint(self) -> dict:
        """What evaluation needs, in the documented format: weights, optimiser, number of updates, config."""
        self._check_finite()
        config = {key: value for key, value in self.config.items() if key not in ("resume", "overwrite")}
        return {
            "policy_state_dict": copied_to_cpu(self.policy.state_dict()),
            "lang_proj_state_dict": copied_to_cpu(self.lang_proj.state_dict()),
            "optimizer_state_dict": copied_to_cpu(self.optimizer.state_dict()),
            "update": self.update,
            "config": config,
        }

    def state(self) -> dict:
        """Everything that the rest of the run depends on, as tensors, numbers and texts."""
        self._start_worlds()
        of_fork = {} if self.stream_seed == self.config["seed"] else {"stream_seed": self.stream_seed}
        return self.checkpoint() | self.tally.state() | of_fork | {
            "hidden": self.hidden.clone(),
            "env": {name: torch.from_numpy(array) for name, array in self.rollouts.env.save().items()},
            "replay": self.replay.state(),
            "minigrid_version": MINIGRID_VERSION,
        }  # fmt: skip

    def _form(self, state: Mapping) -> dict:
        """Make what `state`, from which this run is to continue, must look like; older states lack some keys."""
        num_envs = self.config["num_envs"]
        numbers = torch.zeros(num_envs, dtype=torch.int64)
        form = {
            "update": 0,
            "minigrid_version": "",
            "hidden": self.hidden,
            "policy_state_dict": self.policy.state_dict(),
            "lang_proj_state_dict": self.lang_proj.state_dict(),
            "optimizer_state_dict": adam_form(self.parameters, state["optimizer_state_dict"]),
            "env": {name: numbers for name in ("world", "length", "seed") if name != "seed" or name in state["env"]},
            **self.tally.form(state),
        }
        optional = {"stream_seed": 0, "replay": {}}
        return form | {name: like for name, like in optional.items() if name in state}

    def load_state(self, state: dict) -> None:
        """Continue where `state()` was taken: the same updates follow, bit for bit on the same machine.

        A state of another run is refused, one of another version of Minigrid, whose worlds may differ, and one whose
        worlds cannot be replayed.
        """
        check_form(state, self._form(state), "state")
        if state["minigrid_version"] != MINIGRID_VERSION:
            raise InputError(f"the state is of minigrid {shown(state['minigrid_version'])}, here is {MINIGRID_VERSION}")
        self.policy.load_state_dict(state["policy_state_dict"])
        self.lang_proj.load_state_dict(state["lang_proj_state_dict"])
        moments = copied_to_cpu(state["optimizer_state_dict"]["state"])  # a copy: Adam changes it in place
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.optimizer.param_groups[0]["lr"] = state["optimizer_state_dict"]["param_groups"][0]["lr"]
        self.rollouts.env.restore({name: tensor.numpy() for name, tensor in state["env"].items()})
        self._is_started = True
        self.draw_from(state.get("stream_seed", self.config["seed"]))
        self.hidden.copy_(state["hidden"])
        self.replay.load_state(state.get("replay", {}), self.config["unroll_len"], self.hidden)
        self.update = state["update"]
        self.tally.load_state(state, has_teacher=self.config["teacher_mix"] > 0)

    def copy(self, seed: int | None = None) -> "ImitationRun":
        """A fork in the same state, with a policy, an optimiser and worlds of its own.

        seed: None for a fork that goes on as this run does, bit for bit. With a number, everything that is random from
        here on comes from other streams, which are determined by it and by those of this run. Worlds in progress go on
        as they are; the worlds that begin after them are others.
        """
        fork = ImitationRun(deepcopy(self.config), self.encoder, self.device)
        fork.load_state(self.state())
        if seed is not None:
            fork.draw_from(stream_seed(self.stream_seed, f"fork {seed}"))
        return fork

    def draw_from(self, seed: int) -> None:
        """Take random numbers from the streams of another seed from now on; worlds in progress stay what they are.

        Initial weights are drawn already.
        """
        self.stream_seed = seed
        self.rollouts.env.reseed(seed)

    def close(self) -> None:
        """End the environment workers."""
        self.rollouts.close()


def _carried(config: dict, encoder: MissionEncoder) -> dict:
    """The config that the run's checkpoints carry: the given one with the keys that a run adds."""
    config = {"scheduled_updates": config["num_updates"]} | config
    config |= {"lang_encoder": encoder.name, "encoder_dim": encoder.dim, "encoder_fingerprint": encoder.fingerprint()}
    check_declared(config)
    return config


_BYTES_PER_WEIGHT = 4 * 4  # itself, its gradient, and Adam's two means
_KEPT_PER_STEP = OBS_DIM + 1 + 1 + 4  # bytes of a step in the replay: observation, label, keep, mission


def check_memory(config: Mapping) -> None:
    """Refuse a run whose weights, unroll and replay are larger than the memory of this machine."""
    with torch.device("meta"):
        num_weights = sum(parameter.numel() for parameter in build_policy(config).parameters())
    num_steps = config["num_envs"] * config["unroll_len"]
    num_kept = min(config["replay_size"], config["num_updates"]) if config["replay"] > 0 else 0
    needed = _BYTES_PER_WEIGHT * num_weights + num_kept * num_steps * _KEPT_PER_STEP
    needed += num_bytes(StepArrays.layout(config["unroll_len"], config["num_envs"]))
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise InputError(
            f"the run needs at least {needed / 1e9:,.0f} GB of memory, this machine has {there / 1e9:,.0f}: lower "
            "--num_envs, --unroll_len, --replay_size or the sizes of the policy"
        )
