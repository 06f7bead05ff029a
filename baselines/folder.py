"""Finished videos of any system, closed ones too, as a model that a suite is run with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idbench.baselines.finished_videos import FinishedVideos
from idbench.errors import UserError
from idbench.table_files import read_rows
from idbench.types import Sample
from idbench.values import number
from idbench.video_files import existing, videos_by_name

COLUMNS = ("sample", "video")
"""Of a manifest: the sample's id as `idbench list samples` prints it, and the video's path."""


class Folder(FinishedVideos):
    """The videos of a folder, named after the samples of a split, or listed in a manifest.

    Args:
        videos: the folder of the videos and folders of frames. With a manifest: the folder that
            its relative paths start from (default: the manifest's own).
        manifest: a CSV, JSON-lines or JSON file with the columns `sample` and `video`.
        name: what to call the system in tables. Default: the name of the folder or manifest.
        fps: frames a second of folders of frames (default: 8).

    Raises:
        UserError: neither videos nor a manifest, or a file in it that is missing or ambiguous.
    """

    def __init__(
        self, variant: str | None = None, *, videos: str | None = None,
        manifest: str | None = None, name: str | None = None, fps: float | None = None,
    ) -> None:
        if variant is not None:
            raise UserError(f"folder has no variants; use --set name={variant} to name the system.")
        if videos is None and manifest is None:
            raise UserError(
                "folder needs the videos of a system: --set videos=FOLDER, named after the samples "
                "(see `idbench list samples`), or --set manifest=FILE."
            )
        self.where = Path(str(manifest or videos))
        folder = None if videos is None else Path(str(videos))
        if manifest is None:
            found = videos_by_name(self.where)
        else:
            found = listed_videos(self.where, folder or self.where.parent)
        super().__init__(
            str(name or self.where.resolve().stem), found,
            None if fps is None else number("fps", fps),
        )

    def check(self, samples: Sequence[Sample]) -> None:
        """Refuse a split none of whose samples has a video; those without one fail singly.
        Raises UserError: no sample has a video."""
        if samples and not any(sample.suite_id in self.videos for sample in samples):
            raise UserError(
                f"No video of {self.where} belongs to a sample of this split (such as "
                f"{samples[0].suite_id}.mp4); `idbench list samples --split "
                f"{samples[0].split}` prints their ids."
            )


def listed_videos(manifest: Path, base: Path) -> dict[str, Path]:
    """The videos of a manifest by the id of their sample. Raises UserError: not a readable table, a
    missing column or video, or a sample named twice."""
    found: dict[str, Path] = {}
    rows: list[tuple[str, dict[str, Any]]] = list(
        read_rows(manifest, "manifest", COLUMNS, required=COLUMNS, json_columns=COLUMNS)
    )
    for where, row in rows:
        sample, video = str(row["sample"]), existing(base / str(row["video"]))
        if not video.exists():
            raise UserError(f"{where} names the video {video}, which is missing; check the path.")
        if sample in found:
            raise UserError(f"{where} names the sample {sample} a second time; remove one row.")
        found[sample] = video
    return found
