"""The engine `ray`: workers of a real cluster on this machine, which the tests share."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from toy import Done, World

from idbench import ray_cluster, ray_engine, ray_pool
from idbench.engines import make_engine
from idbench.errors import UserError
from idbench.ray_engine import RayEngine
from idbench.ray_pool import RESTART_SECONDS, STARTS, Pool
from idbench.runs import Run
from idbench.scoring import Scoring
from idbench.worker import Done as WorkDone
from idbench.worker import Job, Worker

CLUSTER = """
import ray
ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False,
         object_store_memory=100_000_000, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


@dataclass
class Cluster:
    """A Ray cluster with two processors and two pretended GPUs; `log` has what was generated."""

    address: str
    log: Path


@pytest.fixture(scope="module")
def cluster(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ray")
    log = folder / "log"
    environment = {
        **os.environ, "PYTHONPATH": str(plugin), "TOY_LOG": str(log), "TOY_SECONDS": "0.2",
        "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(folder),
        # Else it starts two workers for every driver, beside those that the driver asks for.
        "RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=environment, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    address = process.stdout.readline().strip()
    assert address, "no cluster was started"
    yield Cluster(address, log)
    process.communicate("\n", timeout=60)


@pytest.fixture
def there(world: World, cluster: Cluster) -> World:
    """`world`, whose commands can join the cluster."""
    cluster.log.write_text("")
    return replace(world, environment={
        **world.environment, "RAY_AUTH_MODE": "disabled", "HOME": str(cluster.log.parent)})


def ray(there: World, cluster: Cluster, *more: str) -> list[str]:
    return there.toy("--engine", "ray", "--address", cluster.address, "--workers", "2",
                     "--gpus-per-worker", "0", *more)


def local(there: World, out: str, *more: str) -> Done:
    return there.run(*[out if a == "out" else a for a in there.toy(*more)])


def generated(cluster: Cluster) -> list[str]:
    return cluster.log.read_text().split()


def scores(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "scores.parquet")


def clean(folder: Path) -> bool:
    """Whether nothing temporary is left, no lock of a worker and no log."""
    return not [p for p in folder.rglob(".*") if p.name != ".lock"]


def test_two_workers_make_what_one_process_makes(there: World, cluster: Cluster) -> None:
    measured = ("--metric", "motion", "--set", "fail=park", "--seeds", "0,1")
    done = there.apart(*ray(there, cluster, *measured))
    assert done.returncode == 0, done.stderr
    assert "2 Ray worker(s) with 1 CPU and 0 GPU each" in done.stderr
    assert re.search(r"[\d.]+ a (second|minute), .* \(worker \d\)", done.stderr), done.stderr
    assert len(set(generated(cluster))) == len(generated(cluster)) == 16
    assert local(there, "local", *measured).returncode == 0
    out, other = there.folder / "out", there.folder / "local"
    pd.testing.assert_frame_equal(scores(out), scores(other), check_exact=True)
    for record in Run.open(other).records():
        same = Run.open(out).record(record.id)
        apart = {"seconds", "finished"}
        assert same and same.model_dump(exclude=apart) == record.model_dump(exclude=apart)
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished" and run["engine"]["name"] == "ray"
    assert run["engine"]["workers"] == 2 and run["timings"]["generate"] >= 8 * 0.2
    assert (out / "errors.log").read_text().count("toy cannot paint this") >= 8
    assert clean(out)
    cluster.log.write_text("")
    again = there.apart(*ray(there, cluster, *measured))
    assert again.returncode == 0 and "Ray worker" not in again.stderr, "no cluster is needed"
    assert not generated(cluster)


def test_an_item_that_kills_its_worker_costs_itself_alone(
    there: World, cluster: Cluster
) -> None:
    done = there.apart(*ray(there, cluster, "--set", "die=park", "--limit", "4"))
    assert done.returncode == 0, done.stderr
    run = Run.open(there.folder / "out")
    records = run.records()
    failed = [r for r in records if r.status == "failed"]
    assert len(records) == 4 and {r.prompt_id for r in failed} == {"park"} and len(failed) == 2
    assert {r.reason for r in failed} == {
        "generation failed: its worker died 2 times (toy is about to die)"}
    assert sorted(generated(cluster).count(r.id) for r in failed) == [2] * 2
    assert all(generated(cluster).count(r.id) == 1 for r in records if r not in failed)
    log = (run.folder / "errors.log").read_text()
    assert "died" in log and "toy is about to die" in log
    assert clean(run.folder)


def test_a_worker_that_dies_once_loses_nothing(there: World, cluster: Cluster) -> None:
    once = ("--set", "die=park", "--set", f"once={there.folder / 'died'}", "--limit", "4")
    done = there.apart(*ray(there, cluster, *once))
    assert done.returncode == 0, done.stderr
    assert (there.folder / "died").exists()
    assert Run.open(there.folder / "out").file.counts.generated == 4
    assert len(generated(cluster)) == 5 and len(set(generated(cluster))) == 4


def test_scoring_that_kills_its_worker_is_unscored_and_tried_again(
    there: World, cluster: Cluster
) -> None:
    assert local(there, "out", "--no-score", "--limit", "4").returncode == 0
    (there.folder / "deadly").touch()
    score = ["score", "out", "--metric", "sampled", "--engine", "ray", "--address",
             cluster.address, "--gpus-per-worker", "0"]
    done = there.apart(*score)
    assert done.returncode == 0, done.stderr
    found = scores(there.folder / "out")
    assert found["value"].notna().sum() == 2
    assert set(found["reason"].dropna()) == {"scoring failed: its worker died 2 times"}
    (there.folder / "deadly").unlink()
    assert there.apart(*score).returncode == 0
    assert scores(there.folder / "out")["value"].notna().all()


def test_a_driver_that_is_stopped_resumes(there: World, cluster: Cluster) -> None:
    """Stopped three times, by kill, Ctrl-C and termination, and then left to end."""
    arguments = ray(there, cluster, "--seeds", "0,1,2")
    out = there.folder / "out"

    def finished() -> int:
        return len(list(out.glob("samples/*/sample.json")))

    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)):
        wanted, end = finished() + 2, time.monotonic() + 90
        process = there.start(*arguments)
        while finished() < wanted:
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == code and "Traceback" not in error, error
    assert finished() < 24
    again = there.apart(*arguments)
    assert again.returncode == 0, again.stderr
    assert finished() == 24 and clean(out)
    assert not list(out.glob(".*.log"))
    kept = Run.open(out).records()
    assert {r.status for r in kept} == {"generated"}
    # What was being generated when it stopped, at most one a worker, is generated again.
    assert len(generated(cluster)) <= 24 + 3 * 2 and len(set(generated(cluster))) == 24


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
    monkeypatch.setattr(ray_cluster, "start", lambda address: None)
    monkeypatch.setattr(ray_cluster, "share", lambda *_: (1, 0.0))
    pretended.cluster_resources = dict  # type: ignore[attr-defined]
    samples = {"first": None, "second": None}
    with pytest.raises(KeyboardInterrupt), engine.open(run):
        for _ in engine._work("generate", samples):
            raise KeyboardInterrupt
    assert pretended.ends == ["kill", "shutdown"]


def test_a_failed_sample_took_the_time_since_the_one_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.run(*world.toy("--no-score", "--limit", "2")).returncode == 0
    engine = RayEngine(workers=1)
    engine._run = Run.open(world.folder / "out")
    samples = [record.sample for record in engine._run.records()]
    clock = iter([0.0, 5.0, 5.0, 7.0, 7.0])
    monkeypatch.setattr(ray_engine, "time", SimpleNamespace(perf_counter=clock.__next__))
    monkeypatch.setattr(engine, "_work", lambda *_, **__: [
        (sample.id, "its worker died", "worker 0") for sample in samples])
    model: Any = None
    assert [outcome.seconds for outcome in engine.generate(model, samples)] == [5.0, 2.0]


def test_more_than_the_cluster_has_is_one_sentence(there: World, cluster: Cluster) -> None:
    done = there.apart(*ray(there, cluster, "--workers", "5"))
    assert done.returncode == 2 and "enough for 2 workers" in done.stderr, done.stderr
    nobody = there.toy("--engine", "ray", "--address", "127.0.0.1:1")
    done = there.apart(*nobody)
    assert done.returncode == 2 and "Ray cannot be used at 127.0.0.1:1" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_does_not_start_in_time_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", slow)
    with pytest.raises(UserError, match="cannot be used on this machine .*timed out"):
        ray_cluster.start(None)


def test_a_cluster_that_answers_and_refuses_may_want_a_token(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray sends its token to a named address only if it is told to."""
    def refused(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr("ray.init", refused)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(UserError, match="set RAY_AUTH_MODE=token"):
            ray_cluster.start(f"127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(UserError, match="start it with `ray start --head`"):
        ray_cluster.start("auto")


def test_workers_of_an_own_cluster_are_as_important_as_a_local_process(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    seen = []
    monkeypatch.setattr("ray.init", lambda **_: seen.append(os.environ["RAY_worker_niceness"]))
    ray_cluster.start(None)
    assert seen == ["0"]


def test_without_ray_the_engine_is_one_sentence_and_local_works(world: World) -> None:
    (world.folder / "block").mkdir()
    (world.folder / "block/ray.py").write_text("raise ImportError('no ray here')")
    path = f"{world.folder / 'block'}{os.pathsep}{world.environment['PYTHONPATH']}"
    done = world.apart(*world.toy("--engine", "ray"), PYTHONPATH=path)
    assert done.returncode == 2 and "pip install 'idbench[ray]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert world.apart(*world.toy(), PYTHONPATH=path).returncode == 0


def test_options_of_workers_belong_to_ray(world: World) -> None:
    done = world.run(*world.toy("--workers", "2"))
    assert done.returncode == 2 and "--workers belongs to --engine ray" in done.stderr
    for wrong in ({"workers": 0}, {"cpus_per_worker": 0}, {"gpus_per_worker": -1.0},
                  {"device": "cuda:1"}):
        with pytest.raises(UserError):
            make_engine("ray", **wrong)


def test_a_worker_without_ray(world: World) -> None:
    """The class that Ray runs is a plain one; a finished sample is not generated again."""
    import toy_plugin

    code = (
        "import os, sys; from pathlib import Path\nfrom idbench.runs import Run\n"
        "from idbench.scoring import Scoring\nfrom idbench.worker import Job, Worker\n"
        "import toy_plugin\nfolder = Path('out')\nrun = Run.open(folder)\n"
        "job = Job(Path.cwd(), folder, 'cpu', 1, toy_plugin.Toy(), None)\n"
        "worker = Worker(job, 'worker-x'); worker.begin()\n"
        "sample = run.records()[0].sample\ndone = worker.generate(sample)\n"
        "assert done.outcome.kept and done.outcome.seconds == 0\n"
        "(folder / 'samples' / sample.id / 'sample.json').unlink()\n"
        "done = worker.generate(sample)\nassert done.outcome.seconds > 0, done\n"
        "assert done.outcome.video is None and done.timings['encode'] > 0\n"
        "assert run.record(sample.id).status == 'generated'\n"
        "scoring = Scoring.of('strict-v3', ['sampled'])\n"
        "worker = Worker(Job(Path.cwd(), folder, 'cpu', 1, None, scoring), 'worker-y')\n"
        "worker.begin(); done = worker.score(sample.id)\n"
        "assert done.measured.devices == [] and 'score' in done.timings\n"
    )
    assert Job and Worker and Scoring and toy_plugin
    assert world.run(*world.toy("--no-score")).returncode == 0
    before = sorted(p.name for p in (world.folder / "out").iterdir())
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=world.folder, env={**os.environ, **world.environment},
        capture_output=True, text=True, timeout=120)
    log = world.folder / "out/.worker-x.log"
    assert done.returncode == 0, done.stderr + log.read_text()
    assert set(before) < {p.name for p in (world.folder / "out").iterdir()}
    assert (world.folder / "out/samples").is_dir()
