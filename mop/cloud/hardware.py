"""What a job of the cloud runs on, and what that costs."""

from dataclasses import dataclass, replace

from mop.common.errors import InputError

# Dollars an hour, as Modal published them then; its pricing page says what they are today.
PUBLISHED = "June 2025"
GPU_DOLLARS = {
    "T4": 0.59, "L4": 0.80, "A10": 1.10, "L40S": 1.95, "A100-40GB": 2.10, "A100-80GB": 2.50, "H100": 3.95,
    "H200": 4.54, "B200": 6.25,
}  # fmt: skip
OTHER_NAMES = {"A10G": "A10"}
CORE_DOLLARS, GIB_DOLLARS = 0.0472, 0.0080


@dataclass(frozen=True)
class Machine:
    """What one container asks for: a GPU or none, cores (each two virtual ones), memory in MiB."""

    gpu: str | None
    cpus: float
    memory_mib: int

    @property
    def dollars_per_hour(self) -> float:
        """The price of PUBLISHED, of the resources that are asked for; more is billed where more is used."""
        gpu = GPU_DOLLARS[self.gpu] if self.gpu else 0.0
        return gpu + self.cpus * CORE_DOLLARS + self.memory_mib / 1024 * GIB_DOLLARS

    def describe(self) -> str:
        """In words, such as "a T4, 1 core, 2 GiB"."""
        cores = f"{self.cpus:g} core{'' if self.cpus == 1 else 's'}"
        return f"{f'a {self.gpu}' if self.gpu else 'no GPU'}, {cores}, {self.memory_mib / 1024:g} GiB"


def parse_gpu(value: str) -> str | None:
    """The GPU that `--gpu` names, None for "none". Raises InputError for one whose price is not known here."""
    if value.lower() == "none":
        return None
    name = OTHER_NAMES.get(value.upper(), value.upper())
    if name not in GPU_DOLLARS:
        raise InputError(f"--gpu must be none, {', '.join(GPU_DOLLARS)}, not {value!r}")
    return name


def cost_lines(machine: Machine, other_gpu: str) -> list[str]:
    """What an hour of one job costs, and what it would cost without a GPU, or with `other_gpu` where it has none."""
    other = replace(machine, gpu=None if machine.gpu else other_gpu)
    return [
        f"each on {machine.describe()}: {machine.dollars_per_hour:.2f} dollars an hour; with --gpu "
        f"{other.gpu or 'none'}: {other.dollars_per_hour:.2f} (list prices of {PUBLISHED})",
        "not measured: how fast either is on Modal; worlds and policy act on the CPU in any case, and these policies "
        "are so small that a GPU may gain nothing",
    ]
