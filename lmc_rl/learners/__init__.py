"""Learners that can be saved, forked and resumed: SAC and DDPG."""
