"""Files and text of a study of levels: table, arrays, figure, pictures and films of survivors, summary."""

from pathlib import Path

import numpy as np
import orjson

from generative.domains.babyai.render import episode_film
from generative.figures.film import WRITERS, draw_still, film_bytes
from generative.figures.synthesis import plot_search
from generative.synthesis.study import Study
from mop.common.files import write_atomic, write_csv, write_figure, write_json
from mop.plotting.style import counted


def write_study(study: Study, out: Path, quantity: str, title: str, sizes, film_format: str | None) -> None:
    """Write table, arrays, figure and pictures to a folder."""
    levels, table = study.found.levels, study.table()
    write_csv(out / "levels.csv", table, "%.6g")
    arrays = {
        "codes": np.stack([level.codes for level in levels]),  # (N, H, W)
        "position": np.array([level.position for level in levels]),  # (N, 2)
        "direction": np.array([level.direction for level in levels]),
        "world_seed": np.array([level.seed for level in levels]),
        "predicted": study.found.predicted,
        "achieved": np.array([rollout.achieved[0] for rollout in study.rollouts]),
        "survives": study.survives,
        "curve": study.found.curve,  # (I, N)
        "curve_without_gradients": study.without_gradients.curve,
        "random_values": study.random.values[0],  # (M,)
    }
    write_atomic(out / "levels.npz", lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    curves = (study.found.curve, study.without_gradients.curve)
    figure = plot_search(*curves, arrays["random_values"], arrays["achieved"], study.survives, quantity)
    write_figure(out / "search.png", figure)
    write_json(out / "summary.json", {"quantity": quantity, **study.numbers()}, orjson.OPT_INDENT_2)
    for old in (path for ending in ("png", *WRITERS) for path in out.glob(f"level_*.{ending}")):
        old.unlink()
    for row in table[table.survives].itertuples():
        _write_level(study, row, out, quantity, title, sizes, film_format)


def _write_level(study: Study, row, out: Path, quantity: str, title: str, sizes, film_format: str | None) -> None:
    rows = study.rollouts[row.level].rows
    bot = f"the bot needs {counted(row.bot, 'step')}" if isinstance(row.bot, int) else f"the bot fails ({row.bot})"
    lines = [
        f"{title}, level {row.level}: mission {row.mission}",
        f"{quantity}: {row.predicted:.4g} predicted, {row.achieved:.4g} achieved, more than {row.percentile:.4g} % of "
        f"random levels ({row.before:.4g} in the world that it began as); {bot}",
    ]
    film = episode_film(rows, lines, sizes)
    still = draw_still(film, (0, study.search.num_steps))
    write_atomic(out / f"level_{row.level}.png", lambda file: still.save(file, "PNG"))
    if film_format is not None:
        content = film_bytes(film, film_format)
        write_atomic(out / f"level_{row.level}.{film_format}", lambda file: file.write(content))


def summary(study: Study, quantity: str) -> str:
    """The result in lines, for the screen."""
    table, numbers = study.table(), study.numbers()
    lines = [
        "{quantity} of {num_random:,} random levels: mean {random_mean:.4g}, sd {random_sd:.3g}, 95 % are below "
        "{random_95:.4g}, all below or at {random_max:.4g}",
        "found: mean {achieved:.4g} achieved, {predicted:.4g} predicted (difference of {gap_median:.2g} in the median, "
        "{gap_max:.2g} at most), {before:.4g} before",
        "the same search without gradients: {without_gradients:.4g} predicted; gradients add {gain:.3g}"
        + (" ± {gain_half:.2g} (95 %, over levels)" if len(table) > 1 else ""),
        "an untrained policy in these levels: percentile {untrained_percentile:.3g} in the mean, "
        "{untrained_survive} of {num_levels} at {min_percentile:g} or above",
        "{survive} of {num_levels} survive (the bot cannot solve {unsolved} of these); of the others {illegal} are not "
        "legal, and {low} below percentile {min_percentile:g}",
    ]
    if "seen" in numbers:
        shares = (f"{name} {share:.0%} ({of_random:.0%})" for name, (share, of_random) in numbers["seen"].items())
        lines.append(f"what the agent sees at first, of survivors (of random levels): {', '.join(shares)}")
    text = table.drop(columns="world_seed").to_string(index=False, float_format="{:.4g}".format)
    return "\n".join([text, "", *(line.format(quantity=quantity, **numbers) for line in lines)])
