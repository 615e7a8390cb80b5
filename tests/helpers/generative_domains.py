"""A tiny recording of each kind of world, for suites that hold for all of them."""

from pathlib import Path

from generative_data import tiny_pair
from generative_game_data import record_agent, skip_without_games, tiny_agent

from generative.domains.registry import domain_of_recording
from generative.recordings.format import Recording, open_recording
from generative.simulators.world_model import WorldModel

NAMES = ("babyai", "coinrun")
SIZES = {"babyai": "small", "coinrun": "tiny"}


def tiny_recording(name: str, folder: Path) -> Recording:
    """A recording of an untrained policy; a game is skipped where it cannot be had."""
    if name == "babyai":
        return tiny_pair(folder)[0]
    skip_without_games()
    return open_recording(record_agent(tiny_agent(folder), folder / "recording"))


def untrained_model(name: str, recording: Recording) -> WorldModel:
    """A small simulator, untrained."""
    encoding, domain = recording.config["encoding"], domain_of_recording(recording)
    num_actions = len(encoding.get("actions", range(7)))
    sizes = domain.presets[SIZES[name]]
    return WorldModel(domain, sizes, encoding["hidden_size"], encoding["lang_dim"], num_actions)
