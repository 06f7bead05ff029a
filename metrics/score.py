"""Scores of finished videos: every network loaded once, every frame and face read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from idbench.engine import FATAL
from idbench.metrics import arcsim, clipdist, cursim, drift, people, viclip
from idbench.metrics.base import Embeddings, Metric, described_faces, make_score
from idbench.metrics.cache import EmbeddingCache
from idbench.metrics.embed import Embedder
from idbench.metrics.faces.detect import Faces
from idbench.metrics.faces.match import MATCHINGS, FrameMatch, cosines
from idbench.metrics.networks.sources import Source, pack_folder, parse
from idbench.metrics.pictures import COUNT, Pictures, ReferenceVectors
from idbench.metrics.pixels import PixelMetric
from idbench.metrics.protocols import (
    DEFAULT_PROTOCOL,
    EMBEDDED_NOTE,
    embedded_note,
    get_protocol,
    sample_frames,
    sample_video_frames,
    with_embedded_networks,
)
from idbench.metrics.settings import Protocol
from idbench.types import Sample, Score, Video
from idbench.video import Clip, read_chosen

METRICS: tuple[Metric, ...] = (
    arcsim.METRIC,
    cursim.METRIC,
    viclip.METRIC,
    clipdist.METRIC,
    people.FACE_COVERAGE,
    people.OWN_MINUS_OTHER_BY_ORDER,
    people.OWN_MINUS_OTHER,
    people.ORDER,
    people.SWAP_RATE,
    drift.SLOPE,
    drift.WORST,
    people.NOT_MEASURED,
)
"""The built-in metrics: the four of the tables, then what says how far to trust them."""


KEPT_FACES = 256


@dataclass(frozen=True)
class Item:
    """A video to score: what was asked, the sha256 of its file, and its frames (`Scorer.open`)."""

    sample: Sample
    sha256: str
    clip: Clip


@lru_cache(maxsize=64)
def _sampled(
    protocol: Protocol, count: int, video: bool
) -> tuple[Counter[int], tuple[int, ...]]:
    return (
        Counter(sample_frames(protocol, count)),
        sample_video_frames(protocol, count) if video else (),
    )


class Scorer:
    """Scores videos under one protocol.

    Args:
        protocol: name or object.
        cache_dir: folder of the embedding cache; None keeps nothing between processes.
        metrics: which to compute, `Metric` objects, also of other packages; those that the
            protocol does not define are left out, and their networks are not loaded.
        device: of torch.
        sources: where each network's weights come from (`networks.sources.parse`); by default
            all are embedded.

    Attributes:
        timings: seconds spent so far: load, detect, align, embed faces, embed frames,
            embed video, embed text, score.
        notes: sentences that belong beside the scores of every run.
        reference_notes: person -> what is to be known of their reference, of those scored so far
            whose picture shows no face or several, or cannot be read.
    """

    def __init__(
        self,
        protocol: str | Protocol = DEFAULT_PROTOCOL,
        cache_dir: Path | None = None,
        metrics: Sequence[Metric] = METRICS,
        device: str = "cpu",
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self.protocol = get_protocol(protocol)
        self.metrics = tuple(m for m in metrics if self.protocol.defines(m.name))
        networks = {name for metric in self.metrics for name in metric.networks}
        if "curricularface" in networks:
            networks.add("arcface")  # Faces are matched to references by ArcFace.
        sources = parse() if sources is None else sources
        reads = self.protocol if pack_folder(sources) else with_embedded_networks(self.protocol)
        self.embedder = Embedder(
            reads, sorted(networks), EmbeddingCache(cache_dir), device, sources
        )
        ours = {n for n in self.embedder.reads if sources[n].kind == "embedded"}
        if self.embedder.reads_faces and reads is not self.protocol:
            ours.add("detector")
        trained_on_avatars = EMBEDDED_NOTE if ours & {"arcface", "curricularface"} else None
        notes = (*self.protocol.notes, embedded_note(self.protocol, ours), trained_on_avatars)
        self.notes = tuple(note for note in notes if note)
        self.reference_notes: dict[str, str] = {}
        self._faces: dict[str, list[dict[str, Any]]] = {}

    @property
    def timings(self) -> dict[str, float]:
        return dict(self.embedder.timings)

    def weight_hashes(self) -> dict[str, str]:
        """sha256 of every weight file read for these metrics, by file name."""
        found = self.embedder.weight_hashes()
        for metric in self.metrics:
            found |= metric.weights()
        return found

    def providers(self) -> dict[str, list[str]]:
        """onnxruntime's execution providers by network, of those that it has loaded."""
        return self.embedder.providers()

    def faces(self, sample: Sample) -> list[dict[str, Any]]:
        """Of one of the last `KEPT_FACES` samples scored: for each sampled frame a JSON dict.

        Keys: `frame`, `boxes` (n, 4) and `landmarks` (n, 5, 2) in pixels of the frame,
        `assignment` (identity name -> index of its face), `retried`.
        """
        return self._faces.get(sample.id, [])

    # -- one video

    def score(self, sample: Sample, video: Video, video_sha256: str) -> list[Score]:
        """All metrics of one video, long form: rows a frame, an identity, and the video.

        `video_sha256` is the hash of the video file, which is part of the cache's key.
        """
        frames = np.asarray(video.frames)
        return self.rows(Item(sample, video_sha256, Clip(len(frames), video.fps, frames)))

    def embed(self, sample: Sample, frames: np.ndarray, video_sha256: str) -> Embeddings:
        """Everything the metrics need of one video of uint8 RGB frames (t, h, w, 3)."""
        return self._embed([Item(sample, video_sha256, Clip(len(frames), 0.0, frames))])[0]

    def rows(self, item: Item) -> list[Score]:
        """As `score`; of a clip without frames everything has to be in the cache."""
        return self._measure(item, self._embed([item])[0]) if item.clip.count else self._empty(item)

    # -- many videos

    def open(self, path: Path, video_sha256: str) -> Clip:
        """The frames of a video file that are still needed: none where the cache has everything.

        Decodes once and sequentially, the union of what the protocol looks at. May be called
        from another thread than the one that scores.

        Raises:
            UnreadableVideo: missing, empty, damaged, or no video.
        """
        cache = self.embedder.cache
        if not self.reads_pixels:
            known = cache.get(video_sha256, COUNT)
            if known is not None:
                count = int(known["frames"][0])
                keys = self.embedder.keys(
                    video_sha256, *(tuple(of) for of in self._sampled(count))
                )
                if self.embedder.knows(video_sha256, keys):
                    return Clip(count, 0.0, {})
        return read_chosen(path, self._needed)

    def score_all(self, items: Sequence[Item]) -> list[list[Score] | Exception]:
        """The rows of several videos; what they lack runs through the networks together.

        In their order. When that fails, they are scored one by one, so that a bad video costs
        itself alone: in place of its rows stands what it raised.

        Raises:
            DiskFull, WeightError: what every further video would meet too.
        """
        try:
            read = iter(self._embed([item for item in items if item.clip.count]))
            return [
                self._measure(item, next(read)) if item.clip.count else self._empty(item)
                for item in items
            ]
        except FATAL:
            raise
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [self.score_all([item])[0] for item in items]

    @property
    def reads_pixels(self) -> bool:
        """Whether a metric needs all frames, so that embeddings in the cache are not enough."""
        return any(isinstance(metric, PixelMetric) for metric in self.metrics)

    def _sampled(self, count: int) -> tuple[Counter[int], tuple[int, ...]]:
        """Of so many frames those for faces and CLIP, with their repeats, and those for ViCLIP."""
        return _sampled(self.protocol, count, self.embedder.reads_viclip)

    def _needed(self, count: int) -> Collection[int]:
        if self.reads_pixels:
            return range(count)
        taken, video = self._sampled(count)
        return {*taken, *video}

    def _empty(self, item: Item) -> list[Score]:
        reason = "the video has no frames"
        return [
            make_score(item.sample, metric.name, None, None, None, reason)
            for metric in self.metrics
        ]

    def _measure(self, item: Item, embeddings: Embeddings) -> list[Score]:
        """The rows of all metrics of one video, once its embeddings are there."""
        sample, clip = item.sample, item.clip
        with self.embedder.timed("score"):
            rows = [row for metric in self.metrics for row in metric.scores(embeddings)]
            if self.reads_pixels:
                frames = clip.take(range(clip.count))
                for metric in self.metrics:
                    if isinstance(metric, PixelMetric):
                        rows += metric.pixels(embeddings, frames, clip.fps)
        self._faces[sample.id] = described_faces(embeddings)
        while len(self._faces) > KEPT_FACES:  # the oldest go: memory stays flat
            self._faces.pop(next(iter(self._faces)))
        return rows

    def _embed(self, items: Sequence[Item]) -> list[Embeddings]:
        """Everything the metrics need of videos with at least a frame each."""
        embedder = self.embedder
        people = [[r for r in i.sample.references if r.kind == "face"] for i in items]
        every = [reference for of_sample in people for reference in of_sample]
        read = embedder.references([reference.image for reference in every])
        for reference, vectors in zip(every, read, strict=True):
            if vectors.note:
                self.reference_notes[reference.name] = vectors.note
        embedder.read_texts([item.sample.prompt for item in items])
        sampled = [self._sampled(item.clip.count) for item in items]
        batch = []
        for item, (taken, video) in zip(items, sampled, strict=True):
            keys = embedder.keys(item.sha256, tuple(taken), video)
            one = Pictures(item.sha256, keys)
            if len(item.clip.frames):  # else everything is known
                one.frames = item.clip.take(tuple(taken))
                one.video = item.clip.take(video) if video else None
                if embedder.cache.get(item.sha256, COUNT) is None:
                    one.new[COUNT] = {"frames": np.array([item.clip.count])}
            batch.append(one)
        embedder.read(batch)
        return [
            self._together(item.sample, taken, one, [embedder.reference(r.image) for r in who])
            for item, (taken, _), one, who in zip(items, sampled, batch, people, strict=True)
        ]

    def _together(
        self, sample: Sample, taken: Counter[int], read: Pictures,
        references: Sequence[ReferenceVectors],
    ) -> Embeddings:
        embedder = self.embedder
        text_vector, share_read = embedder.text_vectors(sample.prompt)
        return Embeddings(
            sample=sample,
            protocol=self.protocol,
            frames=tuple(taken),
            faces=tuple(read.faces),
            matches=self._match(read.faces, read.face_vectors, references)
            if embedder.reads_faces else (),
            face_vectors=read.face_vectors,
            reference_vectors={
                name: [r.faces[name] for r in references] for name in embedder.recognisers
            },
            reference_reasons=tuple(r.face_reason for r in references),
            frame_vectors=read.frame_vectors,
            image_vectors={
                "clip": [r.image.get("clip") for r in references]
            } if embedder.reads_clip else {},
            image_reasons=tuple(r.image_reason for r in references),
            video_vector=read.video_vector,
            text_vector=text_vector,
            share_read=share_read,
            repeats=tuple(taken.values()),
        )

    def _match(
        self, faces: Sequence[Faces], vectors: Mapping[str, Sequence[np.ndarray]],
        references: Sequence[ReferenceVectors],
    ) -> tuple[FrameMatch, ...]:
        match = MATCHINGS[self.protocol.matching]
        wanted = [r.faces.get("arcface") for r in references]
        known = [vector is not None for vector in wanted]
        ends = np.cumsum([len(f) for f in faces])
        if "arcface" in vectors:
            similarity = cosines(np.concatenate(vectors["arcface"]), wanted)
        else:  # matching by place alone allows it: there is nothing to compare
            similarity = np.full((int(ends[-1]), len(wanted)), np.nan)
        return tuple(
            match(similarity[end - len(f) : end], known, f.boxes)
            for f, end in zip(faces, ends.tolist(), strict=True)
        )
