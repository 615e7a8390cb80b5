"""BabyAI: worlds as arrays, their teacher, missions, pictures."""

import os

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # minigrid imports pygame, which greets on stdout
