"""How barriers are shown: their units, and their words."""

from dataclasses import dataclass

import numpy as np

from lmc_rl.analysis.barrier import Estimate, Profile
from lmc_rl.analysis.results import LineResult

ESTIMATES = {"barrier": "chord barrier B", "instability": "instability I"}
CLICK = "; click for its path"


@dataclass(frozen=True)
class Unit:
    """A measure of lines, and the unit of its barrier."""

    measure: str
    name: str
    factor: float
    digits: int
    about: str  # for the title of a figure
    is_share: bool = False  # of what was learned

    @property
    def words(self) -> str:
        """The unit on an axis."""
        return f"{self.name} of {'what was learned' if self.is_share else self.measure.replace('_', '-')}"

    def of(self, profile: Profile) -> Estimate:
        """The barrier of a path in this unit but for the factor; NaN where the ends are no better than chance."""
        return profile.barrier.over(profile.scale) if self.is_share else profile.barrier


SHARE = Unit("return", "%", 100, 1, "% of (return of the ends - random policy)", True)
SHARE_OF_LOSS = Unit("cross_entropy", "%", 100, 1, "% of (chance - cross-entropy of the ends)", True)
NATS = Unit("cross_entropy", "nats", 1, 3, "of the cross-entropy on the bot's trajectories")
POINTS = Unit("success", "points", 100, 1, "of success, % of the episodes")


def lost_text(name: str, estimate: Estimate, unit: Unit) -> str:
    """ "B 12.3 % (95 %: 4.0 to 20.1)"."""
    if not np.isfinite(estimate.value):
        return f"no {name}, as its ends are no better than chance"
    value, low, high = (f"{unit.factor * n:.{unit.digits}f}" for n in (estimate.value, estimate.low, estimate.high))
    return f"{name} {value} {unit.name} (95 %: {low} to {high})"


def lost_on(line: LineResult) -> str:
    """The verdict and B of each measure of a line that has a barrier, in words."""
    told = []
    for unit, name in {SHARE: "B", NATS: "B", POINTS: "B of success"}.items():
        if unit.measure in line.profiles:
            verdict = [line.verdict_of(unit.measure)] if line.has_verdict else []
            told.append(", ".join([*verdict, lost_text(name, unit.of(line.profiles[unit.measure]), unit)]))
    return "; ".join(told)
