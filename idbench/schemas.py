"""What the files of idbench hold, as pydantic models, exported as JSON Schema.

`idbench list schemas` names them, docs/schemas/ has them (`python -m idbench.schemas FOLDER` writes
them again). Fields may be added within a version; nothing is renamed or removed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from idbench.files import write_json
from idbench.measured_files import ReferenceFile
from idbench.records import FacesFile, RunFile, SampleFile, ScoreRow, ScoresFile
from idbench.reports.study_files import Study, Votes
from idbench.stored import Part
from idbench.submissions import Submission


class VideoRow(Part):
    """A row of `idbench.load(...).videos`: these columns, then one for each metric."""

    run: str
    system: str
    split: str
    sample: str
    suite_id: str
    identities: str = Field(description="names, joined by +")
    category: str
    prompt_id: str
    prompt: str
    status: Literal["generated", "failed"]
    reason: str | None
    seconds: float
    video: str | None = Field(description="path of the video file")
    references: list[str] = Field(description="paths of the reference images")


class LongRow(ScoreRow):
    """A row of `idbench.load(...).scores`."""

    run: str
    system: str
    split: str
    suite_id: str


MODELS: dict[str, tuple[int, type[BaseModel]]] = {
    "run": (1, RunFile), "sample": (1, SampleFile), "sample-scores": (1, ScoresFile),
    "faces": (1, FacesFile), "scores": (1, ScoreRow),
    "reference": (1, ReferenceFile), "submission": (1, Submission),
    "study": (1, Study), "votes": (1, Votes),
    "load-videos": (1, VideoRow), "load-scores": (1, LongRow),
}
"""Name -> version and model."""


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of that name (of `MODELS`), with its version."""
    version, model = MODELS[name]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"idbench-{name}-v{version}", **model.model_json_schema(),
    }


def export(folder: Path) -> list[Path]:
    """Write every schema to `folder`/NAME-vVERSION.json."""
    paths = []
    for name, (version, _) in MODELS.items():
        paths.append(Path(folder) / f"{name}-v{version}.json")
        write_json(paths[-1], json_schema(name))
    return paths


if __name__ == "__main__":
    export(Path(sys.argv[1]))
