"""Files of rows, a line of JSON each, that only grow: what was appended stays, whenever the writer is killed."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from mop.common.errors import InputError, one_line
from mop.common.files import write_atomic
from mop.common.reading import REMAKE, read_bytes, read_gzip


class JsonLines:
    """The rows of a file. A last line that a kill has cut off counts for nothing, and gives way to the next row.

    The file may lie there as <name>.gz instead, to be read alone.
    """

    def __init__(self, path: str | Path, check: Callable[[Any], object], kind: str = "row", way_out: str = REMAKE):
        """check: raises what it likes where a row is none; kind: what a row is, in words."""
        self.path = Path(path)
        self._check = check
        self._kind = kind
        self._way_out = way_out

    def _lines(self) -> list[bytes]:
        packed = self.path.with_name(f"{self.path.name}.gz")
        if packed.exists() and not self.path.exists():
            content = read_gzip(packed, self._way_out)
        else:
            content = read_bytes(self.path, self._way_out)
        return content[: content.rfind(b"\n") + 1].splitlines()

    def good_lines(self) -> Iterator[tuple[bytes, dict]]:
        """The lines that are rows, as they stand there and as what they say, none where there is no file."""
        for line in self._lines() if self.path.exists() else ():
            with suppress(Exception):  # a check raises what it likes
                row = orjson.loads(line)
                self._check(row)
                yield line, row

    def read(self) -> list[dict]:
        """Read all rows."""
        rows = []
        for line in self._lines():
            try:
                row = orjson.loads(line)
                self._check(row)
            except Exception as error:  # a check raises what it likes
                where = f"{self.path}, line {len(rows) + 1}"
                raise InputError(f"{where}: it is no {self._kind} ({one_line(error)}); {self._way_out}") from error
            rows.append(row)
        return rows

    def replace(self, lines: Sequence[bytes]) -> None:
        """Put these lines in place of those that are there."""
        content = b"".join(line + b"\n" for line in lines)
        if content != (read_bytes(self.path) if self.path.exists() else b""):
            write_atomic(self.path, lambda file: file.write(content))

    def append(self, *rows: Mapping) -> None:
        """Add rows, which are on the disk when this returns; what is no JSON number becomes null."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
        with self.path.open("a+b") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(b"".join(orjson.dumps(row, option=options) for row in rows))
            file.flush()
            os.fsync(file.fileno())
