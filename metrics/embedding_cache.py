"""The embedding cache: arrays by everything that could change them, in atomic files.

One file holds all arrays of one source (a video, an image, a text), so that reading what is known
of a video opens one file, and writing it makes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from idbench.files import atomic_path, sha256_json
from idbench.metrics.faces.detect import Faces

VERSION = 1
"""Of the key."""
KEPT = 64
"""Files whose arrays stay in memory, the last ones read or written."""

COUNT = "count"
"""The key of a video's number of frames, which depends on nothing but its bytes."""

Arrays = dict[str, np.ndarray]


def cache_key(
    source_sha256: str, frames: Sequence[int], protocol_part: Mapping[str, Any],
    weights: Mapping[str, str], dtype: str,
) -> str:
    """The key of arrays computed from a source: 64 hexadecimal digits.

    Args:
        source_sha256: of the bytes of the video, the image or the text (UTF-8).
        frames: frame indices, in the order of the arrays.
        protocol_part: only the protocol's fields that matter here, so that protocols share arrays.
        weights: sha256 of each weight file read, by name.
        dtype: in which the networks ran.
    """
    return sha256_json(
        {
            "version": VERSION,
            "source": source_sha256,
            "frames": [int(i) for i in frames],
            "protocol": dict(protocol_part),
            "weights": dict(weights),
            "dtype": dtype,
        }
    )


class EmbeddingCache:
    """Arrays in files under a folder, one file a source; without a folder, nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._read: dict[str, dict[str, Arrays]] = {}
        self._lock = Lock()

    def path(self, source: str) -> Path | None:
        """Where the arrays of a source (its sha256) lie, or would lie."""
        return None if self.folder is None else self.folder / source[:2] / f"{source}.safetensors"

    def get(self, source: str, key: str) -> Arrays | None:
        """The arrays of `key`; None when they are not there, or their file is damaged."""
        return None if self.folder is None else self._entries(source).get(key)

    def put(self, source: str, entries: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Keep arrays by key, atomically, beside those that are known of the source.
        Raises DiskFull: the disk is full."""
        path = self.path(source)
        if path is None or not entries:
            return
        kept = dict(self._entries(source))
        for key, arrays in entries.items():
            kept[key] = {name: np.asarray(value, order="C") for name, value in arrays.items()}
        flat = {f"{key}.{name}": a for key, arrays in kept.items() for name, a in arrays.items()}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(flat))
        self._hold(source, kept)

    def _entries(self, source: str) -> dict[str, Arrays]:
        """Key -> arrays of a source's file, read once for several keys."""
        found = self._read.get(source)
        if found is None:
            path = self.path(source)
            found = self._hold(source, {} if path is None else _entries(path), new=False)
        return found

    def _hold(self, source: str, entries: dict[str, Arrays], new: bool = True) -> dict[str, Arrays]:
        """Keep entries in memory; not `new`: unless there are some, which may be newer ones."""
        with self._lock:  # a thread may read ahead
            if new or source not in self._read:
                self._read[source] = entries
            entries = self._read[source]
            while len(self._read) > KEPT:
                self._read.pop(next(iter(self._read)))
        return entries


def pack_faces(faces: Sequence[Faces]) -> Arrays:
    """The faces of each frame as arrays, for the cache."""
    return {
        "counts": np.array([len(f) for f in faces], np.int64),
        "retried": np.array([f.retried for f in faces], bool),
        "boxes": np.concatenate([f.boxes for f in faces]),
        "landmarks": np.concatenate([f.landmarks for f in faces]),
        "scores": np.concatenate([f.scores for f in faces]),
    }


def unpack_faces(stored: Arrays) -> list[Faces]:
    """The faces of each frame, from `pack_faces`."""
    cuts = np.cumsum(stored["counts"])[:-1]
    parts = [np.split(stored[name], cuts) for name in ("boxes", "landmarks", "scores")]
    retried = stored["retried"]
    return [
        Faces(boxes, landmarks, scores, bool(again))
        for boxes, landmarks, scores, again in zip(*parts, retried, strict=True)
    ]


def _entries(path: Path) -> dict[str, Arrays]:
    try:
        flat = load(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError):
        return {}  # Not there; or cut or damaged from outside: computed anew and written over.
    found: dict[str, Arrays] = {}
    for name, array in flat.items():
        key, _, part = name.partition(".")
        found.setdefault(key, {})[part] = array
    return found
