"""Train a mixture-of-pathways policy on a BabyAI task by imitating the BabyAI bot.

    python train_mop.py                                         GoToObj with the defaults of config.yaml
    python train_mop.py --task_id BabyAI-UnlockPickup-v0 --trial 1 --residual
    python train_mop.py --task_id BabyAI-UnlockPickup-v0 --trial 2 --lpc_alpha 1e-5
    python train_mop.py --task_id BabyAI-UnlockPickup-v0 --trial 1 --resume

Writes checkpoint_final.pt, training_log.csv and training_curve.png to checkpoints/<task_id>/trial_<N>[/seed_<S>]/.
"""

from mop.common.errors import run_script
from mop.common.train_config import parse_config


def main() -> None:
    config, given = parse_config(__doc__)
    from mop.training.train import train  # here: PyTorch takes a while to load, and --help needs none

    train(config | {"policy": "mop"}, given)


if __name__ == "__main__":
    run_script(main)
