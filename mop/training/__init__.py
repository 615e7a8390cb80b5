"""Imitation of the bot: config -> final checkpoint."""
