"""Recordings that several test files read; change only copies."""

from pathlib import Path

import pytest
from generative_data import record_tiny, tiny_checkpoint, tiny_pair
from generative_game_data import record_agent, skip_without_games, tiny_agent

from generative.domains.babyai.policy import FrozenPolicy
from generative.recordings.format import Recording, open_recording


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> tuple[Recording, Path]:
    """A recording of every behaviour, and the checkpoint of its policy, as `tiny_pair`."""
    return tiny_pair(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> tuple[Recording, FrozenPolicy]:
    """A recording of the argmax and the bot, and its policy."""
    folder = tmp_path_factory.mktemp("recorded")
    checkpoint = tiny_checkpoint(folder / "checkpoints")
    recording = record_tiny(checkpoint, folder / "recording", policies="argmax,bot", num_steps=700)
    return recording, FrozenPolicy.load(checkpoint)[0]


@pytest.fixture(scope="session")
def game_model(tmp_path_factory) -> Path:
    """The checkpoint of a tiny agent; skipped where games cannot be played."""
    skip_without_games()
    return tiny_agent(tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="session")
def game_recording(game_model, tmp_path_factory) -> Recording:
    """A recording of that agent."""
    return open_recording(record_agent(game_model, tmp_path_factory.mktemp("game") / "tiny"))
