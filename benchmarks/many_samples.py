"""Time and memory of a run folder with 10,000 samples: plan, write, resume, collect, table.

    python benchmarks/many_samples.py [--samples 1000 3000 10000]

The samples are synthetic and tiny: a video of a few bytes, 40 rows of scores. Each size is measured
in a process of its own, and each step by its processor time, which other work on the machine hardly
changes; linear steps have a constant time per sample.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from idbench import holding
from idbench.files import write_bytes
from idbench.provenance import peak_memory_gb
from idbench.records import Identity, ModelName, ScoresFile, ScoringRecord, SuiteName
from idbench.results import Results
from idbench.runs import Run
from idbench.score_table import collect
from idbench.steps import plan, unfinished, unscored
from idbench.types import Reference, Sample, Score

FRAMES = 16


class Nothing:
    """A model that is only named."""

    name, revision, maximum_references = "nothing", "1", 1


def samples(count: int, folder: Path) -> list[Sample]:
    """50 samples of each person."""
    image = folder / "person.png"
    write_bytes(image, b"x")
    return [
        Sample(f"s{i:06d}", "single", f"p{i % 50}", "a person smiles in a park", "scene",
               (Reference("face", f"a{i // 50:04d}", image),), i, {}, f"s{i:06d}")
        for i in range(count)
    ]


def fill(run: Run, planned: list[Sample]) -> None:
    """Write videos, records and scores as a run does."""
    for sample in planned:
        adopted, video = run.adopt(sample), run.path(sample.id, "video.mp4")
        write_bytes(video, b"video")
        run.finish(adopted, video=video, seconds=1.0)
        person = sample.identities[0]
        rows = [Score(sample.id, metric, person, frame, 0.1 + frame / 100)
                for metric in ("arcsim", "cursim") for frame in range(FRAMES)]
        rows += [Score(sample.id, metric, None, None, sample.seed % 97 / 97)
                 for metric in ("arcsim", "cursim", "clipdist", "viclip")]
        scores = ScoresFile.of(rows, key="0" * 64, video_sha256=None)
        scores.write(run.path(sample.id, "scores.json"), wait=False)


def measure(count: int, folder: Path) -> dict[str, float]:
    """Seconds of processor time of each step, and GB of peak memory."""
    identity = Identity(
        suite=SuiteName(name="made", version="1", sha256=""), split="single", seed=0,
        model=ModelName(name="nothing"))
    took: dict[str, float] = {}

    def timed(what: str, step: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = step()
        took[what] = time.process_time() - start
        return result

    def begin() -> None:
        planned, _ = plan([made], Nothing(), identity.model, folder, None)  # type: ignore[arg-type]
        with holding.begin(folder / "run", identity, planned) as run:
            assert len(unfinished(run, planned)) == count

    def resume() -> None:
        planned, _ = plan([made], Nothing(), identity.model, folder, None)  # type: ignore[arg-type]
        with holding.begin(folder / "run", identity, planned) as run:
            assert not unfinished(run, planned)
            assert len(unscored(run, [s.id for s in planned], "1" * 64)) == count
            run.save(scoring=ScoringRecord(protocol={"name": "strict-v3"}, sha256="0" * 64))
            run.close()

    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    made = samples(count, folder)
    timed("plan", begin)
    planned, _ = plan([made], Nothing(), identity.model, folder, None)  # type: ignore[arg-type]
    timed("write", lambda: fill(Run.open(folder / "run"), planned))
    timed("resume", resume)
    run = Run.open(folder / "run")
    timed("collect", lambda: collect(run))
    timed("table", lambda: str(Results([run]).table()))
    took["peak GB"] = peak_memory_gb() or 0.0
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 3000, 10000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps(measure(asked.one, Path(place))))
        return
    for count in asked.samples:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(count)], capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        took = json.loads(done.stdout)
        if count == asked.samples[0]:
            print("| samples |", " | ".join(took), "|")
            print("|---|" + "---|" * len(took))
        cells = (f"{v:.2f} s ({1000 * v / count:.2f} ms each)" if "GB" not in k else f"{v:.2f}"
                 for k, v in took.items())
        print(f"| {count} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
