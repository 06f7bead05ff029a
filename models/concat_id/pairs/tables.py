"""Small tables that a user gives: captions, scores, identities. CSV or JSON lines, streamed."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from idbench.errors import UserError


def rows(path: Path, what: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row of a .csv, .tsv, .jsonl or .json file; only `.json` is read whole.

    A `.json` file contains a list of rows, or {video: value} for the second of the columns.

    Args:
        what: how messages call the file, such as "captions file".
        columns: that every row must have.

    Raises:
        UserError: missing, another kind of file, damaged, or a row without one of the columns.
    """
    if not path.is_file():
        raise UserError(f"The {what} {path} is missing; check the path.")
    readers = {
        ".csv": _csv, ".tsv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"The {what} {path} has an unknown file type; use .csv, .tsv, .jsonl or .json with "
            f"{' and '.join(columns)}."
        )
    try:
        for number, row in reader(path, columns):
            lacking = [] if isinstance(row, dict) else list(columns)
            lacking = lacking or [c for c in columns if row.get(c) in (None, "")]
            if lacking:
                raise UserError(
                    f"Line {number} of the {what} {path} has no {lacking[0]}; every row needs "
                    f"{' and '.join(columns)}."
                )
            if None in row:  # where `csv` puts them; the text before is cut off
                raise UserError(
                    f"Line {number} of the {what} {path} has more fields than its first line has "
                    "columns; quote text that contains the separator."
                )
            yield number, row
    except (ValueError, OSError, csv.Error) as error:  # JSON and UTF-8 errors are ValueErrors
        raise UserError(f"The {what} {path} cannot be read ({error}); correct it.") from error


def number(value: Any, path: Path, line: int) -> float:
    """A finite number of a row.

    Raises:
        UserError: it is none.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"Line {line} of {path}: {value!r} is not a number; correct it.")
    return found


def _csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter)
        for row in reader:
            yield reader.line_num, row


def _json_lines(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    with open(path, encoding="utf-8-sig") as stream:
        for line, text in enumerate(stream, 1):
            if text.strip():
                yield line, json.loads(text)


def _json(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    found = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(found, dict):
        found = [{columns[0]: video, columns[1]: value} for video, value in found.items()]
    if not isinstance(found, list):
        raise ValueError("neither a list nor a mapping")
    yield from enumerate(found, 1)
