"""The published numbers (`published.yaml`): always another data set than what is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from idbench.errors import UserError
from idbench.names import unknown

NOT_COMPARABLE = "another data set, not measured by idbench: not to be compared with the rows above"


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table: the system's name in idbench, its label, and its values."""

    system: str
    label: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class PublishedTable:
    """A published table.

    Attributes:
        paper: number of the table in the Concat-ID paper; None for another source.
        section: `single` or `multi`.
        source, version: where it was printed, in which version.
        data: what was measured, on what.
        note: what to know before reading it.
    """

    paper: int | None
    section: str
    title: str
    source: str
    version: str
    data: str
    note: str
    rows: tuple[PublishedRow, ...]

    @property
    def caption(self) -> str:
        """One line that says what it is and that it is another data set."""
        place = f", table {self.paper}" if self.paper else ""
        note = f" {self.note}" if self.note else ""
        return (
            f"Published: {self.source}, {self.version}{place}: {self.title} ({self.data}); "
            f"{NOT_COMPARABLE}.{note}"
        )


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All published tables."""
    data = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    tables = []
    for table in data["tables"]:
        source = data["sources"][table["source"]]
        rows = tuple(
            PublishedRow(
                row["system"], row["label"],
                {k: float(v) for k, v in row.items() if k not in ("system", "label")},
            )
            for row in table["rows"]
        )
        tables.append(PublishedTable(
            table["paper"], table["section"], table["title"], source["title"],
            source["version"], source["data"], table.get("note", ""), rows,
        ))
    return tuple(tables)


def systems() -> tuple[str, ...]:
    """Names of all systems with published rows."""
    return tuple(sorted({row.system for table in published_tables() for row in table.rows}))


def comparison(system: str | None = None, paper: int | None = None) -> list[PublishedTable]:
    """The published tables that hold `system` (None: any), of table `paper` (None: any).

    Raises:
        UserError: no published rows of that system, or none in that table.
    """
    if system is not None and system not in systems():
        raise unknown("published system", system, systems())
    found = [
        table for table in published_tables()
        if (paper is None or table.paper == paper)
        and (system is None or any(row.system == system for row in table.rows))
    ]
    if not found:
        raise UserError(
            f"Table {paper} of the paper has no row of {system}; leave out --paper to see where "
            "it has."
        )
    return found
