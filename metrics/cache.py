"""The embedding cache: arrays by everything that could change them, in atomic files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idbench.files import atomic_path, sha256_json

VERSION = 1


def cache_key(
    source_sha256: str,
    frames: Sequence[int],
    protocol_part: Mapping[str, Any],
    weights: Mapping[str, str],
    dtype: str,
) -> str:
    """The key of arrays computed from a file: 64 hexadecimal digits.

    Args:
        source_sha256: of the video's or image's (or, for a text, of its UTF-8) bytes.
        frames: frame indices, in the order of the arrays.
        protocol_part: the fields of the protocol that matter for these arrays, no others, so
            that protocols that differ elsewhere share them.
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
    """Arrays in files under a folder, one file a key; without a folder, nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.hits = self.misses = 0

    def path(self, key: str) -> Path | None:
        """Where the arrays of `key` lie, or would lie."""
        return None if self.folder is None else self.folder / key[:2] / f"{key}.npz"

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of `key`; None when they are not there, or their file is damaged."""
        path = self.path(key)
        if path is not None and path.is_file():
            try:
                with np.load(path, allow_pickle=False) as stored:
                    arrays = {name: stored[name] for name in stored.files}
                self.hits += 1
                return arrays
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
                pass  # Cut or damaged from outside: computed anew and written over.
        self.misses += 1
        return None

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays, atomically.

        Raises:
            DiskFull: the disk is full.
        """
        path = self.path(key)
        if path is None:
            return
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, allow_pickle=False, **{n: np.asarray(v) for n, v in arrays.items()})
