"""Ways to damage a file: its bytes, what they hold, or another thing in its place."""

import gzip
import io
import os
import pickle
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

BOMB_BYTES = 2**31  # that a bomb unpacks to

FOREIGN = (
    *(b"", b"\0", b"hello world\n", b"[1, 2]", b"{}", b"\x93NUMPY", b"\xff\xfe\x00", b"a,b\n1,2,3\n"),
    *(b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(9)),
)
NASTY = (
    *(None, True, -1, 0, 7, 2**31, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "010", "a\0b", "\ud800", "a\nb", "9" * 5000, "../../x"),
    *([], [[]], {}, {0: 16}, [1, "x"], ["x"] * 3000, torch.zeros(3), [[[[[[[[[[[[[[[]]]]]]]]]]]]]]]),
)


# --- bytes ------------------------------------------------------------------------------------------------------------


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip some bits; lose, double or overwrite a stretch."""
    start = rng.randrange(max(1, len(data)))
    end = start + rng.choice((1, 4, 100, 10_000))
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 1, 5))):
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    lost, doubled = data[:start] + data[end:], data[:end] + data[start:]
    zeroed = data[:start] + bytes(len(data[start:end])) + data[end:]
    return rng.choice((data[:start], lost, doubled, zeroed, bytes(flipped), bytes(flipped)))


# --- another thing in its place ---------------------------------------------------------------------------------------


def _packed_zeros() -> tuple[bytes, int, int]:
    """BOMB_BYTES zeros as a raw deflate stream; their CRC; and that of an .npy header before them."""
    packer, chunk = zlib.compressobj(1, wbits=-15), bytes(2**24)
    header = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": (BOMB_BYTES,)}
    np.lib.format.write_array_header_1_0(header, form)
    crc, packed = zlib.crc32(header.getvalue()), [packer.compress(header.getvalue())]
    for _ in range(BOMB_BYTES // len(chunk)):
        packed.append(packer.compress(chunk))
        crc = zlib.crc32(chunk, crc)
    return b"".join(packed) + packer.flush(), crc, BOMB_BYTES + len(header.getvalue())


def _gzip_bomb() -> bytes:
    packed, crc, size = _packed_zeros()
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + packed + struct.pack("<II", crc, size & 0xFFFFFFFF)


def _zip_bomb(name: str, says: int | None = None) -> bytes:
    """An archive with one member that unpacks to BOMB_BYTES; says: the size that it names instead."""
    packed, crc, size = _packed_zeros()
    size = size if says is None else says
    encoded = name.encode()
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(packed), size, len(encoded), 0)
    local = b"PK\x03\x04" + fields + encoded + packed
    central = b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + encoded
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


def torch_archive(pickled: bytes) -> bytes:
    """A file of torch.save with this pickle."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return packed.getvalue()


def _array_of(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue() + bytes(64)


def _npz_of(array: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("units.npy", array)
    return packed.getvalue()


_DEEP = b"[" * 10**6
_ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
_SHARED = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (k + 1, k, k) for k in range(40)) + b"."
_KEYS = b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (k, k, k + 1) for k in range(40)) + b"}h\x28K\x01s."
PICKLES = {  # that would run something, or take more memory or time than there is
    "memo": b"\x80\x02Nr\xff\xff\xff\x3f.",
    "memo of a list": b"\x80\x02]r\xff\xff\xff\x3f.",
    "bytearray": b"\x80\x02c__builtin__\nbytearray\n\x8a\x06" + (10**11).to_bytes(6, "little") + b"\x85R.",
    "bytes 8": b"\x80\x05\x96" + (10**12).to_bytes(8, "little") + b".",
    "text": b"\x80\x02X\xff\xff\xff\x7f.",
    "shared": _SHARED,
    "keys": _KEYS,
    "deep": b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
    "system": b"\x80\x02cposix\nsystem\nX\x0f\x00\x00\x00touch /executed\x85R.",
    "attributes": b"\x80\x02c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb.",
    "frame": pickle.dumps({"a": 1}, protocol=4),
}
_TEXT_BOMBS = (_DEEP, b'{"a":' * 10**5, b"9" * 10**7, b"a," * 10**6, b"\n" * 10**6, b'"' + b"x" * 10**7)
BOMBS: dict[str, tuple[Callable[[], bytes] | bytes, ...]] = {  # ending of a file -> what may be in its place
    ".pt": (
        *map(torch_archive, PICKLES.values()),
        lambda: _zip_bomb("archive/data.pkl"),
        lambda: _zip_bomb("a/data.pkl", 99),
    ),
    ".npz": (
        *(_npz_of(_array_of(shape)) for shape in ((2**50,), (-1,), (2**31, 2**31))),
        *(_npz_of(_array_of((2,), "|O")), lambda: _zip_bomb("units.npy"), lambda: _zip_bomb("units.npy", 99)),
    ),
    ".npy": (*map(_array_of, ((2**50,), (-3,), (2**40, 0))), _array_of((2,), "|O"), _array_of((2,), "|S99999999")),
    ".gz": (_gzip_bomb, gzip.compress(_DEEP), gzip.compress(b"x" * 10**7)),
    ".yaml": (_ALIASES.encode(), b"lr: " + _DEEP, b"lr: !!python/object/apply:os.system ['touch /executed']\n"),
    **dict.fromkeys((".json", ".jsonl", ".csv"), _TEXT_BOMBS),
}


def replace(path: Path, rng: random.Random) -> None:
    """Put another thing in the place of a file: nothing, a folder, a pipe, a device, a foreign file, a bomb."""
    made = rng.choice(("missing", "folder", "pipe", "device", *["foreign"] * 4, *["bomb"] * 6))
    path.unlink()
    if made == "folder":
        path.mkdir()
    elif made == "pipe":
        os.mkfifo(path)
    elif made == "device":
        path.symlink_to("/dev/zero")
    elif made != "missing":
        chosen = rng.choice(FOREIGN if made == "foreign" else BOMBS[path.suffix])
        path.write_bytes(chosen if isinstance(chosen, bytes) else _kept(chosen))


_made: dict[Any, bytes] = {}


def _kept(make: Callable[[], bytes]) -> bytes:
    if make not in _made:
        _made[make] = make()
    return _made[make]


# --- what it holds ----------------------------------------------------------------------------------------------------


def load_content(path: Path) -> Any:
    """What a file holds, as dictionaries, lists, arrays and tensors; None where it is not to be damaged so."""
    data = path.read_bytes()
    if path.suffix == ".pt":
        return torch.load(io.BytesIO(data), weights_only=True)
    if path.suffix in (".npy", ".npz"):
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        return {"": loaded} if path.suffix == ".npy" else dict(loaded)
    if path.suffix in (".jsonl", ".gz"):
        return [orjson.loads(line) for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()]
    if path.suffix == ".csv":
        return [line.split(",") for line in data.decode().splitlines()]
    return orjson.loads(data) if path.suffix == ".json" else None


def save_content(content: Any, path: Path) -> None:
    """Write what `load_content` gave, with right checksums; nothing where the format cannot hold it."""
    if path.suffix == ".pt":
        torch.save(content, path)
    elif path.suffix == ".npy":
        np.save(path, np.asarray(content.get("", 0)), allow_pickle=False)
    elif path.suffix == ".npz":
        np.savez(path, allow_pickle=False, **content)
    elif path.suffix in (".jsonl", ".gz"):
        rows = b"".join(orjson.dumps(row) + b"\n" for row in content)
        path.write_bytes(gzip.compress(rows, 1) if path.suffix == ".gz" else rows)
    elif path.suffix == ".csv":
        path.write_text("".join(f"{','.join(map(str, line))}\n" for line in content))
    else:
        path.write_bytes(orjson.dumps(content))


def damage_content(content: Any, rng: random.Random) -> None:
    """Change, remove, exchange or add an item, anywhere in nested dictionaries and lists."""
    place = content
    while isinstance(place, dict | list) and place:
        keys = [*place] if isinstance(place, dict) else range(len(place))
        key = rng.choice(keys)
        value = place[key]
        if isinstance(value, dict | list) and value and rng.random() < 0.8:
            place = value
            continue
        kind = rng.random()
        if kind < 0.15:
            del place[key]
        elif kind < 0.25:
            other = rng.choice(keys)
            place[key], place[other] = place[other], place[key]
        elif isinstance(value, torch.Tensor) and kind < 0.8:
            changed = (value[None], value.double(), value.long() - 9, value * float("nan"), value.flatten()[:1])
            place[key] = rng.choice(changed)
        elif isinstance(value, np.ndarray):
            place[key] = _changed(value, rng)
        else:
            place[key] = rng.choice(NASTY)
        return


def _changed(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """Another array of another shape, dtype, order or range."""
    numbers = array if array.dtype.kind in "biuf" else np.zeros(array.shape)
    with np.errstate(all="ignore"):
        return rng.choice((
            array[None], array.reshape(-1)[:1], array[:0] if array.ndim else array, np.flip(array),
            numbers.astype(np.float64) * np.nan, numbers.astype(np.complex128), numbers.astype(np.int64) - 9,
            numbers.astype(np.float32) * np.float32(1e38), array.astype(str), np.zeros(array.shape, "M8[s]"),
        ))  # fmt: skip


def damage(path: Path, rng: random.Random) -> bool:
    """Damage a file; whether its bytes alone were, so that its sums can tell."""
    way = rng.random()
    if way < 0.25:
        replace(path, rng)
        return False
    content = load_content(path) if way > 0.6 else None
    if content is None:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
        return True
    whole = path.read_bytes()
    try:
        for _ in range(rng.choice((1, 1, 3))):
            damage_content(content, rng)
        save_content(content, path)
    except (TypeError, ValueError, OverflowError):  # the format cannot hold it
        path.write_bytes(damage_bytes(whole, rng))
        return True
    return False


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder over another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
