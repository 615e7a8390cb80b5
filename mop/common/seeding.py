"""Named random streams: the use of one does not move another."""

import zlib

import numpy as np


def stream_seed(seed: int, name: str) -> int:
    """The seed of a named random stream of a run, so that streams do not depend on each other's use."""
    return int(np.random.SeedSequence((seed, zlib.crc32(name.encode()))).generate_state(1)[0])
