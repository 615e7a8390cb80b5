"""Learn a simulator of a policy's worlds from a recording, with the frozen policy inside.

    python -m generative.train_gen_model --data_dir recordings/X
    python -m generative.train_gen_model --data_dir recordings/X --agent_file checkpoint_final.pt --num_updates 2000
    python -m generative.train_gen_model --data_dir recordings/X --tgm_exp_name mine --resume        after Ctrl-C, ...
    python -m generative.train_gen_model --data_dir recordings/coinrun_X --param_name hard-rec --device gpu

The model sees the first --num_initializing_steps frames of a window, and simulates --num_sim_steps frames from there;
its loss is a sum of terms, each with its weight (docs/generative.md; of games docs/coinrun.md). Windows are those of
training worlds; the model that is best in validation worlds is kept. How good it is in test
worlds: generative.fidelity.

Writes simulators/<tgm_exp_name>/: checkpoint_final.pt, training_log.csv, training_curve.png, training_state.pt.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from generative.domains.base import Domain
from generative.domains.registry import DOMAINS, domain_of_recording, load_recorded_policy
from generative.recordings.format import open_recording
from generative.simulators.training import SETTINGS, make_config, resolve_settings, train
from mop.common.configuration import Parser, check_flags, integer, optional, shown, text
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable
from mop.training.devices import choose_device


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.train_gen_model", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="folder of the recording (generative.record)")
    parser.add_argument("--agent_file", help="checkpoint of the recorded policy (default: the one that was recorded)")
    parser.add_argument("--env_name", help="task of the recording, to make sure (default: whatever it is)")
    presets = "; ".join(f"{' or '.join(domain.presets)} (of {kind})" for kind, domain in DOMAINS.items())
    parser.add_argument("--param_name", help=f"sizes: {presets} (default: the first)")
    for name, (default, _, meaning) in SETTINGS.items():
        what = f"{meaning} (default: {_default_text(name, default)})"
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, metavar="VALUE", help=what)
    parser.add_argument("--loss_scale_gen_adv", default=0, help="0: there is no adversarial loss")
    parser.add_argument("--save_interval", default=0, help="updates between checkpoints besides the last; 0: none")
    parser.add_argument("--log_interval", default=50, help="updates between rows of the log (default: %(default)s)")
    parser.add_argument("--tgm_exp_name", help="name of the simulator (default: that of the recording)")
    parser.add_argument("--output_dir", default="simulators", help="where simulators are (default: %(default)s)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--device", default="cpu", help="cpu, gpu, auto; of BabyAI cpu (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with the run of this name")
    return parser


def _default_text(name: str, default: float) -> str:
    """The default of a setting, and what it is in a preset of another domain."""
    others = {
        preset: settings[name]
        for domain in DOMAINS.values()
        for preset, settings in (domain.settings or {}).items()
        if settings.get(name, default) != default
    }
    return ", ".join([f"{default:g}", *(f"of a game's {preset} {value:g}" for preset, value in others.items())])


def check_given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that are given; checked in place, with the flags that need no recording. Raises InputError."""
    given = argparse.Namespace(**{name: value for name, value in vars(args).items() if name in SETTINGS})
    check_flags(given, **{name: SETTINGS[name][1] for name in vars(given)})
    check_flags(args, save_interval=integer(0), log_interval=integer(1), tgm_exp_name=optional(text), data_dir=text)
    if str(args.loss_scale_gen_adv) not in ("0", "0.", "0.0"):
        raise InputError("--loss_scale_gen_adv must be 0: this model has no adversarial loss")
    return vars(given)


def check_domain(args: argparse.Namespace, domain: Domain) -> None:
    """Check the flags that depend on the kind of world, in place."""
    args.param_name = args.param_name or next(iter(domain.presets))
    if args.param_name not in domain.presets:
        raise InputError(f"--param_name must be {' or '.join(domain.presets)}, not {shown(args.param_name)}")
    if args.device != "cpu" and not domain.has_gpu:
        raise InputError(f"--device must be cpu, not {shown(args.device)}: policies of {domain.title} run there alone")


def main(words: Sequence[str] | None = None, on_save: Callable[[], object] = lambda: None) -> int:
    """Check the flags (None: those of the command line), train, print how to go on; on_save: as `drive`."""
    args = parser().parse_args(words)
    given = check_given(args)
    recording = open_recording(args.data_dir)
    domain = domain_of_recording(recording)
    check_domain(args, domain)
    settings = resolve_settings(domain, args.param_name, given)
    task_id = recording.config["encoding"]["task_id"]
    if args.env_name not in (None, task_id):
        raise InputError(f"--env_name: {args.data_dir} is a recording of {task_id}, not of {args.env_name}")
    policy, agent = load_recorded_policy(recording, args.agent_file, args.lang_encoder)
    config = make_config(domain, settings, args.param_name, recording, agent)
    device = choose_device("cuda" if args.device == "gpu" else args.device)
    if device.type != "cpu":
        policy.to(device)
    label = args.tgm_exp_name or recording.folder.name
    folder = Path(args.output_dir) / label
    check_writable(folder, "--output_dir")
    code = train(
        domain, config, policy, recording, folder, label=label, device=device, log_interval=args.log_interval,
        save_interval=args.save_interval, is_resumed=args.resume, on_save=on_save,
    )  # fmt: skip
    if code == 0:
        print(f"evaluate it: python -m generative.fidelity --simulator {folder} --data_dir {args.data_dir}")
    return code


if __name__ == "__main__":
    run_script(main)
