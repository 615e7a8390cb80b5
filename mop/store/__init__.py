"""What is on disk, and where: run keys, checkpoints, results, routing caches; imports base.

torch and pandas are imported by the functions that need them, so that pages open without them.
"""
