"""Compiled arithmetic: the grid, the bot, the policies on a CPU."""
