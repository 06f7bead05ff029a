"""Which videos are kept, and all people of those as columns.

A video is kept if its caption speaks of a human and the same people are there throughout.
Source: Concat-ID, arXiv 2503.14151, Figure 2 (the numbers are in `PairSettings`).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np

from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.pairs.store import Row, Store
from idbench.models.concat_id.pairs.tracking import usual_count
from idbench.picture_hash import BYTES, PRINTS, as_array

HUMAN_TERMS = tuple(
    """
    actor actors actress actresses adult adults artist artists athlete athletes babies baby boy
    boyfriend boys bride brother businessman businessmen businesswoman chef child children couple
    dad dancer dancers daughter doctor everybody everyone family farmer father fellow female
    females fisherman friend friends gentleman gentlemen girl girlfriend girls grandfather grandma
    grandmother grandpa guy guys he her hers herself him himself his human humans husband
    individual individuals infant interviewer journalist kid kids ladies lady male males man men
    mom mother musician nurse patient people person persons policeman policewoman presenter
    reporter sailor she singer singers sister soldier soldiers somebody someone son student
    students teacher teachers teen teenager teenagers toddler tourist tourists wife woman women
    youth youths
    """.split()
)
"""A caption with one of these words, as a whole word in any case, speaks of a human.

The paper gives no list; this one is ours."""

NO_TERMS = "none"

NO_TERM = "no human term in the caption"
UNREADABLE = "unreadable"
NO_FACE = "no face in most frames"
TOO_MANY = "more people than the limit"
COUNT = "inconsistent number of people"
IDENTITY = "identity changes between frames"
ORDER = "people change their order in every frame"
REASONS = (NO_TERM, UNREADABLE, NO_FACE, TOO_MANY, COUNT, IDENTITY, ORDER)
"""Why a captioned video is dropped; the first that holds is counted."""


def has_human_term(caption: str, terms: str = "") -> bool:
    """Whether the caption has one of the terms as a whole word, in any case; terms are separated by
    commas, empty: `HUMAN_TERMS`; `none`: every caption passes. In scripts without capitals, such as
    Chinese or Arabic, which join words, a term may be a part of a word."""
    if terms.strip().lower() == NO_TERMS:
        return True
    chosen = tuple(t.strip() for t in _composed(terms).split(",") if t.strip())
    return _pattern(chosen or HUMAN_TERMS).search(_composed(caption)) is not None


@cache
def _pattern(terms: tuple[str, ...]) -> re.Pattern[str]:
    found = (
        (r"(?<!\w)" if _has_case(term[0]) else "") + re.escape(term)
        + (r"(?!\w)" if _has_case(term[-1]) else "")
        for term in terms
    )
    return re.compile("|".join(found), re.IGNORECASE)


def _has_case(letter: str) -> bool:
    return letter.lower() != letter.upper()


def _composed(text: str) -> str:
    """`text` with each accented letter as one character, however it was typed."""
    return unicodedata.normalize("NFC", text)


def count_inconsistency(counts: Sequence[int]) -> float:
    """Share of frames, 0..1, whose number of faces is not the usual one; 1 without frames."""
    if not len(counts):
        return 1.0
    usual = usual_count(counts)
    return sum(int(c) != usual for c in counts) / len(counts)


def identity_inconsistency(cosines: Sequence[float | None], threshold: float) -> float:
    """Share of `cosines` under `threshold`, 0..1; 0 if none can be compared. They are of
    consecutive frames (the lowest of the people matched one to one); None where the numbers of
    faces differ."""
    values = np.asarray(cosines, np.float64)
    values = values[np.isfinite(values)]
    return float((values < threshold).mean()) if len(values) else 0.0


def why_dropped(row: Row, settings: PairSettings) -> str | None:
    """The first of `REASONS` that holds for a captioned video, or None: it is kept. Raises
    ValueError: the video was not read yet."""
    if not has_human_term(row.caption or "", settings.human_terms):
        return NO_TERM
    if row.problem is not None:
        return UNREADABLE
    if row.record is None:
        raise ValueError(f"{row.name} was not read")
    counts, cosines = row.record.counts, row.record.cosines
    usual = usual_count(counts)
    if usual == 0:
        return NO_FACE
    if usual > settings.people:
        return TOO_MANY
    if count_inconsistency(counts) > settings.count_share:
        return COUNT
    if identity_inconsistency(cosines, settings.identity_cosine) > settings.identity_share:
        return IDENTITY
    return None if row.record.people else ORDER


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
        prints: uint8 (n, PRINTS, BYTES), frames of the video, see `picture_hash`.
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
    dropped = dict.fromkeys(REASONS, 0)
    count = width = 0
    for row in store.rows(vectors=True):
        reason = why_dropped(row, settings)
        if reason is not None:
            dropped[reason] += 1
        elif row.record is not None and row.vectors is not None:
            count += len(row.record.people)
            width = row.vectors.shape[1]
    people = _empty(count, width)
    position = 0
    for row in store.rows(vectors=True):
        if why_dropped(row, settings) is not None:
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
        people.prints[part] = as_array(record.prints)
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
    shapes = {"vectors": (count, width), "prints": (count, PRINTS, BYTES)}
    return People(**{
        f.name: np.zeros(shapes.get(f.name, count), kinds.get(f.name, np.float32))
        for f in fields(People)
    })
