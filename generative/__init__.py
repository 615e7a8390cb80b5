"""A simulator of agent and environment, the policy inside: recordings, attribution through time and world, checks."""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported
