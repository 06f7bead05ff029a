"""What the votes of a study say: preference rates, agreement of voters, strengths of systems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from idbench import statistics
from idbench.errors import UserError
from idbench.output import escape_markdown
from idbench.reports import terminal
from idbench.reports.study_record import TITLES, Study
from idbench.reports.voter_agreement import (
    bradley_terry_interval,
    counts,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
)
from idbench.reports.votes import Votes
from idbench.statistics import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

Table = list[dict[str, object]]
"""Rows of text and numbers by column."""


@dataclass(frozen=True)
class Preference:
    """How often one system was preferred to another for one question. `rate`: share of votes 0..1,
    a tie as half, with its 95% interval over identities; `p_value` of no preference,
    Holm-corrected."""

    question: str
    first: str
    second: str
    wins: int
    ties: int
    losses: int
    rate: Estimate
    p_value: float | None
    by_voter: dict[str, float]


@dataclass(frozen=True)
class Agreement:
    """Agreement of voters on one question. None: cannot be said (one vote a pair, one answer)."""

    question: str
    raw: float | None
    fleiss_kappa: float | None
    krippendorff_alpha: float | None
    pairs: int


@dataclass(frozen=True)
class Strength:
    """Bradley-Terry log strength of a system (mean 0) with its interval, and the share of its
    comparisons that it won, a tie as half."""

    question: str
    system: str
    rank: int
    strength: float
    low: float | None
    high: float | None
    share: Estimate


@dataclass(frozen=True)
class Result:
    """Everything that `idbench study score` says."""

    study: str
    systems: tuple[str, ...]
    voters: dict[str, int]
    expected: int
    preferences: tuple[Preference, ...]
    agreements: tuple[Agreement, ...]
    strengths: tuple[Strength, ...]
    left: float | None


def score(study: Study, files: Sequence[Path]) -> Result:
    """Read the votes in `files`. Raises UserError: no votes, a file that does not fit the study, or
    one voter in two files."""
    read: dict[str, Votes] = {}
    for path in files:
        found = Votes.open(path, study)
        if found.voter in read:
            raise UserError(
                f"{path} contains votes of {found.voter}, as another file does; pass one."
            )
        read[found.voter] = found
    table = _table(study, read)
    if not len(table):
        raise UserError(
            f"{study.folder} has no votes yet; let people vote with `idbench study serve "
            f"{study.folder}`."
        )
    by_question = {q: mine for q in study.questions if len(mine := table[table.question == q])}
    return Result(
        study.id, tuple(study.systems), {name: len(v.votes) for name, v in read.items()},
        len(study.pairs) * len(study.questions), _preferences(study, by_question),
        tuple(_agreement(question, mine) for question, mine in by_question.items()),
        tuple(s for question, mine in by_question.items()
              for s in _strengths(study, question, mine)),
        float(table.left.mean()),
    )


def _table(study: Study, read: Mapping[str, Votes]) -> pd.DataFrame:
    """A row a vote. `first`, `second`: systems; `value` and `left`: 1 where the first system or
    the left video was preferred, 0 where the other, 0.5 for a tie."""
    import pandas as pd

    clusters = dict(zip(study.samples, statistics.identity_clusters(
        [sample.identities for sample in study.samples.values()]), strict=True))
    rows = []
    for voter, of in read.items():
        for vote in of.votes:
            pair = study.by_id[vote.pair]
            left = {"left": 1.0, "right": 0.0, "tie": 0.5}[vote.choice]
            rows.append((
                voter, pair.id, vote.question, study.videos[pair.first], study.videos[pair.second],
                left if vote.left == pair.first else 1 - left, left, clusters[pair.sample],
            ))
    columns = ["voter", "pair", "question", "first", "second", "value", "left", "cluster"]
    return pd.DataFrame(rows, columns=columns)


def _preferences(study: Study, by_question: Mapping[str, pd.DataFrame]) -> tuple[Preference, ...]:
    rows = []
    for question, of in by_question.items():
        for (a, b), mine in of.groupby(["first", "second"]):
            values, clusters = mine.value.tolist(), mine.cluster.tolist()
            by_voter = mine.groupby("voter", sort=False).value.mean()
            rows.append(Preference(
                question, study.systems[a], study.systems[b],
                values.count(1.0), values.count(0.5), values.count(0.0),
                statistics.estimate(values, clusters),
                statistics.sign_flip([v - 0.5 for v in values], clusters), by_voter.to_dict(),
            ))
    corrected = statistics.holm([row.p_value for row in rows])
    return tuple(replace(row, p_value=p) for row, p in zip(rows, corrected, strict=True))


def _agreement(question: str, mine: pd.DataFrame) -> Agreement:
    # Categories are the systems, so that agreement on who wins counts, not on a side.
    chosen = mine["first"].where(mine.value == 1, mine.second).where(mine.value != 0.5, -1)
    table = counts([of.tolist() for _, of in chosen.groupby(mine.pair, sort=False)])
    return Agreement(question, raw_agreement(table), fleiss_kappa(table),
                     krippendorff_alpha(table), int((table.sum(1) >= 2).sum()))


def _strengths(study: Study, question: str, mine: pd.DataFrame) -> list[Strength]:
    number = len(study.systems)
    codes, clusters = mine.cluster.factorize()
    wins = np.zeros((len(clusters), number, number))
    np.add.at(wins, (codes, mine["first"], mine.second), mine.value)
    np.add.at(wins, (codes, mine.second, mine["first"]), 1 - mine.value)
    logs, low, high = bradley_terry_interval(wins, 2_000, statistics.SEED)
    order = np.argsort(-logs)
    made = []
    for index, name in enumerate(study.systems):
        against = mine[(mine["first"] == index) | (mine.second == index)]
        values = against.value.where(against["first"] == index, 1 - against.value)
        bottom, top = (None if np.isnan(x) else float(x) for x in (low[index], high[index]))
        made.append(Strength(
            question, name, int(np.flatnonzero(order == index)[0]) + 1, float(logs[index]),
            bottom, top, statistics.estimate(values.tolist(), against.cluster.tolist()),
        ))
    return made


# -- printing


def to_json(result: Result) -> str:
    """Everything, full numbers."""
    return json.dumps(asdict(result), indent=2, ensure_ascii=False)


def to_markdown(result: Result) -> str:
    """Tables for reading."""
    return "\n\n".join(p if isinstance(p, str) else _rows(p) for p in _parts(result))


def show(result: Result, console: Console) -> None:
    """The same on a terminal of any width."""
    terminal.show_parts(
        [part if isinstance(part, str) else
         [{column: (str(value), "") for column, value in row.items()} for row in part]
         for part in _parts(result)],
        console)


def _parts(result: Result) -> list[str | Table]:
    """Sentences and tables in the order of reading."""
    total = sum(result.voters.values())
    people = ", ".join(f"{name} {count}" for name, count in result.voters.items())
    parts: list[str | Table] = [
        f"{total} votes of {len(result.voters)} voter{'' if len(result.voters) == 1 else 's'} "
        f"({people}; {result.expected} asked of each). "
        f"The left video was preferred in {_percent(result.left)} of the votes.",
        [{
            "question": TITLES.get(p.question, p.question), "preferred": p.first,
            "to": p.second, "rate [95% interval]": _estimate(p.rate),
            "won / tie / lost": f"{p.wins} / {p.ties} / {p.losses}",
            "p (Holm)": "–" if p.p_value is None else f"{p.p_value:.3f}",
            "by voter": ", ".join(_percent(v) for v in p.by_voter.values()),
        } for p in result.preferences],
        "Rate: share of votes, a tie counting half; interval and p-value over identities, for "
        "these voters.",
        [{
            "question": TITLES.get(a.question, a.question),
            "votes that agree": _percent(a.raw), "Fleiss' kappa": _plain(a.fleiss_kappa),
            "Krippendorff's alpha": _plain(a.krippendorff_alpha),
            "pairs with two votes or more": a.pairs,
        } for a in result.agreements],
    ]
    if len(result.systems) > 2:
        questions = [a.question for a in result.agreements]
        ranked = sorted(result.strengths, key=lambda s: (questions.index(s.question), s.rank))
        parts.append([{
            "question": TITLES.get(s.question, s.question), "rank": s.rank,
            "system": s.system, "won of all [95% interval]": _estimate(s.share),
            "Bradley-Terry log strength [95% interval]": f"{s.strength:.2f}" + (
                "" if s.low is None else f" [{s.low:.2f}, {s.high:.2f}]"),
        } for s in ranked])
    return parts


def _rows(rows: Table) -> str:
    import pandas as pd

    shown = pd.DataFrame(rows).map(lambda v: escape_markdown(v) if isinstance(v, str) else v)
    return shown.to_markdown(index=False)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}%"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _estimate(found: Estimate) -> str:
    text = _percent(found.mean)
    if found.low is not None and found.high is not None:
        text += f" [{100 * found.low:.0f}, {100 * found.high:.0f}]"
    return text
