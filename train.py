"""Train the GRU baseline on a BabyAI task by imitating the BabyAI bot: one GRU where train_mop.py has a mixture.

    python train.py --task_id BabyAI-GoToObj-v0 --trial 100

It shares config.yaml with train_mop.py (keys of the experts have no effect; `gru_hidden_size` does) and writes to the
same tree, so give it trial numbers of its own.
"""

from mop.common.errors import run_script
from mop.common.train_config import parse_config


def main() -> None:
    config, given = parse_config(__doc__)
    from mop.training.train import train  # here: PyTorch takes a while to load, and --help needs none

    train(config | {"policy": "gru"}, given)


if __name__ == "__main__":
    run_script(main)
