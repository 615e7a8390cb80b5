"""Success, path ratio and cost, by hand."""

import math

import numpy as np
import pytest

from mop.analysis.metrics import compute_metrics
from mop.statistics.intervals import wilson_interval


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
