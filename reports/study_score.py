"""What the votes of a study say: preference rates, agreement of voters, strengths of systems."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idbench import statistics
from idbench.errors import UserError
from idbench.reports import agreement, votes
from idbench.reports.study import TITLES, Study
from idbench.statistics import Estimate


@dataclass(frozen=True)
class Preference:
    """How often one system was preferred to another for one question.

    `rate` is the share of votes 0..1, a tie as half, with its 95 % interval over identities;
    `p_value` of "both are preferred alike", Holm-corrected over all rows of the study.
    """

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
    """Bradley-Terry log strength of a system (mean 0), its interval, and its share of wins.

    `share` is the share of all its comparisons that it won, a tie as half, with interval.
    """

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


@dataclass(frozen=True)
class _Vote:
    voter: str
    pair: str
    question: str
    first: int
    second: int
    value: float  # 1: the first was preferred, 0: the second, 0.5: a tie
    cluster: str


def score(study: Study, files: Sequence[Path]) -> Result:
    """Read the votes in `files`.

    Raises:
        UserError: no votes, a file that does not fit the study, or one voter in two files.
    """
    names = list(study.samples)
    clusters = dict(zip(names, statistics.identity_clusters(
        [study.samples[n]["identities"] for n in names]), strict=True))
    found: list[_Vote] = []
    voters: dict[str, int] = {}
    sides = []
    for path in files:
        voter, entries = votes.read(path, study)
        if voter in voters:
            raise UserError(f"{path} holds votes of {voter}, as another file does; name one.")
        voters[voter] = len(entries)
        for entry in entries:
            found.append(_vote(study, voter, entry, clusters))
            sides.append({"left": 1.0, "right": 0.0, "tie": 0.5}[entry["choice"]])
    if not found:
        raise UserError(
            f"{study.folder} has no votes yet; let people vote with `idbench study serve "
            f"{study.folder}`."
        )
    questions = [q for q in study.questions if any(v.question == q for v in found)]
    return Result(
        study.id, tuple(study.systems), voters, len(study.pairs) * len(study.questions),
        _preferences(study, found, questions),
        tuple(_agreement(q, [v for v in found if v.question == q]) for q in questions),
        tuple(s for q in questions
              for s in _strengths(study, q, [v for v in found if v.question == q])),
        float(np.mean(sides)),
    )


def _vote(
    study: Study, voter: str, entry: dict[str, Any], clusters: dict[str, str]
) -> _Vote:
    pair = study.by_id[entry["pair"]]
    chosen = {"left": entry["left"], "right": entry["right"], "tie": None}[entry["choice"]]
    value = 0.5 if chosen is None else float(chosen == pair.first)
    return _Vote(voter, pair.id, entry["question"], study.system(pair.first),
                 study.system(pair.second), value, clusters[pair.sample])


def _preferences(
    study: Study, found: Sequence[_Vote], questions: Sequence[str]
) -> tuple[Preference, ...]:
    rows = []
    for question in questions:
        for a, b in itertools.combinations(range(len(study.systems)), 2):
            mine = [v for v in found if v.question == question and (v.first, v.second) == (a, b)]
            if not mine:
                continue
            values, clusters = [v.value for v in mine], [v.cluster for v in mine]
            by_voter = {
                name: float(np.mean([v.value for v in mine if v.voter == name]))
                for name in dict.fromkeys(v.voter for v in mine)
            }
            rows.append(Preference(
                question, study.systems[a], study.systems[b],
                values.count(1.0), values.count(0.5), values.count(0.0),
                statistics.estimate(values, clusters),
                statistics.sign_flip([v - 0.5 for v in values], clusters), by_voter,
            ))
    corrected = statistics.holm([row.p_value for row in rows])
    return tuple(
        Preference(**{**{f: getattr(row, f) for f in row.__dataclass_fields__}, "p_value": p})
        for row, p in zip(rows, corrected, strict=True)
    )


def _agreement(question: str, mine: Sequence[_Vote]) -> Agreement:
    units: dict[str, list[tuple[int, int] | float | int]] = {}
    for vote in mine:
        # Categories are the systems, so that agreement on who wins counts, not on a side.
        choice = {1.0: vote.first, 0.0: vote.second}.get(vote.value, -1)
        units.setdefault(vote.pair, []).append(choice)
    table = agreement.counts(list(units.values()))
    return Agreement(question, agreement.raw_agreement(table), agreement.fleiss_kappa(table),
                     agreement.krippendorff_alpha(table), int((table.sum(1) >= 2).sum()))


def _strengths(study: Study, question: str, mine: Sequence[_Vote]) -> list[Strength]:
    number = len(study.systems)
    clusters = list(dict.fromkeys(v.cluster for v in mine))
    wins = np.zeros((len(clusters), number, number))
    for vote in mine:
        of = wins[clusters.index(vote.cluster)]
        of[vote.first, vote.second] += vote.value
        of[vote.second, vote.first] += 1 - vote.value
    logs, low, high = agreement.bradley_terry_interval(wins, 2_000, statistics.SEED)
    order = np.argsort(-logs)
    made = []
    for index, name in enumerate(study.systems):
        against = [(v.value if v.first == index else 1 - v.value, v.cluster)
                   for v in mine if index in (v.first, v.second)]
        bottom, top = (None if np.isnan(x) else float(x) for x in (low[index], high[index]))
        made.append(Strength(
            question, name, int(np.flatnonzero(order == index)[0]) + 1, float(logs[index]),
            bottom, top,
            statistics.estimate([v for v, _ in against], [c for _, c in against]),
        ))
    return made


# -- printing


def to_json(result: Result) -> str:
    """Everything, full numbers."""
    return json.dumps(asdict(result), indent=2, ensure_ascii=False)


def to_markdown(result: Result) -> str:
    """Tables for reading."""
    import pandas as pd

    total = sum(result.voters.values())
    several = len(result.systems) > 2
    people = ", ".join(f"{name} {count}" for name, count in result.voters.items())
    parts = [
        f"{total} votes of {len(result.voters)} voters ({people}; {result.expected} asked of "
        f"each). The left video was preferred in {_percent(result.left)} of the votes.",
        pd.DataFrame([
            {
                "question": TITLES.get(p.question, p.question), "preferred": p.first,
                "to": p.second, "rate [95 % interval]": _estimate(p.rate),
                "won / tie / lost": f"{p.wins} / {p.ties} / {p.losses}",
                "p (Holm)": "–" if p.p_value is None else f"{p.p_value:.3f}",
                "by voter": ", ".join(_percent(v) for v in p.by_voter.values()),
            } for p in result.preferences
        ]).to_markdown(index=False),
        "Rate: share of votes, a tie as half; interval and p-value over identities, of these "
        "voters.",
        pd.DataFrame([
            {
                "question": TITLES.get(a.question, a.question),
                "votes that agree": _percent(a.raw), "Fleiss' kappa": _plain(a.fleiss_kappa),
                "Krippendorff's alpha": _plain(a.krippendorff_alpha),
                "pairs with two votes or more": a.pairs,
            } for a in result.agreements
        ]).to_markdown(index=False),
    ]
    if several:
        parts.append(pd.DataFrame([
            {
                "question": TITLES.get(s.question, s.question), "rank": s.rank,
                "system": s.system, "won of all [95 % interval]": _estimate(s.share),
                "Bradley-Terry log strength [95 % interval]": f"{s.strength:.2f}" + (
                    "" if s.low is None else f" [{s.low:.2f}, {s.high:.2f}]"),
            } for s in sorted(result.strengths, key=lambda s: (_place(result, s), s.rank))
        ]).to_markdown(index=False))
    return "\n\n".join(parts)


def _place(result: Result, of: Strength) -> int:
    return [a.question for a in result.agreements].index(of.question)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _estimate(found: Estimate) -> str:
    text = _percent(found.mean)
    if found.low is not None and found.high is not None:
        text += f" [{100 * found.low:.0f}, {100 * found.high:.0f}]"
    return text
