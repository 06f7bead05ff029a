"""What ends a run, and how an exception of a sample is told."""

from __future__ import annotations

from idbench.embedded import WeightError
from idbench.errors import UserError
from idbench.files import DiskError

FATAL = (DiskError, WeightError)
"""Errors that every further sample would meet too."""


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
