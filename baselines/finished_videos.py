"""Finished videos of any system, as a model like any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idbench.errors import UserError
from idbench.files import sha256_file, sha256_json
from idbench.types import Sample
from idbench.video import check_readable


class FinishedVideos:
    """Hands out a video file for each sample; nothing is generated.

    Args:
        name: what to call the system in tables.
        videos: suite's id of a sample -> its video file (None, or missing: it has none).
    """

    kind = "videos"
    revision = "finished videos"
    maximum_references = 1000
    variant = None
    batch = 1

    def __init__(self, name: str, videos: Mapping[str, Path | None]) -> None:
        self.name, self.videos = name, videos

    def settings(self) -> Mapping[str, Any]:
        return {}

    def weight_hashes(self) -> Mapping[str, str]:
        return {}

    def sample_id(self, sample: Sample) -> str:
        """The video is part of the id: another video under the same name is another sample."""
        video = self.videos.get(sample.suite_id)
        digest = sha256_file(video) if video and video.is_file() else "missing"
        return sha256_json([sample.suite_id, self.name, digest])[:16]

    def generate(self, samples: Sequence[Sample]) -> Iterator[Path]:
        """The video file of each sample.

        Raises:
            UserError: a sample has none, or one that is not a readable video.
        """
        for sample in samples:
            video = self.videos.get(sample.suite_id)
            if video is None or not video.is_file():
                raise UserError(f"there is no video {video}" if video else "there is no video")
            check_readable(video)
            yield video
