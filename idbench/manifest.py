"""Finished videos as samples: named after those of a suite, in a manifest, or one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from idbench.errors import UserError
from idbench.files import real, sha256_file, sha256_json, sha256_once
from idbench.pictures import open_picture
from idbench.records import SuiteName
from idbench.stored import validate
from idbench.suite import Suite, load_suite
from idbench.table_files import read_rows
from idbench.types import Reference, Sample
from idbench.video_folders import (
    distinct_names,
    existing,
    say_skipped,
    videos_by_name,
    videos_in,
    visible_files,
)

Paths = str | Path | Sequence[str | Path]
"""One path, or several."""
PROMPTS = "--prompt goes with --reference; a manifest, suite or run has prompts of its own."
Pair = tuple[Sample, Path | None]
"""A sample and its video; None where a suite's sample has no video."""


class ManifestRow(BaseModel):
    """A row of a manifest: one video.

    `reference` or `references`: images of the people, left to right, as a list or separated by `;`;
    several photographs of one person are separated by `|`. `id` tells otherwise equal rows apart.
    """

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    video: str = Field(min_length=1)
    prompt: str | None = None
    reference: list[str] | str | None = None
    references: list[str] | str | None = None
    category: str | None = None
    id: str | None = None

    @property
    def images(self) -> list[str]:
        """The reference images, left to right."""
        given = self.references or self.reference or []
        parts = given.split(";") if isinstance(given, str) else given
        return [part.strip() for part in parts if part.strip()]


@dataclass(frozen=True)
class Listed:
    """Finished videos as samples. `videos`: suite id -> file (None: a suite's sample without one);
    `title`: the suite or manifest that lists them; `of`: that suite."""

    listed: list[Sample]
    videos: dict[str, Path | None]
    title: SuiteName
    split: str = "finished"
    seed: int = 0
    of: Suite | None = None

    def size(self, split: str) -> int | None:
        """How many samples the suite's split has; None: they are of no suite."""
        return None if self.of is None else self.of.size(split)

    def samples(self, split: str, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """The samples, as of a suite with one split."""
        return self.listed[:limit]


def listed(
    videos: Sequence[Path], *, references: Sequence[Path] = (), prompts: str | Sequence[str] = "",
    manifest: Path | None = None, suite: str | None = None, split: str | None = None,
    limit: int | None = None, seed: int = 0, say: Callable[[str], None] = lambda text: None,
) -> Listed:
    """The finished videos that a caller named in one of three ways.

    Args:
        videos: files and folders of videos.
        references: images of the people in every video, left to right; several photographs of one
            person as one path with `|` between them.
        prompts: one for all videos, or one for each.
        manifest: a CSV or JSON-lines file; relative paths in it are relative to `videos[0]`, if
            given, else to its own folder.
        suite, split: the videos are named after the samples of a split.
        say: told which files of the folders were skipped.

    Raises UserError: none or several of the ways, or what one of them lacks.
    """
    ways = [bool(manifest), bool(references), bool(suite or split)]
    if sum(ways) > 1:
        raise UserError("Pass only one of --manifest, --reference and --suite.")
    for path in videos:
        if any(ways) and not manifest and (path / "run.json").is_file():
            raise UserError(
                f"{path} is a run folder; score it without --reference and --suite.")
        if not any(ways) and (runs := sorted(path.glob("*/run.json"))):
            raise UserError(f"{path} contains runs; pass one of them, such as {runs[0].parent}.")
    if not any(ways):
        raise UserError(
            "Pass what the videos should show: --reference IMAGE, --manifest FILE, or --suite NAME "
            "--split NAME; or pass a run folder."
        )
    if prompts and not references:
        raise UserError(PROMPTS)
    about: dict[str, Any] = {}
    if manifest:
        if videos and not videos[0].is_dir():
            raise UserError(
                f"{videos[0]} is not a folder; with --manifest, pass the folder that its paths are "
                "relative to, or nothing."
            )
        pairs = from_manifest(manifest, videos[0] if videos else None)[:limit]
        title = SuiteName(name=manifest.name, version="", sha256=sha256_file(manifest))
    elif not videos:
        raise UserError("Pass the videos to score, or their folder.")
    elif references:
        files, skipped = videos_in(videos)
        say_skipped(skipped, say)
        pairs = from_files(files, references, prompts)[:limit]
        title = SuiteName(name="videos", version="", sha256=_seal(files, pairs))
    elif not split:
        raise UserError("--suite needs --split, such as --split single.")
    else:
        loaded = load_suite(suite or "avatars")
        pairs = from_suite(loaded, split, videos[0], limit, seed)
        taken = {video for _, video in pairs}
        say_skipped([p.name for p in visible_files(videos[0]) if p not in taken], say)
        title, about = loaded.title, {"split": split, "seed": seed, "of": loaded}
    found = {sample.id: video for sample, video in pairs}
    return Listed([sample for sample, _ in pairs], found, title, **about)


def paths_of(given: Paths) -> list[Path]:
    """One path, or several, as a list."""
    return [Path(given)] if isinstance(given, str | Path) else [Path(path) for path in given]


def _seal(videos: Sequence[Path], pairs: Sequence[Pair]) -> str:
    """Stands for the references and the folders of the videos: others are another run."""
    people = pairs[0][0].references if pairs else ()
    digests = [[sha256_file(path) for path in person.images] for person in people]
    return sha256_json([
        _of_people(digests), sorted({str(real(video).parent) for video in videos})])


def _of_people(digests: Sequence[Sequence[str]]) -> list[str | Sequence[str]]:
    """Of each person the digest of the one photograph, or those of several."""
    return [of_person[0] if len(of_person) == 1 else of_person for of_person in digests]


def from_suite(suite: Suite, split: str, folder: Path, limit: int | None, seed: int) -> list[Pair]:
    """The samples of a split with the videos in `folder` that are named after their ids (see
    `idbench list samples`). A sample without a video stays, unscored. Raises UserError: no such
    folder, no video in it belongs to the split, or one is ambiguous."""
    samples = suite.samples(split, limit, seed)
    found = videos_by_name(folder)
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
    """The rows of a CSV or JSON-lines file, each a `ManifestRow`. Relative paths of videos are
    relative to `base`, all others to the manifest's folder. Raises UserError: no such file, an
    unknown field, a missing value, or a missing image."""
    rows = list(read_rows(manifest, "manifest", ManifestRow.model_fields, others=False))
    if not rows:
        raise UserError(f"The manifest {manifest} has no rows; add one for each video.")
    folder = base or manifest.parent
    made = _one_name_a_person([_row(row, where, manifest.parent, folder) for where, row in rows])
    if len({sample.id for sample, _ in made}) < len(made):
        raise UserError(
            f"Two rows of {manifest} have the same video name, prompt and references; give each "
            "its own 'id' or remove one."
        )
    return _one_prompt_id_each(made)


def from_files(
    videos: Sequence[Path], references: Sequence[Path], prompts: str | Sequence[str]
) -> list[Pair]:
    """Each video with the same references (left to right) and its prompt ("": it has none).
    Raises UserError: a reference is missing or no picture, or the prompts are not as many."""
    texts = [prompts] * len(videos) if isinstance(prompts, str) else list(prompts)
    if len(texts) != len(videos):
        raise UserError(
            f"There are {len(texts)} prompts for {len(videos)} videos; give one for all, or one "
            "for each."
        )
    for video, count in Counter(map(real, videos)).items():
        if count > 1:
            raise UserError(f"The video {video} is given {count} times; give it once.")
    names = distinct_names(videos)
    people = [_photographs(str(reference), Path()) for reference in references]
    for photograph in chain(*people):
        open_picture(photograph).close()  # before any network is loaded
    made = [
        _pair(video, people, prompt, "finished", None, names[video])
        for video, prompt in zip(videos, texts, strict=True)
    ]
    return _one_prompt_id_each(made)


def _row(row: Mapping[str, Any], where: str, home: Path, folder: Path) -> Pair:
    said = validate(ManifestRow, row, where)
    if not said.images:
        raise UserError(f"{where} names no reference image; fill in the field 'reference'.")
    return _pair(
        existing(folder / said.video), [_photographs(name, home) for name in said.images],
        said.prompt or "", said.category or "finished", said.id,
    )


def _pair(
    video: Path, people: Sequence[Sequence[Path]], prompt: str, category: str, name: str | None,
    shown: str | None = None,
) -> Pair:
    digests = [[sha256_file(path) for path in photographs] for photographs in people]
    every = list(chain(*digests))
    if len(set(every)) < len(every):
        raise UserError(
            f"The references of {video} name the same image twice; use every image once."
        )
    # The same picture is the same person in every row, whatever its file is called.
    references = tuple(
        Reference("face", f"{first.stem}-{digest[:6]}", first, tuple(more))
        for (first, *more), (digest, *_) in zip(people, digests, strict=True)
    )
    part = {
        "references": _of_people(digests), "prompt": prompt, "name": name or shown or video.name,
    }
    identifier = sha256_json(part)[:16]
    sample = Sample(
        id=identifier, suite_id=identifier, split="finished", prompt_id=name or video.stem,
        prompt=prompt, category=category, references=references, seed=0, truth={},
    )
    return sample, video


def _photographs(text: str, home: Path) -> list[Path]:
    """The photographs of one person: a path, or several with `|` between them."""
    if (home / text).is_file():
        return [home / text]
    found = [existing(home / part.strip()) for part in text.split("|") if part.strip()]
    if not found:
        raise UserError(f"The reference {text!r} names no image; give the path of one.")
    for path in found:
        if not path.is_file():
            raise UserError(f"The reference image {path} is missing; check the path.")
    return found


def _one_name_a_person(pairs: Sequence[Pair]) -> list[Pair]:
    """People who share a photograph in any row have one name, the first one's."""
    people: dict[str, set[str]] = {}  # name -> sha256 of each photograph
    for reference in chain(*(sample.references for sample, _ in pairs)):
        digests = {sha256_once(path) for path in reference.images}
        known = [name for name, theirs in people.items() if not theirs.isdisjoint(digests)]
        name = known[0] if known else reference.name
        people[name] = digests.union(people.get(name, ()), *(people.pop(n) for n in known[1:]))
    names = {digest: name for name, theirs in people.items() for digest in theirs}
    made = [
        (replace(sample, references=tuple(
            replace(r, name=names[sha256_once(r.image)]) for r in sample.references
        )), video)
        for sample, video in pairs
    ]
    for sample, video in made:
        if len(set(sample.identities)) < len(sample.identities):
            raise UserError(
                f"Two references of {video} share photographs in another row, so they are one "
                "person; keep one of them."
            )
    return made


def _one_prompt_id_each(pairs: Sequence[Pair]) -> list[Pair]:
    """Videos of the same people whose files have one stem are named by their path in addition, and
    one file under several prompts by those: else they would count as one sample."""
    made = list(pairs)
    names = distinct_names(list({video for _, video in pairs if video is not None}))
    for more in ("{name}", "{name}: {prompt}"):
        count = Counter((s.identities, s.prompt_id) for s, _ in made)
        made = [
            (sample, video) if video is None or count[sample.identities, sample.prompt_id] == 1
            else (replace(sample, prompt_id=more.format(name=names[video], prompt=sample.prompt)),
                  video)
            for sample, video in made
        ]
    return made
