"""Suites as data, the prompt language of the avatars, and the builders of both."""

from __future__ import annotations

from pathlib import Path

SUITES = Path(__file__).parent / "suites"
"""The folder of the installed suites."""


def suite_names() -> list[str]:
    """Names of the installed suites."""
    return sorted(path.parent.name for path in SUITES.glob("*/suite.yaml"))
