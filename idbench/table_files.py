"""Tables that a user writes: CSV as spreadsheets save it, and JSON lines, read row by row."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from idbench.errors import UserError, encodable
from idbench.names import nearest, suggestion

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
DELIMITERS = (",", ";", "\t", "|")
LONGEST_FIELD = 10_000_000
_MORE = "(too many columns)"

Row = tuple[str, dict[str, Any]]
"""Where a row stands, for messages ("FILE line 3"), and its values by column."""


def read_rows(
    path: Path, what: str, columns: Collection[str] = (), required: Collection[str] = (),
    json_columns: tuple[str, str] | None = None, others: bool = True,
) -> Iterator[Row]:
    """The rows of a table; a JSON file is read whole, the others are streamed.

    CSV may be UTF-8 or UTF-16, separated by commas, semicolons, tabs or bars; a first line such as
    `sep=;` names the separator, and empty columns without a name are left out. JSON lines hold one
    object each; a .json file holds a list of objects.

    Args:
        what: how messages call the file, such as "manifest".
        columns: those to expect, by which the separator is found; `others` allows more.
        required: columns that every row must have a value in.
        json_columns: a .json file may also be {value of the first: value of the second}.

    Raises UserError: missing, of another kind, not text, or a wrong row; names the line.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"The {what} {path} is missing; check the path.")
    if suffix in SPREADSHEETS:
        raise UserError(f"The {what} {path} is a spreadsheet; save it as CSV (UTF-8).")
    if suffix not in SUFFIXES:
        raise UserError(
            f"The {what} {path} has an unknown ending; use one of {', '.join(SUFFIXES)}."
        )
    try:
        with open(path, encoding=_encoding(path), newline="") as stream:
            if suffix in (".csv", ".tsv"):
                rows = _csv(stream, path, [*columns, *required], others)
            elif suffix == ".json":
                rows = _json(stream, path, json_columns)
            else:
                rows = _json_lines(stream, path)
            for where, row in rows:
                _check(where, row, required)
                if not others:
                    _check_known(where, row, columns)
                yield where, row
    except UnicodeError as error:
        raise UserError(
            f"The {what} {path} is not UTF-8 text; save it as UTF-8 (in a spreadsheet: \"CSV "
            "UTF-8\")."
        ) from error
    except csv.Error as error:
        raise UserError(f"The {what} {path} is not a readable table ({error}); fix it.") from error
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read ({error.strerror}).") from error


def _encoding(path: Path) -> str:
    with open(path, "rb") as stream:
        start = stream.read(4)
    if start in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    utf16 = start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "utf-16" if utf16 else "utf-8-sig"


def _csv(
    stream: IO[str], path: Path, columns: Collection[str], others: bool
) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    head = stream.readline()
    if "\0" in head:  # UTF-16 without a byte order mark
        raise UnicodeError
    before = 0
    if head.startswith("sep="):  # as Excel writes and reads it
        before, delimiter = 1, head[4:].rstrip("\r\n")
    else:
        stream.seek(0)
        delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(head, columns)
    if len(delimiter) != 1:
        raise UserError(f"{path} line 1 must name one separator, such as sep=; ; correct it.")
    reader = csv.DictReader(stream, delimiter=delimiter, restkey=_MORE)
    reader.fieldnames = [_column(name, columns) for name in reader.fieldnames or ()]
    names = [name for name in reader.fieldnames or () if name]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path} has two columns named {twice[0]!r}; remove or rename one.")
    if names and not others:
        if not set(names) & set(columns) and not any(nearest(n, columns) for n in names):
            raise UserError(
                f"{path} line {before + 1} names no column; begin the file with a line such as "
                f"{delimiter.join(list(columns)[:3])}."
            )
        _check_known(f"{path} line {before + 1}", dict.fromkeys(names), columns)
    for row in reader:
        if not row.get(""):
            row.pop("", None)
        if not any(row.get(_MORE, ())):
            row.pop(_MORE, None)
        yield f"{path} line {before + reader.line_num}", row


def _delimiter(head: str, columns: Collection[str]) -> str:
    """The delimiter under which the first line has most of the columns; else the comma."""
    def found(mark: str) -> int:
        cells = (cell.strip().strip('"') for cell in head.split(mark))
        return len({_column(cell, columns) for cell in cells} & set(columns))

    return max(DELIMITERS, key=found)


def _column(name: str, columns: Collection[str]) -> str:
    """The column that a heading means, whatever its case and the spaces around it."""
    plain = name.strip().lower()
    return plain if plain in columns and name not in columns else name


def _json_lines(stream: IO[str], path: Path) -> Iterator[Row]:
    # Only line feeds end a line: other separators of lines may stand inside JSON strings.
    for number, text in enumerate(stream, 1):
        if text.strip():
            yield f"{path} line {number}", _parse(text, f"{path} line {number}")


def _json(stream: IO[str], path: Path, columns: tuple[str, str] | None) -> Iterator[Row]:
    found = _parse(stream.read(), str(path))
    if isinstance(found, dict) and columns:
        found = [{columns[0]: first, columns[1]: second} for first, second in found.items()]
    if not isinstance(found, list):
        raise UserError(f"{path} must be a list of objects; fix it.")
    for number, row in enumerate(found, 1):
        yield f"{path} entry {number}", row


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON ({error}); fix it.") from error


def _check(where: str, row: Any, required: Collection[str]) -> None:
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object; fix it.")
    if _MORE in row:
        raise UserError(
            f"{where} has more columns than the first line; put text that contains the separator "
            "in double quotes."
        )
    missing = [name for name in required if row.get(name) in (None, "", [])]
    if missing:
        raise UserError(f"{where} has no {missing[0]}; every row needs {' and '.join(required)}.")
    for key, value in row.items():
        if isinstance(value, str) and encodable(value) != value:
            raise UserError(f"{where}: the {key} has half a character (a lone surrogate); fix it.")


def _check_known(where: str, row: dict[str, Any], known: Collection[str]) -> None:
    for key in row:
        if key not in known:
            hint = suggestion(key, known, f"known are {', '.join(known)}.")
            raise UserError(f"{where} has an unknown column {key!r}: {hint}")
