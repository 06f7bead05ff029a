"""Video files as people keep them: in folders, among other files, with any names."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from idbench.errors import UserError

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".ts", ".mts", ".m2ts", ".mpg",
    ".mpeg", ".wmv", ".flv", ".ogv", ".3gp",
)
"""Endings of the containers that PyAV reads."""


def videos_in(paths: Sequence[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """The video files named and those in the folders named, and what is skipped there.

    Raises:
        UserError: a path that does not exist, or a folder without a video.
    """
    found: list[Path] = []
    skipped: list[str] = []
    for path in map(existing, paths):
        if path.is_dir():
            files = visible_files(path)
            inside = [p for p in files if is_video(p)]
            if not inside:
                raise UserError(
                    f"The folder {path} has no video ({', '.join(VIDEO_SUFFIXES)}); check the "
                    "path."
                )
            found += inside
            skipped += [p.name for p in files if not is_video(p)]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"The video {path} is missing; check the path.")
    return found, tuple(skipped)


def is_video(path: Path) -> bool:
    """Whether a file's ending is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def existing(path: Path) -> Path:
    """`path`, or the file of that name in the other Unicode form: macOS decomposes letters."""
    if not path.exists():
        for form in ("NFC", "NFD"):
            other = Path(unicodedata.normalize(form, str(path)))  # type: ignore[arg-type]
            if other.exists():
                return other
    return path


def visible_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted; hidden ones, such as macOS's `._a.mp4`, are left out."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def distinct_names(videos: Sequence[Path]) -> dict[Path, str]:
    """The file name of each video; with folders where two would be equal."""
    counts = Counter(video.name for video in videos)
    if len(counts) == len(videos):
        return {video: video.name for video in videos}
    common = Path(os.path.commonpath([video.resolve().parent for video in videos]))
    return {
        video: video.name if counts[video.name] == 1
        else video.resolve().relative_to(common).as_posix()
        for video in videos
    }


def say_skipped(names: Sequence[str], say: Callable[[str], None]) -> None:
    """Tell which files were skipped, so that nobody believes that all were scored."""
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        files = "1 file was" if len(names) == 1 else f"{len(names)} files were"
        say(f"{files} skipped (not a video, or not of a sample): {shown}")
