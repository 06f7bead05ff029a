"""The published numbers (`published.yaml`): always another data set than what is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from idbench import yaml_text
from idbench.names import one_of

NOT_COMPARABLE = "a separate data set, not measured by idbench; not comparable with the rows above"


class PublishedRow(BaseModel, frozen=True, extra="allow"):
    """One row of a published table: the system's name in idbench, its label, and its values."""

    __pydantic_extra__: dict[str, float]
    system: str
    label: str

    @property
    def values(self) -> Mapping[str, float]:
        """metric -> published mean."""
        return self.__pydantic_extra__


class Source(BaseModel, frozen=True):
    """Where tables were printed, in which version, and the data that was measured."""

    title: str
    version: str
    data: str


class PublishedTable(BaseModel, frozen=True):
    """A published table: its number in the Concat-ID paper (None: another source), `single` or
    `multi`, and a note to read first."""

    paper: int | None
    section: str
    title: str
    source: Source
    note: str = ""
    rows: tuple[PublishedRow, ...]

    @property
    def caption(self) -> str:
        """One line that says what it is and that it is another data set."""
        place = f", table {self.paper}" if self.paper else ""
        note = f" {self.note}" if self.note else ""
        return (
            f"Published: {self.source.title}, {self.source.version}{place}: {self.title} "
            f"({self.source.data}); {NOT_COMPARABLE}.{note}"
        )


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All published tables."""
    data = yaml_text.parse(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    return tuple(
        PublishedTable.model_validate({**table, "source": data["sources"][table["source"]]})
        for table in data["tables"]
    )


def systems() -> tuple[str, ...]:
    """Names of all systems with published rows."""
    return tuple(sorted({row.system for table in published_tables() for row in table.rows}))


def comparison(system: str) -> list[PublishedTable]:
    """The published tables with a row of `system`. Raises UserError: there are none."""
    one_of("published system", system, systems())
    return [t for t in published_tables() if any(row.system == system for row in t.rows)]
