"""A run as a folder that `datasets.load_dataset(FOLDER)` reads, and the Hub shows.

    FOLDER/README.md                    the card: `load_dataset(FOLDER)` gives the videos
    FOLDER/videos/metadata.parquet      a row a sample: what was asked, what came out, its values
    FOLDER/videos/ID.mp4                its video (`file_name` in the row; null: it failed)
    FOLDER/references/metadata.parquet  a row a reference picture
    FOLDER/references/*.png
    FOLDER/scores/scores.parquet        every value in long form, and why there is none

One card has one kind of builder, so references and scores are loaded by their own folders.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from idbench.errors import UserError
from idbench.exporting.summary import library
from idbench.files import saying_disk_full
from idbench.runs import Run
from idbench.scores import long_scores, wide_scores

if TYPE_CHECKING:
    import pandas as pd

CARD = """---
{head}---
# {system} on {suite}, split {split}

Videos of {system}, measured by idbench under the protocol {protocol}.

```python
from datasets import load_dataset

videos = load_dataset("PATH", split="{part}")                # a row a sample, with its values
references = load_dataset("PATH/references", split="train")  # a row a picture
scores = load_dataset("PATH/scores", split="train")          # a row a value
```

{table}

A value that is missing is null, never 0; `scores` has the reason. Licence of the suite and of the
model are theirs. Only publish videos of people who agreed to it.
"""


def export(run: Run, folder: Path) -> dict[str, int]:
    """Write `run` to the new folder `folder`; it is complete or not there.

    Returns:
        Number of rows of each part (videos, references, scores).

    Raises:
        UserError: the folder holds something, or the run has no scores yet.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something already; name a new folder with --out.")
    with saying_disk_full(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
            made = Path(place) / "made"
            rows = _write(run, made)
            os.replace(made, folder)
    return rows


def check(folder: Path) -> dict[str, int]:
    """Load the written folder with `datasets`, offline: number of rows of each part.

    Raises:
        UserError: `datasets` is not installed.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    datasets = library("datasets", "datasets")
    datasets.disable_progress_bars()
    counts = {}
    with tempfile.TemporaryDirectory() as cache:
        for part, place in (("videos", ""), ("references", "references"), ("scores", "scores")):
            loaded = datasets.load_dataset(str(folder / place), cache_dir=cache)
            counts[part] = sum(len(rows) for rows in loaded.values())
    return counts


def _write(run: Run, folder: Path) -> dict[str, int]:
    videos, references = _videos(run), _references(run)
    for part, files in (("videos", _video_files(run)), ("references", _reference_files(run))):
        (folder / part).mkdir(parents=True)
        for name, source in files.items():
            shutil.copyfile(source, folder / part / name)
    videos.to_parquet(folder / "videos/metadata.parquet", index=False)
    references.to_parquet(folder / "references/metadata.parquet", index=False)
    (folder / "scores").mkdir()
    scores = _scores(run)
    scores.to_parquet(folder / "scores/scores.parquet", index=False)
    (folder / "README.md").write_text(_card(run), encoding="utf-8")
    return {"videos": len(videos), "references": len(references), "scores": len(scores)}


def _videos(run: Run) -> pd.DataFrame:
    """A row a finished sample; `references` names the pictures, then a column a metric."""
    import pandas as pd

    values, split = wide_scores(run), run.split
    rows = [{
        "file_name": None if r.video is None else _video_name(r.sample.id, r.video),
        "sample": r.sample.id, "suite_id": r.suite_id, "system": run.name, "split": split,
        "prompt": r.sample.prompt, "category": r.sample.category,
        "prompt_id": r.sample.prompt_id, "seed": str(r.sample.seed),
        "identities": list(r.sample.identities),
        "references": [reference.image.name for reference in r.sample.references],
        "status": r.status, "reason": r.reason, "frames": r.shape[0] if r.shape else None,
        "fps": r.fps, "seconds": r.seconds,
    } for r in run.records()]
    if not rows:
        raise UserError(f"{run.folder} has no finished sample; run it to its end first.")
    types = {name: "string" for name in (
        "file_name", "sample", "suite_id", "system", "split", "prompt", "category", "prompt_id",
        "seed", "status", "reason")}
    frame = pd.DataFrame(rows).astype({**types, "frames": "Int64", "fps": "float64"})
    return frame.join(values, on="sample")


def _references(run: Run) -> pd.DataFrame:
    import pandas as pd

    found = {r.image.name: r for record in run.records() for r in record.sample.references}
    return pd.DataFrame(
        [{"file_name": name, "name": r.name, "kind": r.kind} for name, r in found.items()],
        columns=["file_name", "name", "kind"],
    ).astype("string")


def _scores(run: Run) -> pd.DataFrame:
    frame = long_scores(run)
    columns = ["sample", "metric", "identity", "frame", "value", "status", "reason"]
    text = {name: "string" for name in columns if name not in ("frame", "value")}
    return frame[columns].astype({**text, "frame": "Int64", "value": "float64"})


def _video_files(run: Run) -> dict[str, Path]:
    return {_video_name(r.sample.id, r.video): r.video for r in run.records() if r.video}


def _reference_files(run: Run) -> dict[str, Path]:
    return {r.image.name: r.image for record in run.records() for r in record.sample.references}


def _video_name(sample: str, video: Path) -> str:
    return f"{sample}{video.suffix}"


def _card(run: Run) -> str:
    from idbench.reports import tables

    suite = run.file.identity.suite
    # datasets takes letters, digits and underscores for the name of a split.
    part = re.sub(r"\W", "_", run.split)
    head: dict[str, Any] = {
        "pretty_name": f"{run.name} on {suite.name}", "tags": ["video", "idbench"],
        "configs": [{"config_name": "videos", "data_files": [
            {"split": part, "path": ["videos/metadata.parquet", "videos/*"]}]}],
    }
    return CARD.format(
        head=yaml.safe_dump(head, sort_keys=False, allow_unicode=True), system=run.name,
        suite=f"{suite.name} {suite.version}".strip(),
        split=run.split, protocol=run.file.scoring.protocol_name, part=part,
        table=tables.render(tables.measured([run]), "md"),
    )
