"""Numbers of evaluations and their routing, by numpy alone: no files, no figures; imports base."""
