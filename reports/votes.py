"""The answers of one voter, kept in a file that is complete at any time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, ValidationError

from idbench.errors import UserError
from idbench.reports.study_record import Study
from idbench.runs import now
from idbench.stored import Part, Stored

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


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
