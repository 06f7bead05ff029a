"""A leaderboard: systems measured alike, ranked, as JSON and as one sortable page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from idbench.differences import in_words, incomparable
from idbench.errors import UserError
from idbench.measurements import Share, higher_is_better, shares_of
from idbench.names import one_of
from idbench.pages import TEMPLATES, template
from idbench.reports import columns, figures
from idbench.reports.figures import TRADEOFF
from idbench.reports.video_values import Series
from idbench.runs import now
from idbench.statistics import Estimate
from idbench.submissions import Entry

SCHEMA = 1


def build(entries: Sequence[Entry], metric: str = "arcsim") -> dict[str, Any]:
    """JSON value of the leaderboard: one board a suite and split, ranked by `metric`.

    The rank counts the systems whose mean is better; there is none without a value, or without all
    samples of the split. Raises UserError: entries of one suite scored differently; none has
    `metric`."""
    one_of("metric of these entries", metric,
           {name for entry in entries for name in entry.measured.metrics})
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        identity = entry.measured.identity
        key = identity.suite.name, identity.suite.version, identity.split
        groups.setdefault(key, []).append(entry)
    boards = []
    for (suite_name, version, split), group in groups.items():
        _check_alike(group)
        shares = shares_of([entry.measured for entry in group])
        rows = [_row(entry, share) for entry, share in zip(group, shares, strict=True)]
        _rank(rows, metric)
        boards.append({
            "suite": suite_name, "suite_version": version, "split": split,
            "protocol": group[0].measured.scoring.protocol_name,
            "metrics": _metrics(group), "rows": sorted(
                rows, key=lambda row: (row["rank"] is None, row["rank"], row["name"])),
        })
    return {"schema": SCHEMA, "made": now(), "ranked_by": metric, "boards": boards}


def page(board: dict[str, Any], title: str = "idbench leaderboard") -> str:
    """The leaderboard as one HTML file that needs no network."""
    told = {
        **board, "made": f"{board['made'][:10]} {board['made'][11:16]} UTC",
        "ranked_by": columns.plain_title(board["ranked_by"]),
    }
    return template(TEMPLATES / "leaderboard.html", number=columns.number).render(
        title=title, plots=[_plot(one) for one in board["boards"]], **told)


def _plot(board: dict[str, Any]) -> Markup | None:
    """Identity against editability as SVG; None where fewer than two systems have both."""
    shown = []
    for row in board["rows"]:
        found = {
            name: Estimate(m["mean"], m["low"], m["high"], row["samples"], row["samples"], 0)
            for name, m in row["metrics"].items() if name in TRADEOFF and m["mean"] is not None
        }
        if len(found) == len(TRADEOFF):
            measured, of = row["share"]["measured"], row["share"]["of"]
            part = f" ({measured} of {of})" if measured < of else ""
            shown.append(Series(row["name"] + part, found))
    if len(shown) < 2:
        return None
    titles = {name: columns.title(name) for name in TRADEOFF}
    across, up = titles.values()
    words = f"{up} against {across}: mean and 95% interval, {board['split']}"
    return Markup(figures.to_svg(figures.tradeoff(shown, *TRADEOFF, titles), words))


def _check_alike(group: Sequence[Entry]) -> None:
    first = group[0].measured
    for entry in group[1:]:
        other = entry.measured
        if found := incomparable(first, other):
            raise UserError(
                f"{first.source} and {other.source} cannot share a leaderboard "
                f"({in_words(found)}); rescore one with `idbench score RUN`."
            )


def _metrics(group: Sequence[Entry]) -> list[dict[str, Any]]:
    better = {n: b for e in group for n, b in e.measured.better.items() if b is not None}
    return [
        {"metric": name, "title": columns.title(name),
         "higher_is_better": better.get(name, higher_is_better(name))}
        for name in columns.columns(n for entry in group for n in entry.measured.metrics)
    ]


def _row(entry: Entry, share: Share) -> dict[str, Any]:
    measured = entry.measured
    metrics = {}
    for name in filter(columns.shown, measured.metrics):
        found = measured.estimate(name)
        metrics[name] = {
            "mean": found.mean, "low": found.low, "high": found.high, "coverage": found.coverage}
    return {
        "name": entry.name, "description": entry.description, "link": entry.link,
        "licence": entry.licence, "submitted": entry.submitted, "source": measured.source,
        "samples": len(measured.values), "identity_groups": len(set(measured.clusters)),
        "rank": None, "share": asdict(share), "metrics": metrics,
    }


def _rank(rows: list[dict[str, Any]], metric: str) -> None:
    higher = higher_is_better(metric) is not False
    means = {i: row["metrics"][metric]["mean"] for i, row in enumerate(rows)
             if row["metrics"].get(metric, {}).get("mean") is not None
             and row["share"]["measured"] >= row["share"]["of"]}
    for i, mean in means.items():
        ahead = sum(other > mean if higher else other < mean for other in means.values())
        rows[i]["rank"] = 1 + ahead
