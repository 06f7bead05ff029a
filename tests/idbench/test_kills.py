"""A few kills at random moments; benchmarks/survival.py does a hundred.

Trainings and `pairs build` have tests of their own, which kill them at chosen moments.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kills import Scenario, kill, scenarios


@pytest.fixture(scope="module")
def every(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    return {s.name: s for s in scenarios(tmp_path_factory.mktemp("kills"), plugin)}


@pytest.mark.parametrize("name", ["run", "score", "report"])
def test_what_is_killed_resumes_to_the_same_result(
    every: dict[str, Scenario], tmp_path: Path, name: str
) -> None:
    found = kill(every[name], tmp_path / "kills", 1, random.Random(name))
    assert not found.faults and found.kills.total() == 1
