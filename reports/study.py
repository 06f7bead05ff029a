"""The human study: pairs of videos of one sample by two systems, judged blind.

    STUDY/study.json         questions, pairs, and which system made which video; never served
    STUDY/media/CODE         videos and references, under codes that reveal nothing
    STUDY/votes/NAME.json    the answers of one voter, by code

Every video is encoded again by the same encoder, so neither its name nor its metadata reveals the
system. Each voter sees the pairs in an order of their own, with each system equally often on the
left and on the right.
"""

from __future__ import annotations

import io
import itertools
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, PrivateAttr, model_validator

from idbench.errors import UserError
from idbench.files import sha256_json, write_bytes
from idbench.records import SampleFile
from idbench.runs import Run
from idbench.stored import Part, Stored

QUESTIONS = {
    "identity": "In which video does each person look more like their reference picture?",
    "motion_alignment": "In which video do the faces move more as the text asks?",
    "motion_naturalness": "In which video do the faces move more naturally?",
}
"""The three questions of the Concat-ID paper's study, in our words."""
TITLES = {
    "identity": "Identity consistency",
    "motion_alignment": "Facial motion alignment",
    "motion_naturalness": "Facial motion naturalness",
}
REFERENCE_SIZE = 512
"""Largest side, in pixels, at which references are shown."""


class Pair(Part):
    """Two videos of one sample; the system of `first` comes earlier in the list of systems."""

    id: str
    sample: str
    first: str = Field(description="code of a video")
    second: str = Field(description="code of a video")


class StudySample(Part):
    """What was asked of all systems."""

    suite_id: str
    prompt: str
    category: str
    identities: list[str]
    references: list[str] = Field(description="codes of the pictures")


@dataclass(frozen=True)
class Trial:
    """What a voter sees: the codes of the references and of both videos, and the prompt."""

    pair: str
    prompt: str
    references: tuple[str, ...]
    left: str
    right: str


class Study(Stored):
    """STUDY/study.json: a study that was built."""

    FIX: ClassVar[str] = "restore it, or build the study again"

    id: str
    seed: int
    ties: bool = Field(description="whether \"no difference\" is an answer")
    questions: dict[str, str] = Field(min_length=1)
    systems: list[str] = Field(min_length=2)
    samples: dict[str, StudySample]
    videos: dict[str, int] = Field(description="code -> index of the system")
    media: dict[str, str] = Field(description="code -> media type")
    pairs: list[Pair] = Field(min_length=1)

    _folder: Path = PrivateAttr(Path())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for pair in self.pairs:
            if pair.sample not in self.samples:
                raise ValueError(f"pair {pair.id} names an unknown sample")
            if not {pair.first, pair.second} <= self.videos.keys():
                raise ValueError(f"pair {pair.id} names an unknown video")
        shown = {*self.videos, *(c for s in self.samples.values() for c in s.references)}
        if shown != self.media.keys() or any(Path(code).name != code for code in shown):
            raise ValueError("the media are not those of the samples and videos")
        if not all(0 <= system < len(self.systems) for system in self.videos.values()):
            raise ValueError("a video is of an unknown system")
        return self

    @classmethod
    def open(cls, folder: Path) -> Study:
        """The study in `folder`.

        Raises:
            UserError: there is none, or its study.json is damaged or of a newer idbench.
        """
        path = Path(folder) / "study.json"
        if not path.is_file():
            raise UserError(f"{folder} holds no study; make one with `idbench study build`.")
        study = cls.read(path)
        study._folder = path.parent
        return study

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._folder

    @cached_property
    def by_id(self) -> dict[str, Pair]:
        """The pairs by their ids."""
        return {pair.id: pair for pair in self.pairs}

    def trials(self, voter: str) -> list[Trial]:
        """The pairs in this voter's order: random, balanced, and always the same.

        Of the pairs of two systems, each system is on the left in half (plus or minus one); two
        pairs of one sample do not follow each other where that can be avoided.
        """
        rng = random.Random(f"{self.seed}/{self.id}/{voter}")
        trials: list[Trial] = []
        by_systems: dict[tuple[int, int], list[Pair]] = {}
        for pair in self.pairs:
            systems = self.videos[pair.first], self.videos[pair.second]
            by_systems.setdefault(systems, []).append(pair)
        for pairs in by_systems.values():
            swapped = [i % 2 == 1 for i in range(len(pairs))]
            if rng.random() < 0.5:  # of an odd number, either may have one more
                swapped = [not s for s in swapped]
            rng.shuffle(swapped)
            for pair, swap in zip(pairs, swapped, strict=True):
                sample = self.samples[pair.sample]
                left, right = (pair.second, pair.first) if swap else (pair.first, pair.second)
                trials.append(Trial(pair.id, sample.prompt, tuple(sample.references), left, right))
        rng.shuffle(trials)
        return _apart(trials, {p.id: p.sample for p in self.pairs})

    def media_path(self, code: str) -> Path | None:
        """The file of a code; None for anything else."""
        return self._folder / "media" / code if code in self.media else None


def build(
    runs: Sequence[Run], labels: Sequence[str], folder: Path, *, pairs: int = 100, seed: int = 0,
    ties: bool = False,
) -> Study:
    """Make the study of two or more runs in the new folder `folder`.

    Args:
        labels: name of each run in the result; voters never see them.
        pairs: most pairs that a voter judges: the same number for every two systems, spread over
            identities and prompt categories.
        ties: whether "no difference" is an answer.

    Raises:
        UserError: fewer than two runs, no shared sample, too few pairs, or a folder in use.
    """
    folder = Path(folder)
    if len(runs) < 2:
        raise UserError("A study compares systems; name two runs or more.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; name another folder with --output.")
    shared = _shared(runs)
    couples = list(itertools.combinations(range(len(runs)), 2))
    if pairs < len(couples):
        raise UserError(f"{len(runs)} systems need --pairs {len(couples)} or more.")
    rng = random.Random(seed)
    order = _spread(shared, rng)
    count = min(len(order), pairs // len(couples))
    chosen = {couple: [order[(i * count + k) % len(order)] for k in range(count)]
              for i, couple in enumerate(couples)}
    used = [k for k in order if any(k in of for of in chosen.values())]

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".study.", dir=folder.parent) as temporary:
        place = Path(temporary) / "study"
        media = _Media(place / "media", rng)
        code_of: dict[tuple[str, int], str] = {}
        samples: dict[str, StudySample] = {}
        for key in used:
            sample = shared[key][0].sample
            samples[key] = StudySample(
                suite_id=key, prompt=sample.prompt, category=sample.category,
                identities=list(sample.identities),
                references=[media.picture(r.image) for r in sample.references],
            )
            for system, record in enumerate(shared[key]):
                if any(system in couple and key in of for couple, of in chosen.items()):
                    code_of[key, system] = media.video(record)
        number = {key: f"s{i}" for i, key in enumerate(used)}
        made = [(number[key], code_of[key, a], code_of[key, b])
                for (a, b), keys in chosen.items() for key in keys]
        rng.shuffle(made)
        study = Study(
            id="", seed=seed, ties=ties, questions=QUESTIONS, systems=list(labels),
            samples={number[key]: sample for key, sample in samples.items()},
            videos={code: system for (_, system), code in code_of.items()}, media=media.kinds,
            pairs=[Pair(id=f"p{i}", sample=sample, first=first, second=second)
                   for i, (sample, first, second) in enumerate(made)],
        )
        study.id = sha256_json(study.model_dump(exclude={"id"}))[:16]
        study.write(place / "study.json")
        if folder.is_dir():
            folder.rmdir()
        shutil.move(place, folder)
    return Study.open(folder)


class _Media:
    """The files that voters see, under random codes."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.kinds: dict[str, str] = {}
        self._pictures: dict[bytes, str] = {}

    def video(self, record: SampleFile) -> str:
        """The code of a video, encoded again: encoders leave their names in the file."""
        from idbench.video import read_video, write_video

        assert record.video is not None
        code = self._code("video/mp4")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_video(self.folder / code, read_video(record.video))
        return code

    def picture(self, image: Path) -> str:
        """The code of a reference; equal pictures have one code, whatever their file names."""
        from PIL import Image

        from idbench.pictures import UnreadablePicture, open_rgb

        try:
            pixels = open_rgb(image)
        except UnreadablePicture as error:
            raise UserError(f"The reference {image} cannot be read; run its run again.") from error
        pixels.thumbnail((REFERENCE_SIZE, REFERENCE_SIZE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        pixels.save(buffer, "WEBP", quality=92)
        data = buffer.getvalue()
        if data not in self._pictures:
            code = self._pictures[data] = self._code("image/webp")
            write_bytes(self.folder / code, data)
        return self._pictures[data]

    def _code(self, kind: str) -> str:
        code = f"{self.rng.getrandbits(48):012x}"
        self.kinds[code] = kind
        return code


def _shared(runs: Sequence[Run]) -> dict[str, list[SampleFile]]:
    """Suite id -> the record of each run, of the samples that all runs have a video of."""
    by_run = [{r.suite_id: r for r in run.records() if r.video} for run in runs]
    shared = {k: [of[k] for of in by_run] for k in by_run[0] if all(k in of for of in by_run)}
    if not shared:
        raise UserError(
            "These runs share no sample that all have a video of; name runs of one suite and "
            "split."
        )
    return shared


def _spread(shared: Mapping[str, Sequence[SampleFile]], rng: random.Random) -> list[str]:
    """Sample ids in an order whose every beginning has identities and categories evenly."""
    waiting = list(shared)
    rng.shuffle(waiting)
    seen: dict[str, int] = {}
    order: list[str] = []

    def groups(key: str) -> list[str]:
        sample = shared[key][0].sample
        return [f"identity {n}" for n in sample.identities] + [f"category {sample.category}"]

    while waiting:
        key = min(waiting, key=lambda k: sum(seen.get(g, 0) for g in groups(k)))
        waiting.remove(key)
        order.append(key)
        for group in groups(key):
            seen[group] = seen.get(group, 0) + 1
    return order


def _apart(trials: list[Trial], sample_of: Mapping[str, str]) -> list[Trial]:
    waiting, order = list(trials), []
    last = None
    while waiting:
        found = next((t for t in waiting if sample_of[t.pair] != last), waiting[0])
        waiting.remove(found)
        order.append(found)
        last = sample_of[found.pair]
    return order
