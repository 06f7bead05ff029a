"""Finished videos of any system, as a model like any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idbench.errors import UserError
from idbench.files import sha256_file, sha256_json
from idbench.pictures import FPS, frame_files
from idbench.types import Abilities, Sample, Video


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
