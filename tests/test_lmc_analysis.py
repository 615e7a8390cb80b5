"""What is read of the rows of experiments, what is left out, and what is refused."""

from pathlib import Path

from lmc_files import SETTINGS, write_experiment

from lmc_rl.analysis import load_experiment
from lmc_rl.records import ROWS_NAME


def test_a_walk_that_was_cut_off_is_left_out(tmp_path):
    """Of the last fork, only the places before the largest drop were written when it was cut off."""
    folder = write_experiment(tmp_path)
    rows, num_episodes = (folder / ROWS_NAME).read_bytes().splitlines(keepends=True), SETTINGS["num_eval_episodes"]
    assert [result.fork for result in load_experiment(folder).forks] == [0, 1, 2, 3]
    cases = 0
    for places_left in (1, 3, SETTINGS["alpha_points"] - 1):
        missing = (SETTINGS["alpha_points"] - places_left) * num_episodes
        (folder / ROWS_NAME).write_bytes(b"".join(rows[:-missing]))
        assert [result.fork for result in load_experiment(folder).forks] == [0, 1, 2]
        cases += 1
    assert cases == 3
    (folder / ROWS_NAME).write_bytes(b"".join(rows[:-1]))  # the last episode lacks its last place
    last = load_experiment(folder).forks[3]
    assert last.returns.shape == (1, num_episodes - 1, SETTINGS["alpha_points"])
