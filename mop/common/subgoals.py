"""The sub-goals of the BabyAI bot, by number, as routing caches and figures name them; -1 is unknown."""

SUBGOALS = ("go_next_to", "open", "pick_up", "drop", "explore")
