"""Learn a simulator of a policy's worlds from a recording, with the frozen policy inside.

    python -m generative.train_gen_model --data_dir recordings/X
    python -m generative.train_gen_model --data_dir recordings/X --agent_file checkpoint_final.pt --num_updates 2000
    python -m generative.train_gen_model --data_dir recordings/X --tgm_exp_name mine --resume        after Ctrl-C, ...
    python -m generative.train_gen_model --data_dir recordings/coinrun_X --param_name hard-rec --device gpu

The model and the terms of its loss: docs/generative.md, docs/coinrun.md. What is kept is the model that is best in
validation worlds; how good it is in test worlds: generative.fidelity.

Writes simulators/<tgm_exp_name>/: checkpoint_final.pt, training_log.csv, training_curve.png, training_state.pt.
"""

from dataclasses import dataclass
from pathlib import Path

from generative.agents.config import warn_without_gpu
from generative.domains.registry import DOMAINS, domain_of_recording, load_recorded_policy
from generative.recordings.format import open_recording
from generative.simulators.training import SimulatorRun, SimulatorSettings, make_config, resolve_settings, train
from mop.common.cli import given_values, required, setting
from mop.common.errors import InputError, run_script
from mop.common.values import folder_name
from mop.training.devices import choose_device

SIZES = "; ".join(f"{' or '.join(domain.presets)} (of {domain.title})" for domain in DOMAINS.values())


@dataclass(frozen=True, kw_only=True)
class Settings(SimulatorSettings):
    """The settings of the command; the presets of games have other defaults (docs/coinrun.md)."""

    data_dir: str = required("folder of the recording (generative.record)")
    agent_file: str | None = setting(None, "checkpoint of the recorded policy (default: the one that was recorded)")
    env_name: str | None = setting(None, "task of the recording, to make sure (default: whatever it is)")
    param_name: str | None = setting(None, f"sizes: {SIZES} (default: the first)")
    loss_scale_gen_adv: float = setting(0.0, "there is no adversarial loss", choices=(0.0,))
    save_interval: int = setting(0, "updates between checkpoints besides the last; 0: none", low=0)
    log_interval: int = setting(50, "updates between rows of the log", low=1)
    tgm_exp_name: str | None = setting(None, "name of the simulator (default: the recording's)", parse=folder_name)
    output_dir: Path = setting(Path("simulators"), "where simulators are")
    device: str = setting("cpu", "cpu, gpu, auto; of BabyAI cpu")
    resume: bool = setting(False, "go on with the run of this name")


def main() -> int:
    """Train, and print how to go on."""
    given = given_values(Settings, __doc__)
    settings = Settings(**given)
    recording = open_recording(settings.data_dir)
    domain = domain_of_recording(recording)
    preset = settings.param_name or next(iter(domain.presets))
    if preset not in domain.presets:
        raise InputError(f"--param_name must be {' or '.join(domain.presets)}, not {preset}")
    if settings.device != "cpu" and not domain.has_gpu:
        raise InputError(f"--device must be cpu, not {settings.device}: policies of {domain.title} run there alone")
    task_id = recording.config["encoding"]["task_id"]
    if settings.env_name not in (None, task_id):
        raise InputError(f"--env_name: {settings.data_dir} is a recording of {task_id}, not of {settings.env_name}")
    policy, agent = load_recorded_policy(recording, settings.agent_file)
    config = make_config(domain, resolve_settings(domain, preset, given), preset, recording, agent)
    device = choose_device("cuda" if settings.device == "gpu" else settings.device)
    warn_without_gpu(preset, device.type)
    policy.to(device)
    label = settings.tgm_exp_name or recording.folder.name
    folder = settings.output_dir / label
    run = SimulatorRun(domain, config, policy, recording, device)
    intervals = {"log_interval": settings.log_interval, "save_interval": settings.save_interval}
    train(run, folder, label, resume=settings.resume, **intervals)
    print(f"evaluate it: python -m generative.fidelity --simulator {folder} --data_dir {settings.data_dir}")
    return 0


if __name__ == "__main__":
    run_script(main)
