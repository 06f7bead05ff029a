"""What ends a run, and how an exception of a sample is told."""

from __future__ import annotations

from idbench.embedded import WeightError
from idbench.errors import UserError, message
from idbench.files import DiskError

FATAL = (DiskError, WeightError)
"""Errors that every further sample would meet too."""


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = message(error)
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
