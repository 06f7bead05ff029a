"""Video files as people keep them: in folders, among other files, with any names."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from idbench.errors import UserError, encodable
from idbench.files import real
from idbench.pictures import ANIMATED_SUFFIXES, FPS, frame_files, is_animated

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".gif", ".ts", ".mts",
    ".m2ts", ".mpg", ".mpeg", ".m2v", ".vob", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".3gp",
    ".3g2", ".mxf", ".y4m", ".nut", ".dv",
)
"""Endings of the containers that PyAV reads."""


def videos_in(paths: Sequence[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """The videos named and those in the folders named, and what is skipped there. A folder of
    numbered pictures is a video. Raises UserError: a missing path, or a folder without a video."""
    found: list[Path] = []
    skipped: list[str] = []
    for path in map(existing, paths):
        if path.is_file() or is_frame_folder(path):
            found.append(path)
        elif path.is_dir():
            inside, others = folder_videos(path)
            if not inside:
                raise UserError(
                    f"The folder {path} has no video ({', '.join(VIDEO_SUFFIXES)}, animated "
                    f"pictures, or numbered frames); check the path."
                )
            found += inside
            skipped += others
        else:
            raise UserError(f"The video {path} is missing; check the path.")
    return found, tuple(skipped)


def folder_videos(folder: Path) -> tuple[list[Path], list[str]]:
    """The videos in a folder, and the names of everything else, folders that hold videos among it.
    Folders of frames only count if there is no video file beside them."""
    inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    files = [p for p in inside if p.is_file()]
    taken = [p for p in files if is_video(p)] or [p for p in inside if is_frame_folder(p)]
    for path in taken:
        existing(path)
    return taken, [
        p.name for p in inside if p not in taken and (
            p.is_file() or is_frame_folder(p) or any(map(is_video, p.iterdir())))
    ]


def videos_by_name(folder: Path) -> dict[str, Path]:
    """The videos in a folder and its folders of frames, by their names without an ending.
    Raises UserError: it is no folder, or two videos have one name."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; pass the folder that contains the videos.")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if is_video(p) or is_frame_folder(p)):
        if path.stem in found:
            raise UserError(
                f"{folder} has two videos for the sample {path.stem}: {found[path.stem].name} and "
                f"{path.name}; remove one."
            )
        found[path.stem] = path
    return found


def is_video(path: Path) -> bool:
    """Whether a path is a video file, by its ending; a picture is one if it is animated, a hidden
    file (macOS's `._a.mp4`) never."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or not path.is_file():
        return False
    return suffix in VIDEO_SUFFIXES or (suffix in ANIMATED_SUFFIXES and is_animated(path))


def is_frame_folder(path: Path) -> bool:
    """Whether a folder holds numbered pictures and nothing else: it is a video."""
    return path.is_dir() and not path.name.startswith(".") and bool(frame_files(path))


def existing(path: Path) -> Path:
    """`path`, or the file of that name in the other Unicode form: macOS decomposes letters. Raises
    UserError: no system could hold a file of that name, or it is not UTF-8."""
    try:
        str(path).encode()
        if path.exists():
            return path
        for form in ("NFC", "NFD"):
            other = Path(unicodedata.normalize(form, str(path)))  # type: ignore[arg-type]
            if other.exists():
                return other
    except UnicodeEncodeError as error:
        raise UserError(f"The name {str(path)!a} is not UTF-8; rename the file.") from error
    except OSError as error:
        raise UserError(
            f"The file {str(path)[:80]}... cannot be opened ({error.strerror}); check the path."
        ) from error
    return path


def visible_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted; hidden ones, such as macOS's `._a.mp4`, are left out."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def distinct_names(videos: Sequence[Path]) -> dict[Path, str]:
    """The file name of each video; with folders where two would be equal."""
    counts = Counter(video.name for video in videos)
    if len(counts) == len(videos):
        return {video: video.name for video in videos}
    common = Path(os.path.commonpath([real(video).parent for video in videos]))
    return {
        video: video.name if counts[video.name] == 1
        else real(video).relative_to(common).as_posix()
        for video in videos
    }


def say_skipped(names: Sequence[str], say: Callable[[str], None]) -> None:
    """Tell which files were skipped, so that nobody believes that all were scored."""
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        files = "1 file was" if len(names) == 1 else f"{len(names)} files were"
        shown = encodable(", ".join(names[:5]))
        say(f"{files} skipped (not a video, or not of a sample): {shown}{more}")


def say_rate(videos: Iterable[Path | None], fps: float | None, say: Callable[[str], None]) -> None:
    """Tell at which rate folders of frames are read, if the user did not set one."""
    count = sum(video is not None and video.is_dir() for video in videos)
    if count and fps is None:
        folders = "1 folder" if count == 1 else f"{count} folders"
        say(f"{folders} of frames read at {FPS:g} frames a second; --fps sets another rate")
