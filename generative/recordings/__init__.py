"""Recordings of policies: many episodes with worlds, views, actions, hidden states, routing.

`open_recording` is documented to be imported from here.
"""

from generative.recordings.format import open_recording

__all__ = ["open_recording"]
