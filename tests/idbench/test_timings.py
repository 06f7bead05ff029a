"""Phases of a run: each second is counted once."""

from __future__ import annotations

from types import SimpleNamespace

from idbench import timings as timings_module
from idbench.timings import Timings


def test_an_inner_phase_is_taken_from_the_outer_one(monkeypatch) -> None:
    # Read at the start and the end of each phase: outer, inner, inner, outer.
    clock = iter([10.0, 12.0, 17.0, 20.0]).__next__
    monkeypatch.setattr(timings_module, "time", SimpleNamespace(perf_counter=clock))
    timings = Timings({"load": 1.0})
    with timings.phase("generate"), timings.phase("load"):
        pass
    assert timings.as_dict() == {"load": 6.0, "generate": 5.0}


def test_a_scorers_own_account_replaces_the_time_around_it() -> None:
    timings = Timings({"score": 3.0})
    timings.split("score", {"detect": 1.0, "embed": 1.5})
    assert timings.as_dict() == {"detect": 1.0, "embed": 1.5, "score": 0.5}
