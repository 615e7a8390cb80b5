"""The boundary to files: whatever a damaged or foreign one raises becomes one InputError that names it.

`reading` is put around all that looks at the content of a file, before anything is trained or replaced because of it.
The readers run nothing that a file holds, and unpack no more than `MAX_UNPACKED` bytes of a compressed one. Files of
torch are read by `mop.artifacts.torch_files`.
"""

import io
import math
import stat
import zipfile
import zlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import orjson

from mop.common.errors import InputError, one_line

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MAX_UNPACKED = 2**28  # bytes that a compressed file may become, unless it has as many itself
MAX_NUMBER = 1e300  # of a table: of larger ones not even a difference can be drawn
MAX_DEPTH = 50  # of dictionaries and lists in one another
REMAKE = "make it anew, or remove it"


@contextmanager
def reading(path: str | Path, kind: str = "whole file", way_out: str = REMAKE) -> Generator[None]:
    """Turn what the block raises about the content of a file into one InputError: the file, the reason, the way out.

    kind: what the file should be, in words.
    """
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file raises nearly anything
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{path}: {error.strerror}; {way_out}") from error
        raise InputError(f"{path}: it is damaged, or no {kind} ({one_line(error)}); {way_out}") from error


def read_bytes(path: str | Path, way_out: str = REMAKE) -> bytes:
    """Read a file, whatever it holds. A folder or a pipe is refused."""
    with reading(path, way_out=way_out):
        check_regular(path)
        return Path(path).read_bytes()


def check_regular(path: str | Path) -> None:
    """Refuse a pipe, which may be waited for without end, and a folder."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise InputError("it is a folder or a pipe, not a file")


def check_nesting(content: Any, max_items: int) -> None:
    """Refuse lists in lists without end.

    max_items: a file has at least a byte for each item, unless an item stands in several places; then a few bytes can
    be so many items that nothing that looks at each of them would come to an end.
    """
    waiting = [(content, 0)]
    num_items = 0
    while waiting:
        value, depth = waiting.pop()
        num_items += 1
        if num_items > max_items or depth > MAX_DEPTH:
            raise InputError("its dictionaries and lists hold each other without end")
        if isinstance(value, dict):
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(item, depth + 1) for item in value]


def check_types(content: Any, kinds: Mapping[str, Any]) -> None:
    """Refuse what is no dictionary with these keys, each with a value of its type or types; true is no number."""
    for name, kind in kinds.items():
        if not isinstance(content[name], kind) or (isinstance(content[name], bool) and kind is not bool):
            raise InputError(f"its '{name}' cannot be {str(content[name])[:40]!r}")


def read_json(path: str | Path, kind: str = "JSON", way_out: str = REMAKE) -> Any:
    """Read a JSON file."""
    with reading(path, kind, way_out):
        return orjson.loads(read_bytes(path, way_out))


def read_gzip(path: str | Path, way_out: str = REMAKE) -> bytes:
    """Read the content of a file of gzip."""
    with reading(path, "file of gzip", way_out):
        unpacker = zlib.decompressobj(wbits=31)
        content = unpacker.decompress(read_bytes(path, way_out), MAX_UNPACKED)
        if not unpacker.eof:
            raise InputError(f"it is cut short, or holds more than {MAX_UNPACKED:,} bytes")
        return content


def read_npz(path: str | Path, kind: str = "file of arrays", way_out: str = REMAKE) -> "dict[str, np.ndarray]":
    """Read all arrays of a .npz file; Python objects are refused."""
    import numpy as np

    with reading(path, kind, way_out):
        data = read_bytes(path, way_out)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > max(len(data), MAX_UNPACKED):
                raise InputError(f"it unpacks to more than {MAX_UNPACKED:,} bytes")
            for member in archive.infolist():
                with archive.open(member) as file:
                    _check_size(file, member.file_size)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def _check_size(file: IO[bytes], size: int) -> None:
    """Refuse an array of which a header tells more than a file of so many bytes can have: memory is asked for first."""
    from numpy.lib import format as npy

    is_first = npy.read_magic(file) == (1, 0)
    shape, _, dtype = (npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0)(file)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
        raise InputError(f"an array {shape} of {dtype} is cut short")


def read_array(path: str | Path, way_out: str = REMAKE, mmap_mode: Literal["r", "c"] | None = None) -> "np.ndarray":
    """Read a .npy file, or map it into memory (`mmap_mode` of `numpy.load`); Python objects are refused."""
    import numpy as np

    with reading(path, "array", way_out):
        check_regular(path)
        with open(path, "rb") as file:
            _check_size(file, Path(path).stat().st_size)
        return np.load(path, mmap_mode, allow_pickle=False)


def read_csv(
    path: str | Path, kind: str = "table", way_out: str = REMAKE, *,
    texts: Sequence[str] = (), numbers: Sequence[str] = (), key: Sequence[str] = (), **options: Any,
) -> "pd.DataFrame":  # fmt: skip
    """Read a table of CSV with the options of `pandas.read_csv`.

    texts, numbers: columns that it must have, of which kind; a table may have more. key: those of them that are filled
    in every row, and tell the rows apart.
    """
    import numpy as np
    import pandas as pd

    with reading(path, kind, way_out):
        content = io.BytesIO(read_bytes(path, way_out))
        table = pd.read_csv(content, dtype=dict.fromkeys(texts, str), **options)
        if not isinstance(table.index, pd.RangeIndex):  # the first cells of all rows would be labels
            raise ValueError("its rows have more cells than its head")
        if missing := [name for name in (*texts, *numbers) if name not in table]:
            raise ValueError(f"it has no column {' and no column '.join(missing)}")
        for name in numbers:
            if len(table) and table[name].dtype.kind not in "iuf":
                raise ValueError(f"its column {name} holds something else than numbers")
        sizes = table.select_dtypes("float").abs()
        if (np.isfinite(sizes) & (sizes > MAX_NUMBER)).any(axis=None):
            raise ValueError(f"a number is larger than {MAX_NUMBER:g}")
        if key and (table[list(key)].isna().any(axis=None) or table.duplicated(list(key)).any()):
            raise ValueError(f"its rows are not told apart by {', '.join(key)}")
        return table
