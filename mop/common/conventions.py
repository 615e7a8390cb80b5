"""Minigrid's numbers and the bot's, by name, for code that loads neither."""

DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # x, y of one step: right, down, left, up
ACTION_NAMES = ("turn left", "turn right", "forward", "pick up", "drop", "toggle", "done")
SUBGOALS = ("go_next_to", "open", "pick_up", "drop", "explore")  # of the bot; -1 is unknown
