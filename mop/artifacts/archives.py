"""Whether a zip archive, which checkpoints and arrays are, is whole: known from its headers and checksums alone."""

import io
import math
import zipfile

import numpy as np


def open_archive(data: bytes) -> zipfile.ZipFile:
    """The archive that `data` is, if its members are stored as they are, and together are no larger than it.

    So whoever reads them needs no more memory than the file. Raises ValueError, with the reason in a line.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # on a damaged table of contents zipfile raises nearly anything
        raise ValueError("it is no whole zip archive") from error
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed, which no file of this project is")
    if sum(member.file_size for member in members) > len(data):
        raise ValueError("it says that it holds more than the file has")
    return archive


def check_sums(archive: zipfile.ZipFile) -> None:
    """Raises ValueError, naming the member, where the CRC-32 that is stored with one is not that of its bytes."""
    try:
        damaged = archive.testzip()
    except Exception as error:
        raise ValueError("it is damaged: a part of it cannot be read") from error
    if damaged is not None:
        raise ValueError(f"it is damaged: the checksum of {damaged!r} is wrong")


def check_array_headers(archive: zipfile.ZipFile) -> None:
    """Raises ValueError where an array of a .npz archive is larger by its own header than its member is."""
    for member in archive.infolist():
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if dtype.hasobject or file.tell() + dtype.itemsize * math.prod(shape) != member.file_size:
                raise ValueError(f"the array {member.filename!r} does not have the size that its header tells")
