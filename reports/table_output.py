"""Tables as text: Markdown, LaTeX, HTML and a terminal for reading; csv and json in full."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from idbench.output import escape_markdown
from idbench.reports import columns
from idbench.reports.published import PublishedTable
from idbench.reports.terminal import Rows, unmarked

if TYPE_CHECKING:
    from idbench.reports import tables as t

DIFFERENCES = (
    "Paired differences, first - second, over the samples that both runs have; mean [95% "
    "interval], p-value of a sign-flip test of identities, corrected by Holm over this table."
)


def render(tables: t.Tables, form: str) -> str:
    """`tables` in one of `tables.FORMATS`; csv and json hold full numbers in long form."""
    if form == "json":
        return json.dumps(as_json(tables), indent=2, ensure_ascii=False)
    if form == "csv":
        return csv(_long(tables))
    return render_parts(parts(tables), form)


def render_parts(parts: Sequence[str | Rows], form: str) -> str:
    """Captions and tables as `md`, `latex` or `html`."""
    caption: Callable[[str], str] = {
        "md": escape_markdown, "html": lambda text: f"<p>{html.escape(text)}</p>",
        "latex": lambda text: f"% {_one_line(text)}",
    }[form]
    texts = ["% needs \\usepackage{booktabs}"] if form == "latex" else []
    texts += [caption(item) if isinstance(item, str) else _table(item, form) for item in parts]
    return "\n\n".join(text.strip() for text in texts)


def parts(tables: t.Tables) -> list[str | Rows]:
    """Captions and tables in the order of reading."""
    found: list[str | Rows] = []
    rows = _wide(tables.rows)
    if rows:
        found += [tables.caption, rows]
    if tables.differences:
        found += [DIFFERENCES, _wide_differences(tables.differences)]
    found += [f"Note: {note}" for note in tables.notes]
    for table in tables.published:
        found += [table.caption, published_rows(table)]
    return found


# -- rows for reading


def _wide(rows: Sequence[t.MeasuredRow]) -> Rows:
    names = columns.columns(name for row in rows for name in row.estimates)
    return [
        {
            "system": (row.system, ""), "split": (row.split, ""),
            **{columns.title(n): (columns.cell(row.estimates.get(n)), row.marks.get(n, ""))
               for n in names},
            "samples scored": (_lowest(row), ""),
            "n": (columns.most_samples(row.estimates), ""),
            "identity groups": (str(max(e.clusters for e in row.estimates.values())), ""),
        }
        for row in rows if row.estimates
    ]


def _lowest(row: t.MeasuredRow) -> str:
    """The lowest coverage of the identity metrics, or of all if there are none. Another metric's is
    in its own cell."""
    names = columns.about(row.estimates, "identity") or list(row.estimates)
    shares = [row.estimates[n].coverage for n in names]
    known = [share for share in shares if share is not None]
    return f"{min(known):.0%}" if known else ""


def _wide_differences(rows: Sequence[t.DifferenceRow]) -> Rows:
    names = columns.columns(name for row in rows for name in row.estimates)
    return unmarked({
        "difference": f"{row.first} - {row.second}", "split": row.split,
        **{columns.title(n): columns.cell(row.estimates.get(n)) + (
            f", {columns.p_text(row.p_values[n])}" if n in row.p_values else "") for n in names},
        "n": columns.most_samples(row.estimates),
    } for row in rows)


def published_rows(table: PublishedTable) -> Rows:
    """One row a published system."""
    names = dict.fromkeys(name for row in table.rows for name in row.values)
    return unmarked({
        "published system": row.label, "split": table.section,
        **{columns.published_title(n): _number(row.values.get(n), n) for n in names},
    } for row in table.rows)


def _number(value: float | None, name: str) -> str:
    return "" if value is None else f"{value:.2f}" if name == "facesim" else f"{value:.3f}"


# -- forms


def _table(rows: Rows, form: str) -> str:
    import pandas as pd

    forms: dict[str, tuple[Callable[[str], str], str, str]] = {
        "md": (escape_markdown, "**{}**", "<u>{}</u>"),
        "html": (html.escape, "<strong>{}</strong>", "<u>{}</u>"),
        "latex": (latex, r"\textbf{{}}", r"\underline{{}}"),
    }
    escape, best, second = forms[form]
    marks = {"best": best, "second": second, "": "{}"}
    frame = pd.DataFrame([
        {escape(name): marks[mark].replace("{}", escape(text))
         for name, (text, mark) in row.items()}
        for row in rows
    ])
    if form == "md":
        return str(frame.to_markdown(index=False, disable_numparse=True))
    if form == "html":
        return str(frame.to_html(index=False, border=0, escape=False))
    return str(frame.to_latex(index=False, escape=False))


_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$",
})


def latex(text: str) -> str:
    """`text` with everything escaped that LaTeX would read as a command."""
    return _one_line(text).translate(_LATEX)


def _one_line(text: str) -> str:
    """A line break in a name must not begin something new."""
    return " ".join(text.split())


# -- full numbers


def csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV. A name that a spreadsheet would run as a formula gets an apostrophe."""
    import pandas as pd

    return pd.DataFrame(rows).map(
        lambda v: f"'{v}" if isinstance(v, str) and v[:1] in tuple("=+-@\t\r") else v
    ).to_csv(index=False)


def _long(tables: t.Tables) -> Iterator[dict[str, Any]]:
    for row in tables.rows:
        for name, found in row.estimates.items():
            yield {"data": tables.caption.split(";")[0], "system": row.system, "run": row.run,
                   "split": row.split, "metric": name, **found.as_dict(),
                   "mark": row.marks.get(name)}
    for other in tables.differences:
        for name, found in other.estimates.items():
            yield {"data": "paired difference", "system": f"{other.first} - {other.second}",
                   "split": other.split, "metric": name, **found.as_dict(),
                   "p_holm": other.p_values.get(name)}
    for table in tables.published:
        for entry in table.rows:
            for name, value in entry.values.items():
                yield {"data": table.caption, "system": entry.label, "split": table.section,
                       "metric": name, "mean": value}


def as_json(tables: t.Tables) -> dict[str, Any]:
    """Everything, in full precision."""
    return {
        "schema": 1,
        "caption": tables.caption,
        "measured": [
            {"system": r.system, "run": r.run, "split": r.split, "status": r.status,
             "metrics": {n: e.as_dict() for n, e in r.estimates.items()}, "marks": dict(r.marks)}
            for r in tables.rows
        ],
        "differences": [
            {"first": d.first, "second": d.second, "split": d.split,
             "metrics": {n: e.as_dict() for n, e in d.estimates.items()},
             "p_holm": dict(d.p_values)}
            for d in tables.differences
        ],
        "notes": list(tables.notes),
        "published": [
            {"caption": p.caption, "paper": p.paper, "section": p.section,
             "source": p.source.title, "version": p.source.version, "rows": [
                 {"system": r.system, "label": r.label, "values": dict(r.values)} for r in p.rows
             ]}
            for p in tables.published
        ],
    }
