"""Levels that excite a unit or an action, found by gradients and checked in the real world."""
