"""Rows that were appended stay; one that a kill has cut off gives way to the next."""

import gzip

import pytest
from checks import refusal

from mop.artifacts.json_lines import JsonLines
from mop.common import reading


def rows_in(path) -> JsonLines:
    return JsonLines(path, lambda row: row["n"] + 0, "row of numbers", "count again")


def test_a_torn_last_row_counts_for_nothing_and_gives_way(tmp_path):
    rows = rows_in(tmp_path / "new" / "rows.jsonl")
    rows.append({"n": 0}, {"n": float("nan")} | {"n": 1})
    whole = rows.path.read_bytes()
    cases = 0
    for length in range(whole.index(b"\n") + 1, len(whole)):
        rows.path.write_bytes(whole[:length])
        assert rows.read() == [{"n": 0}]
        rows.append({"n": 2})
        assert rows.read() == [{"n": 0}, {"n": 2}]
        cases += 1
    assert cases == 8


def test_what_is_no_row_can_be_left_out(tmp_path):
    rows = rows_in(tmp_path / "rows.jsonl")
    assert list(rows.good_lines()) == []
    rows.path.write_bytes(b'{"n": 0}\n{"n":\n{"m": 1}\n\xff\n{"n":  2}\n{"n": 3')
    assert list(rows.good_lines()) == [(b'{"n": 0}', {"n": 0}), (b'{"n":  2}', {"n": 2})]
    rows.replace([line for line, _ in rows.good_lines()])
    assert rows.path.read_bytes() == b'{"n": 0}\n{"n":  2}\n'


def test_the_file_may_lie_there_packed(tmp_path, monkeypatch):
    rows = rows_in(tmp_path / "rows.jsonl")
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"n": 3}\n' * 1000))
    assert rows.read() == [{"n": 3}] * 1000
    monkeypatch.setattr(reading, "MAX_UNPACKED", 8999)
    assert "gz" in refusal(rows.read)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"n": null}', b"\xff", b'{"m": 1}', b"3"])
def test_what_is_no_row_names_the_file_the_line_and_the_way_out(tmp_path, line):
    rows = rows_in(tmp_path / "rows.jsonl")
    rows.path.write_bytes(b'{"n": 0}\n' + line + b'\n{"n": 0}\n')
    told = refusal(rows.read)
    assert told.startswith(f"{rows.path}, line 2: ") and told.endswith("; count again")
