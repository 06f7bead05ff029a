"""The order of the tests, a disk that no test waits for, threads that sleep while they wait, and
imports that are not searched for garbage."""

from __future__ import annotations

import gc
import os

import pytest

# What is tested are processes that end, not power that fails: the kernel keeps what was written.
# That a file is synced before it has its name, tests/idbench/test_training_loop.py sees by calls.
os.fsync = lambda handle: None

# Threads of one process that wait for one another sleep: else they take the core on which another
# process has a test. Read when torch is loaded, later than this.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The modules that the tests import stay until the end: to look through them for garbage, again and
# again while they are imported and at every later collection, takes seconds a process.
gc.disable()

FORKING = {
    "test_kills.py", "test_pairs_build.py", "test_scene_samples.py", "test_stage_plan.py",
    "test_stage_processes.py", "test_stage_training.py",
}
"""The files whose tests fork processes, see tests/helpers/forked.py."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First those that fork: on several workers they come to the same one, so that only one server
    imports what the forked processes need."""
    items.sort(key=lambda item: item.path.name not in FORKING)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
