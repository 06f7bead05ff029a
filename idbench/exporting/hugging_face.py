"""A run as a folder that `datasets.load_dataset(FOLDER)` reads, and the Hub shows.

    FOLDER/README.md                    the card: `load_dataset(FOLDER)` gives the videos
    FOLDER/videos/metadata.parquet      a row per sample: request, outcome, scores
    FOLDER/videos/ID.mp4                its video (`file_name` in the row; null: failed)
    FOLDER/references/metadata.parquet  a row per reference picture
    FOLDER/references/*.png
    FOLDER/scores/scores.parquet        every score in long form, or the reason why there is none

One card has one kind of builder, so references and scores are loaded by their own folders.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from idbench.errors import UserError, explained
from idbench.files import atomic_folder, check_new_folder
from idbench.output import escape_markdown
from idbench.records import SampleFile
from idbench.reports import table_output, tables
from idbench.runs import Run
from idbench.score_table import COLUMNS, long_scores, wide_scores

if TYPE_CHECKING:
    import pandas as pd

    from idbench.types import Reference

CARD = """---
{head}---
# {system} on {suite}, split {split}

Videos of {system}, measured by idbench under the protocol {protocol}.

```python
from datasets import load_dataset

videos = load_dataset("PATH", split="{part}")                # a row per sample, with its scores
references = load_dataset("PATH/references", split="train")  # a row per picture
scores = load_dataset("PATH/scores", split="train")          # a row per score
```

{table}

A missing value is null, never 0; `scores` has the reason. Suite and model keep their own licences.
Only publish videos of people who agreed to it.
"""


def export(run: Run, folder: Path) -> dict[str, int]:
    """Write `run` to the new folder `folder`, complete or not at all; returns the number of rows of
    each part. Raises UserError: the folder is not empty, or the run has no scores yet."""
    check_new_folder(folder)
    with atomic_folder(folder) as made:
        records = run.records()
        references = {
            image.name: replace(r, image=image, more=())
            for record in records for r in record.sample.references for image in r.images
        }
        tables = {"videos": _videos(run), "references": _references(references.values()),
                  "scores": long_scores(run).astype(COLUMNS)}
        for part, table in tables.items():
            (made / part).mkdir(parents=True)
            file = "scores" if part == "scores" else "metadata"
            table.to_parquet(made / part / f"{file}.parquet", index=False)
        for record in records:
            if record.video and (name := _video_name(record)):
                shutil.copyfile(record.video, made / "videos" / name)
        for name, reference in references.items():
            shutil.copyfile(reference.image, made / "references" / name)
        (made / "README.md").write_text(_card(run), encoding="utf-8")
    return {part: len(table) for part, table in tables.items()}


def check(folder: Path) -> dict[str, int]:
    """Load the written folder with `datasets`, offline: number of rows of each part.
    Raises UserError: `datasets` is not installed."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with explained("This export needs datasets", "install it with `pip install idbench[datasets]`"):
        import datasets

    datasets.disable_progress_bars()
    places = {"videos": folder, "references": folder / "references", "scores": folder / "scores"}
    with tempfile.TemporaryDirectory() as cache:
        loaded = {part: datasets.load_dataset(str(place), cache_dir=cache)
                  for part, place in places.items()}
        return {part: sum(map(len, splits.values())) for part, splits in loaded.items()}


def _videos(run: Run) -> pd.DataFrame:
    """A row per finished sample; `references` names the pictures; then a column per metric."""
    import pandas as pd

    values, split = wide_scores(run), run.split
    rows = [{
        "file_name": _video_name(r),
        "sample": r.id, "suite_id": r.suite_id, "system": run.name, "split": split,
        "prompt": r.prompt, "category": r.category, "prompt_id": r.prompt_id,
        "seed": str(r.seed), "identities": list(r.identities),
        "references": [
            image.name for reference in r.sample.references for image in reference.images
        ],
        "status": r.status, "reason": r.reason, "frames": r.shape[0] if r.shape else None,
        "fps": r.fps, "seconds": r.seconds,
    } for r in run.records()]
    if not rows:
        raise UserError(f"{run.folder} has no finished sample; finish the run first.")
    types = {name: "string" for name in (
        "file_name", "sample", "suite_id", "system", "split", "prompt", "category", "prompt_id",
        "seed", "status", "reason")}
    frame = pd.DataFrame(rows).astype({**types, "frames": "Int64", "fps": "float64"})
    return frame.join(values, on="sample")


def _references(references: Iterable[Reference]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [(r.image.name, r.name, r.kind) for r in references],
        columns=["file_name", "name", "kind"],
    ).astype("string")


def _video_name(record: SampleFile) -> str | None:
    return None if record.video is None else f"{record.id}{record.video.suffix}"


def _card(run: Run) -> str:
    suite = run.file.identity.suite
    # datasets takes letters, digits and underscores for the name of a split.
    part = re.sub(r"\W", "_", run.split)
    head: dict[str, Any] = {
        "pretty_name": f"{run.name} on {suite.name}", "tags": ["video", "idbench"],
        "configs": [{"config_name": "videos", "data_files": [
            {"split": part, "path": ["videos/metadata.parquet", "videos/*"]}]}],
    }
    return CARD.format(
        head=yaml.safe_dump(head, sort_keys=False, allow_unicode=True),
        system=escape_markdown(run.name), suite=escape_markdown(f"{suite.name} {suite.version}"),
        split=escape_markdown(run.split), part=part,
        protocol=escape_markdown(run.file.scoring.protocol_name or "none"),
        table=table_output.render(tables.measured([run]), "md"),
    )
