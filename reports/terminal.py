"""Tables on a terminal of any width: no cell is cut, and no value is broken.

A table that is too wide is turned, so that its columns become rows; or its cells get two lines, the
value above its interval; or its columns are spread over several tables, one below the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from idbench.output import visible, wrapped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Cell = tuple[str, str]
"""Text, and its mark: `best`, `second` or nothing."""
Rows = list[dict[str, Cell]]

CONSTANT = ("split", "samples scored", "n", "identity groups")
"""Columns that are said once, above the table, if they are the same in every row."""
GAP = 2
WIDEST = 40
"""Longer texts in a cell are wrapped."""
STYLES = {"best": "bold", "second": "underline", "": ""}
_VALUE = re.compile(r"(\S+) (\[[^]]*\])(.*)")


def unmarked(rows: Iterable[Mapping[str, str]]) -> Rows:
    """Rows of plain text."""
    return [{column: (text, "") for column, text in row.items()} for row in rows]


def show_parts(parts: Sequence[str | Rows], console: Console) -> None:
    """Print captions and tables."""
    from rich.text import Text

    before: str | Rows = []
    for item in parts:
        if isinstance(item, str):
            if isinstance(before, str) and before[:4] != item[:4]:  # notes stand together
                console.print()
            said = wrapped(visible(" ".join(item.split())), console.width)
            console.print(Text(said), style="dim")
        elif item:
            said, rows = _without_constants(item)
            if said:
                console.print(Text(visible(said)), style="dim")
            for block in fitted(rows, console.width):
                console.print(_table(block))
                console.print()
        before = item


def fitted(rows: Rows, width: int) -> list[Rows]:
    """`rows` in the first form that fits into `width`; several tables if none does."""
    for form in (rows, turned(rows), _stacked(rows), _stacked(turned(rows))):
        if sum(_widths(form)) + GAP * (len(form[0]) - 1) <= width:
            return [form]
    return _blocks(_stacked(rows), width)


def turned(rows: Rows) -> Rows:
    """One row for each column of `rows`, and a column for each of its rows."""
    name, *others = rows[0]
    return [
        {name: (column, ""), **{f"{row[name][0]}{' ' * n}": row[column]
                                for n, row in enumerate(rows)}}
        for column in others
    ] or rows


def _without_constants(rows: Rows) -> tuple[str, Rows]:
    """What is the same in every row, as a line of text, and the rows without it."""
    same = {
        column: rows[0][column][0] for column in list(rows[0])[1:]
        if column in CONSTANT and len({row[column][0] for row in rows}) == 1
    }
    if len(same) == len(rows[0]) - 1:  # nothing else would be left
        return "", rows
    said = ", ".join(f"{column} {text}" for column, text in same.items() if text)
    return (f"In every row: {said}." if said else ""), [
        {column: cell for column, cell in row.items() if column not in same} for row in rows]


def _stacked(rows: Rows) -> Rows:
    """Each value above its interval: `0.442 (96%)` over `[0.401, 0.483]`."""
    return [
        {column: (_VALUE.sub(r"\1\3\n\2", text), mark) for column, (text, mark) in row.items()}
        for row in rows
    ]


def _blocks(rows: Rows, width: int) -> list[Rows]:
    """`rows` as tables with as many columns as fit, each with the first column."""
    name, *others = rows[0]
    first, *widths = _widths(rows)
    room = left = width - min(first, width // 2)
    blocks: list[list[str]] = [[]]
    for column, needed in zip(others, widths, strict=True):
        if blocks[-1] and needed + GAP > left:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= needed + GAP
    return [[{key: row[key] for key in (name, *block)} for row in rows] for block in blocks]


def _widths(rows: Rows) -> list[int]:
    """The width of each column: of its longest line, or of its longest word where lines wrap."""
    from rich.cells import cell_len

    found = []
    for number, column in enumerate(rows[0]):
        lines = [line for row in rows for line in row[column][0].split("\n")]
        longest = max(map(cell_len, lines))
        words = [word for text in (column, *lines) for word in text.split()]
        word = max(map(cell_len, words), default=0)
        heading = cell_len(column) if longest <= WIDEST and number else 0
        wide = longest if number == 0 else min(max(longest, min(heading, 16)), WIDEST)
        found.append(max(wide, word))
    return found


def _table(rows: Rows) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for number, (column, width) in enumerate(zip(rows[0], _widths(rows), strict=True)):
        # A fixed width keeps rich from narrowing a column of values to spare a long first heading.
        table.add_column(Text(visible(column)), overflow="fold",
                         width=None if number == 0 else width, vertical="top")
    for row in rows:
        table.add_row(*(Text(visible(text), style=STYLES[mark]) for text, mark in row.values()))
    return table
