"""All people of the kept videos as columns, and how many videos each rule dropped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from idbench.models.concat_id.pairs import copies
from idbench.models.concat_id.pairs import filter as rules
from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.pairs.store import Store
from idbench.picture_hash import BYTES


@dataclass(frozen=True)
class People:
    """The n people of the kept videos; a video's people are neighbours, from left to right.

    Attributes:
        vectors: float32 (n, d) of length 1.
        video: the video's number in the store; person: place from the left; group: people of
            the video.
        share: mean share of the frame that the face fills.
        keys: uint64, a random number of the video's name and the person's place.
        flow, motion, aesthetic: float32, NaN where there is none.
        garment, background: whether the video has that subject reference.
        prints: uint8 (n, PRINTS, BYTES), frames of the video, see `copies`.
    """

    vectors: np.ndarray
    video: np.ndarray
    person: np.ndarray
    group: np.ndarray
    share: np.ndarray
    keys: np.ndarray
    flow: np.ndarray
    motion: np.ndarray
    aesthetic: np.ndarray
    garment: np.ndarray
    background: np.ndarray
    prints: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    def of_group(self, size: int) -> np.ndarray:
        """Indices (m, size): the people of each video with that many people."""
        return np.flatnonzero(self.group == size).reshape(-1, size)


def collect(store: Store, settings: PairSettings) -> tuple[People, dict[str, int]]:
    """The people of the kept videos, and how many videos each rule dropped. Embeddings go into one
    array of their final size: memory is that and about 230 bytes per person."""
    dropped = dict.fromkeys(rules.REASONS, 0)
    count = width = 0
    for row in store.rows(vectors=True):
        reason = rules.why_dropped(row, settings)
        if reason is not None:
            dropped[reason] += 1
        elif row.record is not None and row.vectors is not None:
            count += len(row.record.people)
            width = row.vectors.shape[1]
    people = _empty(count, width)
    position = 0
    for row in store.rows(vectors=True):
        if rules.why_dropped(row, settings) is not None:
            continue
        assert row.record is not None and row.vectors is not None
        record, size = row.record, len(row.record.people)
        part = slice(position, position + size)
        position += size
        people.vectors[part] = row.vectors
        people.video[part], people.group[part] = row.number, size
        people.person[part] = np.arange(size)
        people.share[part] = [p.share for p in record.people]
        people.keys[part] = [person_key(row.name, i) for i in range(size)]
        # Of None NumPy makes NaN.
        people.flow[part], people.motion[part] = record.flow, record.motion
        people.aesthetic[part] = row.aesthetic
        people.garment[part] = record.garment is not None
        people.background[part] = record.background is not None
        people.prints[part] = copies.as_array(record.prints)
    return people, dropped


def person_key(name: str, person: int) -> int:
    """64 random bits of a video's name and the person's place in it."""
    text = f"{person}/{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _empty(count: int, width: int) -> People:
    kinds = {
        "vectors": np.float32, "video": np.int64, "person": np.int64, "group": np.int64,
        "share": np.float64, "keys": np.uint64, "garment": bool, "background": bool,
        "prints": np.uint8,
    }
    shapes = {"vectors": (count, width), "prints": (count, copies.PRINTS, BYTES)}
    return People(**{
        f.name: np.zeros(shapes.get(f.name, count), kinds.get(f.name, np.float32))
        for f in fields(People)
    })
