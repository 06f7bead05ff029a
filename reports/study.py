"""The human study: pairs of videos of one sample by two systems, to be judged blind.

    STUDY/study.json         questions, pairs, and which system made which video; never served
    STUDY/media/CODE         videos and references under codes that tell nothing
    STUDY/votes/NAME.json    the answers of one voter, by code

Videos are encoded anew by one encoder: neither their names nor their metadata tell a system. A
voter sees the pairs in an order of their own, each system as often on the left as on the right.
"""

from __future__ import annotations

import io
import itertools
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idbench.errors import UserError
from idbench.files import read_json, sha256_json, write_bytes, write_json
from idbench.records import SampleFile
from idbench.runs import Run

SCHEMA = 1
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
"""Pixels: references are shown no larger."""


@dataclass(frozen=True)
class Pair:
    """Two videos of one sample. `first` and `second` are codes, the lower system first."""

    id: str
    sample: str
    first: str
    second: str


@dataclass(frozen=True)
class Trial:
    """What one voter sees: codes of references and of both videos, and the prompt."""

    pair: str
    prompt: str
    references: tuple[str, ...]
    left: str
    right: str


class Study:
    """A built study folder."""

    def __init__(self, folder: Path, data: Mapping[str, Any]) -> None:
        self.folder, self.data = Path(folder), data
        self.id: str = data["id"]
        self.ties: bool = data["ties"]
        self.systems: list[str] = data["systems"]
        self.questions: dict[str, str] = data["questions"]
        self.samples: dict[str, dict[str, Any]] = data["samples"]
        self.pairs = [Pair(**p) for p in data["pairs"]]
        self.by_id = {p.id: p for p in self.pairs}

    @classmethod
    def open(cls, folder: Path) -> Study:
        """The study in `folder`.

        Raises:
            UserError: none there, or one of a newer idbench.
        """
        folder = Path(folder)
        if not (folder / "study.json").is_file():
            raise UserError(f"{folder} holds no study; make one with `idbench study build`.")
        data = read_json(folder / "study.json")
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise UserError(f"{folder} was made by another version of idbench; build it anew.")
        return cls(folder, data)

    def system(self, code: str) -> int:
        """Index of the system that made a video."""
        return int(self.data["videos"][code])

    def trials(self, voter: str) -> list[Trial]:
        """The pairs in this voter's order: random, balanced, and always the same.

        Within the pairs of two systems each stands on the left half of the time (one more at
        most); two pairs of one sample do not follow one another where it can be avoided.
        """
        rng = random.Random(f"{self.data['seed']}/{self.id}/{voter}")
        trials: list[Trial] = []
        by_systems: dict[tuple[int, int], list[Pair]] = {}
        for pair in self.pairs:
            by_systems.setdefault((self.system(pair.first), self.system(pair.second)), []).append(
                pair)
        for pairs in by_systems.values():
            swapped = [i % 2 == 1 for i in range(len(pairs))]
            if rng.random() < 0.5:  # of an odd number either may be the one more
                swapped = [not s for s in swapped]
            rng.shuffle(swapped)
            for pair, swap in zip(pairs, swapped, strict=True):
                sample = self.samples[pair.sample]
                left, right = (pair.second, pair.first) if swap else (pair.first, pair.second)
                trials.append(Trial(pair.id, sample["prompt"], tuple(sample["references"]),
                                    left, right))
        rng.shuffle(trials)
        return _apart(trials, {p.id: p.sample for p in self.pairs})

    def media(self, code: str) -> Path | None:
        """The file of a code, or None for anything else."""
        return self.folder / "media" / code if code in self.data["media"] else None

    def kind(self, code: str) -> str:
        """The media type of a code."""
        return str(self.data["media"][code])


def build(
    runs: Sequence[Run], labels: Sequence[str], folder: Path, *, pairs: int = 100, seed: int = 0,
    ties: bool = False,
) -> Study:
    """Make the study of two or more runs in `folder`, which must not exist yet.

    Args:
        labels: name of each run, for the result; voters never see them.
        pairs: so many pairs at most that each voter judges, the same number for every two
            systems, spread over identities and prompt categories.
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
        raise UserError(
            f"{len(runs)} systems make {len(couples)} kinds of pairs; --pairs must be at least "
            "that."
        )
    rng = random.Random(seed)
    order = _spread(shared, rng)
    chosen = {couple: [order[i % len(order)] for i in range(start, start + count)]
              for couple, start, count in _shares(couples, len(order), pairs)}
    used = [k for k in order if any(k in of for of in chosen.values())]

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".study.", dir=folder.parent) as temporary:
        place = Path(temporary) / "study"
        media: dict[str, str] = {}
        videos: dict[str, int] = {}
        code_of: dict[tuple[str, int], str] = {}
        samples: dict[str, dict[str, Any]] = {}
        pictures: dict[bytes, str] = {}
        for number, key in enumerate(used):
            records = shared[key]
            samples[f"s{number}"] = {
                "suite_id": key, "prompt": records[0].sample.prompt,
                "category": records[0].sample.category,
                "identities": list(records[0].sample.identities),
                "references": [_picture(place, r.image, pictures, media, rng)
                               for r in records[0].sample.references],
            }
            for system, record in enumerate(records):
                if not any(system in couple and key in of for couple, of in chosen.items()):
                    continue
                code = code_of[key, system] = _code(rng, media)
                _video(place / "media" / code, record)
                media[code], videos[code] = "video/mp4", system
        number_of = {sample["suite_id"]: name for name, sample in samples.items()}
        made = [
            {"sample": number_of[key], "first": code_of[key, a], "second": code_of[key, b]}
            for (a, b), keys in chosen.items() for key in keys
        ]
        rng.shuffle(made)
        data: dict[str, Any] = {
            "schema": SCHEMA, "seed": seed, "ties": ties, "questions": QUESTIONS,
            "systems": list(labels), "samples": samples, "videos": videos, "media": media,
            "pairs": [{"id": f"p{i}", **pair} for i, pair in enumerate(made)],
        }
        write_json(place / "study.json", {"id": sha256_json(data)[:16], **data})
        if folder.is_dir():
            folder.rmdir()
        shutil.move(place, folder)
    return Study.open(folder)


def _shared(runs: Sequence[Run]) -> dict[str, list[SampleFile]]:
    """Suite id -> the record of each run, of the samples that all runs have a video of."""
    by_run = [{r.suite_id: r for r in run.records() if r.video} for run in runs]
    shared = {k: [of[k] for of in by_run] for k in by_run[0] if all(k in of for of in by_run)}
    if not shared:
        raise UserError(
            "These runs share no sample of which all have a video; name runs of one suite and "
            "split."
        )
    return shared


def _spread(shared: Mapping[str, Sequence[SampleFile]], rng: random.Random) -> list[str]:
    """Sample ids so that any beginning holds many identities and categories evenly."""
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


def _shares(
    couples: Sequence[tuple[int, int]], available: int, pairs: int
) -> list[tuple[tuple[int, int], int, int]]:
    """For every two systems where its samples begin in the order, and how many it has."""
    count = min(available, pairs // len(couples))
    return [(couple, i * count, count) for i, couple in enumerate(couples)]


def _apart(trials: list[Trial], sample_of: Mapping[str, str]) -> list[Trial]:
    waiting, order = list(trials), []
    last = None
    while waiting:
        found = next((t for t in waiting if sample_of[t.pair] != last), waiting[0])
        waiting.remove(found)
        order.append(found)
        last = sample_of[found.pair]
    return order


def _code(rng: random.Random, taken: Mapping[str, str]) -> str:
    while True:
        code = f"{rng.getrandbits(48):012x}"
        if code not in taken:
            return code


def _video(path: Path, record: SampleFile) -> None:
    """The video encoded anew: other systems' encoders leave their names in the file."""
    from idbench.video import read_video, write_video

    assert record.video is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, read_video(record.video))


def _picture(
    place: Path, image: Path, known: dict[bytes, str], media: dict[str, str], rng: random.Random
) -> str:
    """The code of a reference; one picture has one code, whatever its file is called."""
    from PIL import Image

    from idbench.pictures import UnreadablePicture, open_rgb

    try:
        pixels = open_rgb(image)
    except UnreadablePicture as error:
        raise UserError(
            f"The reference {image} cannot be read; make its run anew, or take another."
        ) from error
    pixels.thumbnail((REFERENCE_SIZE, REFERENCE_SIZE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    pixels.save(buffer, "WEBP", quality=92)
    data = buffer.getvalue()
    if data not in known:
        code = known[data] = _code(rng, media)
        media[code] = "image/webp"
        write_bytes(place / "media" / code, data)
    return known[data]
