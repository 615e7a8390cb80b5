"""Success, path ratio and cost, by hand; the interval by its definition."""

import math

import numpy as np
import pytest

from mop.analysis.metrics import compute_metrics
from mop.statistics.intervals import wilson_interval


def test_wilson_interval_of_known_cases():
    known = {(8, 10): (0.4902, 0.9433), (0, 10): (0.0, 0.2775), (10, 10): (0.7225, 1.0), (1, 1): (0.2065, 1.0)}
    known |= {(50, 100): (0.4038, 0.5962), (0, 1): (0.0, 0.7935)}
    for (successes, trials), interval in known.items():
        assert wilson_interval(successes, trials) == pytest.approx(interval, abs=5e-5)
    assert len(known) == 6
    cases = 0
    for trials in (1, 2, 7, 1000):
        for successes in range(0, trials + 1, max(1, trials // 7)):
            low, high = wilson_interval(successes, trials)
            mirrored = wilson_interval(trials - successes, trials)
            assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)
            assert 0.0 <= low <= successes / trials <= high <= 1.0
            # both ends are where the distance to the observed rate is 1.96 standard deviations of that end
            for p in (low, high):
                assert (p - successes / trials) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / trials, abs=1e-6)
            cases += 1
    assert cases == 2 + 3 + 8 + 8


def test_metrics_by_hand():
    episodes = [
        {"success": True, "steps": 12, "expert_steps": 10},
        {"success": False, "steps": 64, "expert_steps": 1},
        {"success": True, "steps": 6, "expert_steps": 8},
        {"success": True, "steps": 10, "expert_steps": 10},
    ]
    metrics = compute_metrics(episodes, np.array([100.0, 300.0, 800.0], np.float32), 7)
    low, high = wilson_interval(3, 4)
    assert metrics == {
        "success_rate": 0.75,
        "success_low": low,
        "success_high": high,
        "path_ratio": pytest.approx((1.2 + 0.75 + 1.0) / 3, abs=1e-12),
        "mean_lpc": pytest.approx(400.0, abs=1e-9),
        "mean_steps": 23.0,
        "bot_plan_failures": 7,
    }
    none = compute_metrics(episodes[1:2], None, 0)
    assert none["success_rate"] == 0.0 and none["mean_steps"] == 64.0
    assert math.isnan(none["path_ratio"]) and math.isnan(none["mean_lpc"])
    large = np.full(200_001, 3072.0, np.float32)  # a float32 sum of these would be off
    assert compute_metrics(episodes, large, 0)["mean_lpc"] == pytest.approx(3072.0, abs=1e-9)
