"""Recurrent PPO agents of games."""
