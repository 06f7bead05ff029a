"""The state of a build: one SQLite file with every video and what was read from it.

A finished video is one committed row, so a build can be killed at any moment. Memory use does
not grow with the number of videos.
"""

from __future__ import annotations

import json
import os
import sqlite3
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idbench.errors import UserError
from idbench.files import DiskFull, real, sha256_json
from idbench.models.concat_id.pairs.frames import BESIDE, beside
from idbench.models.concat_id.pairs.tracking import RECORD, VideoRecord
from idbench.names import finite, nearest
from idbench.table_files import read_rows
from idbench.video_folders import VIDEO_SUFFIXES

_TABLES = """
CREATE TABLE IF NOT EXISTS videos (
  name TEXT PRIMARY KEY, size INTEGER, changed INTEGER, caption TEXT, aesthetic REAL);
CREATE TABLE IF NOT EXISTS records (
  name TEXT PRIMARY KEY, fingerprint TEXT, problem TEXT, record TEXT, vectors BLOB);
"""
_COLUMNS = (
    "v.rowid, v.name, v.caption, v.size, v.changed, v.aesthetic, r.fingerprint, r.problem, r.record"
)
_JOINED = "FROM videos v LEFT JOIN records r ON r.name = v.name"
_PAGE = 100


@dataclass(frozen=True)
class Row:
    """A captioned video and, once read, its record.

    Attributes:
        number: of the video in this run, from 1, in the order of the folder.
        name: path relative to the folder of videos, with `/`.
        fingerprint: of the file, the images next to it, and the reader.
        aesthetic: the score in the user's file, else the reader's.
        problem: why it could not be read, or None.
        record, vectors: what was read, embeddings float32 (people, d); None before reading.
    """

    number: int
    name: str
    caption: str | None
    fingerprint: str
    aesthetic: float | None = None
    problem: str | None = None
    record: VideoRecord | None = None
    vectors: np.ndarray | None = None

    @property
    def finished(self) -> bool:
        """Whether it was read, or found to be unreadable."""
        return self.problem is not None or self.record is not None


class Store:
    """The SQLite file of one output folder. `identity` is of the reader (JSON values); a record
    made by another one is read again. Raises UserError: the file is damaged."""

    def __init__(self, path: Path, identity: object) -> None:
        self.path, self._identity = path, sha256_json(identity)
        with self._errors():
            self._base = sqlite3.connect(path)
            # Write-ahead: a commit outlives kill -9 without waiting for the disk each time.
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    # -- which videos there are

    def list_videos(self, folder: Path, out: Path) -> int:
        """Store the name of every video under `folder` but not under `out`; returns how many."""
        found = (
            (path.relative_to(folder).as_posix(), *_state(path, beside))
            for path, beside in video_files(folder, out)
        )
        with self._errors():
            self._base.execute("DELETE FROM videos")
            done = self._base.executemany(
                "INSERT INTO videos (name, size, changed) VALUES (?, ?, ?)", found
            )
            self._base.commit()
        return done.rowcount

    def note_captions(self, path: Path) -> int:
        """Store a file's captions; returns how many. Raises UserError: see `read_rows`; a caption
        for an unknown video, two for one, or one that is no text."""
        return self._note(path, "captions file", "caption", "caption", _text)

    def note_aesthetic(self, path: Path) -> int:
        """Store a file's aesthetic scores (columns video and score); returns how many.
        Raises UserError: see `read_rows`; a score for an unknown video, two for one, no number."""
        return self._note(path, "aesthetic scores file", "score", "aesthetic",
                          lambda value, where: finite(f"{where}: the score", value))

    def _note(
        self, path: Path, what: str, field: str, column: str, convert: Callable[[Any, str], Any]
    ) -> int:
        count = 0
        with self._errors():
            wanted = ("video", field)
            for where, row in read_rows(path, what, wanted, wanted, json_columns=wanted):
                name = self._known(str(row["video"]))
                done = self._base.execute(
                    f"UPDATE videos SET {column} = ? WHERE name = ? AND {column} IS NULL",
                    (convert(row[field], where), name),
                )
                if not done.rowcount:
                    self._base.rollback()
                    raise self._refused(where, what, name)
                count += 1
            self._base.commit()
        if not count:
            raise UserError(f"The {what} {path} is empty; give a row for each video.")
        return count

    def _refused(self, where: str, what: str, name: str) -> UserError:
        if self.number_of(name) is not None:
            return UserError(f"{where} of the {what} names {name!r} a second time; keep one.")
        known = self._found("SELECT name FROM videos LIMIT 1000")
        match = nearest(name, (row[0] for row in known))
        hint = f"did you mean {match!r}? " if match else ""
        return UserError(
            f"{where} of the {what} names an unknown video {name!r}: {hint}Name videos by their "
            "path inside the folder of videos."
        )

    # -- what was read

    def rows(self, vectors: bool = True) -> Iterator[Row]:
        """The captioned videos in order, each with its current record if there is one, without
        embeddings unless `vectors`. Read in pages: the caller may write in between."""
        last, blob = 0, "r.vectors" if vectors else "NULL"
        query = (
            f"SELECT {_COLUMNS}, {blob} {_JOINED} WHERE v.caption IS NOT NULL "
            f"AND v.rowid > ? ORDER BY v.rowid LIMIT {_PAGE}"
        )
        while page := self._found(query, last):
            yield from map(self._row, page)
            last = page[-1][0]

    def get(self, number: int) -> Row:
        """The row of one video by its number, without embeddings. Raises KeyError: no such
        video."""
        found = self._found(f"SELECT {_COLUMNS}, NULL {_JOINED} WHERE v.rowid = ?", int(number))
        if not found:
            raise KeyError(number)
        return self._row(found[0])

    def number_of(self, name: str) -> int | None:
        """The number of the video of that name, in either Unicode form, or None."""
        found = self._found("SELECT rowid FROM videos WHERE name = ?", self._known(name))
        return int(found[0][0]) if found else None

    def _known(self, name: str) -> str:
        """The name as the folder has it: macOS decomposes letters, tables rarely do."""
        if name.isascii():
            return name
        forms = dict.fromkeys([name, *(unicodedata.normalize(f, name) for f in ("NFC", "NFD"))])
        marks = ", ".join("?" * len(forms))
        found = self._found(f"SELECT name FROM videos WHERE name IN ({marks})", *forms)
        stored = {row[0] for row in found}
        return next((form for form in forms if form in stored), name)

    def _row(self, found: tuple) -> Row:
        number, name, caption, size, changed, aesthetic, stored, problem, record, blob = found
        fingerprint = f"{size}-{changed}-{self._identity[:24]}"
        if stored != fingerprint:
            return Row(number, name, caption, fingerprint, aesthetic)
        try:
            read, vectors = _decode(record, blob)
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged(error) from error
        if aesthetic is None and read is not None:
            aesthetic = read.aesthetic
        return Row(number, name, caption, fingerprint, aesthetic, problem, read, vectors)

    def put(
        self, row: Row, problem: str | None, record: VideoRecord | None = None,
        vectors: np.ndarray | None = None,
    ) -> None:
        """Finish a video: it is on disk when this returns."""
        text = None if record is None else json.dumps(asdict(record), separators=(",", ":"))
        blob = None if vectors is None else np.ascontiguousarray(vectors, np.float32).tobytes()
        with self._errors():
            self._base.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)",
                (row.name, row.fingerprint, problem, text, blob),
            )
            self._base.commit()

    def _found(self, query: str, *values: Any) -> list[Any]:
        with self._errors():
            return self._base.execute(query, values).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise DiskFull(
                    f"The disk with {self.path.parent} is full; free some space and run the same "
                    "command again: finished videos are kept."
                ) from error
            raise UserError(f"{self.path} cannot be used ({error}); check its folder.") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> UserError:
        return UserError(
            f"{self.path} is damaged ({error}); remove it, and all videos are read again."
        )


def _decode(record: str | None, blob: bytes | None) -> tuple[VideoRecord | None, np.ndarray | None]:
    found = None if record is None else RECORD.validate_python(json.loads(record))
    if blob is None or found is None:
        return found, None
    people = len(found.people)
    return found, np.frombuffer(blob, np.float32).reshape(people, -1 if people else 0)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):  # JSON has more than text
        raise UserError(f"{where}: the caption must be text, not {value!r}.")
    return value


def _state(path: Path, beside: Sequence[Path]) -> tuple[int, int]:
    """Size and time of change of all files together; for a broken link, what no file has."""
    try:
        every = [file.stat() for file in (path, *beside)]
    except OSError:
        return -1, 0
    return sum(s.st_size for s in every), max(s.st_mtime_ns for s in every)


def video_files(folder: Path, out: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Video files below `folder`, each with the images for it next to it, without hidden files and
    `out`."""
    out = real(out)
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            f for f in folders
            if not f.startswith(".") and real(Path(place) / f) != out
        )
        names = set(files)
        for file in sorted(names):
            if file.startswith(".") or not file.lower().endswith(VIDEO_SUFFIXES):
                continue
            if not file.isprintable():  # bytes that are no UTF-8, line breaks
                raise UserError(f"The name of the video {file!r} cannot be written; rename it.")
            path = Path(place) / file
            pictures = (beside(path, kind) for pair in BESIDE.items() for kind in pair)
            yield path, [picture for picture in pictures if picture.name in names]
