"""The human study's files: pairs of videos of one sample by two systems, and who prefers which.

    STUDY/study.json         questions, pairs, and which system made which video; never served
    STUDY/media/CODE         videos and references, under codes that reveal nothing
    STUDY/votes/NAME.json    the answers of one voter, by code

Every video is encoded again by the same encoder, so neither its name nor its metadata reveals the
system. Each voter sees the pairs in an order of their own, with each system equally often on the
left and on the right.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from idbench.errors import UserError
from idbench.runs import now
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
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
"""Of a voter."""


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
            first_is_swapped = rng.random() < 0.5  # of an odd number, either may have one more
            swapped = [(i % 2 == 0) == first_is_swapped for i in range(len(pairs))]
            rng.shuffle(swapped)
            for pair, swap in zip(pairs, swapped, strict=True):
                sample = self.samples[pair.sample]
                left, right = (pair.second, pair.first) if swap else (pair.first, pair.second)
                trials.append(Trial(pair.id, sample.prompt, tuple(sample.references), left, right))
        rng.shuffle(trials)
        order: list[Trial] = []
        last = None
        while trials:
            order.append(next((t for t in trials if self.by_id[t.pair].sample != last), trials[0]))
            trials.remove(order[-1])
            last = self.by_id[order[-1].pair].sample
        return order


class Refused(ValueError):
    """An answer that fits no question of the study."""


class BadName(UserError):
    """A name that cannot name a voter."""


def check_name(voter: str) -> str:
    """The voter's name, which also names a file. Raises BadName: empty, longer than 40, or with
    other than letters, digits, - and _."""
    if not NAME.fullmatch(voter):
        raise BadName(f"{voter[:60]!r} cannot name a voter; use 1 to 40 letters, digits, - or _.")
    return voter


class Answer(Part):
    """What a voter's page sends; a choice of None takes the answer back."""

    pair: str
    question: str
    choice: Literal["left", "right", "tie"] | None
    seconds: float = Field(0.0, ge=0, lt=1e7, description="since the question was shown")


class Vote(Answer):
    """An answer that is kept, with the codes of the videos that were on the left and right."""

    choice: Literal["left", "right", "tie"]
    left: str
    right: str
    time: str


class Votes(Stored):
    """STUDY/votes/NAME.json: the answers of one voter; every change is on disk at once."""

    FIX: ClassVar[str] = "pass files written by a study, or restore it"

    study: str = Field(description="id of the study")
    voter: str
    votes: list[Vote]

    _path: Path = PrivateAttr(Path())
    _of: Study = PrivateAttr()

    @classmethod
    def open(cls, path: Path, study: Study) -> Votes:
        """The votes in a file. Raises UserError: damaged, of another study, or with an answer that
        does not fit the study."""
        found = cls.read(path)
        if found.study != study.id:
            raise UserError(
                f"{path} belongs to a different study than {study.folder}; leave it out."
            )
        seen = set()
        for vote in found.votes:
            pair, key = study.by_id.get(vote.pair), (vote.pair, vote.question)
            if (pair is None or key in seen or vote.question not in study.questions
                    or {vote.left, vote.right} != {pair.first, pair.second}):
                raise UserError(f"{path} contains an answer for no pair of the study; restore it.")
            seen.add(key)
        found._path, found._of = path, study
        return found

    @classmethod
    def of(cls, study: Study, voter: str) -> Votes:
        """The votes of `voter` so far."""
        path = study.folder / "votes" / f"{check_name(voter)}.json"
        if path.is_file():
            found = cls.open(path, study)
            if found.voter != voter:
                raise UserError(f"{path} contains the votes of {found.voter!r}; rename it.")
            return found
        made = cls(study=study.id, voter=voter, votes=[])
        made._path, made._of = path, study
        return made

    @property
    def answers(self) -> dict[str, dict[str, str]]:
        """pair -> question -> choice."""
        found: dict[str, dict[str, str]] = {}
        for vote in self.votes:
            found.setdefault(vote.pair, {})[vote.question] = vote.choice
        return found

    def put(self, entry: Mapping[str, Any]) -> None:
        """Add, replace or take back one answer.

        Args:
            entry: the fields of an `Answer`.

        Raises:
            Refused: an unknown pair, question or choice, or no valid time.
        """
        try:
            answer = Answer.model_validate(entry)
        except ValidationError as error:
            raise Refused("no answer") from error
        trials = {trial.pair: trial for trial in self._of.trials(self.voter)}
        if answer.pair not in trials:
            raise Refused("unknown pair")
        if answer.question not in self._of.questions:
            raise Refused("unknown question")
        if answer.choice == "tie" and not self._of.ties:
            raise Refused("unknown choice")
        place = (answer.pair, answer.question)
        votes = {(vote.pair, vote.question): vote for vote in self.votes}
        if answer.choice is None:
            votes.pop(place, None)
        else:
            trial = trials[answer.pair]
            votes[place] = Vote(
                pair=answer.pair, question=answer.question, left=trial.left, right=trial.right,
                choice=answer.choice, seconds=round(answer.seconds, 2), time=now(),
            )
        changed = self.model_copy(update={"votes": list(votes.values())})
        changed.write(self._path)
        self.votes = changed.votes
