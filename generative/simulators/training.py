"""A world model in training, as a run that `mop.training.loop.drive` brings to its final checkpoint.

The model is shown the first frames of a window, `num_initializing_steps` or fewer, so that it can begin anywhere. At
first the posterior helps it in every frame; then it runs freely over the last part of a window, counted back from the
end of its episode if that lies in it. That part grows to all simulated frames; in half of the windows it is as long as
it may be, in the others of random length. Every `EVAL_INTERVAL` updates the model runs freely through windows of
held-out worlds, and only what it simulates counts. What is kept is the model that was best there.

Random are the first weights, and in each update the windows, how far they run freely and what z is drawn. They come
from named streams and the number of the update.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generative.domains.base import Domain, Policy
from generative.recordings.format import Recording, Windows
from generative.simulators.losses import Frames, losses, simulate
from generative.simulators.resuming import saved_state
from generative.simulators.world_model import make_world_model
from mop.common.cli import as_dict, setting
from mop.common.errors import InputError
from mop.common.files import file_digest, open_output_dir
from mop.common.reading import reading
from mop.common.seeding import stream_seed
from mop.training.log import Columns, Row
from mop.training.loop import CURVE_NAME, FINAL_NAME, STATE_NAME, Trainable, drive
from mop.training.states import adam_form, check_form, copied_to_cpu

CPU = torch.device("cpu")
WARM_UP = 100  # updates in which the learning rate rises; then it falls to 0 at the end
CURRICULUM = 0.5  # share of the updates after which the model runs freely over whole windows
MAX_GRAD_NORM = 100.0
EVAL_INTERVAL = 250  # updates
PATIENCE = 4  # evaluations without improvement after the curriculum; then the run is over
NUM_ROWS = 20_000  # of which the variance of the memory is measured


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """What a simulator depends on; the presets of games have other defaults (`Domain.settings`)."""

    num_initializing_steps: int = setting(3, "frames that the model is shown before it simulates", low=1, high=1000)
    num_sim_steps: int = setting(28, "frames that it simulates", low=2, high=1000)
    batch_size: int = setting(28, "windows of an update", low=1, high=2**16)
    lr: float = setting(1.5e-3, "learning rate, after 100 updates of warm-up; it falls to 0 at the end", above=0)
    num_updates: int = setting(4000, "updates of the whole run", low=1)
    seed: int = setting(0, "of all random numbers", low=0)
    loss_scale_obs: float = setting(1.0, "weight of the surprise at observations", low=0)
    loss_scale_hx: float = setting(0.02, "weight of the error of the policy's memory", low=0)
    loss_scale_routing: float = setting(1.0, "weight of the KL of the router's weights", low=0)
    loss_scale_value: float = setting(0.0, "weight of the error of the agent's value", low=0)
    loss_scale_act_log_probs: float = setting(1.0, "weight of the KL of the policy's actions", low=0)
    loss_scale_done: float = setting(1.0, "weight of the surprise at the end of the episode", low=0)
    loss_scale_reward: float = setting(1.0, "weight of the surprise at success", low=0)
    loss_scale_kl: float = setting(1.0, "weight of the KL of the prior from the posterior", low=0)
    loss_scale_begin: float = setting(0.01, "weight of the error of the guess of the policy's first memory", low=0)


def hidden_variance(recording: Recording, domain: Domain, seed: int) -> Tensor:
    """The variance (S,) of each hidden unit of the policy over rows of the training worlds, as the domain has it."""
    rows = recording.windows(1, "train")
    rng = np.random.default_rng(stream_seed(seed, "variance"))
    chosen = np.sort(rng.choice(len(rows), min(len(rows), NUM_ROWS), replace=False))
    return domain.hidden_variance(torch.from_numpy(rows.batch(chosen, ["hidden"])["hidden"][:, 0]))


def resolve_settings(domain: Domain, preset: str, given: Mapping[str, Any]) -> dict[str, float]:
    """The settings of a run: what is given of `SimulatorSettings`, else the preset's, else the defaults."""
    defaults = as_dict(SimulatorSettings())
    foreign = {name for name in defaults if name.startswith("loss_scale_") and name[11:] not in domain.terms}
    chosen = {name: value for name, value in given.items() if name in defaults}
    for name in sorted(chosen.keys() & foreign):
        raise InputError(f"--{name}: there is no such term in the loss of this recording; leave it out")
    settings = defaults | dict((domain.settings or {}).get(preset, {})) | chosen
    return {name: value for name, value in settings.items() if name not in foreign}


def make_config(domain: Domain, settings: dict, preset: str, recording: Recording, agent: Path) -> dict:
    """What the checkpoints of the run carry: how to make the model, and what it was learned from."""
    encoding, checkpoint = recording.config["encoding"], recording.config["checkpoint"]
    return {
        "kind": "world_model",
        "domain": domain.name,
        "task_id": encoding["task_id"],
        **({"actions": encoding["actions"]} if "actions" in encoding else {}),
        **({"lang_dim": encoding["lang_dim"]} if encoding["lang_dim"] else {}),
        "hidden_size": encoding["hidden_size"],
        "num_initializing_steps": settings["num_initializing_steps"],
        "sizes": dict(domain.presets[preset]),
        "settings": settings,
        "recording": {"path": str(recording.folder), "digest": file_digest(recording.folder / "config.json")},
        "agent": {"path": str(agent), "sha256": checkpoint["sha256"]},
        "versions": {"torch": str(torch.__version__)},
    }


class SimulatorRun(Trainable):
    """World model, optimiser, the best weights so far, and counters of one run."""

    update = 0  # updates done

    def __init__(self, domain: Domain, config: dict, policy: Policy, recording: Recording, device: torch.device = CPU):
        """config: of `make_config`; device: another one than the CPU only where the domain has it."""
        torch.set_num_threads(1)  # matrices are small: more threads wait for each other
        self.domain = domain
        self.device = device
        self.config = config
        self.settings = config["settings"]
        self.policy = policy
        self.recording = recording
        self.seed = self.settings["seed"]
        self.num_init = self.settings["num_initializing_steps"]
        self.length = self.num_init + self.settings["num_sim_steps"]
        units = domain.loss_units(self.settings, config["hidden_size"])
        self.scales = {name: self.settings[f"loss_scale_{name}"] * units.get(name, 1) for name in domain.terms}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.seed, "weights"))
            self.model = make_world_model(config, domain).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.settings["lr"], fused=True)
        self.windows, held_out = map(self._all_windows, ("train", "validation"))
        if not len(self.windows) or not len(held_out):
            raise InputError(
                f"{recording.folder} has no training or no validation episode of more than {self.num_init} rows; "
                "lower --num_initializing_steps, or record more steps"
            )
        self.variance = hidden_variance(recording, domain, self.seed).to(device)
        rng = np.random.default_rng(stream_seed(self.seed, "validation"))
        chosen = rng.choice(len(held_out), min(len(held_out), domain.num_validation), replace=False)
        self.held_out = self._frames(held_out, np.sort(chosen))
        self.evaluations_since_best = 0
        self.best: dict | None = None  # its weights, loss and update
        of_terms = (f"val_{name}" for name in ("loss", *domain.terms))
        self.score = f"val_{domain.score_name}"
        self.measured = dict.fromkeys((*of_terms, f"{self.score}_1", self.score), math.nan)
        self.columns = Columns((), {}, self._bar_text, self._closing_lines)

    def _all_windows(self, split: str) -> Windows:
        """A window from every row that has a row left after the first frames: most reach beyond their episode's end.

        So each step counts as much as any other, also those shortly before success, of which windows that end with
        their episode would hold few.
        """
        return self.recording.windows(self.length, split, least=self.num_init + 1)

    def _frames(self, windows: Windows, chosen: np.ndarray) -> Frames:
        return Frames.of(windows.batch(chosen, self.domain.arrays), self.domain).to(self.device)

    # --- an update ----------------------------------------------------------------------------------------------------

    def step_update(self) -> dict[str, float]:
        """Take one Adam step on a batch of windows; refused where the training has diverged."""
        rng = np.random.default_rng((stream_seed(self.seed, "windows"), self.update))
        chosen = rng.integers(len(self.windows), size=self.settings["batch_size"])
        frames = self._frames(self.windows, chosen)
        num_shown = int(rng.integers(1, self.num_init + 1))
        is_free, noise = self.free_frames(frames.mask, rng), self.draw_noise(frames.mask.shape)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        simulated = simulate(self.model, frames, num_shown, is_free, noise)
        terms = losses(self.model, self.policy, frames, simulated, num_shown, self.variance)
        loss = self.weighed(terms)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        if not math.isfinite(norm.item()):
            raise InputError(f"the training diverged at update {self.update}; try a smaller --lr")
        self.optimizer.step()
        self.update += 1
        if self.update % EVAL_INTERVAL == 0 or self.update == self.settings["num_updates"]:
            self.evaluate()
        return {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}, "grad_norm": norm.item()}

    def weighed(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The loss: the sum of the terms, each with its weight."""
        return sum(self.scales[name] * value for name, value in terms.items())

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        share = self.update / self.settings["num_updates"]
        return self.settings["lr"] * (1 - share) * min(1.0, (self.update + 1) / WARM_UP)

    @property
    def horizon(self) -> int:
        """Frames that the model may run freely in the next update."""
        share = self.update / (CURRICULUM * self.settings["num_updates"])
        return math.ceil(self.settings["num_sim_steps"] * min(1.0, share))

    def free_frames(self, mask: Tensor, rng: np.random.Generator) -> Tensor:
        """(T, N) bool: the frames of each window through which the model runs freely, its last ones.

        mask (T, N) bool: the frames before the end of the episode, of which the last ones are counted.
        """
        ends = mask.sum(0).cpu().numpy()
        most = np.minimum(self.horizon, ends - self.num_init)
        lengths = np.where(rng.random(len(ends)) < 0.5, most, rng.integers(0, most + 1))
        return torch.from_numpy(np.arange(self.length)[:, None] >= ends - lengths).to(self.device)

    def draw_noise(self, shape: torch.Size) -> Tensor:
        """Draws (T, N, groups, classes) of a standard exponential distribution, for `WorldModel.sample_latent`."""
        generator = torch.Generator().manual_seed(stream_seed(stream_seed(self.seed, "z"), str(self.update)))
        drawn = torch.empty(*shape, self.model.groups, self.model.classes).exponential_(generator=generator)
        return drawn.to(self.device)

    @torch.no_grad()
    def evaluate(self) -> None:
        """Run freely through the windows of held-out worlds, and keep the weights if they are the best so far.

        Measured are the simulated frames alone: those that are shown are far less of a surprise.
        """
        frames = self.held_out
        simulated = simulate(self.model, frames, self.num_init, torch.ones_like(frames.mask), None)
        is_simulated = torch.arange(self.length, device=self.device)[:, None] >= self.num_init
        frames = frames._replace(mask=frames.mask & is_simulated)
        terms = losses(self.model, self.policy, frames, simulated, self.num_init, self.variance)
        loss = self.weighed(terms).item()
        if not math.isfinite(loss):
            raise InputError(f"the training diverged at update {self.update}; try a smaller --lr")
        self.measured = {"val_loss": loss, **{f"val_{name}": value.item() for name, value in terms.items()}}
        shown = self.model.views.decode(simulated.logits[self.num_init :])
        true, mask = frames.views[self.num_init :], frames.mask[self.num_init :]
        scores = self.domain.view_score(shown, true)
        self.measured |= {f"{self.score}_1": scores[0][mask[0]].mean().item(), self.score: scores[mask].mean().item()}
        if self.best is None or loss < self.best["loss"]:
            weights = copied_to_cpu(self.model.state_dict())
            self.best, self.evaluations_since_best = {"weights": weights, "loss": loss, "update": self.update}, 0
        elif self.update > CURRICULUM * self.settings["num_updates"]:
            self.evaluations_since_best += 1

    def is_over(self) -> bool:
        """Whether the model has not become better for long."""
        return self.evaluations_since_best >= PATIENCE

    # --- what the loop asks for ---------------------------------------------------------------------------------------

    def summary(self) -> dict[str, float]:
        """The latest evaluation, NaN before the first; how far the model runs freely; the best loss so far."""
        best = math.nan if self.best is None else self.best["loss"]
        return {**self.measured, "best_val_loss": best, "horizon": self.horizon, "lr": self.lr}

    def checkpoint(self) -> dict:
        """The best model so far; before the first evaluation, the present one."""
        now = {"weights": self.model.state_dict(), "loss": math.nan, "update": self.update}
        best = self.best or now
        weights = copied_to_cpu(best["weights"])
        return {"policy_state_dict": weights, "update": best["update"], "config": self.config}

    def state(self) -> dict:
        """Weights, optimiser, the best weights, counters."""
        return {
            "config": self.config,
            "weights": copied_to_cpu(self.model.state_dict()),
            "optimizer": copied_to_cpu(self.optimizer.state_dict()),
            "best": self.best,
            "measured": {name: value for name, value in self.measured.items() if math.isfinite(value)},
            "evaluations_since_best": self.evaluations_since_best,
            "update": self.update,
        }

    def load_state(self, state: Mapping) -> None:
        """Continue where `state()` was taken: the same updates follow, bit for bit on the same machine."""
        weights = copied_to_cpu(self.model.state_dict())
        form: dict[str, Any] = {"weights": weights, "update": 0, "evaluations_since_best": 0}
        form["measured"] = dict.fromkeys(state["measured"], 0.0)
        form["optimizer"] = adam_form(self.model.parameters(), state["optimizer"])
        if state["best"] is not None:
            form["best"] = {"weights": weights, "loss": 0.0, "update": 0}
        check_form(state, form, "state")
        self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(copied_to_cpu(state["optimizer"]))
        self.best, self.update = state["best"], state["update"]
        self.measured |= state["measured"]
        self.evaluations_since_best = state["evaluations_since_best"]

    def _bar_text(self, row: Row) -> str:
        close = f"{self.domain.score_name} {row[self.score]:.4f}"
        held_out = "" if math.isnan(row["val_loss"]) else f" held out {row['val_loss']:.2f} {close}"
        return f"loss {row['loss']:.2f} obs {row['obs']:.2f} nats free {row['horizon']:.0f}{held_out}"

    def _closing_lines(self, row: Row) -> dict[str, str]:
        ahead, in_all = row[f"{self.score}_1"], row[self.score]
        return {
            "updates": f"{row['update']:.0f} ({row['seconds']:.0f} s)",
            "held out": f"loss {row['best_val_loss']:.2f} {self.domain.loss_unit} at best, running freely",
            "views": f"{self.domain.score_name} {ahead:.4f} one step ahead, {in_all:.4f} in all",
        }


def train(
    run: SimulatorRun, folder: Path, label: str, *, log_interval: int = 50, save_interval: int = 0, resume: bool = False
) -> None:
    """Train a simulator in a folder; label: its name in what is printed."""
    num_updates, recording = run.settings["num_updates"], run.config["recording"]
    with open_output_dir(folder, flag="--output_dir", other="another --tgm_exp_name"):
        in_the_way = "a simulator; go on with --resume, or choose another --tgm_exp_name"
        saved = saved_state(folder, run.config, ("settings", "sizes"), resume, in_the_way)
        if saved is not None:
            with reading(folder / STATE_NAME, "training state of this run"):
                old = saved["config"]["recording"]
                if old["digest"] != recording["digest"]:
                    raise InputError(f"the run in {folder} learns from another recording, {old['path']}")
        if saved is not None and saved["update"] == num_updates and (folder / CURVE_NAME).exists():
            print(f"{label} is trained already: {folder / FINAL_NAME}")
            return
        drive(
            run, folder, num_updates, label, log_interval=log_interval, checkpoint_interval=save_interval, saved=saved,
            is_over=run.is_over, checkpoint_on_interrupt=False,
        )  # fmt: skip
