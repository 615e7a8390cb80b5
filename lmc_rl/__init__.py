"""Linear mode connectivity of reinforcement learners: forks of a run, and what is lost between their policies.

Stages run as `python -m lmc_rl.run_env`, `.check_run`, `.analyze` and `.compare`; see docs/lmc.md.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported
