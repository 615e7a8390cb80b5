"""The settings of an experiment: each is one field, from which its flag, check and help follow.

Without PyTorch, so that a page can read them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mop.common.cli import as_dict, check_values, declared, merged, read_yaml, setting
from mop.common.errors import InputError
from mop.common.reading import read_json, reading
from mop.common.train_config import DEFAULTS_FILE, RUNTIME_KEYS, TrainConfig, check_recorded, read_config
from mop.common.values import MAX_EPISODES, folder_name, integer, number, or_word
from mop.plotting.style import counted

CONFIG_NAME = "config.json"
STRATEGIES = ("copy", "fresh", "shared", "split", "frozen")
NOISES = ("exploration", "replay", "environment")
CONTROLS = ("self", "independent")
PARTS = ("all", "routers", "experts", "ends", "layers")
ALGORITHM_DEFAULTS = {
    "SAC": {"learning_rate": 3e-4, "ent_coef": 0.2},
    "DDPG": {"learning_rate": 1e-3, "noise_std": 0.1},
}
MAX_ALPHAS = 1001
MIN_EPISODES = 5  # at each alpha of a line: fewer give no interval that holds


# --- what fields accept -----------------------------------------------------------------------------------------------


def words_of(*allowed: str) -> Callable[[Any], tuple[str, ...]]:
    """A check for some of these words with commas between them, or "none", in the order of `allowed`."""

    def parse(value: Any) -> tuple[str, ...]:
        words = value.replace(" ", "").split(",") if isinstance(value, str) else value
        words = [] if words in (None, ["none"]) else words
        is_list = isinstance(words, list | tuple)
        if not is_list or not set(map(str, words)) <= set(allowed) or len(set(map(str, words))) < len(words):
            raise ValueError(f"must be some of {', '.join(allowed)} with commas between them, or none")
        return tuple(word for word in allowed if word in words)

    return parse


def fractions(value: Any, with_zero: bool = False) -> tuple[float, ...]:
    """Increasing fractions between 0 and 1, "0.1,0.5" or a list; "none" is no fraction. 1 is not included.

    with_zero: whether 0 is.
    """
    limits = "from 0 to 1, 1 not included" if with_zero else "between 0 and 1, neither included"
    form = f"must be fractions {limits}, such as 0.1,0.5"
    if isinstance(value, str):
        value = [] if value.strip().lower() == "none" else value.strip().strip(",").split(",")
    items = [value] if isinstance(value, int | float) else [] if value is None else value
    try:
        given = tuple(number(0)(item) for item in items)
    except (ValueError, TypeError):
        raise ValueError(form) from None
    if not all(0 < point < 1 or (with_zero and point == 0) for point in given):
        raise ValueError(form)
    if given != tuple(sorted(set(given))):
        raise ValueError("must increase, each fraction once")
    return given


def layer_sizes(value: Any) -> tuple[int, ...]:
    """Sizes of hidden layers, [256, 256] or "256,256"."""
    sizes = value.strip("[] ").split(",") if isinstance(value, str) else value
    try:
        sizes = tuple(integer(1, 65536)(size) for size in sizes)
    except (ValueError, TypeError):
        raise ValueError("must be sizes of hidden layers such as 256,256") from None
    if not 1 <= len(sizes) <= 16:
        raise ValueError("must be from 1 to 16 sizes")
    return sizes


# --- the fields -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Settings of the machine and the moment, which config.json leaves out."""

    output_dir: str = setting(".", "folder of results/ and model_weights/", is_runtime=True)
    jobs: int = setting(
        1, "processes for children and lines; results do not depend on it", low=1, high=1024, is_runtime=True
    )
    resume: bool = setting(
        False, "go on with the latest such experiment that was cut off; without one, begin", is_runtime=True
    )


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(MachineSettings):
    """Settings of an experiment of either kind."""

    SECTION: ClassVar[str]  # key of config.json that holds them
    MAIN: ClassVar[str]  # the measure of a line whose barrier gives the verdict
    CONTROL_ORDER: ClassVar[tuple[str, ...]]  # in tables
    COUNTS: ClassVar[tuple[str, ...]] = ("num_eval_episodes",)  # settings on which intervals depend
    _OF_ONE_RUN: ClassVar[frozenset[str]]  # settings that may differ between parents that are pooled

    fork_points: tuple[float, ...] = ()
    children: int = setting(2, "children of each fork", low=2, high=64)
    alpha_points: int = setting(21, "policies on the line, both ends included", low=3, high=MAX_ALPHAS)
    num_eval_episodes: int = setting(256, "fixed worlds in which each policy is played", low=2, high=MAX_EPISODES)
    tolerance: float = setting(
        0.05, "the largest loss that counts as none, a share of (ends - random policy)", above=0, high=1
    )
    controls: tuple[str, ...] = setting(
        CONTROLS,
        "self: a child trained twice; independent: a run from other weights; none",
        parse=words_of(*CONTROLS),
        commas=True,
    )
    experiment_name: str = setting("base", "folder below results/ and model_weights/", parse=folder_name)

    if TYPE_CHECKING:  # a field of the one kind, part of `run` of the other

        @property
        def seed(self) -> int | None:
            """Seed of the parent; None: it is drawn when the experiment begins."""

    @property
    def drawn_seed(self) -> int:
        """The seed of an experiment that has begun."""
        assert self.seed is not None, "it is drawn at the beginning"
        return self.seed

    @property
    def name(self) -> str:
        """The run in words, without its seed."""
        raise NotImplementedError

    @property
    def size(self) -> str:
        """The length of the training in words."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """Where such experiments lie, below results/ and model_weights/."""
        raise NotImplementedError

    @property
    def total(self) -> int:
        """The length of the training, in what `fork_steps` counts."""
        raise NotImplementedError

    @property
    def fork_steps(self) -> list[int]:
        """How much of the training is done at each fork: environment steps or, of imitation runs, updates."""
        raise NotImplementedError

    @property
    def steps_per_update(self) -> int:
        """How much of `total` an update is."""
        return 1

    @property
    def env_steps_of_forks(self) -> list[int]:
        """How many environment steps are done at each fork."""
        return self.fork_steps

    @property
    def fractions(self) -> list[float]:
        """The share of the training that is done at each fork."""
        return [step / self.total for step in self.fork_steps]

    @property
    def group(self) -> dict[str, str]:
        """What experiments have in common whose parents differ in their seeds alone."""
        own = self.recorded()
        flat = own | own.pop("run", {})
        return {name: str(value) for name, value in sorted(flat.items()) if name not in self._OF_ONE_RUN}

    def recorded(self) -> dict[str, Any]:
        """The settings that config.json holds."""
        return as_dict(self, [field.name for field in declared(type(self)) if field.metadata.get("is_runtime")])

    def is_same(self, other: "ExperimentConfig") -> bool:
        """Whether an experiment of these settings can go on with one of the others; no seed stands for any."""
        return self.recorded() | ({} if self.seed is not None else {"seed": other.seed}) == other.recorded()

    def check_together(self) -> None:
        """Refuse settings that are each possible, and not together."""
        for name in self.COUNTS:
            if (self.fork_points or self.controls) and getattr(self, name) < MIN_EPISODES:
                raise InputError(f"--{name} must be at least {MIN_EPISODES} for an interval, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class RLRunSettings(MachineSettings):
    """Settings of a run of SAC or DDPG."""

    env: str = setting(
        "InvertedDoublePendulum-v5", "a MuJoCo environment of Gymnasium, such as Hopper-v5", parse=folder_name
    )
    total_steps: int = setting(200_000, "environment steps of the run; forks end at the same step", low=1)
    max_episode_steps: int = setting(
        1000, "episodes are cut off here, or earlier where the environment itself does", low=1
    )
    train_freq: int = setting(2, "environment steps between gradient steps", low=1)
    learning_starts: int = setting(
        10_000, "transitions in the buffer before the first gradient step; until then actions are random", low=1
    )
    buffer_size: int = setting(1_000_000, "transitions that the replay buffer holds", low=1)
    eval_freq: int = setting(1000, "environment steps between evaluations during training; 0: none", low=0)
    eval_episodes: int = setting(10, "episodes of such an evaluation", low=1, high=10_000)
    device: str = setting("auto", "auto (cuda if there is one), cpu, cuda, cuda:1, ...", is_runtime=True)
    batch_size: int = setting(256, "transitions of a gradient step", low=1)
    gamma: float = setting(0.99, "discount of future reward", low=0, high=1)
    tau: float = setting(0.005, "how far target networks move to the networks at each gradient step", above=0, high=1)
    hidden_sizes: tuple[int, ...] = setting((256, 256), "hidden layers of each network", parse=layer_sizes, commas=True)


@dataclass(frozen=True, kw_only=True)
class RLConfig(ExperimentConfig, RLRunSettings):
    """Settings of an experiment of `run_env`."""

    SECTION, MAIN, CONTROL_ORDER = "settings", "return", ("self", "independent")
    _OF_ONE_RUN = frozenset({"seed", "controls", "eval_freq", "eval_episodes", "experiment_name"})

    algo: str = setting("SAC", "the algorithm", choices=tuple(ALGORITHM_DEFAULTS))
    seed: int | None = setting(None, "seeds everything (default: a random one from 1 to 1000000)", low=0)
    fork_points: tuple[float, ...] = setting(
        (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        "fractions of the run after which it is forked; none: no forks",
        parse=fractions,
        commas=True,
    )
    fork_buffer_strategy: str = setting("copy", "replay buffer of the children", choices=STRATEGIES)
    split_noise: tuple[str, ...] = setting(
        NOISES, "the random streams in which children differ; none: in none", parse=words_of(*NOISES), commas=True
    )
    perturb: float = setting(
        0.0, "children share all noise, and the weights of all but the first are moved by this share", low=0
    )
    alpha_points: int = setting(101, "policies on the line, both ends included", low=3, high=MAX_ALPHAS)
    num_eval_episodes: int = setting(100, "episodes of each of them, in the same worlds for all", low=2, high=100_000)
    learning_rate: float | None = setting(
        None, "of Adam, for each network and for the entropy (default: SAC 0.0003, DDPG 0.001)", above=0
    )
    ent_coef: float | str | None = setting(
        None,
        "SAC: weight of the entropy; auto: learned (Haarnoja et al. 2018b) (default: 0.2)",
        parse=or_word(number(0), auto="auto"),
    )
    noise_std: float | None = setting(
        None, "DDPG: standard deviation of the noise on actions, which are from -1 to 1 (default: 0.1)", low=0
    )

    def __post_init__(self):
        own = ALGORITHM_DEFAULTS[self.algo]
        names = {name for defaults in ALGORITHM_DEFAULTS.values() for name in defaults}
        if foreign := [name for name in sorted(names - own.keys()) if getattr(self, name) is not None]:
            raise InputError(f"{self.algo} has no {foreign[0]}; leave it out, or choose another --algo")
        for name, default in own.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)

    @property
    def name(self) -> str:
        return f"{self.env} {self.algo}, {self.fork_buffer_strategy}"

    @property
    def size(self) -> str:
        return counted(self.total_steps, "step")

    @property
    def folder(self) -> Path:
        return Path(self.experiment_name, self.env, self.algo)

    @property
    def total(self) -> int:
        return self.total_steps

    @property
    def steps_per_update(self) -> int:
        return self.train_freq

    @property
    def fork_steps(self) -> list[int]:
        """The fraction of the run, down to a multiple of `train_freq`."""
        exact = [point * self.total_steps for point in self.fork_points]
        return [math.floor(step / self.train_freq + 1e-9) * self.train_freq for step in exact]

    def recorded(self) -> dict[str, Any]:
        return {name: value for name, value in super().recorded().items() if value is not None or name == "seed"}

    def check_together(self) -> None:
        if self.total_steps <= self.learning_starts:
            raise InputError(f"--total_steps must be more than the {self.learning_starts} of --learning_starts")
        if self.buffer_size < self.learning_starts:
            raise InputError("--buffer_size holds fewer transitions than --learning_starts waits for; enlarge it")
        if self.eval_freq % self.train_freq:
            raise InputError(
                f"--eval_freq must be a multiple of the {self.train_freq} of --train_freq, not {self.eval_freq}"
            )
        super().check_together()
        steps = self.fork_steps
        for point, step in zip(self.fork_points, steps, strict=True):
            problem = self._fork_problem(step)
            if step == 0 or steps.count(step) > 1:
                problem = f"is step {step} of {self.total_steps}, where no fork is or another one is already"
            if problem:
                raise InputError(f"--fork_points: {point:g} {problem}")

    def _fork_problem(self, step: int) -> str | None:
        """Why children of a fork at this step would learn nothing; None where they learn."""
        left, wait = self.total_steps - step, self.learning_starts
        known = min(step, self.buffer_size)
        if self.fork_buffer_strategy == "fresh" and left <= wait:
            return (
                f"leaves {left} steps, and a fresh buffer needs {wait} before anything is learned (--learning_starts)"
            )
        if self.fork_buffer_strategy == "split" and known // self.children + left <= wait:
            return f"leaves each child too few transitions to learn from (--learning_starts {wait})"
        return None


@dataclass(frozen=True, kw_only=True)
class MopConfig(ExperimentConfig):
    """Settings of an experiment of `run_mop`; `run` holds the flags of train_mop.py."""

    SECTION, MAIN, CONTROL_ORDER = "imitation", "cross_entropy", ("independent", "self")
    COUNTS = ("num_trajectories", "num_eval_episodes")
    _OF_ONE_RUN = frozenset({"trial", "seed", "experiment_name"})

    fork_points: tuple[float, ...] = setting(
        (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8),
        "fractions of the updates after which the run is forked; 0: children share their initial weights alone; none",
        parse=functools.partial(fractions, with_zero=True),
        commas=True,
    )
    parts: tuple[str, ...] = setting(
        PARTS,
        "what moves along a line, the rest stays as at its first end; layers: each alone",
        parse=words_of(*PARTS),
        commas=True,
    )
    played_parts: tuple[str, ...] = setting(
        ("all",), "of these, which are played in worlds too; none", parse=words_of(*PARTS), commas=True
    )
    align: bool = setting(True, "measure the line to the second end with its symmetries matched to the first, too")
    num_trajectories: int = setting(
        128, "the bot's episodes for cross-entropy, accuracy, LPC and routing", low=2, high=MAX_EPISODES
    )
    run: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.run["seed"]

    @property
    def name(self) -> str:
        return f"{self.run['task_id']}, lpc_alpha {self.run['lpc_alpha']:g}"

    @property
    def size(self) -> str:
        return counted(self.total, "update")

    @property
    def folder(self) -> Path:
        return Path(self.experiment_name, self.run["task_id"], "mop")

    @property
    def total(self) -> int:
        return self.run["num_updates"]

    @property
    def fork_steps(self) -> list[int]:
        """Updates that are done at each fork."""
        return [int(point * self.total + 1e-9) for point in self.fork_points]

    @property
    def env_steps_of_forks(self) -> list[int]:
        return [update * self.run["num_envs"] * self.run["unroll_len"] for update in self.fork_steps]

    def recorded(self) -> dict[str, Any]:
        drop = set(RUNTIME_KEYS) - {"num_updates"}
        return super().recorded() | {"run": {name: value for name, value in self.run.items() if name not in drop}}

    def is_same(self, other: ExperimentConfig) -> bool:
        return dataclasses.replace(self, run=check_recorded(self.run, "run")).recorded() == other.recorded()

    def check_together(self) -> None:
        if "all" not in self.parts:
            raise InputError("--parts must have all: the barrier is that of all weights together")
        if missing := [part for part in self.played_parts if part not in self.parts]:
            raise InputError(f"--played_parts has {missing[0]}, which --parts lacks")
        super().check_together()
        updates = self.fork_steps
        for point, update in zip(self.fork_points, updates, strict=True):
            if updates.count(update) > 1 or (update == 0 and point > 0):
                raise InputError(
                    f"--fork_points: {point:g} is update {update} of {self.total}, where another fork or the start is"
                )


def names_of(configs: Sequence[ExperimentConfig]) -> list[str]:
    """A name for each of several experiments, with what differs from others of the same name."""
    names = []
    for own in configs:
        alike = [other.group for other in configs if other.name == own.name]
        differing = [key for key in alike[0] if len({group.get(key) for group in alike}) > 1]
        names.append(", ".join([own.name, *(f"{key} {own.group.get(key)}" for key in differing)]))
    return names


# --- from flags, YAML and config.json ---------------------------------------------------------------------------------

_FLAGS_OF_OTHER_SCRIPTS = {  # flags of train_mop.py that have no use here, and what to do
    "tasks": "an experiment is on one task",
    "name": "an experiment is on one task",
    "checkpoint_dir": "files go below --output_dir",
    "overwrite": "each experiment has a folder of its own",
    "wandb_project": "the log of each run is in training/",
}


@dataclass(frozen=True, kw_only=True)
class MopFlags(MopConfig, TrainConfig):
    """Every flag of `run_mop`: those of train_mop.py, and those of the experiment."""


def resolve_rl(flags: Mapping[str, Any], config_path: str | None = None) -> RLConfig:
    """The settings of defaults, a YAML file and flags, later ones winning; those that cannot be are refused."""
    given = check_values(RLConfig, read_yaml(config_path), config_path) if config_path is not None else {}
    given |= check_values(RLConfig, flags)
    if given.get("perturb"):
        if given.get("split_noise"):
            raise InputError("with --perturb children share all noise; leave --split_noise out, or set it to none")
        given["split_noise"] = ()
    config = RLConfig(**given)
    if beyond := config.total_steps % config.train_freq:
        config = dataclasses.replace(config, total_steps=config.total_steps - beyond)
        print(f"--total_steps is rounded down to {config.total_steps}, for the {config.train_freq} of --train_freq")
    config.check_together()
    return config


def resolve_mop(flags: Mapping[str, Any], config_path: str | None = None) -> MopConfig:
    """The settings of defaults, a YAML file and flags, later ones winning; those that cannot be are refused."""
    given = {}
    for values, source in ((read_yaml(config_path) if config_path is not None else {}, config_path), (flags, None)):
        checked = check_values(MopFlags, values, source)
        if foreign := sorted(checked.keys() & _FLAGS_OF_OTHER_SCRIPTS.keys()):
            reason = _FLAGS_OF_OTHER_SCRIPTS[foreign[0]]
            raise InputError(
                f"{source or 'command line'}: {foreign[0]} is of train_mop.py alone, {reason}; leave it out"
            )
        given = merged(MopFlags, given, checked)
    own = {field.name: given[field.name] for field in declared(MopConfig) if field.name in given}
    of_run = {name: value for name, value in given.items() if name not in own}
    run = as_dict(TrainConfig(**(read_config(DEFAULTS_FILE) | of_run)), (*_FLAGS_OF_OTHER_SCRIPTS, "resume"))
    run |= {"policy": "mop", "seed": run["trial"] if run["seed"] is None else run["seed"]}
    config = MopConfig(**own, run=run)
    config.check_together()
    return config


def load_config(results: str | Path) -> ExperimentConfig:
    """The settings of an experiment, from its config.json."""
    path = Path(results) / CONFIG_NAME
    with reading(path, "config of an experiment", "name the folder of one"):
        content = read_json(path)
        section = next((name for name in (RLConfig.SECTION, MopConfig.SECTION) if name in content), None)
        if section is None:
            raise ValueError("no settings of lmc_rl")
        values = dict(content[section])
        run = values.pop("run") if section == MopConfig.SECTION else values
        needed = ("task_id", "num_updates", "seed") if section == MopConfig.SECTION else ("env", "algo", "seed")
        {name: run[name] for name in (*needed,)}, values["fork_points"]
        if section == RLConfig.SECTION:
            return RLConfig(**check_values(RLConfig, values, str(path)))
        return MopConfig(**check_values(MopConfig, values, str(path)), run=check_recorded(run, str(path)))
