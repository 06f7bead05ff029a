"""Time of `idbench table` on 10,000 sample records, beyond importing pandas.

    python benchmarks/table.py [RECORDS] [RUNS]

Makes run folders of RECORDS samples in all (two runs of one split by default), with per-frame
rows as a real run has them, and prints seconds of processor and of wall clock.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

METRICS = ("arcsim", "cursim", "viclip", "clipdist", "order", "face_coverage", "swap_rate")
FRAMES, PER_IDENTITY = 16, 50


def make(folder: Path, name: str, count: int, seed: int) -> None:
    """A run of `count` samples, with rows of frames for the two face metrics."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    ids = [f"{name}{i:015d}" for i in range(count)]
    people = [f"a{i // PER_IDENTITY:04d}" for i in range(count)]
    (folder / "samples").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({
        "schema": 1, "status": "finished",
        "samples": {f"s{i:015d}": sample for i, sample in enumerate(ids)},
        "identity": {"kind": "generate", "split": "single", "seed": 0,
                     "suite": {"name": "made", "version": "1", "sha256": ""},
                     "model": {"name": name, "variant": None}},
        "scoring": {"protocol": {"name": "strict-v3"}, "weights": {}, "detector": "",
                    "metrics": {}},
    }))
    for i, sample in enumerate(ids):
        (folder / "samples" / sample).mkdir()
        (folder / "samples" / sample / "sample.json").write_text(json.dumps({
            "schema": 1, "id": sample, "suite_id": f"s{i:015d}", "split": "single",
            "prompt_id": "p", "prompt": "a person smiles in a park " * 4, "category": "scene",
            "references": [{"kind": "face", "name": people[i], "image": "references/x.png"}],
            "seed": i, "truth": {}, "status": "failed", "reason": "made", "video": None,
            "video_sha256": None, "video_bytes": None, "shape": None, "fps": None,
            "seconds": 1.0,
        }))
    parts = [pd.DataFrame({
        "sample": ids, "metric": metric, "identity": None, "frame": None,
        "value": rng.normal(0.4, 0.1, count)}) for metric in METRICS]
    parts += [pd.DataFrame({
        "sample": np.repeat(ids, FRAMES), "metric": metric,
        "identity": np.repeat(people, FRAMES), "frame": np.tile(np.arange(FRAMES), count),
        "value": rng.normal(0.4, 0.1, count * FRAMES)}) for metric in METRICS[:2]]
    frame = pd.concat(parts, ignore_index=True)
    frame["status"], frame["reason"] = "scored", None
    types = {"sample": "string", "metric": "string", "identity": "string", "frame": "Int64",
             "reason": "string"}
    frame.astype(types).to_parquet(folder / "scores.parquet", index=False)


def measure(records: int = 10_000, runs: int = 2) -> tuple[float, float]:
    """Seconds (processor, wall) of the command, pandas being imported already."""
    import pandas  # noqa: F401
    from click.testing import CliRunner

    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / f"r{i}" for i in range(runs)]
        for i, folder in enumerate(folders):
            make(folder, f"m{i}", records // runs, i)
        wall, processor = time.perf_counter(), time.process_time()
        from idbench.commands.table import table

        done = CliRunner().invoke(table, [*map(str, folders), "--format", "md"])
        spent = time.process_time() - processor, time.perf_counter() - wall
        if done.exit_code or "m0" not in done.output:
            raise RuntimeError(done.output) from done.exception
    return spent


if __name__ == "__main__":
    processor, wall = measure(*(int(a) for a in sys.argv[1:]))
    print(f"idbench table: {processor:.2f} s of processor, {wall:.2f} s of wall clock")
