"""Simulators of agent and environment: Minigrid's rules as tensors, and a learned world model."""
