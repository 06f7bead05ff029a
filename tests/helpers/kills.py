"""Kills commands at random moments, lets them resume, and compares what comes of it.

A scenario is a command that writes into a folder. It is killed, driver or worker, a few times, then
resumed until it ends; the result must be that of an undisturbed run, nothing that was finished may
have changed or been computed again, and nothing temporary may be left.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
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
advance, checkpoint = loop.Session.advance, loop.Session.checkpoint
def note(what):
    with open(f"{state}.made", "a") as stream:
        stream.write(f"{what}\\n")
def advance_noted(self, batches):
    note(f"step {self.step}")
    return advance(self, batches)
def checkpoint_noted(self, progress):
    note(f"checkpoint {self.step}")
    checkpoint(self, progress)
loop.Session.advance, loop.Session.checkpoint = advance_noted, checkpoint_noted
loop.train(recipe(Path(sys.argv[2]), steps=24), state, resume=any(state.glob("checkpoints/0*")))
"""
LATENTS = """
import sys
from pathlib import Path
from idbench.models.concat_id import scenes
from idbench.models.concat_id.training import latents, rendering
folder = Path(sys.argv[3])
sets = {"one": {"scenes": 6, "people": 1, "frames": 2, "identities": 2, "shard": 2}}
scenes.load_recipe = lambda name: {"sets": sets}
rendering.in_processes = lambda function, jobs, *_: [function(*job) for job in jobs]
rendering.render({"sets": sets, "seed": 3}, folder / "data")
latents.prepare({"data": "data", "seed": 5}, folder / "latents")
"""
SHARDS = """
import subprocess, sys
running = [subprocess.Popen([sys.executable, *sys.argv[1:], "--shard", f"{k}/2"]) for k in (0, 1)]
codes = [process.wait() for process in running]
sys.exit(any(code not in (0, -9, -15, -2, 130, 143) for code in codes))
"""


@dataclass
class Scenario:
    """A command to kill.

    Attributes:
        command: the folder that it writes into -> the arguments of Python.
        result: that folder -> what has to be equal.
        finished: that folder -> files that no resumed run may write again.
        begun: that folder -> whether work has begun; a moment is drawn from there on.
        made: that folder -> what was computed, one name a time, in order.
        durable: that folder -> names of what need not be computed again.
        workers: the command's process id -> those of workers that may be killed in its place.
        share: of the kills that hit a worker, if there is one.
        signals: for workers.
    """

    name: str
    command: Callable[[Path], list[str]]
    result: Callable[[Path], object]
    finished: Callable[[Path], Sequence[Path]] = lambda folder: ()
    begun: Callable[[Path], bool] = lambda folder: folder.exists()
    made: Callable[[Path], Sequence[str]] = lambda folder: ()
    durable: Callable[[Path], Collection[str]] = lambda folder: ()
    workers: Callable[[int], list[int]] = lambda pid: []
    share: float = 0.5
    signals: Sequence[signal.Signals] = (signal.SIGKILL,)
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
        lasting = _Lasting(scenario, folder)
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
            lasting.note()
        if process.exitcode is None:  # it lost a worker
            process.join(HANGS_SECONDS)
            if process.exitcode != 0:
                found.faults.append(f"{scenario.name}: ends with {process.exitcode}")
            lasting.note()
        process = _run(scenario, folder)
        process.join(HANGS_SECONDS)
        if process.exitcode != 0:
            found.faults.append(f"{scenario.name}: resuming ends with {process.exitcode}")
        elif scenario.result(folder) != expected:
            found.faults.append(f"{scenario.name}: another result after {what}")
        if again := lasting.again():
            found.faults.append(f"{scenario.name}: made twice: {again[:3]}")
        if left := leftovers(folder):
            found.faults.append(f"{scenario.name}: left behind: {left[:3]}")
        if not found.faults:
            shutil.rmtree(folder)
    return found


class _Lasting:
    """What was finished whenever a command of a round had ended."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario, self.folder = scenario, folder
        self.files: dict[Path, tuple[int, str]] = {}
        self.names: list[tuple[int, set[str]]] = []

    def note(self) -> None:
        """Note what is finished now."""
        of, folder = self.scenario, self.folder
        self.files |= {p: _state(p) for p in of.finished(folder) if p not in self.files}
        self.names.append((len(of.made(folder)), set(of.durable(folder))))

    def again(self) -> list[str]:
        """What was finished, and written or computed again since."""
        made = self.scenario.made(self.folder)
        files = [str(p) for p, state in self.files.items() if not p.exists() or _state(p) != state]
        return files + sorted({n for count, names in self.names for n in names & set(made[count:])})


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
    """Kill the process or, of a scenario with workers, one of them; says which."""
    assert process.pid
    workers = scenario.workers(process.pid)
    if workers and rng.random() < scenario.share:
        number = rng.choice(scenario.signals)
        with suppress(ProcessLookupError):
            os.kill(rng.choice(workers), number)
        return f"worker {number.name}"
    number = rng.choice(SIGNALS)
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(process.pid, number)
    return f"driver {number.name}"


def _children(pid: int, word: str) -> list[int]:
    """Process ids below a process whose command line has a word in it."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                found += [child.pid] * (word in " ".join(child.cmdline()))
    return found


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
            lambda folder: re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", (
                folder / "r.html").read_text()),
            begun=lambda folder: not folder.mkdir(exist_ok=True), environment=environment),
        Scenario("pairs build", python(PAIRS, world), _pairs, made=_reads, durable=_read_videos),
        Scenario("train", python(TRAIN, cache), _weights, made=_steps, durable=_lasting_steps),
        Scenario("latents", python(LATENTS, cache), _arrays,
                 lambda folder: [folder / name for name in _arrays(folder)]),
        Scenario(
            "shards", lambda folder: ["-c", SHARDS, *toy, *metrics, "--out", str(folder)],
            _table, _videos, workers=lambda pid: _children(pid, "--shard"), share=1.0,
            signals=SIGNALS, environment=environment),
    ]
    if address:
        ray = ["--engine", "ray", "--address", address, "--workers", "2"]
        assert cluster
        found.append(Scenario(
            "run by Ray", lambda folder: [*toy, *metrics, *ray, "--out", str(folder)],
            _table, _videos, workers=lambda pid: _children(cluster, "ray::Worker"),
            environment=environment))
    return found


def _videos(folder: Path) -> list[Path]:
    """Videos and records of finished samples."""
    records = list(folder.glob("samples/*/sample.json"))
    return [*records, *(record.with_name("video.mp4") for record in records)]


def _scored(folder: Path) -> list[Path]:
    return [*_videos(folder), *folder.glob("samples/*/scores.json"),
            *folder.glob("embeddings/*/[!.]*.safetensors")]


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


def _reads(folder: Path) -> list[str]:
    """Videos in the order in which they were read."""
    path = folder / "reads.txt"
    return path.read_text().split() if path.exists() else []


def _read_videos(folder: Path) -> list[str]:
    """Videos whose faces are stored."""
    if not (folder / "videos.sqlite").exists():
        return []
    with closing(sqlite3.connect(
            f"file:{folder / 'videos.sqlite'}?mode=ro", uri=True)) as base, suppress(
            sqlite3.OperationalError):  # it was killed before there was a table
        return [name for (name,) in base.execute("SELECT name FROM records")]
    return []


def _steps(folder: Path) -> list[str]:
    """Steps and checkpoints in the order in which they were made."""
    path = folder.with_name(f"{folder.name}.made")
    return path.read_text().splitlines() if path.exists() else []


def _lasting_steps(folder: Path) -> list[str]:
    """What the newest complete checkpoint holds."""
    whole = sorted(int(p.parent.name) for p in folder.glob("checkpoints/*/checkpoint.json")
                   if p.parent.name.isdigit())
    if not whole:
        return []
    return [f"checkpoint {whole[-1]}", *(f"step {k}" for k in range(whole[-1]))]


def _arrays(folder: Path) -> dict[str, str]:
    """Rendered and encoded arrays: path -> sha256."""
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("[!.]*.npy"))
            if not any(part.startswith(".") for part in p.relative_to(folder).parts)}
