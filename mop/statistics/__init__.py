"""Confidence intervals and tests, by numpy alone."""
