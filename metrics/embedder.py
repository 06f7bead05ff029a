"""From decoded videos, references and prompts to embeddings, each computed once.

What is computed of a source depends on that source alone: the crops, frames or clip of one video,
image or text run through a network together, and never with those of another. So a value is the
same, bit for bit, whatever is scored with it. On a CPU each source is computed by one thread,
several side by side: the number of threads changes no value either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from idbench.files import sha256_file, sha256_json
from idbench.metrics.base import WHOLE
from idbench.metrics.embedding_cache import Arrays, EmbeddingCache, pack_faces, unpack_faces
from idbench.metrics.faces.crops import crops_of_frames, find_faces
from idbench.metrics.faces.detect import Faces
from idbench.metrics.networks.loader import STEPS, NetworkLoader
from idbench.metrics.networks.weight_sources import Source
from idbench.metrics.protocol_types import Detection, Protocol
from idbench.pictures import UnreadablePicture, is_plain, read_converted, read_rgb, why_unread


@dataclass
class Pictures:
    """One video, or one reference image (a single frame), and what was read from it.

    Attributes:
        source: sha256 of the file.
        keys: step -> cache key; see `NetworkLoader.keys`.
        frames: those for faces and CLIP, uint8 RGB (k, h, w, 3); None if everything is cached.
        video: the frames for ViCLIP, likewise.
        faces: of each frame.
        crops: side of the first crop, and how frames are padded for it -> aligned crops of all
            faces, while they are needed.
        face_vectors: network -> of each frame the embeddings (faces, d).
        frame_vectors: network -> (k, d); video_vector: network -> (d,).
        new: key -> arrays that the cache does not have yet.
    """

    source: str
    keys: Mapping[str, str]
    frames: np.ndarray | None = None
    video: np.ndarray | None = None
    faces: list[Faces] = field(default_factory=list)
    crops: dict[tuple[int, Detection | None], np.ndarray] = field(default_factory=dict)
    face_vectors: dict[str, list[np.ndarray]] = field(default_factory=dict)
    frame_vectors: dict[str, np.ndarray] = field(default_factory=dict)
    video_vector: dict[str, np.ndarray] = field(default_factory=dict)
    new: dict[str, Arrays] = field(default_factory=dict)


@dataclass(frozen=True)
class ReferenceVectors:
    """What was read from one reference image.

    Attributes:
        faces: network name -> embedding (d,) of its face, or None.
        image: network name -> embedding (d,) of the whole image, or None. Where CLIP reads faces,
            that of the face, and `WHOLE` -> that of the whole image.
        face_reason, image_reason: why there is none (None: there is one).
        note: if the image shows no face or several, or cannot be read.
    """

    faces: dict[str, np.ndarray | None]
    image: dict[str, np.ndarray | None]
    face_reason: str | None
    image_reason: str | None
    note: str | None = None


class Embedder(NetworkLoader):
    """Reads videos, references and prompts with the networks of a protocol, see `NetworkLoader`;
    `cache` keeps the embeddings."""

    def __init__(
        self, protocol: Protocol, networks: Sequence[str], cache: EmbeddingCache, device: str,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        super().__init__(protocol, networks, device, sources)
        self.cache = cache
        self._references: dict[Path, ReferenceVectors] = {}
        self._texts: dict[str, tuple[np.ndarray, float]] = {}

    def knows(self, source: str, keys: Mapping[str, str]) -> bool:
        """Whether all that is read from a source is cached, so that no frame is needed."""
        return all(self.cache.get(source, key) is not None for key in keys.values())

    def read(self, one: Pictures) -> None:
        """Everything of one source: from the cache, or computed and kept there."""
        protocol = self.protocol
        if self.reads_faces:
            found = self._compute("faces", one, "detect", lambda detector: pack_faces(
                find_faces(detector, _there(one.frames), protocol.detection)))
            one.faces = [of.largest(protocol.largest_faces) for of in unpack_faces(found)]
            for step in [*self.recognisers, *["clip faces"] * self.clips_faces]:
                self._embed_faces(step, one)
            one.crops.clear()
        if self.clips_frames:
            one.frame_vectors["clip"] = self._compute("clip", one, "embed frames", lambda clip: {
                "vectors": clip.pictures(_there(one.frames), protocol.clip_picture)})["vectors"]
        if "viclip" in one.keys:
            one.video_vector["viclip"] = self._compute("viclip", one, "embed video", lambda clip: {
                "vector": clip.video(_there(one.video), protocol.video_picture)})["vector"]
        self.cache.put(one.source, one.new)

    def _of(self, one: Pictures, step: str) -> Arrays:
        """What a step gave of a source; empty if it has not been computed."""
        found = one.new.get(one.keys[step])
        return found if found is not None else self.cache.get(one.source, one.keys[step]) or {}

    def _compute(
        self, step: str, one: Pictures, what: str, run: Callable[[Any], Arrays]
    ) -> Arrays:
        """What a step gives of a source: `run` of its network, unless it is known already."""
        found = self._of(one, step)
        if not found:
            network = self.network(STEPS[step][-1])  # loading is timed separately
            with self.timed(what):
                found = one.new[one.keys[step]] = run(network)
        return found

    def _embed_faces(self, step: str, one: Pictures) -> None:
        """Embeddings of all faces by one network; crops are cut once for all networks."""
        protocol, name = self.protocol, STEPS[step][-1]
        first = side = protocol.clip_crop if name == "clip" else protocol.detection.crop
        if name == "curricularface":
            first = protocol.curricular_crop
        padded = name == "arcface" and protocol.detection.retry_crop == "padded"
        cut = first, protocol.detection if padded else None
        if not self._of(one, step) and cut not in one.crops:
            with self.timed("align"):
                one.crops[cut] = crops_of_frames(
                    _there(one.frames), one.faces, first, side, cut[1],
                    protocol.detection.crop_beyond)

        def run(network: Any) -> Arrays:
            crops = one.crops[cut]
            return {"vectors": network.pictures(crops, protocol.clip_picture) if name == "clip"
                    else network.embed(crops)}

        vectors = self._compute(step, one, "embed faces", run)["vectors"]
        one.face_vectors[name] = np.split(vectors, np.cumsum([len(f) for f in one.faces])[:-1])

    # -- texts and references

    def text_vectors(self, text: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """`viclip` -> embedding (d,) of the prompt; and the share of it that was read."""
        if not self.reads_viclip:
            return {}, {}
        self.read_texts([text])
        vector, share = self._texts[text]
        return {"viclip": vector}, {"viclip": share}

    def read_texts(self, texts: Sequence[str]) -> None:
        """Embed the prompts that are not known yet; once a process, and in the cache."""
        unread = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if self.reads_viclip:
            self.each(self._read_text, unread)

    def _read_text(self, text: str) -> None:
        source = hashlib.sha256(text.encode("utf-8")).hexdigest()
        key = self.key("text", source, ())
        stored = self.cache.get(source, key)
        if stored is None:
            network = self.network("viclip")
            with self.timed("embed text"):
                vector = network.texts([text])[0]
            share = np.asarray(network.tokenizer.share_read(text), np.float64)
            stored = {"vector": vector, "share_read": share}
            self.cache.put(source, {key: stored})
        self._texts[text] = stored["vector"], float(stored["share_read"])

    def person(self, images: Sequence[Path]) -> ReferenceVectors:
        """The vectors of a person's photographs: the mean of those that show a face, each with the
        same weight."""
        read = self.references(images)
        if len(read) == 1:
            return read[0]
        usable = [one for one in read if one.face_reason is None]
        pictures = [one for one in read if one.image_reason is None]
        notes = [
            f"{image.name}: {one.note}" for image, one in zip(images, read, strict=True) if one.note
        ]
        return ReferenceVectors(
            {name: _mean([one.faces.get(name) for one in usable]) for name in read[0].faces},
            {name: _mean([one.image.get(name) for one in pictures]) for name in read[0].image},
            None if usable else read[0].face_reason,
            None if pictures else read[0].image_reason,
            "; ".join(notes) or None,
        )

    def references(self, images: Sequence[Path]) -> list[ReferenceVectors]:
        """The vectors of reference images, computed once a process and kept in the cache; those
        that are not known yet are computed side by side."""
        new: dict[Path, Pictures] = {}
        for image in dict.fromkeys(images):
            if image not in self._references:
                opened = self._open(image)
                if isinstance(opened, Pictures):
                    new[image] = opened
                else:
                    self._references[image] = opened
        # Files with the same content are one source.
        sources = {one.source: one for one in new.values()}
        self.each(self.read, list(sources.values()))
        for image, pictures in new.items():
            self._references[image] = self._reference(image, sources[pictures.source])
        return [self._references[image] for image in images]

    def _open(self, image: Path) -> Pictures | ReferenceVectors:
        """A reference image, decoded unless everything is cached; or why it cannot be."""
        try:
            source = sha256_file(image)
            if not is_plain(image):
                # Older caches may hold what was read before the image was made upright.
                source = sha256_json([source, self.protocol.reference_picture])
            keys = self.keys(source, (0,), ())
            if self.knows(source, keys):
                return Pictures(source, keys)
            read = read_rgb if self.protocol.reference_picture == "upright" else read_converted
            return Pictures(source, keys, read(image)[None])
        except (OSError, UnreadablePicture) as error:
            reason = why_unread(image, error)
            return ReferenceVectors(
                dict.fromkeys(self.recognisers), {"clip": None} if self.reads_clip else {},
                reason, reason, "cannot be read",
            )

    def _reference(self, image: Path, read: Pictures) -> ReferenceVectors:
        no_face = f"no face was found in the reference {image.name}"
        no_vector = f"the embedding of the reference {image.name} is not finite"
        count = int(self._of(read, "faces")["counts"][0]) if self.reads_faces else 0
        # Faces are sorted by size: the largest is the reference's person.
        faces = {k: _finite(v[0][0]) if count else None for k, v in read.face_vectors.items()}
        pictures = {k: _finite(v[0]) for k, v in read.frame_vectors.items()}
        if self.clips_faces:
            pictures = {WHOLE: pictures.get("clip"), "clip": faces.pop("clip")}
        face_reason = image_reason = None
        if self.reads_faces and not count:
            face_reason, image_reason = no_face, no_face if self.clips_faces else None
        elif faces.get("arcface", count) is None:  # people are told apart by ArcFace alone
            face_reason = no_vector
        if image_reason is None and pictures.get("clip", count) is None:
            image_reason = no_vector
        note = None
        if self.reads_faces and count != 1:
            note = (f"{count} faces in the image; the largest is used" if count
                    else "no face was found")
        return ReferenceVectors(faces, pictures, face_reason, image_reason, note)


def _mean(vectors: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The mean of embeddings of length 1, of length 1; None where there is none."""
    known = [v / np.linalg.norm(v) for v in vectors if v is not None]
    if not known:
        return None
    mean = np.mean(known, axis=0)
    return _finite((mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(known[0].dtype))


def _finite(vector: np.ndarray) -> np.ndarray | None:
    """An embedding, or None for one that has no direction."""
    return vector if np.isfinite(vector).all() and vector.any() else None


def _there(frames: np.ndarray | None) -> np.ndarray:
    if frames is None:
        raise ValueError("the cached embeddings of this file were removed while it was scored")
    return frames
