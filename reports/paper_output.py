"""The paper's tables as text, data and one HTML page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from os.path import commonprefix
from typing import Any

from rich.console import Console

from idbench.output import echo
from idbench.pages import TEMPLATES, template
from idbench.reports import columns, table_output, terminal
from idbench.reports.paper import NOT_MEASURED, PaperTable, Step
from idbench.reports.terminal import Rows, unmarked

ORDERS = (
    "Published orders, tested here: paired difference over the samples that both rows have, mean "
    "[95% interval]; p-value of a sign-flip test of identities, corrected by Holm over the table."
)


def render(tables: Sequence[PaperTable], form: str) -> str:
    """As `md`, `csv`, `json`, `latex` or `html`; csv and json have the numbers in full."""
    if form == "json":
        return json.dumps(as_json(tables), indent=2, ensure_ascii=False)
    if form == "csv":
        return table_output.csv(_long(tables))
    return table_output.render_parts([p for table in tables for p in parts(table)], form)


def print_tables(tables: Sequence[PaperTable], form: str) -> None:
    """Print them as `terminal`, or as `render` does."""
    if form == "terminal":
        show(tables, Console(highlight=False))
    else:
        echo(render(tables, form))


def show(tables: Sequence[PaperTable], console: Console) -> None:
    """Print them on a terminal; how to run what is missing stands below a table, not in it."""
    for table in tables:
        caption, _, *rest = parts(table)
        terminal.show_parts([caption, measured_rows(table, how=False), *_to_run(table), *rest],
                            console)


def parts(table: PaperTable) -> list[str | Rows]:
    """Captions and tables in the order of reading."""
    found: list[str | Rows] = [table.caption, measured_rows(table)]
    for published in table.section.published:
        found += [published.caption, table_output.published_rows(published)]
    found += [ORDERS, order_rows(table)]
    return [*found, *(f"Note: {note}" for note in table.notes)]


def _to_run(table: PaperTable) -> list[str]:
    """What was not run, with its command; rows of one command together."""
    labels: dict[str, list[str]] = {}
    for row in table.rows:
        if not row.system:
            labels.setdefault(row.how, []).append(row.label)
    return [
        f"Not run: {'; '.join(names)}. " + (f"`{how}`" if how.startswith("idbench ") else how)
        for how, names in labels.items()
    ]


def measured_rows(table: PaperTable, how: bool = True) -> Rows:
    """One row a system; those that were not run say so, and with `how` by what they are run."""
    names = columns.columns(name for row in table.rows for name in row.estimates)
    return unmarked({
        "measured on avatars": row.label,
        "system": row.system or ("not run" + f"; {row.how}" * how),
        **{columns.title(n): columns.cell(row.estimates.get(n)) for n in names},
        **({"n": columns.most_samples(row.estimates)} if names else {}),
    } for row in table.rows)


def order_rows(table: PaperTable) -> Rows:
    """One row a step of a published order."""
    return unmarked({
        "published order": _order(s), "published": f"{s.published:+.3f}",
        "measured": columns.cell(s.measured),
        "here": s.verdict + ("" if s.p_value is None else f" ({columns.p_text(s.p_value)})"),
    } for s in table.steps)


def _order(step: Step) -> str:
    """`ArcSim: Stage I > Stage III`: what both labels begin with is left out."""
    start = commonprefix([step.first, step.second])
    start = start[: start.rfind(" ") + 1]
    first, second = step.first.removeprefix(start), step.second.removeprefix(start)
    return f"{columns.plain_title(step.metric)}: {first} > {second}"


def as_json(tables: Sequence[PaperTable]) -> dict[str, Any]:
    """Everything, in full precision."""
    return {
        "schema": 1,
        "sections": [
            {
                "paper": table.section.paper, "split": table.section.split,
                "title": table.section.title, "caption": table.caption,
                "measured": [
                    {"label": r.label, "system": r.system, "run": r.run, "how": r.how,
                     "metrics": {n: e.as_dict() for n, e in r.estimates.items()}}
                    for r in table.rows
                ],
                "published": [
                    {"caption": t.caption, "rows": [
                        {"label": row.label, "values": dict(row.values)} for row in t.rows]}
                    for t in table.section.published
                ],
                "orders": [{**asdict(s), "verdict": s.verdict} for s in table.steps],
                "notes": list(table.notes),
            }
            for table in tables
        ],
    }


def _long(tables: Sequence[PaperTable]) -> Iterator[dict[str, Any]]:
    for table in tables:
        title = table.section.title
        for row in table.rows:
            about = {"table": title, "data": "measured", "row": row.label}
            for name, found in row.estimates.items():
                yield {**about, "system": row.system, "metric": name, **found.as_dict()}
            if not row.estimates:
                yield {**about, "verdict": f"not run; {row.how}"}
        for published in table.section.published:
            for printed in published.rows:
                for name, value in printed.values.items():
                    yield {"table": title, "data": published.caption, "row": printed.label,
                           "metric": name, "mean": value}
        for s in table.steps:
            yield {"table": title, "data": "paired difference", "row": f"{s.first} - {s.second}",
                   "metric": s.metric, **({} if s.measured is None else asdict(s.measured)),
                   "published": s.published, "p_holm": s.p_value, "verdict": s.verdict}


def page(tables: Sequence[PaperTable], about: Sequence[str] = ()) -> str:
    """One HTML page that needs no network; `about`: sentences on how it was made."""
    return template(TEMPLATES / "paper.html", unbroken=_unbroken).render(
        tables=[
            {"table": table, "measured": measured_rows(table), "orders": order_rows(table),
             "caption": _below(table.section.title, table.caption),
             "published": [(t, table_output.published_rows(t)) for t in table.section.published],
             "verdicts": (verdicts := [s.verdict for s in table.steps]),
             "missing": verdicts.count(NOT_MEASURED)}
            for table in tables
        ],
        about=about, orders_caption=_below("Published orders", ORDERS),
    )


def _below(heading: str, caption: str) -> str:
    """A caption under a heading that says how it begins: `Table 1, measured: suite avatars`."""
    said, _, rest = caption.partition(": ")
    return rest[0].upper() + rest[1:] if rest and said.startswith(heading) else caption


def _unbroken(cell: str) -> str:
    """A cell in which no line breaks within an interval or a p-value."""
    return re.sub(r"\[[^]]*\]|\(p [^)]*\)", lambda found: found[0].replace(" ", "\u00a0"), cell)
