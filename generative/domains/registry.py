"""The kinds of worlds, by name, and the policy of a recording."""

from pathlib import Path
from typing import Any

from generative.domains.base import domain_of
from generative.recordings.format import Recording, find_policy


def load_recorded_policy(
    recording: Recording, path: str | Path | None = None, encoder: str | None = None
) -> tuple[Any, Path]:
    """Load the policy of a recording; returns it and the path of its checkpoint.

    path: where the checkpoint lies now, if it was moved; encoder: where its mission encoder lies now.
    """
    path = find_policy(recording, path, "--agent_file (--checkpoint of an analysis)")
    return domain_of(recording.config["encoding"]).load_policy(path, encoder)[0], path
