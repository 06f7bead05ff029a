"""Reads videos, in this process or in several: frames, faces, embeddings, crops, movement."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from idbench import progress
from idbench.devices import check_device
from idbench.errors import UserError
from idbench.files import write_bytes
from idbench.metrics.faces.crops import crops_of_frames, find_faces
from idbench.metrics.faces.detect import Faces, detector_hashes, make_detector
from idbench.metrics.networks import weight_sources
from idbench.metrics.protocols import Detection
from idbench.models.concat_id.about import alignment_of
from idbench.models.concat_id.pairs import tracking
from idbench.models.concat_id.pairs.frames import (
    SampledFrame,
    encode,
    face_crop,
    key,
    prepare_subjects,
    sample,
)
from idbench.models.concat_id.pairs.people import has_human_term
from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.pairs.store import Row, Store
from idbench.picture_hash import PRINTS, frame_print
from idbench.pools import pool
from idbench.video import UnreadableVideo

BATCH = 16
"""Frames detected and embedded together; numbers are only repeatable at a fixed batch size."""
EMBEDDED = Detection(thresholds=(0.6, 0.7, 0.9))
"""MTCNN. Its last stage is stricter than the metrics': a false face breaks the count."""
PACK = Detection(detector="pack", size=320, height=0, thresholds=(0.5, 0.5, 0.5))
"""SCRFD of the insightface pack that `weights` names, as its authors run it."""

_reader: FaceReader | None = None
"""Of a worker process."""


@dataclass(frozen=True)
class ReaderSettings:
    """Plain values from which each worker process makes its own reader.

    Attributes:
        weights: as of `--weights`, such as `arcface=insightface:FOLDER`, whose detector is then
            used as well; empty: the embedded MTCNN and ArcFace.
        subjects: where garments and backgrounds come from, `files`, `parser` or `none`; see
            `frames.prepare_subjects`.
        aesthetic: `module:function`, see `load_scorer`; None: no scorer.
        alignment: of the face crops, `upright` or `arcface` (see `face_tools`); None: what
            Concat-ID's references get with these networks.
    """

    pairs: PairSettings
    weights: tuple[str, ...] = ()
    subjects: str = "files"
    aesthetic: str | None = None
    device: str = "cpu"
    alignment: str | None = None


class FaceReader:
    """The reader with real networks. Raises UserError: wrong `weights`, missing or damaged weight
    files, no such scorer or device."""

    def __init__(self, settings: ReaderSettings) -> None:
        self.settings = settings
        check_device(settings.device)
        named = weight_sources.parse(settings.weights)
        pack = weight_sources.pack_folder(named)
        self.detection = EMBEDDED if pack is None else PACK
        faces = "embedded" if pack is None else "insightface"
        self.alignment = alignment_of(faces, settings.alignment)
        self._detector = make_detector(self.detection, settings.device, pack)
        self._hashes = detector_hashes(self.detection, pack)
        self._recogniser = named["arcface"].load(settings.device)
        self._arcface = named["arcface"].identity()
        self._scorer = load_scorer(settings.aesthetic) if settings.aesthetic else None

    def identity(self) -> dict[str, Any]:
        """All that changes what is read: settings, detection and the weights' hashes."""
        return {
            **self.settings.pairs.reading(), "detection": asdict(self.detection),
            "weights": {**self._hashes, "arcface": self._arcface},
            "subjects": self.settings.subjects, "aesthetic": self.settings.aesthetic,
            "alignment": self.alignment, "version": 2,
        }

    def read(self, path: Path, name: str, out: Path) -> tuple[tracking.VideoRecord, np.ndarray]:
        """Read the video `path`, called `name`; crops go to `out`/faces. Returns the record and the
        embeddings (people, d). Raises UnreadableVideo."""
        limits = self.settings.pairs
        found: list[tracking.FrameFaces] = []
        moves: list[SampledFrame] = []
        scores: list[float] = []
        prints: list[str] = []
        single: tuple[np.ndarray, np.ndarray] | None = None
        count, size, fps = 0, (0, 0), 0.0
        sampled = sample(path, limits.frames_per_second)
        while items := list(islice(sampled, BATCH)):
            if isinstance(items[-1], int):  # the video ends
                count = items[-1]
            batch = [item for item in items if isinstance(item, SampledFrame)]
            for frame in batch:
                if moves and frame.image.shape[:2] != size:
                    raise UnreadableVideo(f"{path} changes its frame size; convert it to one size.")
                size, fps = frame.image.shape[:2], frame.fps
                # Pictures are freed with their batch; the numbers are kept.
                moves.append(replace(frame, image=np.zeros((0, 0, 3), np.uint8)))
                prints.append(frame_print(frame.image))
                if self._scorer is not None:
                    scores.append(self._scorer(frame.image))
            for frame, of_frame in zip(batch, self._faces(batch), strict=True):
                found.append(of_frame)
                if single is None and len(of_frame) == 1:
                    single = frame.image, of_frame.found.boxes[0]
        stem = key(name)
        people, vectors, conflicts, crops = tracking.people_of(
            found, size, limits.people, limits.faces_kept, stem
        )
        made = prepare_subjects(self.settings.subjects, path, single, stem, out)
        for file, data in crops.items():
            write_bytes(out / file, data)
        record = tracking.VideoRecord(
            frames=count, fps=fps, height=size[0], width=size[1],
            counts=tuple(len(f) for f in found),
            cosines=tracking.consecutive_cosines(found), people=people, conflicts=conflicts,
            flow=mean_of(m.flow for m in moves),
            motion=mean_of(m.motion for m in moves),
            aesthetic=mean_of(scores),
            prints=tuple(prints[i] for i in tracking.spread(len(prints), PRINTS)), **made,
        )
        return record, vectors

    def _faces(self, batch: list[SampledFrame]) -> list[tracking.FrameFaces]:
        """Faces of frames of one size; embedded together."""
        if not batch:
            return []
        limits, side = self.settings.pairs, self.detection.crop
        frames = np.stack([f.image for f in batch])
        faces = [f[f.scores >= limits.minimum_confidence]
                 for f in find_faces(self._detector, frames, self.detection)]
        few = [f if len(f) <= limits.people else Faces.none() for f in faces]
        vectors = self._recogniser.embed(crops_of_frames(frames, few, side, side))
        of_frames = np.split(vectors, np.cumsum([len(f) for f in few])[:-1])
        return [
            tracking.FrameFaces(
                frame.index, every, own if len(own) == len(every) else None,
                tuple(encode(face_crop(frame.image, marks, limits.crop_size, self.alignment))
                      for marks in read.landmarks),
            )
            for frame, every, read, own in zip(batch, faces, few, of_frames, strict=True)
        ]


Make = Callable[[ReaderSettings], FaceReader]
Result = tuple[str | None, tracking.VideoRecord | None, np.ndarray | None]


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None, or None where there is none."""
    known = [float(value) for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None


def load_scorer(address: str) -> Callable[[np.ndarray], float]:
    """The function at `module:function`, from a frame, uint8 RGB (h, w, 3), to its aesthetic score:
    higher is better, and the mean over the sampled frames is used. Raises UserError: it cannot be
    imported, or is no function."""
    module, _, attribute = address.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The aesthetic scorer {address!r} cannot be loaded ({error}); use module:function "
            "or a CSV or JSON lines file with video and score."
        ) from error
    if not callable(found):
        raise UserError(f"The aesthetic scorer {address!r} is not a function; pass one.")
    return found


def read_videos(
    store: Store, folder: Path, out: Path, reader: FaceReader, make: Make, settings: ReaderSettings,
    workers: int, quiet: bool = False,
) -> int:
    """Read what is not yet in the store; returns the number of videos read. The result for a video
    depends on that video alone. Raises UserError: a worker process died."""
    terms = settings.pairs.human_terms
    total = sum(1 for _ in _unread(store, terms))
    workers = min(workers, max(total // 4, 1))
    if workers == 1:
        one_thread()
        results: Iterator[tuple[Row, Result]] = (
            (row, _read(reader, folder, row.name, out)) for row in _unread(store, terms)
        )
    else:
        results = _in_processes(_unread(store, terms), folder, out, make, settings, workers)
    with progress.steps("read videos", total, quiet) as step:
        for row, result in results:
            store.put(row, *result)
            step(row.name)
    return total


def one_thread() -> None:
    """Compute with one thread, so that sums do not depend on the number of threads."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _unread(store: Store, terms: str) -> Iterator[Row]:
    for row in store.rows(vectors=False):
        if not row.finished and has_human_term(row.caption or "", terms):
            yield row


def _read(reader: FaceReader, folder: Path, name: str, out: Path) -> Result:
    try:
        return (None, *reader.read(folder / name, name, out))
    except UnreadableVideo as error:
        return str(error), None, None


def _in_processes(
    rows: Iterator[Row], folder: Path, out: Path, make: Make, settings: ReaderSettings,
    workers: int,
) -> Iterator[tuple[Row, Result]]:
    """Results as they come, with at most four videos a worker in flight."""
    running: dict[Future[Result], Row] = {}
    with pool(workers, _start, make, settings) as processes:
        while True:
            for row in islice(rows, 4 * workers - len(running)):
                running[processes.submit(_work, folder, row.name, out)] = row
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def _start(make: Make, settings: ReaderSettings) -> None:
    """Start a worker."""
    global _reader
    one_thread()
    _reader = make(settings)


def _work(folder: Path, name: str, out: Path) -> Result:
    assert _reader is not None
    return _read(_reader, folder, name, out)
