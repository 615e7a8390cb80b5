"""Importing this loads all that a job needs, compiled kernels too; the stand-in's containers are forked afterwards."""

import contextlib
import os

import lmc_rl.cloud  # noqa: F401 - loaded here once
from mop.cloud import cloud_jobs

with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
    cloud_jobs.warm_up()
