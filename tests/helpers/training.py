"""Imitation runs in this process."""

from pathlib import Path

from mop.common.train_config import parse_config
from mop.training.train import train


def train_with(*flags, policy: str = "mop", **options) -> Path:
    """Train as train_mop.py does with these flags; the final checkpoint's path. options: of `train`."""
    config, given = parse_config("a test", [*map(str, flags)])
    return train(config | {"policy": policy}, given, **options)
