"""Kills commands at random moments, lets them resume, and compares what comes of it.

A scenario is a command that writes into a folder. It is killed, driver or worker, a few times, then
resumed until it ends; the result must be that of an undisturbed run, nothing that was finished may
have changed, and nothing temporary may be left.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked
import pandas as pd
import psutil
from pair_world import ten_people
from safetensors.torch import load_file
from tiny_stage import make_cache
from toy import make_suite

from idbench.files import sha256_file, sha256_json

HELPERS = Path(__file__).parent
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
HANGS_SECONDS = 240.0
CLUSTER = """
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False,
         object_store_memory=100_000_000, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""
PAIRS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pair_world
from idbench.models.concat_id.pairs.curation import BuildRequest, build
from idbench.models.concat_id.pairs.reader import ReaderSettings
from idbench.models.concat_id.pairs.settings import make_settings
class Slow(pair_world.ToyReader):
    def read(self, *arguments):
        time.sleep(0.03)
        return super().read(*arguments)
world = Path(sys.argv[2])
build(BuildRequest(world / "videos", world / "captions.json", Path(sys.argv[3]),
                   ReaderSettings(make_settings()), quiet=True), Slow)
"""
TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny_stage import recipe
from idbench.models.concat_id.training import loop
state = Path(sys.argv[3])
loop.train(recipe(Path(sys.argv[2]), steps=24), state, resume=any(state.glob("checkpoints/0*")))
"""


@dataclass
class Scenario:
    """A command to kill.

    Attributes:
        command: the folder that it writes into -> the arguments of Python.
        result: that folder -> what has to be equal.
        finished: that folder -> files that no resumed run may write again.
        begun: that folder -> whether work has begun; a moment is drawn from there on.
        cluster: process of a Ray cluster, whose workers are killed as often as the driver.
    """

    name: str
    command: Callable[[Path], list[str]]
    result: Callable[[Path], object]
    finished: Callable[[Path], Sequence[Path]] = lambda folder: ()
    begun: Callable[[Path], bool] = lambda folder: folder.exists()
    cluster: int | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Killed:
    """What came of a scenario: kills by signal and target, and the faults found."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    faults: list[str] = field(default_factory=list)


def kill(scenario: Scenario, base: Path, kills: int, rng: random.Random) -> Killed:
    """Kill `scenario` so often; a round is begun, killed one to three times, and resumed."""
    base.mkdir()
    start = time.monotonic()
    process = _run(scenario, base / "whole")
    startup = _begun(scenario, process, base / "whole")
    process.join(HANGS_SECONDS)
    assert process.exitcode == 0, f"{scenario.name} fails undisturbed"
    expected, span = scenario.result(base / "whole"), time.monotonic() - start - startup
    found = Killed()
    while found.kills.total() < kills:
        folder = base / f"round{found.rounds}"
        found.rounds += 1
        kept: dict[Path, tuple[int, str]] = {}
        for attempt in range(rng.randint(1, min(3, kills - found.kills.total()))):
            process = _run(scenario, folder)
            if attempt:
                time.sleep(0.9 * startup)
            else:
                _begun(scenario, process, folder)
            process.join(rng.uniform(0, span))
            if process.exitcode is not None:
                break
            what = _kill_one(scenario, process, rng)
            found.kills[what] += 1
            if what.startswith("worker"):
                break  # the driver goes on by itself
            process.join(HANGS_SECONDS)
            if process.exitcode is None:
                found.faults.append(f"{scenario.name}: hangs after {what}")
                process.kill()
            kept |= {p: _state(p) for p in scenario.finished(folder) if p not in kept}
        if process.exitcode is None:  # it lost a worker
            process.join(HANGS_SECONDS)
            if process.exitcode != 0:
                found.faults.append(f"{scenario.name}: ends with {process.exitcode}")
        process = _run(scenario, folder)
        process.join(HANGS_SECONDS)
        if process.exitcode != 0:
            found.faults.append(f"{scenario.name}: resuming ends with {process.exitcode}")
        elif scenario.result(folder) != expected:
            found.faults.append(f"{scenario.name}: another result after {what}")
        again = [str(p) for p, state in kept.items() if not p.exists() or _state(p) != state]
        if again:
            found.faults.append(f"{scenario.name}: made twice: {again[:3]}")
        if left := leftovers(folder):
            found.faults.append(f"{scenario.name}: left behind: {left[:3]}")
        if not found.faults:
            shutil.rmtree(folder)
    return found


def leftovers(folder: Path) -> list[str]:
    """Temporary files, locks and logs in a folder and beside it."""
    marks = (".part", ".lock-", ".holder", ".worker-", ".old")
    places = [*folder.rglob(".*"), *folder.parent.glob(f".{folder.name}*")]
    return [str(p) for p in places if any(mark in p.name for mark in marks)]


def _run(scenario: Scenario, folder: Path) -> BaseProcess:
    return forked.start(
        forked.python, scenario.command(folder), scenario.environment, os.devnull, daemon=False)


def _begun(scenario: Scenario, process: BaseProcess, folder: Path) -> float:
    """Wait until the work has begun in a new folder; returns the seconds."""
    start = time.monotonic()
    while process.exitcode is None and not scenario.begun(folder):
        assert time.monotonic() - start < HANGS_SECONDS, f"{scenario.name} does not begin"
        time.sleep(0.01)
    return time.monotonic() - start


def _kill_one(scenario: Scenario, process: BaseProcess, rng: random.Random) -> str:
    """Kill the process or, of a scenario with workers, as often one of them; says which."""
    workers = []
    if scenario.cluster:
        for child in psutil.Process(scenario.cluster).children(recursive=True):
            with suppress(psutil.Error):
                workers += [child.pid] * ("ray::Worker" in " ".join(child.cmdline()))
    if workers and rng.random() < 0.5:
        os.kill(rng.choice(workers), signal.SIGKILL)
        return "worker SIGKILL"
    number = rng.choice(SIGNALS)
    assert process.pid
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(process.pid, number)
    return f"driver {number.name}"


def _state(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, sha256_file(path)


# -- scenarios


def scenarios(
    base: Path, plugin: Path, address: str = "", cluster: int | None = None
) -> list[Scenario]:
    """Generating (local and by workers of Ray), scoring, reporting, pairs, training.

    Args:
        base: an empty folder for what they read.
        plugin: where the toy package is installed.
        address, cluster: of a Ray cluster and of the process that started it.
    """
    suite = make_suite(base / "suite", people=6)
    world = base / "pairs"
    world.mkdir()
    ten_people(world).request()
    cache = make_cache(base / "cache")
    environment = {"PYTHONPATH": str(plugin), "TOY_SECONDS": "0.1", "RAY_AUTH_MODE": "disabled"}
    command = ["-m", "idbench.cli"]
    metrics = ["--metric", "sampled", "--metric", "motion"]
    toy = [*command, "run", "--model", "toy", "--suite", str(suite), "--split", "single"]
    made = base / "made"
    process = forked.start(
        forked.python, [*toy, *metrics, "--out", str(made)], environment, base / "said")
    process.join()
    assert process.exitcode == 0, (base / "said").read_text()

    def score(folder: Path) -> list[str]:
        if not folder.exists():
            shutil.copytree(made, folder)
            shutil.rmtree(folder / "embeddings", ignore_errors=True)
            for path in (*folder.glob("samples/*/scores.json"), folder / "scores.parquet"):
                path.unlink()
        return [*command, "score", str(folder), *metrics, "--metric", "clipdist"]

    def python(code: str, source: Path) -> Callable[[Path], list[str]]:
        return lambda folder: ["-c", code, str(HELPERS), str(source), str(folder)]

    found = [
        Scenario("run", lambda folder: [*toy, *metrics, "--batch", "1", "--out", str(folder)],
                 _table, _videos, environment=environment),
        Scenario("score", score, _table, _scored, environment=environment),
        Scenario(
            "report", lambda folder: [*command, "report", str(made), "-o", str(folder / "r.html")],
            lambda folder: (folder / "r.html").stat().st_size > 10_000,
            begun=lambda folder: not folder.mkdir(exist_ok=True), environment=environment),
        Scenario("pairs build", python(PAIRS, world), _pairs),
        Scenario("train", python(TRAIN, cache), _weights),
    ]
    if address:
        ray = ["--engine", "ray", "--address", address, "--workers", "2"]
        found.append(Scenario(
            "run by Ray", lambda folder: [*toy, *metrics, *ray, "--out", str(folder)],
            _table, _videos, cluster=cluster, environment=environment))
    return found


def _videos(folder: Path) -> list[Path]:
    """Videos and records of finished samples."""
    records = list(folder.glob("samples/*/sample.json"))
    return [*records, *(record.with_name("video.mp4") for record in records)]


def _scored(folder: Path) -> list[Path]:
    return [*_videos(folder), *folder.glob("samples/*/scores.json")]


def _table(folder: Path) -> object:
    """Every score, every video, and whether all is finished."""
    table = pd.read_parquet(folder / "scores.parquet")
    videos = {p.parent.name: sha256_file(p) for p in folder.glob("samples/*/video.mp4")}
    return table.to_json(double_precision=15), sha256_json(videos)


def _pairs(folder: Path) -> object:
    return {p.name: pd.read_parquet(p).to_json() for p in sorted(folder.glob("*.parquet"))}


def _weights(folder: Path) -> object:
    (file,) = (folder / "export").rglob("diffusion_pytorch_model.safetensors")
    return {name: value.numpy().tobytes() for name, value in load_file(file).items()}
