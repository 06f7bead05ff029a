"""Scores of finished videos: every network loaded once, every frame and face read once."""

from __future__ import annotations

import hashlib
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from idbench.errors import FatalError, describe
from idbench.metrics.base import WHOLE, Embeddings, Metric
from idbench.metrics.embedder import Embedder, Pictures
from idbench.metrics.embedding_cache import COUNT, EmbeddingCache
from idbench.metrics.faces.match import match_frames
from idbench.metrics.metric_checks import checked
from idbench.metrics.networks.weight_sources import Source, find, pack_folder, parse
from idbench.metrics.protocol_types import Protocol
from idbench.metrics.protocols import (
    DEFAULT_PROTOCOL,
    EMBEDDED_NOTE,
    choose_metrics,
    embedded_note,
    get_protocol,
    sample_frames,
    sample_video_frames,
    with_embedded_networks,
)
from idbench.published_weights import describe_file, published_name
from idbench.registry import METRICS
from idbench.types import Sample, Score, Video
from idbench.video import Clip, read_chosen

KEPT_FACES = 256
"""Samples whose faces are kept in memory; see `Scorer.faces`."""


class Scorer:
    """Scores videos under one protocol.

    Args:
        protocol: name or object.
        cache_dir: folder of the embedding cache; None keeps nothing between processes.
        metrics: which to compute, also of other packages; those that the protocol does not define
            are left out, and their networks are not loaded. By default those of `choose_metrics`.
        device: as on the command line: auto, cpu, cuda, cuda:N or mps.
        sources: where each network's weights come from (`weight_sources.parse`); by default
            all are embedded.

    Attributes:
        prompts_cut: prompt's id -> share of it that ViCLIP reads, of those scored so far that are
            longer than it reads.
        reference_notes: person -> what is to be known of their reference, of those scored so far
            whose image shows no face or several, or cannot be read.
        failures: sample -> the tracebacks of metrics that failed.
        searched: called after each video that was read.
    """

    def __init__(
        self, protocol: str | Protocol = DEFAULT_PROTOCOL, cache_dir: Path | None = None,
        metrics: Sequence[Metric] | None = None, device: str = "cpu",
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self.protocol = get_protocol(protocol)
        if metrics is None:
            metrics = [METRICS.load(name) for name in choose_metrics(self.protocol)]
        defined = [metric for metric in metrics if self.protocol.defines(metric)]
        self.metrics = tuple(sorted(defined, key=lambda metric: metric.needs_pixels))
        networks = {name for metric in self.metrics for name in metric.networks}
        if "curricularface" in networks:
            networks.add("arcface")  # Faces are matched to references by ArcFace.
        sources = dict(parse() if sources is None else sources)
        for metric in self.metrics:
            for source in (find(sources, network) for network in metric.runs):
                sources[source.name] = source
        reads = self.protocol if pack_folder(sources) else with_embedded_networks(self.protocol)
        self.embedder = Embedder(
            reads, sorted(networks), EmbeddingCache(cache_dir), device, sources
        )
        ours = {n for n in self.embedder.reads if sources[n].embedded}
        if self.embedder.reads_faces and reads is not self.protocol:
            ours.add("detector")
        judges = {n for m in self.metrics if not m.matches_itself for n in m.networks}
        trained_on_avatars = (
            EMBEDDED_NOTE if ours & judges & {"arcface", "curricularface"} else None
        )
        notes = (*self.protocol.notes, embedded_note(self.protocol, ours), trained_on_avatars,
                 *self._other_files(), *(metric.note for metric in self.metrics))
        self._notes = tuple(note for note in notes if note)
        self.reference_notes: dict[str, str] = {}
        self.failures: dict[str, list[str]] = {}
        self.searched: Callable[[], None] = lambda: None
        self.prompts_cut: dict[str, float] = {}
        self._faces: dict[str, list[dict[str, Any]]] = {}
        self._metrics_lock = Lock()

    def _other_files(self) -> list[str]:
        """A note for each file that the user named and that is not a published one."""
        notes = []
        named = (*self.embedder.reads, *["detector"] * self.embedder.reads_faces)
        for source in (self.embedder.sources[n] for n in named if n in self.embedder.sources):
            for name, sha256 in ({} if source.embedded else source.hashes()).items():
                if published_name(sha256) is None:
                    said = describe_file(Path(name).name, sha256)
                    notes.append(f"{name} (sha256 {sha256[:12]}) is {said}.")
        return notes

    @property
    def notes(self) -> tuple[str, ...]:
        """What belongs with the scores of a run, also of what its networks met so far."""
        return (*self._notes, *self.embedder.batch_notes())

    def weight_hashes(self) -> dict[str, str]:
        """sha256 of every weight file read for these metrics, by file name."""
        found = self.embedder.weight_hashes()
        for metric in self.metrics:
            found |= metric.weights()
            for network in metric.runs:
                found |= find(self.embedder.sources, network).hashes()
        return found

    def faces(self, sample: Sample) -> list[dict[str, Any]]:
        """For each sampled frame of one of the last `KEPT_FACES` samples: `frame`, `boxes` (n, 4)
        and `landmarks` (n, 5, 2) in its pixels, `assignment` (identity name -> index of its face),
        `retried`."""
        return self._faces.get(sample.id, [])

    # -- one video

    def score(self, sample: Sample, video: Video, video_sha256: str | None = None) -> list[Score]:
        """All metrics of one video, long form: rows of frames, of identities, and of the video.
        `video_sha256`, part of the cache's key, is of the file; None: of the frames."""
        return self.rows(sample, _whole(video, video_sha256))

    def embed(self, sample: Sample, video: Video, video_sha256: str | None = None) -> Embeddings:
        """Everything the metrics need of one video, its frames included; see `score`."""
        clip = _whole(video, video_sha256)
        self._read_requests([sample])
        (found,) = self.embedder.each(lambda one: self._embed(sample, one), [clip])
        frames = {index: video.frames[index] for index in found.frames}
        return replace(found, video=video, sampled_frames=frames)

    def rows(self, sample: Sample, clip: Clip) -> list[Score]:
        """As `score`; if the clip has no frames in memory, everything must be in the cache."""
        (found,) = self.score_all([(sample, clip)])
        if isinstance(found, Exception):
            raise found
        return found

    # -- many videos

    def open(self, path: Path, video_sha256: str) -> Clip:
        """The frames of a video file that are still needed: none if the cache has everything.
        Decodes once and sequentially; may be called from another thread. Raises UnreadableVideo."""
        cache = self.embedder.cache
        if not (self.reads_pixels or self.reads_frames):
            known = cache.get(video_sha256, COUNT)
            if known is not None:
                count = int(known["frames"][0])
                keys = self.embedder.keys(video_sha256, *(tuple(of) for of in self._sampled(count)))
                if self.embedder.knows(video_sha256, keys):
                    return Clip(count, 0.0, {}, video_sha256)
        return replace(read_chosen(path, self._needed), sha256=video_sha256)

    def score_all(self, items: Sequence[tuple[Sample, Clip]]) -> list[list[Score] | Exception]:
        """The rows of several videos from `open`, in their order, computed side by side; of a bad
        video what it raised. Raises DiskError, WeightError."""
        try:
            self._read_requests([sample for sample, clip in items if clip.count])
        except FatalError:
            raise
        except Exception:
            pass  # raised again by the samples that need what cannot be read
        found = self.embedder.each(self._try, items, self.searched)
        while len(self._faces) > KEPT_FACES:  # the oldest go: memory stays flat
            self._faces.pop(next(iter(self._faces)))
        return found

    def _try(self, item: tuple[Sample, Clip]) -> list[Score] | Exception:
        sample, clip = item
        if not clip.count:
            reason = "the video has no frames"
            return [row for metric in self.metrics for row in metric.unscored(sample, reason)]
        try:
            return self._measure(sample, clip, self._embed(sample, clip))
        except FatalError:
            raise
        except Exception as error:
            return error

    @property
    def reads_pixels(self) -> bool:
        """Whether a metric needs all frames, so that embeddings in the cache are not enough."""
        return any(metric.needs_pixels for metric in self.metrics)

    @property
    def reads_frames(self) -> bool:
        """Whether a metric needs the sampled frames themselves."""
        return any(metric.needs_frames for metric in self.metrics)

    def _sampled(self, count: int) -> tuple[Counter[int], tuple[int, ...]]:
        """Of `count` frames those for faces and CLIP, with their repeats, and those for ViCLIP."""
        video = sample_video_frames(self.protocol, count) if self.embedder.reads_viclip else ()
        return Counter(sample_frames(self.protocol, count)), video

    def _needed(self, count: int) -> Collection[int]:
        if self.reads_pixels:
            return range(count)
        taken, video = self._sampled(count)
        return {*taken, *video}

    def _measure(self, sample: Sample, clip: Clip, embeddings: Embeddings) -> list[Score]:
        """The rows of all metrics of one video from its embeddings."""
        if self.reads_pixels:
            video = Video(clip.take(range(clip.count)), clip.fps)
            embeddings = replace(embeddings, video=video)
        if self.reads_pixels or self.reads_frames:
            frames = zip(embeddings.frames, clip.take(embeddings.frames), strict=True)
            embeddings = replace(embeddings, sampled_frames=dict(frames))
        # One video at a time: metrics of other packages may not stand several.
        with self._metrics_lock, self.embedder.timed("score"):
            rows = [row for metric in self.metrics for row in self._rows(metric, embeddings)]
        self._faces[sample.id] = _described(embeddings)
        return rows

    def _rows(self, metric: Metric, embeddings: Embeddings) -> list[Score]:
        """The rows of one metric; if it fails, it alone is unscored."""
        sample = embeddings.sample
        try:
            return checked(metric.name, sample.id, metric.rows(embeddings))
        except FatalError:
            raise
        except (Exception, SystemExit) as error:
            self.failures.setdefault(sample.id, []).append(traceback.format_exc())
            reason = f"scoring failed: {describe(error)}"
            return [Score(sample.id, metric.name, None, None, None, reason)]

    def _read_requests(self, samples: Sequence[Sample]) -> None:
        """Embed the references and prompts of samples, once however many share them."""
        every = [person for sample in samples for person in sample.people]
        self.embedder.references([image for reference in every for image in reference.images])
        for reference in every:
            vectors = self.embedder.person(reference.images)
            if vectors.note:
                self.reference_notes[reference.name] = vectors.note
        self.embedder.read_texts([sample.prompt for sample in samples])

    def _embed(self, sample: Sample, clip: Clip) -> Embeddings:
        """Everything the metrics need of a video with at least one frame."""
        embedder = self.embedder
        taken, video = self._sampled(clip.count)
        one = Pictures(clip.sha256, embedder.keys(clip.sha256, tuple(taken), video))
        if len(clip.frames):  # else everything is known
            one.frames = clip.take(tuple(taken))
            one.video = clip.take(video) if video else None
            if embedder.cache.get(clip.sha256, COUNT) is None:
                one.new[COUNT] = {"frames": np.array([clip.count])}
        embedder.read(one)
        references = [embedder.person(r.images) for r in sample.people]
        text_vector, share_read = embedder.text_vectors(sample.prompt)
        if share_read.get("viclip", 1.0) < 1.0:
            self.prompts_cut[sample.prompt_id] = round(share_read["viclip"], 4)
        return Embeddings(
            sample=sample,
            protocol=self.protocol,
            frames=tuple(taken),
            faces=tuple(one.faces),
            matches=match_frames(
                self.protocol.matching, one.faces, one.face_vectors.get("arcface"),
                [r.faces.get("arcface") for r in references],
            ) if embedder.reads_faces else (),
            face_vectors=one.face_vectors,
            reference_vectors={
                name: [r.faces[name] for r in references] for name in embedder.recognisers
            },
            photograph_vectors=tuple(
                tuple(v.faces.get("arcface") for v in embedder.references(r.images))
                for r in sample.people
            ),
            reference_reasons=tuple(r.face_reason for r in references),
            frame_vectors=one.frame_vectors,
            image_vectors={
                name: [r.image.get(name) for r in references] for name in ("clip", WHOLE)
            } if embedder.reads_clip else {},
            image_reasons=tuple(r.image_reason for r in references),
            video_vector=one.video_vector,
            text_vector=text_vector,
            share_read=share_read,
            repeats=tuple(taken.values()),
            network=embedder.network,
        )


def _whole(video: Video, sha256: str | None) -> Clip:
    frames = np.asarray(video.frames)
    digest = sha256 or hashlib.sha256(frames.tobytes()).hexdigest()
    return Clip(len(frames), video.fps, frames, digest)


def _described(embeddings: Embeddings) -> list[dict[str, Any]]:
    """Each frame's faces and who they are, as JSON values; see `Scorer.faces`."""
    if not embeddings.faces:
        return []
    names = embeddings.sample.identities
    return [
        {
            "frame": frame,
            "boxes": faces.boxes.round(2).tolist(),
            "landmarks": faces.landmarks.round(2).tolist(),
            "assignment": {
                name: face for name, face in zip(names, match.face_of_reference, strict=True)
                if face is not None
            },
            "retried": faces.retried,
        }
        for frame, faces, match in zip(
            embeddings.frames, embeddings.faces, embeddings.matches, strict=True)
    ]
