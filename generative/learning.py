"""A world model in training, as a run that `mop.learning.loop.drive` brings to its final checkpoint.

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
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from generative.losses import ARRAYS, TERMS, Frames, losses, simulate
from generative.policies import FrozenPolicy
from generative.recordings import Recording, Windows
from generative.world_model import WorldModel
from mop.base.errors import InputError
from mop.base.streams import stream_seed
from mop.learning.copies import copied_to_cpu
from mop.learning.log import Columns, Row

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

WARM_UP = 100  # updates in which the learning rate rises; then it falls to 0 at the end
CURRICULUM = 0.5  # share of the updates after which the model runs freely over whole windows
MAX_GRAD_NORM = 100.0
EVAL_INTERVAL = 250  # updates
NUM_VALIDATION = 200  # windows
PATIENCE = 4  # evaluations without improvement after the curriculum; then the run is over
NUM_ROWS = 20_000  # of which the variance of the memory is measured
LEAST_VARIANCE = 1e-4  # of a unit, so that one that never moves does not rule the loss


def hidden_variance(recording: Recording, seed: int) -> Tensor:
    """The variance (S,) of each hidden unit of the policy over rows of the training worlds."""
    rows = recording.windows(1, "train")
    rng = np.random.default_rng(stream_seed(seed, "variance"))
    chosen = np.sort(rng.choice(len(rows), min(len(rows), NUM_ROWS), replace=False))
    return torch.from_numpy(rows.batch(chosen, ["hidden"])["hidden"][:, 0]).var(0).clamp(min=LEAST_VARIANCE)


def all_windows(recording: Recording, length: int, num_shown: int, split: str) -> Windows:
    """A window from every row of every episode of a split that has a row left after the `num_shown` first.

    Most reach beyond the end of their episode, which is masked. So each step counts as much as any other, also those
    shortly before success, of which windows that end with their episode would hold few.
    """
    episodes = recording.episodes(split)
    counts = np.maximum(recording.index["num_rows"][episodes] - num_shown, 0)
    starts = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return Windows(recording, length, np.repeat(episodes, counts), starts)


class SimulatorRun:
    """World model, optimiser, the best weights so far, and counters of one run."""

    def __init__(self, config: dict, policy: FrozenPolicy, recording: Recording):
        """config: of `train_gen_model.make_config`. Raises InputError where the recording holds too few worlds."""
        self.config, self.settings, self.policy, self.recording = config, config["settings"], policy, recording
        self.seed, self.num_init = self.settings["seed"], self.settings["num_initializing_steps"]
        self.length = self.num_init + self.settings["num_sim_steps"]
        self.scales = {name: self.settings[f"loss_scale_{name}"] for name in TERMS}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.seed, "weights"))
            self.model = WorldModel(config["lang_dim"], config["hidden_size"], config["sizes"])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.settings["lr"], fused=True)
        self.windows = all_windows(recording, self.length, self.num_init, "train")
        self.variance = hidden_variance(recording, self.seed) if len(self.windows) else torch.zeros(0)
        self.held_out = self._held_out()
        self.update, self.evaluations_since_best = 0, 0
        self.best: dict | None = None  # its weights, loss and update
        self.measured = dict.fromkeys((*(f"val_{name}" for name in ("loss", *TERMS)), *_EXACT), math.nan)
        self.columns = Columns((), {}, _bar_text, _closing_lines, _plot)

    def _held_out(self) -> Frames:
        """Windows of validation worlds."""
        windows = all_windows(self.recording, self.length, self.num_init, "validation")
        if not len(windows) or not len(self.windows):
            raise InputError(
                f"{self.recording.folder} has no training or no validation episode of more than {self.num_init} rows; "
                "lower --num_initializing_steps, or record more steps"
            )
        rng = np.random.default_rng(stream_seed(self.seed, "validation"))
        chosen = np.sort(rng.choice(len(windows), min(len(windows), NUM_VALIDATION), replace=False))
        return Frames.of(windows.batch(chosen, ARRAYS))

    # --- an update ----------------------------------------------------------------------------------------------------

    def step_update(self) -> dict[str, float]:
        """One Adam step on a batch of windows. Raises InputError where the training has diverged."""
        rng = np.random.default_rng((stream_seed(self.seed, "windows"), self.update))
        chosen = rng.integers(len(self.windows), size=self.settings["batch_size"])
        frames = Frames.of(self.windows.batch(chosen, ARRAYS))
        num_shown = int(rng.integers(1, self.num_init + 1))
        is_free, noise = self.free_frames(frames.mask, rng), self.draw_noise(frames.mask.shape)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        simulated = simulate(self.model, frames, num_shown, is_free, noise)
        found = losses(self.model, self.policy, frames, simulated, num_shown, self.variance)
        loss = self.weighed(found)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        if not math.isfinite(norm.item()):
            raise InputError(f"the training diverged at update {self.update}; try a smaller --lr")
        self.optimizer.step()
        self.update += 1
        if self.update % EVAL_INTERVAL == 0 or self.update == self.settings["num_updates"]:
            self.evaluate()
        return {"loss": loss.item(), **{name: value.item() for name, value in found.items()}, "grad_norm": norm.item()}

    def weighed(self, found: Mapping[str, Tensor]) -> Tensor:
        """The loss: the sum of the terms, each with its weight."""
        return sum(self.scales[name] * value for name, value in found.items())

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
        ends = mask.sum(0).numpy()
        most = np.minimum(self.horizon, ends - self.num_init)
        lengths = np.where(rng.random(len(ends)) < 0.5, most, rng.integers(0, most + 1))
        return torch.from_numpy(np.arange(self.length)[:, None] >= ends - lengths)

    def draw_noise(self, shape: torch.Size) -> Tensor:
        """Draws (T, N, groups, classes) of a standard exponential distribution, for `WorldModel.choose`."""
        generator = torch.Generator().manual_seed(stream_seed(stream_seed(self.seed, "z"), str(self.update)))
        return torch.empty(*shape, self.model.groups, self.model.classes).exponential_(generator=generator)

    @torch.no_grad()
    def evaluate(self) -> None:
        """Run freely through the windows of held-out worlds, and keep the weights if they are the best so far.

        Measured are the simulated frames alone: those that are shown are far less of a surprise.
        """
        frames = self.held_out
        simulated = simulate(self.model, frames, self.num_init, torch.ones_like(frames.mask), None)
        is_simulated = torch.arange(self.length)[:, None] >= self.num_init
        frames = frames._replace(mask=frames.mask & is_simulated)
        found = losses(self.model, self.policy, frames, simulated, self.num_init, self.variance)
        loss = self.weighed(found).item()
        if not math.isfinite(loss):
            raise InputError(f"the training diverged at update {self.update}; try a smaller --lr")
        self.measured = {"val_loss": loss, **{f"val_{name}": value.item() for name, value in found.items()}}
        self.measured |= self._exactness(frames, self.model.views.decode(simulated.logits))
        if self.best is None or loss < self.best["loss"]:
            weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.best, self.evaluations_since_best = {"weights": weights, "loss": loss, "update": self.update}, 0
        elif self.update > CURRICULUM * self.settings["num_updates"]:
            self.evaluations_since_best += 1

    def _exactness(self, frames: Frames, shown: Tensor) -> dict[str, float]:
        """The share of views that are wholly right: in the first simulated frame, and in all of them."""
        is_right = (shown == frames.soft).all(-1)[self.num_init :]
        mask = frames.mask[self.num_init :]
        shares = [part[seen].float().mean().item() for part, seen in ((is_right[0], mask[0]), (is_right, mask))]
        return dict(zip(_EXACT, shares, strict=True))

    def is_over(self) -> bool:
        """Whether the model has not become better for long."""
        return self.evaluations_since_best >= PATIENCE

    # --- what the loop asks for ---------------------------------------------------------------------------------------

    def summary(self) -> dict[str, float]:
        """The latest evaluation, NaN before the first; how far the model runs freely; the best loss so far."""
        best = math.nan if self.best is None else self.best["loss"]
        return {**self.measured, "best_val_loss": best, "horizon": self.horizon, "lr": self.lr}

    def warnings(self, measures: Mapping[str, float]) -> dict[str, str]:
        """Nothing: a run that diverges is refused where it does."""
        return {}

    def checkpoint(self) -> dict:
        """The best model so far; before the first evaluation, the present one."""
        now = {"weights": self.model.state_dict(), "loss": math.nan, "update": self.update}
        best = self.best or now
        weights = {name: value.clone() for name, value in best["weights"].items()}
        return {"policy_state_dict": weights, "update": best["update"], "config": self.config}

    def state(self) -> dict:
        """Weights, optimiser, the best weights, counters."""
        return {
            "config": self.config,
            "weights": {name: value.clone() for name, value in self.model.state_dict().items()},
            "optimizer": copied_to_cpu(self.optimizer.state_dict()),
            "best": self.best,
            "measured": {name: value for name, value in self.measured.items() if math.isfinite(value)},
            "evaluations_since_best": self.evaluations_since_best,
            "update": self.update,
        }

    def load_state(self, state: Mapping) -> None:
        """Continue where `state()` was taken: the same updates follow, bit for bit on the same machine."""
        self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(copied_to_cpu(state["optimizer"]))
        self.best, self.update = state["best"], state["update"]
        self.measured |= state["measured"]
        self.evaluations_since_best = state["evaluations_since_best"]


# --- how its log is shown ---------------------------------------------------------------------------------------------

_EXACT = ("val_exact_1", "val_exact")


def _plot(table: "pd.DataFrame", label: str) -> "Figure":
    from generative.figures import plot_log  # here: matplotlib takes most of a second to load

    return plot_log(table, label)


def _bar_text(row: Row) -> str:
    held_out = "" if math.isnan(row["val_loss"]) else f" held out {row['val_loss']:.2f} exact {row['val_exact']:.1%}"
    return f"loss {row['loss']:.2f} obs {row['obs']:.2f} nats free {row['horizon']:.0f}{held_out}"


def _closing_lines(row: Row) -> dict[str, str]:
    return {
        "updates": f"{row['update']:.0f} ({row['seconds']:.0f} s)",
        "held out": f"loss {row['best_val_loss']:.2f} nats a step at best, running freely",
        "exact views": f"{row['val_exact_1']:.1%} one step ahead, {row['val_exact']:.1%} of all steps, at the end",
    }
