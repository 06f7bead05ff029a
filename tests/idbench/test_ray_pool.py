"""How the engine `ray` gives work to its workers, with a pretended Ray."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from toy import World

from idbench import ray_engine, ray_pool
from idbench.errors import UserError
from idbench.ray_engine import RayEngine
from idbench.ray_pool import RESTART_SECONDS, STARTS, Pool
from idbench.runs import Run
from idbench.worker import Done as WorkDone


class Restarting:
    """As much of Ray as the engine's loop calls: a worker that is `unavailable` so many times;
    the calls `never` do not return."""

    def __init__(self, unavailable: int, *never: str) -> None:
        import ray

        self.never = never
        self.ends: list[str] = []

        self.exceptions, self.cloudpickle = ray.exceptions, ray.cloudpickle
        self.unavailable, self.hired, self.calls = unavailable, 0, 0

    def remote(self, **_: object) -> Callable[..., Any]:
        return lambda _: SimpleNamespace(remote=self.hire)

    def hire(self, *_: object) -> Any:
        self.hired += 1
        return SimpleNamespace(begin=self.method("begin"), generate=self.method("generate"))

    def method(self, name: str) -> Any:
        def call(*_: object) -> str:
            self.calls += 1
            return f"{name} {self.calls}"

        return SimpleNamespace(remote=call)

    def wait(
        self, references: list[str], num_returns: int, timeout: float | None
    ) -> tuple[list[str], list[str]]:
        there = [one for one in references if one not in self.never]
        assert there or timeout, "it would wait for ever"
        return there[:num_returns], references[num_returns:]

    def get(self, reference: str) -> Any:
        if self.calls <= self.unavailable:
            raise self.exceptions.ActorUnavailableError("it is restarting", None)
        return WorkDone() if reference.startswith("generate") else None

    def kill(self, actor: object) -> None:
        self.ends.append("kill")

    def shutdown(self) -> None:
        self.ends.append("shutdown")

    def pool(self, world: World, count: int = 1) -> Pool:
        """Workers on a new run of one sample."""
        assert world.run(*world.toy("--no-score", "--limit", "1")).returncode == 0
        job: Any = None
        return Pool(self, Run.open(world.folder / "out"), job, count, 1, 0)


@pytest.mark.parametrize(("unavailable", "waited"), [(2 * STARTS, True), (400, False)])
def test_a_worker_that_restarts_slowly_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch, unavailable: int, waited: bool
) -> None:
    """For up to a minute, in which it is not replaced and no start counts as failed."""
    seconds = 0.0

    def sleep(more: float) -> None:
        nonlocal seconds
        seconds += more

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: 1 + seconds)
    monkeypatch.setattr(ray_pool, "time", clock)
    pretended = Restarting(unavailable)
    work = pretended.pool(world).work("generate", {"item": None})
    if waited:
        assert [item for item, *_ in work] == ["item"]
        assert seconds == pytest.approx(0.2 * unavailable)
    else:
        with pytest.raises(UserError, match=r"workers cannot start \(.*it is restarting"):
            list(work)
        assert RESTART_SECONDS <= seconds < RESTART_SECONDS + 5
    assert pretended.hired == 1


def test_a_worker_has_its_next_sample_before_the_caller_handles_the_last(
    world: World,
) -> None:
    pretended = Restarting(0)
    work = pretended.pool(world).work("generate", {"first": None, "second": None})
    assert next(work)[0] == "first" and pretended.calls == 3, "begin, and both samples"
    assert [item for item, *_ in work] == ["second"] and pretended.calls == 3


def test_a_worker_that_never_starts_does_not_keep_the_others_work_from_ending(
    world: World,
) -> None:
    """As on a machine of a cluster that is gone."""
    pool = Restarting(0, "begin 2").pool(world, count=2)
    work = pool.work("generate", {"first": None, "second": None, "third": None})
    assert [item for item, *_ in work] == ["first", "second", "third"]


def test_an_interrupt_between_two_samples_dismisses_the_workers_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, pretended = RayEngine(workers=1, gpus_per_worker=0), Restarting(0)
    run = pretended.pool(world)._run
    engine._ray = pretended
    monkeypatch.setattr(ray_pool, "start_cluster", lambda address: None)
    monkeypatch.setattr(ray_pool, "share_cluster", lambda *_: (1, 0.0))
    pretended.cluster_resources = dict  # type: ignore[attr-defined]
    samples = {"first": None, "second": None}
    with pytest.raises(KeyboardInterrupt), engine.open():
        for _ in engine._work(run, "generate", samples):
            raise KeyboardInterrupt
    assert pretended.ends == ["kill", "shutdown"]


def test_a_failed_sample_took_the_time_since_the_one_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.run(*world.toy("--no-score", "--limit", "2")).returncode == 0
    engine = RayEngine(workers=1)
    run = Run.open(world.folder / "out")
    samples = [record.sample for record in run.records()]
    clock = iter([0.0, 5.0, 5.0, 7.0, 7.0])
    monkeypatch.setattr(ray_engine, "time", SimpleNamespace(perf_counter=clock.__next__))
    monkeypatch.setattr(engine, "_work", lambda *_, **__: [
        (sample.id, "its worker died", "worker 0") for sample in samples])
    model: Any = None
    assert [outcome.seconds for outcome in engine.generate(run, model, samples)] == [5.0, 2.0]
