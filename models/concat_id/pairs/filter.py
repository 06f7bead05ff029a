"""Which videos are kept: the caption speaks of a human, and the same people are there throughout.

Source: Concat-ID, arXiv 2503.14151, Figure 2 (the numbers are in `PairSettings`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np

from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.pairs.store import Row
from idbench.models.concat_id.pairs.tracking import usual_count

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
