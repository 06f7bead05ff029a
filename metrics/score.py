"""Scores of finished videos: every network loaded once, every frame and face read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idbench.metrics import arcsim, clipdist, cursim, drift, people, viclip
from idbench.metrics.base import Embeddings, Metric, make_score
from idbench.metrics.cache import EmbeddingCache
from idbench.metrics.embed import Embedder, ReferenceVectors
from idbench.metrics.faces.detect import Faces
from idbench.metrics.faces.match import MATCHINGS, FrameMatch
from idbench.metrics.networks.recogniser import EMBEDDED_NOTE
from idbench.metrics.networks.sources import Source, pack_folder, parse
from idbench.metrics.pixels import PixelMetric
from idbench.metrics.protocols import (
    DEFAULT_PROTOCOL,
    embedded_note,
    get_protocol,
    sample_frames,
    sample_video_frames,
    with_embedded_networks,
)
from idbench.metrics.settings import Protocol
from idbench.types import Sample, Score, Video

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
        self._faces: dict[str, list[dict[str, Any]]] = {}

    @property
    def timings(self) -> dict[str, float]:
        return dict(self.embedder.timings)

    def weight_hashes(self) -> dict[str, str]:
        """sha256 of every weight file read for these metrics, by file name."""
        return self.embedder.weight_hashes()

    def providers(self) -> dict[str, list[str]]:
        """onnxruntime's execution providers by network, of those that it runs."""
        return self.embedder.providers()

    def faces(self, sample: Sample) -> list[dict[str, Any]]:
        """Of one of the last `KEPT_FACES` samples scored: for each sampled frame a JSON dict.

        Keys: `frame`, `boxes` (n, 4) and `landmarks` (n, 5, 2) in pixels of the frame,
        `assignment` (identity name -> index of its face), `retried`.
        """
        return self._faces.get(sample.id, [])

    def score(self, sample: Sample, video: Video, video_sha256: str) -> list[Score]:
        """All metrics of one video, long form: rows a frame, an identity, and the video.

        `video_sha256` is the hash of the video file, which is part of the cache's key.
        """
        frames = np.asarray(video.frames)
        if not len(frames):
            return [
                make_score(sample, metric.name, None, None, None, "the video has no frames")
                for metric in self.metrics
            ]
        embeddings = self.embed(sample, frames, video_sha256)
        with self.embedder.timed("score"):
            rows = [row for metric in self.metrics for row in metric.scores(embeddings)]
            for metric in self.metrics:
                if isinstance(metric, PixelMetric):
                    rows += metric.pixels(embeddings, frames, video.fps)
        self._faces[sample.id] = _describe(embeddings)
        while len(self._faces) > KEPT_FACES:  # the oldest go: memory stays flat
            self._faces.pop(next(iter(self._faces)))
        return rows

    def embed(self, sample: Sample, frames: np.ndarray, video_sha256: str) -> Embeddings:
        """Everything the metrics need of one video of uint8 RGB frames (t, h, w, 3)."""
        embedder = self.embedder
        taken = Counter(sample_frames(self.protocol, len(frames)))
        indices = tuple(taken)  # each frame is read once, however often it counts
        sampled = frames[list(indices)]
        references = [
            embedder.reference(r.image) for r in sample.references if r.kind == "face"
        ]
        faces: tuple[Faces, ...] = ()
        matches: tuple[FrameMatch, ...] = ()
        face_vectors: dict[str, list[np.ndarray]] = {}
        if embedder.reads_faces:
            found = embedder.faces(sampled, video_sha256, indices)
            face_vectors = embedder.face_vectors(sampled, found, video_sha256, indices)
            faces, matches = tuple(found), self._match(found, face_vectors, references)
        if embedder.clips_faces:
            face_vectors["clip"] = embedder.clip_face_vectors(
                sampled, faces, video_sha256, indices
            )
        video_indices = sample_video_frames(self.protocol, len(frames))
        text_vector, share_read = embedder.text_vectors(sample.prompt)
        return Embeddings(
            sample=sample,
            protocol=self.protocol,
            frames=indices,
            faces=faces,
            matches=matches,
            face_vectors=face_vectors,
            reference_vectors={
                name: [r.faces[name] for r in references] for name in embedder.recognisers
            },
            reference_reasons=tuple(r.face_reason for r in references),
            frame_vectors=embedder.frame_vectors(sampled, video_sha256, indices),
            image_vectors={
                "clip": [r.image.get("clip") for r in references]
            } if embedder.reads_clip else {},
            image_reasons=tuple(r.image_reason for r in references),
            video_vector=embedder.video_vector(
                frames[list(video_indices)], video_sha256, video_indices
            ),
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
        # Without a recogniser, which only matching by place allows, there is nothing to compare.
        of_frames = vectors.get("arcface") or [np.zeros((len(f), 0)) for f in faces]
        return tuple(
            match(of_frame, wanted, f.boxes) for of_frame, f in zip(of_frames, faces, strict=True)
        )


def _describe(embeddings: Embeddings) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = []
    if not embeddings.faces:
        return described
    names = embeddings.sample.identities
    for frame, faces, match in zip(
        embeddings.frames, embeddings.faces, embeddings.matches, strict=True
    ):
        assigned = zip(names, match.face_of_reference, strict=True)
        described.append(
            {
                "frame": frame,
                "boxes": faces.boxes.round(2).tolist(),
                "landmarks": faces.landmarks.round(2).tolist(),
                "assignment": {name: face for name, face in assigned if face is not None},
                "retried": faces.retried,
            }
        )
    return described
