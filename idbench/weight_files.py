"""Compressed files of weights: NAME.safetensors.z, from which NAME.safetensors comes back exactly.

The numbers of trained weights look random, except for their first bits: sign and exponent take few
values. So the bytes of a safetensors file are reordered before zlib compresses them: of all numbers
the first bytes, then the second bytes, and so on. Weights in float16 shrink by 15 %, differences in
4 bits (`deltas`) by 14 %. zlib comes within 0.2 % of LZMA here and reads eight times as fast.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from idbench.files import real

SUFFIX = ".z"
KEPT = 8
"""Files whose content is kept from `sha256_once` until it is loaded."""
_HEADER = struct.Struct("<Q")
"""A safetensors file: the header's size, the header (JSON), the numbers of all tensors."""


_State = tuple[Path, int, int, int]
"""A file, its time and size in this state, and its number on the disk."""
_sha256: dict[_State, str] = {}
_unloaded: dict[_State, bytes] = {}


class DamagedFile(ValueError):
    """A file of weights that is not what was written."""


def read(path: Path) -> bytes:
    """The content of a file, uncompressed if its name ends with `SUFFIX`. Raises DamagedFile."""
    data = path.read_bytes()
    return decompress(data) if path.suffix == SUFFIX else data


def sha256_once(path: Path) -> str:
    """sha256 of what `read` returns, computed once a process for each state of the file.
    Raises DamagedFile."""
    state = _state(path)
    if state not in _sha256:
        content, _sha256[state] = _read_and_hash(path)
        while len(_unloaded) >= KEPT:
            _unloaded.pop(next(iter(_unloaded)))
        _unloaded[state] = content
    return _sha256[state]


def read_checked(path: Path) -> tuple[bytes, str]:
    """What `read` returns, and its sha256. The first call after `sha256_once` reads nothing again.
    Raises DamagedFile."""
    state = _state(path)
    content = _unloaded.pop(state, None)
    if content is None:
        content, _sha256[state] = _read_and_hash(path)
    return content, _sha256[state]


def _read_and_hash(path: Path) -> tuple[bytes, str]:
    content = read(path)
    return content, hashlib.sha256(content).hexdigest()


def _state(path: Path) -> _State:
    found = path.stat()
    return real(path), found.st_mtime_ns, found.st_size, found.st_ino


def compress(data: bytes) -> bytes:
    """A safetensors file in fewer bytes; the same bytes give the same result."""
    coder = zlib.compressobj(9, memLevel=9, strategy=zlib.Z_FILTERED)
    return coder.compress(_reordered(data, lambda width: (-1, width))) + coder.flush()


def decompress(data: bytes) -> bytes:
    """What `compress` was given. Raises DamagedFile."""
    try:
        return _reordered(zlib.decompress(data), lambda width: (width, -1))
    except (zlib.error, struct.error, ValueError, KeyError) as error:
        raise DamagedFile(f"it cannot be uncompressed ({error})") from error


def _reordered(data: bytes, shape: Callable[[int], tuple[int, int]]) -> bytes:
    """`data` with the bytes of each run of numbers of one width, but not its header, as a table
    of `shape`, turned."""
    import numpy as np

    start = _HEADER.size + _HEADER.unpack_from(data)[0]
    parts = [data[:start]]
    for width, size in _runs(json.loads(data[_HEADER.size : start])):
        table = np.frombuffer(data, np.uint8, size, start).reshape(shape(width))
        parts.append(table.T.tobytes())
        start += size
    return b"".join(parts)


def _runs(header: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """(bytes of one number, bytes of all) of neighbouring tensors of one width."""
    header.pop("__metadata__", None)
    tensors = []
    for tensor in header.values():
        first, end = tensor["data_offsets"]
        numbers = math.prod(tensor["shape"])
        if numbers:
            tensors.append((first, (end - first) // numbers, end - first))
    for width, run in groupby(sorted(tensors), key=itemgetter(1)):
        yield width, sum(size for _, _, size in run)
