"""A simulator of agent and environment, the policy inside: recordings, attribution through time and world, checks."""
