"""Finished videos of any system, closed ones too, as a model like any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idbench.errors import UserError
from idbench.files import sha256_file, sha256_json
from idbench.names import number
from idbench.pictures import FPS, frame_files
from idbench.table_files import read_rows
from idbench.types import Abilities, Sample, Video
from idbench.video_folders import existing, videos_by_name

COLUMNS = ("sample", "video")
"""Of a manifest: the sample's id as `idbench list samples` prints it, and the video's path."""


class FinishedVideos:
    """Hands out the video of each sample; nothing is generated.

    Args:
        name: what to call the system in tables.
        videos: suite's id of a sample -> its video file or folder of frames (None, or missing: it
            has none).
        fps: frames a second of folders of frames (None: 8).
    """

    kind = "videos"
    revision = "finished videos"
    maximum_references = 1000
    abilities = Abilities(people=(0, 1000), others=("garment", "background"))
    variant = None
    batch = 1

    def __init__(
        self, name: str, videos: Mapping[str, Path | None], fps: float | None = None
    ) -> None:
        self.name, self.videos, self.fps = name, videos, fps

    def settings(self) -> Mapping[str, Any]:
        return {}

    def weight_hashes(self) -> Mapping[str, str]:
        return {}

    def sample_id(self, sample: Sample) -> str:
        """The video is part of the id: another video under the same name is another sample."""
        return sha256_json([sample.suite_id, self.name, self._digest(sample)])[:16]

    def generate(self, samples: Sequence[Sample]) -> Iterator[Path | Video]:
        """The video file of each sample, or the frames of its folder. Raises UserError: a sample
        has none, or one that is not a readable video."""
        from idbench.video import check_readable  # slow to import

        for sample in samples:
            video = self.videos.get(sample.suite_id)
            if video is not None and video.is_dir():
                yield self._frames(video)
            elif video is None or not video.is_file():
                raise UserError(f"there is no video {video}" if video else "there is no video")
            else:
                check_readable(video)
                yield video

    def _digest(self, sample: Sample) -> str:
        video = self.videos.get(sample.suite_id)
        if video and video.is_dir():
            return sha256_json([self.fps, *map(sha256_file, frame_files(video))])
        return sha256_file(video) if video and video.is_file() else "missing"

    def _frames(self, folder: Path) -> Video:
        from idbench.video import read_video

        note = f"the frames of the folder {folder}"
        if self.fps is None:
            note += f", taken as {FPS:g} frames a second (--fps sets another rate)"
        return Video(read_video(folder).frames, self.fps or FPS, (note,))


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
