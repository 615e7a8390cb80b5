"""Training and evaluation on Modal: plans, calls, downloads."""
