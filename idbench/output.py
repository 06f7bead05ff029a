"""How much the command line prints besides its results: --quiet, --verbose, or as usual."""

from __future__ import annotations

import logging
import os

import click

QUIET, USUAL, VERBOSE = -1, 0, 1

_level = USUAL


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


def note(text: str) -> None:
    """What a person may want to know, on standard error; nothing with --quiet."""
    if _level > QUIET:
        click.echo(text, err=True)
