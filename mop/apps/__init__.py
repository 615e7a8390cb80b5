"""Pages of the marimo apps and of the static site; they open without torch, pandas and Minigrid."""
