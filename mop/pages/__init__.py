"""What the apps show, and the marimo pieces that show it; imports every other room.

torch, pandas and Minigrid are imported by the functions that need them: a page opens seconds sooner.
"""
