"""The former name of `lmc_rl`'s commands: `python -m experiments.run_env` is `python -m lmc_rl.run_env`."""

from lmc_rl import __path__ as __path__
