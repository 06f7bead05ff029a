"""Output files and folders: nothing is replaced that the same kind of command did not write."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from idbench.errors import UserError

_END = 65_536
"""Bytes looked at from each end of an existing file."""

KINDS = {
    "run": rb'"identity": ',
    "report": rb"content=\"idbench report\"|media-src data:( file: 'self')?; style-src",
    "leaderboard": rb'content="idbench leaderboard"',
    "leaderboard's data": rb'"ranked_by": ',
    "reference": rb'"kind": "idbench reference"',
    "embeddings": rb"^PK\x03\x04[\s\S]{26}bundle\.json",
    "submission": rb'"kind": "idbench submission"',
    "JUnit file": rb'<testsuite name="idbench check"',
    "Markdown summary": rb"^### idbench: ",
    "figure": rb"idbench figure",
    "study page": rb'content="idbench study"|<title>Comparing videos</title>',
    "summary of pairs": rb'"lowest_cosine_searched": |"different_references": ',
    "page of pairs": rb"<title>idbench: training pairs</title>",
    "store of videos": rb"fingerprint TEXT, problem TEXT",
    "pairs": rb"references[\s\S]*candidates|other_count_share",
    "page of tables": rb"content=\"idbench paper\"|<title>The paper's tables on avatars</title>",
    "measurement of levels": rb'"people": \d+,\s+"weights": |idbench levels',
    "validation": rb'content="idbench validation"|"prefers_true_prompt": ',
    "embedded pictures": rb"^PK\x03\x04[\s\S]{26}embeddings\.npy",
}
"""Kind of output -> a pattern that every file of the kind holds near its beginning or end."""


def check_output(path: Path, kind: str) -> None:
    """Raise UserError unless `path` is missing, empty, or a file of `kind`, a key of `KINDS`."""
    with _usable(path):
        try:
            state = path.stat()
            if not stat.S_ISREG(state.st_mode):  # a folder, a device, a pipe
                raise UserError(f"{path} is not a file that can be replaced; name another one.")
            size = state.st_size
            with open(path, "rb") as stream:
                data = stream.read(_END)
                if size > _END:
                    stream.seek(max(_END, size - _END))
                    data += stream.read()
        except FileNotFoundError:
            return
    if data and not re.search(KINDS[kind], data):
        raise UserError(
            f"{path} exists and is not a {kind} of idbench; name another file, or remove it."
        )


def check_new_folder(path: Path, known_by: Sequence[str] = ()) -> None:
    """Raise UserError unless `path` is missing, an empty folder, or one that the same command wrote
    before, which has a file that matches one of the patterns `known_by`."""
    with _usable(path):
        try:
            filled = not stat.S_ISDIR(path.stat().st_mode) or any(path.iterdir())
            if filled and any(any(path.glob(pattern)) for pattern in known_by):
                return
        except FileNotFoundError:
            return
    if filled:
        raise UserError(f"{path} already exists; name a new or empty folder, or remove it.")


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        shown = f"{str(path)[:200]}..." if len(str(path)) > 200 else path
        if isinstance(error, NotADirectoryError):
            file = next(parent for parent in path.parents if parent.exists())
            raise UserError(
                f"{shown} cannot be written: {file} is a file, not a folder; name another path."
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{shown} cannot be written ({reason}); name another path.") from error
