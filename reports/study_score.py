"""What the votes of a study say, as text, JSON and bars: preference rates, agreement of voters,
strengths of systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from idbench import statistics
from idbench.errors import UserError
from idbench.reports import figures, voter_agreement
from idbench.reports.columns import percent
from idbench.reports.study_files import TITLES, Study, Votes
from idbench.reports.terminal import Rows, unmarked
from idbench.statistics import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


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
    table = voter_agreement.counts(
        [of.tolist() for _, of in chosen.groupby(mine.pair, sort=False)])
    return Agreement(
        question, voter_agreement.raw_agreement(table), voter_agreement.fleiss_kappa(table),
        voter_agreement.krippendorff_alpha(table), int((table.sum(1) >= 2).sum()))


def _strengths(study: Study, question: str, mine: pd.DataFrame) -> list[Strength]:
    number = len(study.systems)
    codes, clusters = mine.cluster.factorize()
    wins = np.zeros((len(clusters), number, number))
    np.add.at(wins, (codes, mine["first"], mine.second), mine.value)
    np.add.at(wins, (codes, mine.second, mine["first"]), 1 - mine.value)
    logs, low, high = voter_agreement.bradley_terry_interval(
        wins, 2_000, statistics.SEED)
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


def parts(result: Result) -> list[str | Rows]:
    """Sentences and tables in the order of reading."""
    total = sum(result.voters.values())
    people = ", ".join(f"{name} {count}" for name, count in result.voters.items())
    found: list[str | Rows] = [
        f"{total} votes of {len(result.voters)} voter{'' if len(result.voters) == 1 else 's'} "
        f"({people}; {result.expected} asked of each). "
        f"The left video was preferred in {percent(result.left)} of the votes.",
        unmarked({
            "question": TITLES.get(p.question, p.question), "preferred": p.first,
            "to": p.second, "rate [95% interval]": _estimate(p.rate),
            "won / tie / lost": f"{p.wins} / {p.ties} / {p.losses}",
            "p (Holm)": "–" if p.p_value is None else f"{p.p_value:.3f}",
            "by voter": ", ".join(percent(v) for v in p.by_voter.values()),
        } for p in result.preferences),
        "Rate: share of votes, a tie counting half; interval and p-value over identities, for "
        "these voters.",
        unmarked({
            "question": TITLES.get(a.question, a.question),
            "votes that agree": percent(a.raw), "Fleiss' kappa": _plain(a.fleiss_kappa),
            "Krippendorff's alpha": _plain(a.krippendorff_alpha),
            "pairs with two votes or more": str(a.pairs),
        } for a in result.agreements),
    ]
    if len(result.systems) > 2:
        questions = [a.question for a in result.agreements]
        ranked = sorted(result.strengths, key=lambda s: (questions.index(s.question), s.rank))
        found.append(unmarked({
            "question": TITLES.get(s.question, s.question), "rank": str(s.rank),
            "system": s.system, "won of all [95% interval]": _estimate(s.share),
            "Bradley-Terry log strength [95% interval]": f"{s.strength:.2f}" + (
                "" if s.low is None else f" [{s.low:.2f}, {s.high:.2f}]"),
        } for s in ranked))
    return found


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _estimate(found: Estimate) -> str:
    low, high = found.interval or (None, None)
    return percent(found.mean) + (
        "" if low is None or high is None else f" [{100 * low:.0f}, {100 * high:.0f}]")


def bars(result: Result) -> Figure:
    """For each question a bar for each system, as in Figure 6 of the Concat-ID paper: the share of
    its comparisons that it won."""
    questions = [a.question for a in result.agreements]
    number = len(result.systems)
    width = 0.8 / number
    with figures.style():
        figure = figures.blank((max(4.2, 1.1 + len(questions) * (0.5 + 0.42 * number)), 3.0),
                               layout="constrained")
        axes = figure.subplots()
        axes.axhline(50, color=figures.MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        for index, system in enumerate(result.systems):
            of_system = [s.share for s in result.strengths if s.system == system]
            for place, share in enumerate(of_system):
                if share.mean is None:
                    continue
                x = place + (index - (number - 1) / 2) * width
                mean = above = 100 * share.mean
                axes.bar([x], [mean], width * 0.9, color=figures.colour(index),
                         label=system if place == 0 else None)
                if share.interval:
                    axes.errorbar([x], [mean], yerr=100 * figures.bar(share), color=figures.INK,
                                  elinewidth=1.1, capsize=2.5)
                    above = max(above, 100 * share.interval[1])
                axes.text(x, above + 1.5, f"{mean:.0f}%", ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(questions)), [fill(TITLES.get(q, q), 18) for q in questions])
        axes.tick_params(axis="x", labelcolor=figures.INK)
        axes.set_ylim(0, 112)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_ylabel("preferred, % of votes")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8.5,
                    ncols=figures.legend_columns(result.systems))
        return figure
