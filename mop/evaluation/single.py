"""One evaluation for a person to read: of a checkpoint, or of the bot itself; no result is written."""

from tqdm import tqdm

from mop.analysis.metrics import format_metrics
from mop.common.files import check_writable
from mop.common.task_mix import tasks_of
from mop.envs.bot_paths import BotPaths
from mop.evaluation.evaluate import encoder_for, evaluate, evaluate_bot, load_for_evaluation
from mop.evaluation.settings import WorldSettings
from mop.training.devices import use_device


def evaluate_one(
    path: str | None, task_id: str | None, max_steps: int | None, cache_dir: str, worlds: WorldSettings
) -> int:
    """Evaluate the checkpoint `path`, or the bot if there is none, and print the metrics; returns 0.

    task_id, max_steps: of the worlds, by default the checkpoint's own, of all of its tasks; the bot needs a task.
    cache_dir: where the bot's own results are kept.
    """
    check_writable(cache_dir, "--cache_dir")
    if path is None:
        use_device("cpu")
        bot_paths = BotPaths(task_id, max_steps, cache_dir)
        evaluation = evaluate_bot(bot_paths, worlds.num_episodes, worlds.eval_seed, worlds.num_envs)
        print(f"the BabyAI bot on {task_id}")
        print(format_metrics(evaluation.metrics, worlds.num_episodes))
    else:
        where = use_device(worlds.device)
        checkpoint = load_for_evaluation(path)
        config = checkpoint["config"]
        encoder, own = encoder_for(checkpoint, worlds.lang_encoder), [name for name, _ in tasks_of(config)]
        for name in own if task_id is None else [task_id]:
            limit = max_steps or (config.get("max_steps") if name in own else None)
            with tqdm(total=worlds.num_episodes, desc=name, unit="episode", leave=False, dynamic_ncols=True) as bar:
                evaluation = evaluate(
                    checkpoint, encoder, BotPaths(name, limit, cache_dir), worlds.num_episodes, worlds.eval_seed,
                    worlds.num_envs,
                    record_steps=False, device=where, progress=bar.update,
                )  # fmt: skip
            print(f"{path} on {name}")
            print(format_metrics(evaluation.metrics, worlds.num_episodes))
    return 0
