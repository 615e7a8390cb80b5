"""Recurrent PPO agents of games."""

from generative.agents.networks import load_agent

__all__ = ["load_agent"]
