"""Finished videos as samples: named after those of a suite, in a manifest, or one by one."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idbench.errors import UserError
from idbench.files import json_lines, sha256_file, sha256_json
from idbench.names import nearest
from idbench.records import SuiteName
from idbench.suite import Suite, load_suite
from idbench.types import Reference, Sample

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v")
Paths = str | Path | Sequence[str | Path]
"""One path, or several."""
Pair = tuple[Sample, Path | None]
"""A sample and its video; None where a suite's sample has no video."""
_FIELDS = ("video", "prompt", "reference", "references", "category", "id")


@dataclass(frozen=True)
class Listed:
    """Samples whose videos are finished, and where they were listed.

    Attributes:
        videos: suite's id -> the video file (None: a suite's sample has no video).
        title: the suite or manifest that lists them.
    """

    listed: list[Sample]
    videos: dict[str, Path | None]
    title: SuiteName
    split: str = "finished"
    seed: int = 0

    def samples(self, split: str, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """The samples, as of a suite with one split."""
        return self.listed[:limit]


def listed(
    videos: Sequence[Path], *, references: Sequence[Path] = (), prompts: str | Sequence[str] = "",
    manifest: Path | None = None, suite: str | None = None, split: str | None = None,
    limit: int | None = None, seed: int = 0,
) -> Listed:
    """The finished videos that a caller named in one of three ways.

    Args:
        videos: files and folders of videos.
        references: images of the people in every video, left to right.
        prompts: one for all videos, or one for each.
        manifest: a CSV or JSON-lines file; relative paths in it are relative to `videos[0]`,
            if given, else to its own folder.
        suite, split: the videos are named after the samples of a split.

    Raises:
        UserError: none or several of the ways, or what one of them lacks.
    """
    ways = [bool(manifest), bool(references), bool(suite or split)]
    if sum(ways) > 1:
        raise UserError("Give one of --manifest, --reference and --suite, not several.")
    if not any(ways):
        raise UserError(
            "Say who the videos should show: --reference IMAGE, --manifest FILE, or --suite NAME "
            "--split NAME; or give one run folder."
        )
    if manifest:
        pairs = from_manifest(manifest, videos[0] if videos else None)[:limit]
        about = SuiteName(name=manifest.name, version="", sha256=sha256_file(manifest))
        return _listed(pairs, about)
    if not videos:
        raise UserError("Name the videos to score, or the folder that holds them.")
    if references:
        pairs = from_files(videos_of(videos), references, prompts)[:limit]
        return _listed(pairs, SuiteName(name="videos", version="", sha256=""))
    if not split:
        raise UserError("Give --split with --suite, such as --split single.")
    loaded = load_suite(suite or "avatars")
    pairs = from_suite(loaded, split, videos[0], limit, seed)
    return _listed(pairs, loaded.title, split=split, seed=seed)


def paths_of(given: Paths) -> list[Path]:
    """One path, or several, as a list."""
    return [Path(given)] if isinstance(given, str | Path) else [Path(path) for path in given]


def _listed(pairs: Sequence[Pair], suite: SuiteName, **about: Any) -> Listed:
    return Listed(
        [sample for sample, _ in pairs], {sample.id: video for sample, video in pairs}, suite,
        **about,
    )


def from_suite(
    suite: Suite, split: str, folder: Path, limit: int | None, seed: int
) -> list[Pair]:
    """The samples of a split with the videos in `folder`, found by the sample's id as file name.

    `idbench list samples --suite S --split T` prints the ids with prompts and references. A
    sample without a video stays, unscored, so that coverage tells of it.

    Raises:
        UserError: no such folder, no video in it belongs to the split, or one is ambiguous.
    """
    samples = suite.samples(split, limit, seed)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; with --suite give the folder of the videos.")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES):
        if path.stem in found:
            raise UserError(
                f"{folder} has two videos for the sample {path.stem}: {found[path.stem].name} and "
                f"{path.name}; remove one."
            )
        found[path.stem] = path
    matched = [(s, found.get(s.id)) for s in samples]
    if not any(video for _, video in matched):
        example = f"{samples[0].id}.mp4" if samples else "ID.mp4"
        raise UserError(
            f"No video in {folder} is named after a sample of {suite.name}/{split} (such as "
            f"{example}); see `idbench list samples --suite {suite.name} --split {split}`, or use "
            "--manifest."
        )
    return matched


def from_manifest(manifest: Path, base: Path | None) -> list[Pair]:
    """The rows of a CSV or JSON-lines file: video, prompt, reference(s), category, id.

    Several references: a list in JSON, separated by `;` in CSV, left to right as the people in
    the video. Relative paths are relative to `base`, else to the manifest's folder.

    Raises:
        UserError: no such file, an unknown field, a missing value, or a missing image.
    """
    if not manifest.is_file():
        raise UserError(f"The manifest {manifest} is missing; check the path.")
    rows = _csv(manifest) if manifest.suffix.lower() in (".csv", ".tsv") else json_lines(
        manifest.read_text(encoding="utf-8-sig"), manifest
    )
    if not rows:
        raise UserError(f"The manifest {manifest} has no rows; add one for each video.")
    folder = base or manifest.parent
    made = [_row(row, where, manifest.parent, folder) for where, row in rows]
    _distinct([sample.id for sample, _ in made], manifest)
    return made


def from_files(
    videos: Sequence[Path], references: Sequence[Path], prompts: str | Sequence[str]
) -> list[Pair]:
    """Each video with the same references (left to right) and its prompt ("": it has none)."""
    texts = [prompts] * len(videos) if isinstance(prompts, str) else list(prompts)
    if len(texts) != len(videos):
        raise UserError(
            f"There are {len(texts)} prompts for {len(videos)} videos; give one for all, or one "
            "for each."
        )
    made = [
        _pair(video, references, prompt, "finished", None)
        for video, prompt in zip(videos, texts, strict=True)
    ]
    _distinct([sample.id for sample, _ in made], videos[0].parent)
    return made


def videos_of(paths: Sequence[Path]) -> list[Path]:
    """The video files named, and those in the folders named.

    Raises:
        UserError: a path that does not exist, or a folder without a video.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
            if not inside:
                raise UserError(
                    f"The folder {path} holds no video ({', '.join(VIDEO_SUFFIXES)}); check the "
                    "path."
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"The video {path} is missing; check the path.")
    return found


def _row(row: Mapping[str, Any], where: str, home: Path, folder: Path) -> Pair:
    for key in row:
        if key not in _FIELDS:
            match = nearest(str(key), _FIELDS)
            hint = f"did you mean {match!r}?" if match else f"known are {', '.join(_FIELDS)}."
            raise UserError(f"{where} has an unknown field {key!r}: {hint}")
    if not row.get("video"):
        raise UserError(f"{where} names no video; fill in the field 'video'.")
    references = row.get("references") or row.get("reference") or []
    if isinstance(references, str):
        references = [part.strip() for part in references.split(";") if part.strip()]
    if not references:
        raise UserError(f"{where} names no reference image; fill in the field 'reference'.")
    return _pair(
        folder / str(row["video"]), [home / str(name) for name in references],
        str(row.get("prompt") or ""), str(row.get("category") or "finished"),
        str(row["id"]) if row.get("id") else None,
    )


def _pair(
    video: Path, references: Sequence[Path], prompt: str, category: str, name: str | None
) -> Pair:
    hashes = []
    for path in references:
        if not path.is_file():
            raise UserError(f"The reference image {path} is missing; check the path.")
        hashes.append(sha256_file(path))
    # The same picture is the same person in every row, whatever its file is called.
    people = tuple(
        Reference("face", f"{path.stem}-{digest[:6]}", path)
        for path, digest in zip(references, hashes, strict=True)
    )
    names = [p.name for p in people]
    if len(set(names)) < len(names):
        raise UserError(
            f"The references of {video} name the same picture twice; give one for each person."
        )
    part = {"references": hashes, "prompt": prompt, "name": name or video.name}
    identifier = sha256_json(part)[:16]
    sample = Sample(
        id=identifier, suite_id=identifier, split="finished", prompt_id=name or video.stem,
        prompt=prompt, category=category, references=people, seed=0, truth={},
    )
    return sample, video


def _distinct(ids: Sequence[str], where: Path) -> None:
    if len(set(ids)) < len(ids):
        raise UserError(
            f"Two rows of {where} have the same video name, prompt and references; give each its "
            "own 'id' or remove one."
        )


def _csv(path: Path) -> list[tuple[str, dict[str, Any]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter, restkey="(too many columns)")
        return [(f"{path} line {number}", row) for number, row in enumerate(reader, 2)]
