"""Reads the parquet files of `idbench pairs build`, or others with the same few columns.

Columns: `video` (path inside the folder of videos), `caption`, and `references`, a list in the
order of the sequence of `kind` (face, garment or background; by default face), `video` (its
source; optional) and `candidates`, a list of `image` (file relative to the parquet file's
folder). Faces are crops as `references.prepare` makes them, with their background; the file's
metadata has their `alignment`. Other columns are ignored.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from idbench.errors import UserError

KINDS = ("face", "garment", "background")
_NEEDED = ("video", "caption", "references")


@dataclass(frozen=True)
class Slot:
    """One reference of a sample: its kind, its source, and the images to draw from."""

    kind: str
    video: str
    images: tuple[Path, ...]


@dataclass(frozen=True)
class Pair:
    """A video to generate, and its references in the order of the sequence."""

    video: str
    caption: str
    slots: tuple[Slot, ...]


def read_pairs(source: str, references: int) -> Iterator[Pair]:
    """The pairs of a parquet file that have `references` references; further ones are dropped.
    Raises UserError: the file is missing, damaged, or lacks a column; or no pair has enough of
    them."""
    path = Path(source)
    if not source or not path.is_file():
        what = f"There is no pairs file {source}" if source else "No pairs are named"
        raise UserError(
            f"{what}; build them with `idbench pairs build`, and give one of its parquet files: "
            "--set pairs=FILE."
        )
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in _NEEDED if name not in file.schema_arrow.names]
        if missing:
            raise UserError(
                f"The pairs file {path} has no column {missing[0]!r}; pass a parquet file of "
                "`idbench pairs build`."
            )
        found = 0
        for batch in file.iter_batches(1000, columns=list(_NEEDED)):
            for row in batch.to_pylist():
                pair = _pair(row, path, references)
                if len(pair.slots) == references:
                    found += 1
                    yield pair
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"The pairs file {path} is damaged ({error}); build it again.") from error
    if not found:
        raise UserError(
            f"No pair in {path} has {references} references; use another file or --set references="
            "N."
        )


def alignment_of(source: str) -> str | None:
    """How the faces of a readable pairs file are aligned; None if it does not say."""
    said = (pq.read_schema(source).metadata or {}).get(b"alignment")
    return None if said is None else said.decode()


def held_out(
    rows: Sequence[tuple[str, str]], pairs: Iterable[Pair], count: int, seed: int
) -> Iterator[str]:
    """Keys of validation samples: whole groups of videos linked by pairs, in random order.

    Groups larger than `count` are left to training; at most half of all samples are held out.

    Args:
        rows: key and video of each sample. count: number of samples to hold out.
    """
    from scipy.cluster.hierarchy import DisjointSet

    links = DisjointSet()
    for pair in pairs:
        links.add(pair.video)
        for slot in pair.slots:
            links.add(slot.video)
            links.merge(pair.video, slot.video)
    groups: dict[str, list[str]] = {}
    for key, video in rows:
        groups.setdefault(links[video], []).append(key)
    left = min(count, len(rows) // 2)
    names = sorted(groups, key=lambda name: zlib.crc32(f"{seed}/{name}".encode()))
    for name in names:
        if len(groups[name]) <= left:
            left -= len(groups[name])
            yield from groups[name]


def _pair(row: dict[str, Any], path: Path, references: int) -> Pair:
    """The pair of a row, with at most `references` references."""
    try:
        slots = (_slot(row["video"], r, path) for r in row["references"] or ())
        kept = tuple(slot for slot in slots if slot.images)[:references]
        if isinstance(row["video"], str):
            return Pair(row["video"], str(row["caption"] or ""), kept)
    except (AttributeError, TypeError):  # values of another kind
        pass
    raise UserError(
        f"The pairs file {path} has a row that cannot be used (of video {row['video']!r}): video "
        "must be text, and references a list of kind, video and candidates with an image; give a "
        "parquet file of `idbench pairs build`."
    )


def _slot(video: str, reference: dict[str, Any], path: Path) -> Slot:
    kind = reference.get("kind") or "face"
    if kind not in KINDS:
        raise UserError(
            f"The pairs file {path} has a reference of kind {kind!r}; known: {', '.join(KINDS)}."
        )
    images = tuple(
        path.parent / c["image"] for c in reference.get("candidates") or () if c.get("image")
    )
    return Slot(kind, reference.get("video") or video, images)
