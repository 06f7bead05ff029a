"""What the command line prints as text, and how much: --quiet, --verbose, or as usual."""

from __future__ import annotations

import codecs
import errno
import html
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

QUIET, USUAL, VERBOSE = -1, 0, 1

_level = USUAL
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All control characters but tab and line feed."""
_MARKDOWN_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")
"""The start of a tag, and of a character's name."""
_MARKDOWN_MARKS = re.compile(r"[\\|*]")
_WORD = re.compile(r"\S*`[^`]*`\S*|\S+")
_CLAUSE_END = re.compile(r"[.,;:](?= )| (?=\()")

PLAIN = {"↑": "^", "↓": "v", "–": "-", "—": "-", "…": "...", "×": "x", "≥": ">=", "≤": "<="}
"""What stands for characters that a console cannot show."""


def prepare_streams() -> None:
    """Keep output from failing on a closed stream, or on an encoding that lacks a character."""
    codecs.register_error("idbench", _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as by `2>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="idbench")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(letter, "?") for letter in lacking), error.end


def level() -> int:
    """QUIET, USUAL or VERBOSE."""
    return _level


def set_level(value: int) -> None:
    """Say from now on more or less; VERBOSE also lets the libraries speak."""
    global _level
    _level = value
    if value == VERBOSE:
        os.environ["TRANSFORMERS_VERBOSITY"] = "info"
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


def visible(text: str) -> str:
    """`text` with control characters written as \\u001b and so on: names come from other people's
    files, and a terminal must not obey them."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def escape_markdown(text: str) -> str:
    """`text` on one line, with what Markdown would read as HTML, as a column or as bold escaped,
    and with control characters made visible.

    All else stays as it is, for those who read the file itself: `p < 0.001`, `I > III`, `R&D`.
    """
    one_line = visible(" ".join(text.split()))
    no_html = _MARKDOWN_HTML.sub(lambda found: html.escape(found[0]), one_line)
    return _MARKDOWN_MARKS.sub(r"\\\g<0>", no_html)


def wrapped(text: str, width: int) -> str:
    """`text` in lines of at most `width` columns, broken between words. What stands in backquotes
    is kept together: it is a command to copy."""
    from rich.cells import cell_len

    lines = []
    for line in text.split("\n"):
        if cell_len(line) <= width:
            lines.append(line)
            continue
        begun = ""
        for word in _WORD.findall(line):
            if begun and cell_len(begun) + 1 + cell_len(word) > width:
                lines.append(begun)
                begun = word
            else:
                begun = f"{begun} {word}" if begun else word
        lines.append(begun)
    return "\n".join(lines)


def echo(text: object = "", err: bool = False) -> None:
    """Print a line of text, with control characters made visible."""
    shown = visible(str(text))
    if err and sys.stderr.isatty():
        shown = wrapped(shown, shutil.get_terminal_size().columns)
    try:
        click.echo(shown, err=err)
    except OSError as error:
        if not err or error.errno == errno.EPIPE:
            raise
        # Standard error is on a full disk: what is said there must not end the work.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def note(text: str) -> None:
    """What a person may want to know, on standard error; nothing with --quiet."""
    if _level > QUIET:
        echo(text, err=True)


def echo_json(value: Any) -> None:
    """Print a value as indented JSON."""
    echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def console(width: int = 200) -> Console:
    """A console that prints text as it is; `width` counts where neither a terminal nor $COLUMNS
    says how wide."""
    from rich.console import Console

    made = Console(highlight=False, markup=False)
    if not made.is_terminal and not _columns():
        made.width = width
    return made


def _columns() -> bool:
    """Whether $COLUMNS says how wide the output is."""
    return os.environ.get("COLUMNS", "").isdigit()


def show_table(
    rows: Iterable[Sequence[str]], *columns: str, one_line: bool = False
) -> None:
    """Print a table without lines; the first column never wraps, numbers are set to the right.

    `one_line`: where the width is known, the last column is shortened instead of wrapped.
    """
    from rich.table import Table

    texts = [[visible(cell) for cell in row] for row in rows]
    shown = console()
    if one_line and texts and (shown.is_terminal or _columns()):
        texts = _one_line(texts, columns, shown.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        cells = [row[number] for row in texts]
        numbers = all(cell.removeprefix("-").replace(".", "").isdigit() for cell in cells if cell)
        table.add_column(column, overflow="fold", no_wrap=number == 0,
                         justify="right" if numbers else "left")
    for row in texts:
        table.add_row(*row)
    shown.print(table)


def _one_line(texts: list[list[str]], columns: Sequence[str], width: int) -> list[list[str]]:
    """The rows, with the last column shortened to what the others leave of `width`."""
    from rich.cells import cell_len

    rows = [list(columns), *texts]
    others = sum(max(cell_len(row[i]) for row in rows) + 2 for i in range(len(columns) - 1))
    left = max(width - others, cell_len(columns[-1]), 8)
    return [[*row[:-1], shortened(" ".join(row[-1].split()), left)] for row in texts]


def shortened(text: str, width: int) -> str:
    """`text`, or its beginning in `width` columns: up to the end of a clause if that fills at
    least half of them, otherwise up to a word, with an ellipsis."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    begun = text[:len(set_cell_size(text, width).rstrip())]
    clauses = [m.start() for m in _CLAUSE_END.finditer(text, 0, len(begun) + 2)]
    if clauses and 2 * cell_len(text[:clauses[-1]]) >= width:
        return text[:clauses[-1]]
    cut = set_cell_size(begun, width - 1)
    return (cut.rpartition(" ")[0] or cut).rstrip(" .,;:(") + "…"
