"""Makes a study of runs: which samples and pairs, and the files that voters see."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from idbench.errors import UserError
from idbench.files import atomic_folder, check_new_folder, sha256_json, write_bytes
from idbench.pictures import UnreadablePicture, encoded, open_rgb
from idbench.records import SampleFile
from idbench.reports.study_files import QUESTIONS, Pair, Study, StudySample
from idbench.reports.video_values import shared_records
from idbench.runs import Run
from idbench.video import read_video, write_video

REFERENCE_SIZE = 512
"""Largest side, in pixels, at which references are shown."""


def build(
    runs: Sequence[Run], labels: Sequence[str], folder: Path, *, pairs: int = 100, seed: int = 0,
    ties: bool = False,
) -> Study:
    """Make the study of two or more runs in the new folder `folder`.

    Args:
        labels: name of each run in the result; voters never see them.
        pairs: most pairs per voter: the same number for every two systems, spread over identities
            and prompt categories.
        ties: whether "no difference" is an answer.

    Raises UserError: fewer than two runs, no shared sample, too few pairs, or a folder in use.
    """
    if len(runs) < 2:
        raise UserError("A study compares systems; pass at least two runs.")
    check_new_folder(folder)
    shared = _shared(runs)
    couples = list(itertools.combinations(range(len(runs)), 2))
    if pairs < len(couples):
        raise UserError(f"{len(runs)} systems need --pairs {len(couples)} or more.")
    rng = random.Random(seed)
    order = _spread(shared, rng)
    count = min(len(order), pairs // len(couples))
    wanted = [(order[(i * count + k) % len(order)], first, second)
              for i, (first, second) in enumerate(couples) for k in range(count)]
    used = {key for key, _, _ in wanted}
    number = {key: f"s{i}" for i, key in enumerate(key for key in order if key in used)}

    with atomic_folder(folder) as place:
        media = _Media(place / "media", rng)
        code_of: dict[tuple[str, int], str] = {}
        samples: dict[str, StudySample] = {}
        for key, name in number.items():
            asked = shared[key][0].sample
            samples[name] = StudySample(
                suite_id=key, prompt=asked.prompt, category=asked.category,
                identities=list(asked.identities),
                references=[media.picture(r.image) for r in asked.references],
            )
            for system, record in enumerate(shared[key]):
                if any(key == of and system in couple for of, *couple in wanted):
                    code_of[key, system] = media.video(record)
        rng.shuffle(wanted)
        study = Study(
            id="", seed=seed, ties=ties, questions=QUESTIONS, systems=list(labels),
            samples=samples, videos={code: system for (_, system), code in code_of.items()},
            media=media.kinds, pairs=[
                Pair(id=f"p{i}", sample=number[key], first=code_of[key, first],
                     second=code_of[key, second])
                for i, (key, first, second) in enumerate(wanted)
            ],
        )
        study.id = sha256_json(study.model_dump(exclude={"id"}))[:16]
        study.write(place / "study.json")
    return Study.open(folder)


class _Media:
    """The files that voters see, under random codes."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.kinds: dict[str, str] = {}
        self._pictures: dict[bytes, str] = {}

    def video(self, record: SampleFile) -> str:
        """The code of a video, encoded again: encoders leave their names in the file."""
        assert record.video is not None
        code = self._code("video/mp4")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_video(self.folder / code, read_video(record.video))
        return code

    def picture(self, image: Path) -> str:
        """The code of a reference; equal images have one code, whatever their file names."""
        try:
            pixels = open_rgb(image)
        except UnreadablePicture as error:
            raise UserError(
                f"The reference {image} cannot be read; generate its run again."
            ) from error
        pixels.thumbnail((REFERENCE_SIZE, REFERENCE_SIZE), Image.Resampling.LANCZOS)
        data = encoded(pixels, "WEBP", quality=92)
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
    shared = {key: of for key, of in shared_records(runs).items() if all(r.video for r in of)}
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
    seen = Counter[str]()
    order: list[str] = []

    def groups(key: str) -> list[str]:
        record = shared[key][0]
        return [f"identity {n}" for n in record.identities] + [f"category {record.category}"]

    while waiting:
        order.append(min(waiting, key=lambda k: sum(seen[g] for g in groups(k))))
        waiting.remove(order[-1])
        seen.update(groups(order[-1]))
    return order
