"""The answers of one voter, kept in a file that is complete at any time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idbench.errors import UserError
from idbench.files import read_json, write_json
from idbench.reports.study import Study
from idbench.runs import now

SCHEMA = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
CHOICES = ("left", "right", "tie")


class Refused(ValueError):
    """An answer that fits no question of the study."""


class BadName(UserError):
    """A name that cannot name a voter."""


def check_name(voter: str) -> str:
    """The voter's name, which also names a file.

    Raises:
        BadName: empty, longer than 40, or with other than letters, digits, - and _.
    """
    if not NAME.fullmatch(voter):
        raise BadName(
            f"{voter[:60]!r} cannot name a voter; use 1 to 40 letters, digits, - or _."
        )
    return voter


class Votes:
    """Reads, changes and writes `STUDY/votes/NAME.json`; each change is on disk when it returns.

    A vote says which pair, which question, which video stood left and right, which was chosen,
    when, and how many seconds after the question was shown. All videos by their codes.
    """

    def __init__(self, study: Study, voter: str) -> None:
        self.study, self.voter = study, check_name(voter)
        self.path = study.folder / "votes" / f"{voter}.json"
        self.trials = {t.pair: t for t in study.trials(voter)}
        self._votes: dict[tuple[str, str], dict[str, Any]] = {}
        if self.path.is_file():
            data = read_json(self.path)
            if data.get("study") != study.id or data.get("voter") != voter:
                raise UserError(f"{self.path} holds votes of another study; remove it.")
            self._votes = {(v["pair"], v["question"]): v for v in data["votes"]}

    @property
    def answers(self) -> dict[str, dict[str, str]]:
        """pair -> question -> choice."""
        found: dict[str, dict[str, str]] = {}
        for (pair, question), vote in self._votes.items():
            found.setdefault(pair, {})[question] = vote["choice"]
        return found

    def put(self, entry: Mapping[str, Any]) -> None:
        """Keep or replace one answer; a choice of None takes it back.

        Raises:
            Refused: an unknown pair, question or choice, or a time that is none.
        """
        pair, question, choice = (entry.get(k) for k in ("pair", "question", "choice"))
        if not isinstance(pair, str) or pair not in self.trials:
            raise Refused("unknown pair")
        if not isinstance(question, str) or question not in self.study.questions:
            raise Refused("unknown question")
        allowed = CHOICES if self.study.ties else CHOICES[:2]
        if choice is not None and choice not in allowed:
            raise Refused("unknown choice")
        seconds = entry.get("seconds", 0)
        if not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e7:
            raise Refused("no time")
        changed = dict(self._votes)
        if choice is None:
            changed.pop((pair, question), None)
        else:
            trial = self.trials[pair]
            changed[pair, question] = {
                "pair": pair, "question": question, "left": trial.left, "right": trial.right,
                "choice": choice, "seconds": round(float(seconds), 2), "time": now(),
            }
        write_json(self.path, as_file(self.study.id, self.voter, list(changed.values())))
        self._votes = changed


def as_file(study: str, voter: str, votes: list[dict[str, Any]]) -> dict[str, Any]:
    """What a votes file holds."""
    return {"schema": SCHEMA, "study": study, "voter": voter, "votes": votes}


def read(path: Path, study: Study) -> tuple[str, list[dict[str, Any]]]:
    """Voter and votes of a file.

    Raises:
        UserError: no votes file, of another study, or with codes that are not of the study.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("votes"), list):
        raise UserError(f"{path} holds no votes; name files that a study wrote.")
    if data.get("study") != study.id:
        raise UserError(f"{path} belongs to another study than {study.folder}; leave it out.")
    votes = data["votes"]
    seen = set()
    for vote in votes:
        try:
            pair = study.by_id[vote["pair"]]
            key = (vote["pair"], vote["question"])
            fits = ({vote["left"], vote["right"]} == {pair.first, pair.second}
                    and vote["question"] in study.questions and vote["choice"] in CHOICES
                    and key not in seen)
            seen.add(key)
        except (KeyError, TypeError):
            fits = False
        if not fits:
            raise UserError(f"{path} holds an answer that fits no pair of the study; restore it.")
    return str(data.get("voter", path.stem)), votes
