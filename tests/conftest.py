"""The order of the tests."""

from __future__ import annotations

import pytest

FORKING = {
    "test_kills.py", "test_pairs_build.py", "test_stage_plan.py", "test_stage_processes.py",
    "test_stage_training.py",
}
"""The files whose tests fork processes, see tests/helpers/forked.py."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First those that fork: on several workers they come to the same one, so that only one server
    imports what the forked processes need."""
    items.sort(key=lambda item: item.path.name not in FORKING)
