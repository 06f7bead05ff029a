"""Run folders with given values and no videos, for tests of what reads runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from idbench.files import write_json
from idbench.runs import Run

COLUMNS = ["sample", "metric", "identity", "frame", "value", "status", "reason"]


def made_run(
    folder: Path, name: str, values: Mapping[str, Sequence[float | None]],
    people: Sequence[Sequence[str]], *, protocol: str = "strict-v3", split: str = "single",
    weights: Mapping[str, str] | None = None, suite: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None, version: str = "idbench 0.1.0",
    suite_ids: Sequence[str] = (), planned: Sequence[str] = (), split_size: int | None = None,
) -> Run:
    """A finished, scored run: sample i shows `people[i]` and has `values[metric][i]`."""
    suite_ids = list(suite_ids) or [f"s{i}" for i in range(len(people))]
    slug = name.replace("/", "-")
    ids = [f"{slug}-{s}" for s in suite_ids]
    samples = {s: f"{slug}-{s}" for s in (*suite_ids, *planned)}
    write_json(folder / "run.json", {
        "schema": 1, "status": "finished", "samples": samples, "packages": {"idbench": "0.1.0"},
        "command": ["idbench", "run"], "created": "2026-01-01T00:00:00+00:00",
        "split_size": split_size,
        "identity": {
            "kind": "generate", "split": split, "seed": 0,
            "suite": dict(suite or {"name": "tiny", "version": "1", "sha256": "x"}),
            "model": {"name": name, "variant": None, "revision": "1", "weights": {},
                      "settings": dict(settings or {"steps": 8})},
        },
        "scoring": {
            "protocol": {"name": protocol, "version": 1}, "detector": "2",
            "weights": dict(weights or {"arcface": "1"}),
            "metrics": {metric: version for metric in values}, "notes": ["a note"],
        },
    })
    rows: list[list[Any]] = []
    for i, (sample, who) in enumerate(zip(ids, people, strict=True)):
        write_json(folder / "samples" / sample / "sample.json", {
            "id": sample, "suite_id": suite_ids[i], "split": split, "prompt_id": f"p{i}",
            "prompt": f"prompt {i}", "category": "scene", "seed": i, "truth": {},
            "status": "failed", "reason": "r", "video": None, "video_sha256": None,
            "video_bytes": None, "shape": None, "fps": None, "seconds": 1.0,
            "references": [{"kind": "face", "name": n, "image": "x.png"} for n in who],
        })
        for metric, column in values.items():
            value = column[i]
            status = "unscored" if value is None else "scored"
            rows.append([sample, metric, None, None, value, status,
                         None if value is not None else "no face"])
            # Rows of frames and identities must not enter the video's value.
            rows.append([sample, metric, who[0], 0, 99.0, "scored", None])
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"frame": "Int64"})
    frame.to_parquet(folder / "scores.parquet")
    return Run.open(folder)
