"""A recording as a Minari dataset, for programs that read those. Minari is not among this project's requirements."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box, Discrete
from tqdm import tqdm

from generative.recordings.format import Recording
from mop.common.errors import InputError

OF_ACTIONS = ("action", "reward", "terminated", "truncated")  # the terminal row has none of these


def import_minari():
    """The module minari."""
    try:
        import h5py  # noqa: F401, what its files are written with
        import minari
    except ImportError:
        raise InputError('Minari is not installed; pip install "minari[hdf5]==0.5.4"') from None
    return minari


def export(recording: Recording, dataset_id: str) -> Path:
    """Write a recording as a Minari dataset, as a whole; its folder."""
    minari = import_minari()
    from minari.storage import get_dataset_path

    target = get_dataset_path(dataset_id)
    if target.exists():
        raise InputError(f"{target} exists already; choose another --dataset_id")
    spaces = {"action_space": Discrete(recording.shards[0]["log_probs"].shape[1])}
    spaces["observation_space"] = Box(0, 255, recording.shards[0]["obs"].shape[1:], np.uint8)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export_") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no author is named
        before = os.environ.get("MINARI_DATASETS_PATH")
        os.environ["MINARI_DATASETS_PATH"] = folder
        try:
            minari.create_dataset_from_buffers(dataset_id, _episodes(recording, minari), data_format="hdf5", **spaces)
        finally:
            os.environ.pop("MINARI_DATASETS_PATH")
            if before is not None:
                os.environ["MINARI_DATASETS_PATH"] = before
        os.rename(Path(folder) / dataset_id, target)
    return target


def _episodes(recording: Recording, minari) -> Iterator:
    for k in tqdm(range(len(recording)), unit="episode", dynamic_ncols=True):
        episode = recording.episode(k)
        yield minari.data_collector.EpisodeBuffer(
            id=k,
            seed=episode.seed,
            options={name: getattr(episode, name) for name in ("behaviour", "split", "mission")},
            observations=np.array(episode["obs"]),
            actions=np.array(episode["action"][:-1]),
            rewards=np.array(episode["reward"][:-1]),
            terminations=np.array(episode["terminated"][:-1]),
            truncations=np.array(episode["truncated"][:-1]),
            infos={name: np.array(array) for name, array in episode.items() if name not in ("obs", *OF_ACTIONS)},
        )
