"""Tables: means with intervals and coverage of runs, and apart from them the published rows."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from idbench.errors import UserError
from idbench.reports.published import PublishedTable
from idbench.runs import Run, first_difference
from idbench.statistics import Estimate, difference, estimate, identity_clusters

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("md", "csv", "json", "latex", "html")
SHOWN = (
    "arcsim", "cursim", "viclip", "clipdist", "own_minus_other_by_order", "order", "face_coverage",
    "not_measured",
)
"""Columns of the table, where a run has them; metrics of other packages follow."""
HIDDEN = ("swap_rate", "own_minus_other", "identity_slope", "identity_worst")
"""Only in the long forms (csv, json)."""


@dataclass(frozen=True)
class MeasuredRow:
    """One run in the table: an estimate for each metric."""

    system: str
    run: str
    split: str
    estimates: Mapping[str, Estimate]
    status: str


@dataclass(frozen=True)
class DifferenceRow:
    """Paired difference first - second over the samples that both runs have."""

    first: str
    second: str
    split: str
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True)
class Tables:
    """What a table command prints: measured rows, paired differences, published tables."""

    caption: str
    rows: tuple[MeasuredRow, ...] = ()
    differences: tuple[DifferenceRow, ...] = ()
    published: tuple[PublishedTable, ...] = ()
    notes: tuple[str, ...] = ()


def measured(runs: Sequence[Run], published: Sequence[PublishedTable] = ()) -> Tables:
    """The table of `runs`, which must have been measured alike.

    Raises:
        UserError: suites or protocols differ; says in what.
    """
    check_comparable(runs)
    values = [video_values(run) for run in runs]
    rows = tuple(_row(run, of_run) for run, of_run in zip(runs, values, strict=True))
    notes = [n for run in runs for n in (run.meta.get("scoring") or {}).get("notes", [])]
    notes += [
        f"{run.folder} is not finished: {len(run.records())} of {len(run.sample_ids)} samples."
        for run in runs if run.meta["status"] != "finished"
    ]
    caption = ""
    if runs:
        suite, scoring = runs[0].meta["identity"]["suite"], runs[0].meta["scoring"] or {}
        protocol = scoring.get("protocol", {}).get("name", "not scored")
        named = f"suite {suite['name']} {suite['version']}"
        caption = (
            f"Measured: {named.strip()}, protocol {protocol}; mean "
            "[95 % interval, bootstrap over identities]; (share scored) where it is under 100 %."
        )
    return Tables(
        caption, rows, tuple(_differences(runs, values)), tuple(published),
        tuple(dict.fromkeys(notes)),
    )


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs whose numbers do not speak of the same thing.

    Raises:
        UserError: names the runs and what differs.
    """
    for run in runs[1:]:
        first = runs[0]
        for what in ("suite", "protocol", "weights", "detector"):
            found = first_difference(_part(first, what), _part(run, what), what)
            if found:
                raise UserError(
                    f"{first.folder} and {run.folder} cannot stand in one table (of the first, "
                    f"{found} by the second); score them alike with `idbench score RUN`, or "
                    "print two tables."
                )


def comparability(run: Run) -> str:
    """Equal for runs that may stand in one table."""
    parts = [_part(run, what) for what in ("suite", "protocol", "weights", "detector")]
    return json.dumps(parts, sort_keys=True)


@cache
def _metric(name: str) -> Any:
    from idbench.registry import METRICS

    try:
        return METRICS.load(name)
    except UserError:
        return None


def title(name: str) -> str:
    """A metric's name as papers print it, with the arrow of the better direction."""
    metric = _metric(name)
    if metric is None:
        return name
    return f"{metric.title} {'↑' if metric.higher_is_better else '↓'}"


def video_values(run: Run) -> pd.DataFrame:
    """Video-level values: one row a finished sample, its ids and cluster, one column a metric.

    A missing or unscored value is NaN.
    """
    import pandas as pd

    records = run.records()
    base = pd.DataFrame({
        "sample": [r.sample.id for r in records],
        "suite_id": [r.suite_id for r in records],
        "cluster": identity_clusters([r.sample.identities for r in records]),
    }).set_index("sample")
    path = run.folder / "scores.parquet"
    if not path.is_file():
        raise UserError(
            f"{run.folder} has no scores yet; make them with `idbench score {run.folder}`."
        )
    scores = pd.read_parquet(path)
    scores = scores[scores["identity"].isna() & scores["frame"].isna()]
    wide = scores.pivot_table(
        index="sample", columns="metric", values="value", aggfunc="first", dropna=False
    )
    return base.join(wide.astype("float64"), how="left")


def _row(run: Run, values: pd.DataFrame) -> MeasuredRow:
    clusters = values["cluster"].tolist()
    estimates = {
        str(name): estimate(_optional(values[name]), clusters)
        for name in values.columns if name not in ("suite_id", "cluster")
    }
    return MeasuredRow(
        run.name, str(run.folder), run.meta["identity"]["split"], estimates, run.meta["status"]
    )


def _differences(runs: Sequence[Run], values: Sequence[pd.DataFrame]) -> list[DifferenceRow]:
    """The first run against each other one of the same split, over shared samples."""
    found = []
    for run, of_run in zip(runs[1:], values[1:], strict=True):
        first = runs[0]
        split = run.meta["identity"]["split"]
        if first.meta["identity"]["split"] != split:
            continue
        both = values[0].set_index("suite_id").join(
            of_run.set_index("suite_id"), how="inner", lsuffix="", rsuffix="_second"
        )
        names = [n for n in values[0].columns if f"{n}_second" in both and n != "cluster"]
        if len(both) < 2 or not names:
            continue
        clusters = both["cluster"].tolist()
        found.append(DifferenceRow(
            first.name, run.name, split,
            {str(n): difference(_optional(both[n]), _optional(both[f"{n}_second"]), clusters)
             for n in names},
        ))
    return found


def _optional(column: pd.Series) -> list[float | None]:
    return [None if v != v else float(v) for v in column]


def _part(run: Run, what: str) -> Any:
    if what == "suite":
        return run.meta["identity"]["suite"]
    return (run.meta.get("scoring") or {}).get(what)


# -- printing


def render(tables: Tables, form: str) -> str:
    """`tables` as text in one of `FORMATS`.

    csv and json hold full numbers in long form; the others are for reading.
    """
    if form == "json":
        return json.dumps(_as_json(tables), indent=2, ensure_ascii=False)
    if form == "csv":
        import pandas as pd

        return pd.DataFrame(_long(tables)).to_csv(index=False)
    parts: list[str] = []
    if tables.rows:
        parts += [_caption(tables.caption, form), _frame(_wide(tables.rows), form)]
    if tables.differences:
        text = "Paired differences, first - second, over the samples that both runs have."
        parts += [_caption(text, form), _frame(_wide_differences(tables.differences), form)]
    parts += [_caption(f"Note: {note}", form) for note in tables.notes]
    for table in tables.published:
        parts += [_caption(table.caption, form), _frame(_wide_published(table), form)]
    return "\n\n".join(part.strip() for part in parts)


def cell(found: Estimate) -> str:
    """`0.442 [0.401, 0.483] (96 %)`: mean, interval, and coverage where it is under 100 %."""
    if found.mean is None:
        return f"unscored (0 % of {found.n})"
    text = f"{found.mean:.3f}"
    if found.low is not None and found.high is not None:
        text += f" [{found.low:.3f}, {found.high:.3f}]"
    if found.scored < found.n:
        text += f" ({found.scored / found.n:.0%})".replace("%", " %")
    return text


def _columns(rows: Sequence[MeasuredRow | DifferenceRow]) -> list[str]:
    present = dict.fromkeys(name for row in rows for name in row.estimates)
    others = [n for n in present if n not in SHOWN and n not in HIDDEN]
    return [n for n in SHOWN if n in present] + others


def _wide(rows: Sequence[MeasuredRow]) -> list[dict[str, str]]:
    columns = _columns(rows)
    return [
        {
            "system": row.system, "split": row.split,
            **{title(n): cell(row.estimates[n]) if n in row.estimates else "" for n in columns},
            "samples scored": _lowest(row), "n": str(max(e.n for e in row.estimates.values())),
            "identity groups": str(max(e.clusters for e in row.estimates.values())),
        }
        for row in rows if row.estimates
    ]


def _lowest(row: MeasuredRow) -> str:
    """The lower coverage of ArcSim and CurSim, or the lowest of whatever was measured.

    That of another metric stands in its own cell.
    """
    names = [n for n in SHOWN[:2] if n in row.estimates] or list(row.estimates)
    shares = [row.estimates[n].coverage for n in names]
    known = [share for share in shares if share is not None]
    return f"{min(known):.0%}".replace("%", " %") if known else ""


def _wide_differences(rows: Sequence[DifferenceRow]) -> list[dict[str, str]]:
    columns = _columns(rows)
    return [
        {
            "difference": f"{row.first} - {row.second}", "split": row.split,
            **{title(n): cell(row.estimates[n]) if n in row.estimates else "" for n in columns},
            "n": str(max(e.n for e in row.estimates.values())),
        }
        for row in rows
    ]


_PUBLISHED_TITLES = {"facesim": "FaceSim (%) ↑", "clipdist_printed": "printed: 1 - CLIPDist"}


def _wide_published(table: PublishedTable) -> list[dict[str, str]]:
    names = dict.fromkeys(name for row in table.rows for name in row.values)
    return [
        {
            "published system": row.label, "split": table.section,
            **{
                _PUBLISHED_TITLES.get(n) or title(n): _number(row.values.get(n), n)
                for n in names
            },
        }
        for row in table.rows
    ]


def _number(value: float | None, name: str) -> str:
    return "" if value is None else f"{value:.2f}" if name == "facesim" else f"{value:.3f}"


def _caption(text: str, form: str) -> str:
    if form == "html":
        return f"<p>{html.escape(text)}</p>"
    if form == "latex":
        return f"% {text}"
    return text


def _frame(rows: Sequence[Mapping[str, str]], form: str) -> str:
    import pandas as pd

    frame = pd.DataFrame(list(rows))
    if form == "html":
        return frame.to_html(index=False, border=0)
    if form == "latex":
        frame = frame.rename(columns=_latex).map(_latex)
        return frame.to_latex(index=False, escape=False)
    return frame.to_markdown(index=False, disable_numparse=True)


def _latex(text: str) -> str:
    for old, new in (("↑", r"$\uparrow$"), ("↓", r"$\downarrow$"), ("%", r"\%"), ("_", r"\_")):
        text = text.replace(old, new)
    return text


def _long(tables: Tables) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in tables.rows:
        rows += [
            {"data": tables.caption.split(";")[0], "system": row.system, "run": row.run,
             "split": row.split, "metric": name, **asdict(found), "coverage": found.coverage}
            for name, found in row.estimates.items()
        ]
    for other in tables.differences:
        rows += [
            {"data": "paired difference", "system": f"{other.first} - {other.second}",
             "split": other.split, "metric": name, **asdict(found), "coverage": found.coverage}
            for name, found in other.estimates.items()
        ]
    for table in tables.published:
        rows += [
            {"data": table.caption, "system": entry.label, "split": table.section,
             "metric": name, "mean": value}
            for entry in table.rows for name, value in entry.values.items()
        ]
    return rows


def _as_json(tables: Tables) -> dict[str, Any]:
    def estimates(found: Mapping[str, Estimate]) -> dict[str, Any]:
        return {n: {**asdict(e), "coverage": e.coverage} for n, e in found.items()}

    return {
        "caption": tables.caption,
        "measured": [
            {"system": r.system, "run": r.run, "split": r.split, "status": r.status,
             "metrics": estimates(r.estimates)}
            for r in tables.rows
        ],
        "differences": [
            {"first": d.first, "second": d.second, "split": d.split,
             "metrics": estimates(d.estimates)}
            for d in tables.differences
        ],
        "notes": list(tables.notes),
        "published": [
            {"caption": t.caption, "paper": t.paper, "section": t.section, "source": t.source,
             "version": t.version, "rows": [
                 {"system": r.system, "label": r.label, "values": dict(r.values)} for r in t.rows
             ]}
            for t in tables.published
        ],
    }
