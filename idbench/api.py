"""`idbench.load`: runs as tidy pandas DataFrames.

    import idbench
    results = idbench.load("runs/mine")            # or "runs/*", or several
    results.videos.groupby("system")["arcsim"].mean()

The columns are described in idbench/schemas.py (as JSON Schema in docs/schemas/); their
version is `SCHEMA`. Columns may be added within a version; nothing is renamed or removed.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idbench.errors import UserError
from idbench.measurements import sample_table, wide_scores
from idbench.runs import Run

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
"""Version of the frames of `Results`."""


@dataclass(frozen=True)
class Results:
    """Runs as tidy frames.

    Attributes:
        runs: one row a run: how it was made, and under which protocol it was scored.
        samples: one row a finished sample: what was asked, and what became of it.
        scores: one row a value, long form: a row without identity and frame speaks of the
            video, one with an identity of that person, one with both of that person in that
            frame. `value` is NaN exactly where `reason` says why.
        videos: one row a finished sample, its columns from `samples`, then one float64 column a
            metric (NaN: unscored): what most analyses start from.
    """

    runs: pd.DataFrame
    samples: pd.DataFrame
    scores: pd.DataFrame
    videos: pd.DataFrame


def load(*paths: str | Path) -> Results:
    """Run folders, of this and every earlier version, as tidy frames.

    Args:
        paths: run folders, patterns such as "runs/*", or folders that hold run folders.

    Raises:
        UserError: nothing there is a run, or one has no scores yet, is damaged, or of a newer
            idbench.
    """
    import pandas as pd

    runs = [Run.open(folder) for folder in _folders(paths)]
    samples, scores, videos = [], [], []
    for run in runs:
        of_run = sample_table(run)
        of_run["identities"] = ["+".join(names) for names in of_run["identities"]]
        of_run.insert(0, "run", str(run.folder))
        of_run.insert(1, "system", run.name)
        of_run.insert(2, "split", run.meta["identity"]["split"])
        samples.append(of_run.astype(_TYPES))
        videos.append(samples[-1].join(wide_scores(run), on="sample"))
        long = pd.read_parquet(run.folder / "scores.parquet")
        of_sample = samples[-1].set_index("sample")[["run", "system", "split", "suite_id"]]
        scores.append(of_sample.join(long.set_index("sample"), how="inner").reset_index().astype(
            _SCORE_TYPES)[list(_SCORE_TYPES)])
    table = pd.DataFrame([_run_row(run) for run in runs])
    return Results(
        table, *(pd.concat(parts, ignore_index=True) for parts in (samples, scores, videos)))


_TYPES = {
    "run": "string", "system": "string", "split": "string", "sample": "string",
    "suite_id": "string", "identities": "string", "category": "string", "prompt_id": "string",
    "prompt": "string", "status": "string", "reason": "string", "seconds": "float64",
}
_SCORE_TYPES = {
    "run": "string", "system": "string", "split": "string", "sample": "string",
    "suite_id": "string", "metric": "string", "identity": "string", "frame": "Int64",
    "value": "float64", "status": "string", "reason": "string",
}


def _folders(paths: Iterable[str | Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        pattern = str(path)
        matches = sorted(map(Path, glob.glob(pattern))) if glob.has_magic(pattern) else [Path(path)]
        runs = [folder for match in matches for folder in _inside(match)]
        if not runs and not glob.has_magic(pattern):
            Run.open(Path(path))  # says what to do
        found.update(dict.fromkeys(runs))
    if not found:
        named = ", ".join(map(str, paths)) or "nothing"
        raise UserError(
            f"There is no run in {named}; name run folders, such as idbench.load('runs/mine')."
        )
    return list(found)


def _inside(folder: Path) -> list[Path]:
    if (folder / "run.json").is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/run.json"))


def _run_row(run: Run) -> dict[str, Any]:
    identity, scoring = run.meta["identity"], run.meta.get("scoring") or {}
    suite, model, counts = identity["suite"], identity["model"], run.meta.get("counts") or {}
    return {
        "run": str(run.folder), "system": run.name, "split": identity["split"],
        "seed": identity["seed"], "suite": suite["name"], "suite_version": suite["version"],
        "model": model["name"], "variant": model.get("variant"),
        "revision": model.get("revision"), "settings": model.get("settings") or {},
        "protocol": (scoring.get("protocol") or {}).get("name"),
        "weights": scoring.get("weights") or {},
        "idbench": (run.meta.get("packages") or {}).get("idbench"),
        "status": run.meta["status"], "created": run.meta.get("created"),
        "planned": len(run.sample_ids), "failed": counts.get("failed"),
        "seconds": sum((run.meta.get("timings") or {}).values()),
    }
