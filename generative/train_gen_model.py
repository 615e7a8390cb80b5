"""Learn a simulator of a policy's worlds from a recording, with the frozen policy inside.

    python -m generative.train_gen_model --data_dir recordings/X
    python -m generative.train_gen_model --data_dir recordings/X --agent_file checkpoint_final.pt --num_updates 2000
    python -m generative.train_gen_model --data_dir recordings/X --tgm_exp_name mine --resume        after Ctrl-C, ...
    python -m generative.train_gen_model --data_dir recordings/coinrun_X --param_name hard-rec --device gpu

The model sees the first --num_initializing_steps frames of a window, and simulates --num_sim_steps frames from there;
its loss is a sum of terms, each with its weight (docs/generative.md; of games docs/coinrun.md). Windows are those of
training worlds; the model that is best in validation worlds is kept. What it is worth in test worlds:
generative.fidelity.

Writes simulators/<tgm_exp_name>/: checkpoint_final.pt, training_log.csv, training_curve.png, training_state.pt.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from generative.domains.base import BABYAI, DOMAINS, GAMES, Domain, domain_of
from generative.domains.registry import load_recorded_policy
from generative.recordings.format import open_recording
from generative.simulators.resuming import saved_state
from generative.simulators.training import SETTINGS, SimulatorRun, make_config
from mop.common.configuration import Parser, check_flags, integer, optional, shown, text
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, remove_leftovers
from mop.training.devices import choose_device
from mop.training.loop import CURVE_NAME, FINAL_NAME, drive


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
        for preset, settings in domain.defaults.items()
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


def settle(args: argparse.Namespace, domain: Domain) -> dict[str, Any]:
    """The settings of flags and the domain's defaults; the flags are checked in place. Raises InputError."""
    given = check_given(args)
    args.param_name = args.param_name or next(iter(domain.presets))
    if args.param_name not in domain.presets:
        raise InputError(f"--param_name must be {' or '.join(domain.presets)}, not {shown(args.param_name)}")
    if args.device != "cpu" and not domain.has_gpu:
        raise InputError(f"--device must be cpu, not {shown(args.device)}: policies of BabyAI run there alone")
    foreign = {f"loss_scale_{name}" for name in {*BABYAI.terms, *GAMES.terms} - {*domain.terms}}
    wrong = next((name for name in given if name in foreign), None)
    if wrong is not None:
        raise InputError(f"--{wrong}: there is no such term in the loss of this recording; leave it out")
    defaults = {name: default for name, (default, _, _) in SETTINGS.items() if name not in foreign}
    return defaults | domain.defaults.get(args.param_name, {}) | given


def to_resume(folder: Path, config: dict, is_resumed: bool) -> dict | None:
    """`saved_state`, of a run that learns from the same recording."""
    in_the_way = "a simulator; go on with --resume, or choose another --tgm_exp_name"
    saved = saved_state(folder, config, ("settings", "sizes"), is_resumed, in_the_way)
    if saved is not None and saved["config"]["recording"]["digest"] != config["recording"]["digest"]:
        raise InputError(f"the run in {folder} learns from another recording, {saved['config']['recording']['path']}")
    return saved


def main(words: Sequence[str] | None = None, on_save: Callable[[], object] = lambda: None) -> int:
    """Check the flags (None: those of the command line), train, tell; on_save: as `drive`."""
    args = parser().parse_args(words)
    recording = open_recording(args.data_dir)
    domain = domain_of(recording.config["encoding"])
    settings = settle(args, domain)
    task_id = recording.config["encoding"]["task_id"]
    if args.env_name not in (None, task_id):
        raise InputError(f"--env_name: {args.data_dir} is a recording of {task_id}, not of {args.env_name}")
    policy, agent = load_recorded_policy(recording, args.agent_file, args.lang_encoder)
    config = make_config(settings, domain.presets[args.param_name], recording, agent)
    device = choose_device("cuda" if args.device == "gpu" else args.device)
    if device.type != "cpu":
        policy.to(device)
    label = args.tgm_exp_name or recording.folder.name
    folder = Path(args.output_dir) / label
    check_writable(folder, "--output_dir")
    torch.set_num_threads(1)  # matrices are small: more threads wait for each other
    with claimed(folder) as is_ours:
        if not is_ours:
            raise InputError(f"another process trains {folder}; choose another --tgm_exp_name")
        saved = to_resume(folder, config, args.resume)
        remove_leftovers(folder.glob(".*.tmp"))
        run = SimulatorRun(config, policy, recording, device)
        if saved is not None and saved["update"] == settings["num_updates"] and (folder / CURVE_NAME).exists():
            print(f"{label} is trained already: {folder / FINAL_NAME}")
            return 0
        try:
            drive(
                run, folder, settings["num_updates"], label, log_interval=args.log_interval,
                checkpoint_interval=args.save_interval, saved=saved, on_save=on_save, is_over=run.is_over,
                checkpoint_on_interrupt=False,
            )  # fmt: skip
        except KeyboardInterrupt:
            return 130
    print(f"what it is worth: python -m generative.fidelity --simulator {folder} --data_dir {args.data_dir}")
    return 0


if __name__ == "__main__":
    run_script(main)
