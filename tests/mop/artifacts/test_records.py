"""Dataclasses of arrays: what was written is read again, and what does not fit their declaration is named."""

from dataclasses import dataclass

import numpy as np
from checks import refusal

from mop.artifacts.records import array, read_record, write_record


@dataclass(frozen=True, eq=False)
class Vectors:
    """Some vectors with names."""

    vectors: np.ndarray = array("K S", "float")
    names: np.ndarray = array("K", "text")
    square: np.ndarray = array("S S", "float or nan")
    ends: np.ndarray = array("2", "int")
    pictures: np.ndarray = array("K ...", "int")
    is_whole: np.ndarray = array("", "bool")


WHOLE = {
    "vectors": np.ones((2, 3)),
    "names": np.array(["a", "b"]),
    "square": np.full((3, 3), np.nan),
    "ends": np.array([0, 3]),
    "pictures": np.zeros((2, 5, 4), np.uint8),
    "is_whole": np.array(True),
}
CHANGES = {
    "vectors": [np.ones((2, 4)), np.ones((3, 3)), np.ones(6), np.ones((2, 3), int), np.full((2, 3), np.inf)],
    "names": [np.array(["a"]), np.arange(2), np.array([["a", "b"]])],
    "square": [np.ones((3, 2)), np.ones((3, 3), complex)],
    "ends": [np.arange(3), np.array([0.0, 3.0]), np.array(["0", "3"])],
    "pictures": [np.zeros((3, 5), int), np.array(0), np.zeros((2, 5))],
    "is_whole": [np.array(1), np.array([True])],
}


def test_a_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path / "a.npz", Vectors(**WHOLE))
    found = read_record(tmp_path / "a.npz", Vectors, "file of vectors")
    for name, values in WHOLE.items():
        np.testing.assert_array_equal(getattr(found, name), values)


def test_arrays_of_another_form_are_named(tmp_path):
    path, count = tmp_path / "a.npz", 0
    for name, ways in CHANGES.items():
        for changed in ways:
            np.savez(path, **WHOLE | {name: changed})
            line = refusal(read_record, path, Vectors, "file of vectors")
            assert str(path) in line and (name in line or changed.ndim == 2), line
            count += 1
        np.savez(path, **{other: values for other, values in WHOLE.items() if other != name})
        assert name in refusal(read_record, path, Vectors, "file of vectors")
    assert count == 18
