"""Files of `torch.save`, read without running anything: tensors, numbers, texts, dictionaries and lists, nothing else.

`torch.load(weights_only=True)` runs nothing either, but a file of a hundred bytes can take all memory through it
(`bytearray(10**10)`) or through the unpickler in C (the table of its memo), and it needs torch. Here nothing is larger
than the file, and what it says of itself is read in milliseconds, without torch and without its tensors. The rule for
files of every kind is in `mop/common/reading.py`.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mop.common.errors import InputError
from mop.common.reading import check_nesting, check_regular, reading

if TYPE_CHECKING:
    import torch

_MAX_PICKLE = 2**26  # bytes of what a file holds beside its tensors
_NOT_STORED = "a tensor is not stored number by number"


def read_torch(path: str | Path, kind: str, has_tensors: bool = True) -> Any:
    """Read a file that `torch.save` wrote; floating-point numbers in its tensors are finite.

    kind: what the file should be, in words; has_tensors: False leaves None in the place of each tensor.
    """
    with reading(path, kind):
        check_regular(path)
        if not zipfile.is_zipfile(path):
            raise InputError(f"it is no {kind}, or cut short (torch.save did not write all of it)")
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            if archive.getinfo(name).file_size > _MAX_PICKLE:
                raise InputError(f"it holds more than {_MAX_PICKLE:,} bytes beside its tensors")
            pickled = _member(archive, name)
            content = _Unpickler(pickled, archive, name.removesuffix("data.pkl"), has_tensors).load()
        check_nesting(content, max_items=len(pickled))
        return content


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member, and compare its checksum; it is no larger than the file."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise InputError("it is compressed, which no file of torch.save is")
    return archive.read(name)


# --- the pickle -------------------------------------------------------------------------------------------------------


class _Dict(dict):
    """An OrderedDict of a file, without the attributes that torch gives those of modules."""

    def __init__(self):
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


class _Dtype:
    """A dtype of NumPy, of which the pickle tells first the letters and then the order of bytes."""

    def __init__(self, letters: str, *_: Any):
        self.letters = letters

    def __setstate__(self, state: tuple) -> None:
        self.letters = f"{state[1]}{self.letters}".lstrip("|")


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.letters)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


_DTYPES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_KNOWN = {
    ("collections", "OrderedDict"): _Dict,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,  # before NumPy 2
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}
_OPCODES = (  # of protocol 2, which torch.save writes
    *("PROTO", "STOP", "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT"),
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINUNICODE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
)


class _Unpickler(pickle._Unpickler):  # Python's own: its memo is a dictionary, no table
    """Makes what stands in `_KNOWN`, and tensors; anything else is refused before it is looked for."""

    stack: list[Any]  # of the base class, which declares neither
    pop_mark: Callable[[], list]

    def __init__(self, pickled: bytes, archive: zipfile.ZipFile, folder: str, has_tensors: bool):
        super().__init__(io.BytesIO(pickled))
        self._archive = archive
        self._folder = folder
        self._has_tensors = has_tensors
        self._storages: dict[tuple[str, str], torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return self._tensor if name == "_rebuild_tensor_v2" else _itself
        if (module, name) not in _KNOWN:
            raise InputError(f"it holds {module}.{name}, which is not needed here; nothing of it was loaded")
        return _KNOWN[module, name]

    def persistent_load(self, pid: tuple) -> tuple[str, str]:
        _, dtype, key, *_ = pid
        return dtype, key

    def _tensor(self, storage: tuple[str, str], offset: int, size: tuple, stride: tuple, *_: Any) -> Any:
        if not self._has_tensors:
            return None
        if storage not in self._storages:
            self._storages[storage] = self._storage(*storage)
        flat = self._storages[storage]
        if math.prod(size) > flat.numel():
            raise InputError(_NOT_STORED)
        return flat.as_strided(size, stride, offset)  # within its storage, or it raises

    def _storage(self, dtype: str, key: str) -> "torch.Tensor":
        import torch

        data = bytearray(_member(self._archive, f"{self._folder}data/{key}"))
        if not data:
            return torch.empty(0, dtype=getattr(torch, dtype))
        flat = torch.frombuffer(data, dtype=getattr(torch, dtype))
        if flat.is_floating_point() and not _is_finite(flat):
            raise InputError("it holds numbers that are not finite: its training diverged")
        return flat

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Dict | _Dtype):
            raise InputError("it sets attributes, which is not needed here")
        self.stack[-1].__setstate__(state)

    def load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._update([key, value])

    def load_setitems(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list) -> None:
        if not all(isinstance(key, str | int) for key in items[::2]):  # the hash of tuples in tuples may take for ever
            raise InputError("the keys of a dictionary are neither texts nor integers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch: ClassVar[dict[int, Callable]] = {
        **{opcode: pickle._Unpickler.dispatch[opcode] for opcode in (getattr(pickle, name)[0] for name in _OPCODES)},
        **{pickle.BUILD[0]: load_build, pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems},
    }


def _itself(data: Any, *_: Any) -> Any:
    return data


def _is_finite(values: "torch.Tensor") -> bool:
    if values.element_size() == 2:  # NumPy does not know bfloat16
        values = values.float()
    return bool(np.isfinite(values.numpy()).all())  # torch would wake its threads for each of many small tensors
