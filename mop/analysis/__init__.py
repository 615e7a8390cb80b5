"""Routing data -> numbers, by numpy alone: no files, no figures."""
