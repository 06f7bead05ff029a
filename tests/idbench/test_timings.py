"""Phases of a run: each second is counted once."""

from __future__ import annotations

import time

import pytest

from idbench.timings import Timings


def test_an_inner_phase_is_taken_from_the_outer_one() -> None:
    timings = Timings({"load": 1.0})
    with timings.phase("generate"):
        time.sleep(0.02)
        with timings.phase("load"):
            time.sleep(0.05)
    found = timings.as_dict()
    assert list(found) == ["load", "generate"]
    assert found["load"] == pytest.approx(1.05, abs=0.02)
    assert found["generate"] == pytest.approx(0.02, abs=0.015)


def test_a_scorers_own_account_replaces_the_time_around_it() -> None:
    timings = Timings({"score": 3.0})
    timings.split("score", {"detect": 1.0, "embed": 1.5})
    assert timings.as_dict() == {"detect": 1.0, "embed": 1.5, "score": 0.5}
