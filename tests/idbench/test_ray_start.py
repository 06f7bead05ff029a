"""The engine `ray` where no cluster starts or answers, and without Ray; what its workers run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from toy import World

from idbench import ray_pool
from idbench.engines import make_engine
from idbench.errors import UserError
from idbench.scoring import Scoring
from idbench.worker import Job, Worker


def test_a_cluster_that_does_not_start_in_time_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", slow)
    with pytest.raises(UserError, match="cannot be used on this machine .*timed out"):
        ray_pool.start_cluster(None)


def test_a_cluster_that_answers_and_refuses_may_want_a_token(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray sends its token to a named address only if it is told to."""
    def refused(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr("ray.init", refused)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(UserError, match="set RAY_AUTH_MODE=token"):
            ray_pool.start_cluster(f"127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(UserError, match="start it with `ray start --head`"):
        ray_pool.start_cluster("auto")


def test_workers_of_an_own_cluster_are_as_important_as_a_local_process(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    seen = []
    monkeypatch.setattr("ray.init", lambda **_: seen.append(os.environ["RAY_worker_niceness"]))
    ray_pool.start_cluster(None)
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
