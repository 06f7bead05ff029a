"""The engine `ray`: workers of a real cluster on this machine, which the tests share."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from toy import Done, World

from idbench.runs import Run

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
    again = there.run(*ray(there, cluster, *measured))
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
    assert there.run("score", "out", "--metric", "sampled").returncode == 0
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


def test_more_than_the_cluster_has_is_one_sentence(there: World, cluster: Cluster) -> None:
    done = there.apart(*ray(there, cluster, "--workers", "5"))
    assert done.returncode == 2 and "enough for 2 workers" in done.stderr, done.stderr
    nobody = there.toy("--engine", "ray", "--address", "127.0.0.1:1")
    done = there.apart(*nobody)
    assert done.returncode == 2 and "Ray cannot be used at 127.0.0.1:1" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
