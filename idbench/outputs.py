"""Output files: one is replaced only where the same kind of output wrote it before."""

from __future__ import annotations

import re
from pathlib import Path

from idbench.errors import UserError

_END = 65_536
"""Bytes looked at from each end of an existing file."""

KINDS = {
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
    "pairs": rb"references[\s\S]*candidates|other_count_share",
    "validation": rb'content="idbench validation"|"prefers_true_prompt": ',
    "embedded pictures": rb"^PK\x03\x04[\s\S]{26}embeddings\.npy",
}
"""Kind of output -> a pattern that every file of the kind holds near its beginning or end."""


def check_output(path: Path, kind: str) -> None:
    """Refuse to replace a file that is not of `kind`, a key of `KINDS`.

    A missing or an empty file is fine.

    Raises:
        UserError: `path` exists and is something else.
        OSError: it cannot be read.
    """
    try:
        size = path.stat().st_size
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
