"""The former name of `lmc_rl`: `python -m core.check_run` is `python -m lmc_rl.check_run`."""

from lmc_rl import __path__ as __path__
