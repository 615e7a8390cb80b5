"""Confidence intervals and tests, by numpy and scipy alone."""
