"""Importing this loads all that a job needs, compiled kernels too; the stand-in's containers are forked afterwards."""

import contextlib
import os

import lmc_rl.cloud  # noqa: F401 - loaded here once
from mop.jobs import cloud

with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
    cloud.warm_up()
