"""The human study: pairs of videos of one sample by two systems, judged blind.

    STUDY/study.json         questions, pairs, and which system made which video; never served
    STUDY/media/CODE         videos and references, under codes that reveal nothing
    STUDY/votes/NAME.json    the answers of one voter, by code

Every video is encoded again by the same encoder, so neither its name nor its metadata reveals the
system. Each voter sees the pairs in an order of their own, with each system equally often on the
left and on the right.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, PrivateAttr, model_validator

from idbench.errors import UserError
from idbench.stored import Part, Stored

QUESTIONS = {
    "identity": "In which video does each person look more like their reference picture?",
    "motion_alignment": "In which video do the faces move more as the text asks?",
    "motion_naturalness": "In which video do the faces move more naturally?",
}
"""The three questions of the Concat-ID paper's study, in our words."""
TITLES = {
    "identity": "Identity consistency",
    "motion_alignment": "Facial motion alignment",
    "motion_naturalness": "Facial motion naturalness",
}


class Pair(Part):
    """Two videos of one sample; the system of `first` comes earlier in the list of systems."""

    id: str
    sample: str
    first: str = Field(description="code of a video")
    second: str = Field(description="code of a video")


class StudySample(Part):
    """What was asked of all systems."""

    suite_id: str
    prompt: str
    category: str
    identities: list[str]
    references: list[str] = Field(description="codes of the pictures")


@dataclass(frozen=True)
class Trial:
    """What a voter sees: the codes of the references and of both videos, and the prompt."""

    pair: str
    prompt: str
    references: tuple[str, ...]
    left: str
    right: str


class Study(Stored):
    """STUDY/study.json: a study that was built."""

    FIX: ClassVar[str] = "restore it, or build the study again"

    id: str
    seed: int
    ties: bool = Field(description="whether \"no difference\" is an answer")
    questions: dict[str, str] = Field(min_length=1)
    systems: list[str] = Field(min_length=2)
    samples: dict[str, StudySample]
    videos: dict[str, int] = Field(description="code -> index of the system")
    media: dict[str, str] = Field(description="code -> media type")
    pairs: list[Pair] = Field(min_length=1)

    _folder: Path = PrivateAttr(Path())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for pair in self.pairs:
            if pair.sample not in self.samples:
                raise ValueError(f"pair {pair.id} names an unknown sample")
            if not {pair.first, pair.second} <= self.videos.keys():
                raise ValueError(f"pair {pair.id} names an unknown video")
        shown = {*self.videos, *(c for s in self.samples.values() for c in s.references)}
        if shown != self.media.keys() or any(Path(code).name != code for code in shown):
            raise ValueError("the media are not those of the samples and videos")
        if not all(0 <= system < len(self.systems) for system in self.videos.values()):
            raise ValueError("a video is of an unknown system")
        return self

    @classmethod
    def open(cls, folder: Path) -> Study:
        """The study in `folder`. Raises UserError: there is none, or its study.json is damaged or
        of a newer idbench."""
        path = Path(folder) / "study.json"
        if not path.is_file():
            raise UserError(f"{folder} contains no study; make one with `idbench study build`.")
        study = cls.read(path)
        study._folder = path.parent
        return study

    @property
    def folder(self) -> Path:
        """Its path."""
        return self._folder

    @cached_property
    def by_id(self) -> dict[str, Pair]:
        """The pairs by their ids."""
        return {pair.id: pair for pair in self.pairs}

    def trials(self, voter: str) -> list[Trial]:
        """The pairs in this voter's order, always the same: random, each of two systems on the left
        in half of their pairs, and no sample twice in a row if that can be avoided."""
        rng = random.Random(f"{self.seed}/{self.id}/{voter}")
        trials: list[Trial] = []
        by_systems: dict[tuple[int, int], list[Pair]] = {}
        for pair in self.pairs:
            systems = self.videos[pair.first], self.videos[pair.second]
            by_systems.setdefault(systems, []).append(pair)
        for pairs in by_systems.values():
            swapped = [i % 2 == 1 for i in range(len(pairs))]
            if rng.random() < 0.5:  # of an odd number, either may have one more
                swapped = [not s for s in swapped]
            rng.shuffle(swapped)
            for pair, swap in zip(pairs, swapped, strict=True):
                sample = self.samples[pair.sample]
                left, right = (pair.second, pair.first) if swap else (pair.first, pair.second)
                trials.append(Trial(pair.id, sample.prompt, tuple(sample.references), left, right))
        rng.shuffle(trials)
        return _apart(trials, {p.id: p.sample for p in self.pairs})

    def media_path(self, code: str) -> Path | None:
        """The file of a code; None for anything else."""
        return self._folder / "media" / code if code in self.media else None


def _apart(trials: list[Trial], sample_of: Mapping[str, str]) -> list[Trial]:
    waiting, order = list(trials), []
    last = None
    while waiting:
        found = next((t for t in waiting if sample_of[t.pair] != last), waiting[0])
        waiting.remove(found)
        order.append(found)
        last = sample_of[found.pair]
    return order
