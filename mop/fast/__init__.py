"""OPTIONAL: the same results, faster, by code that numba compiles. This folder can be deleted.

`RL_MOP_FAST=0`, or a checkout without this folder or without numba, gives the same worlds and labels, and within
rounding the same weights, from the plain code that each file here replaces:

    worlds          Minigrid's environments                 `gymnasium.make`
    grid            the agent's view                        `mop.envs.geometry.observe`
    teacher, bot,   Minigrid's bot                          `mop.envs.teacher.Teacher`
    search
    policy, ...     steps, sequences, gradients, Adam       `mixture_of_experts`, `torch.optim.Adam`

With --expert_dropout, other random numbers are drawn. `mop.envs.babyai`, `mop.training.execution` and two more import
it, behind `mop.common.speed.IS_FAST` (`tests/mop/test_layers.py`). `tests/mop/fast/test_plain.py` runs both;
benchmarks/README.md says what each part gains.
"""
