"""Settings of evaluations: which worlds are played, where files go, and which checkpoints are asked for."""

from dataclasses import dataclass, fields

from mop.artifacts.run_paths import CACHE_DIR, INTERVENTIONS_TABLE, PLOTS_DIR, RunKey
from mop.common.cli import as_flags, changes_of, setting
from mop.common.values import MAX_ENVS, MAX_EPISODES


@dataclass(frozen=True)
class WorldSettings:
    """The fixed worlds of an evaluation, one episode in each, and where they are played."""

    num_episodes: int = setting(1000, "one per world", low=1, high=MAX_EPISODES)
    num_envs: int = setting(64, "episodes side by side", low=1, high=MAX_ENVS)
    eval_seed: int = setting(0, "the first world", low=0, high=2**32 - 1)
    lang_encoder: str | None = setting(None, "where the recorded mission encoder lies on this machine")
    device: str = setting("auto", "auto (cuda if there is one), cpu, cuda, ...")


@dataclass(frozen=True)
class PlaySettings(WorldSettings):
    """How a policy's actions are chosen."""

    temperature: float = setting(
        0.0, "of the softmax from which actions are drawn, such as 0.7; 0: always the likeliest", low=0
    )


@dataclass(frozen=True)
class Settings(PlaySettings):
    """How each checkpoint is evaluated, and where its files go."""

    cache_dir: str = setting(CACHE_DIR, "results and caches")
    plots_dir: str = setting(PLOTS_DIR, "where pictures go")
    skip_routing: bool = setting(False, "write no routing caches")


@dataclass(frozen=True)
class InterventionSettings(WorldSettings):
    """In which worlds the interventions of a checkpoint are made, and where their files go."""

    task: str | None = setting(None, "of a policy that was trained on several (default: each of them)")
    phases: str | None = setting(None, "what is a phase, such as by_key_phase or by_carrying (default: the task's)")
    cache_dir: str = setting(CACHE_DIR, "where the lines go")
    plots_dir: str = setting(PLOTS_DIR, "where the figure goes")
    results_path: str = setting(INTERVENTIONS_TABLE, "the table")


@dataclass(frozen=True)
class Filters:
    """Which checkpoints are asked for; None: any."""

    task: str | None = setting(None, "only this task id, or policies of several tasks by name, or NAME/ID")
    trial: int | None = setting(None, "only this trial", low=0)
    seed: int | None = setting(None, "only this seed (where a path names none, the seed is the trial number)", low=0)
    update: int | None = setting(None, "only checkpoints of this update", low=0)
    final_only: bool = setting(False, "no periodic checkpoints")

    def fits(self, key: RunKey) -> bool:
        """Whether the run of a checkpoint is asked for; which of its updates are, only their files tell."""
        seed = key.trial if key.seed is None else key.seed
        return (
            (self.task is None or key.is_of(self.task))
            and self.trial in (None, key.trial)
            and self.seed in (None, seed)
        )

    def as_words(self) -> str:
        """Those that are given, as they are typed."""
        given = changes_of(self)
        return " ".join(as_flags({field.name: given[field.name] for field in fields(Filters) if field.name in given}))
