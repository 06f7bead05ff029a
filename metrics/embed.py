"""From a decoded video, its references and its prompt to embeddings, each computed once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from idbench.files import sha256_file
from idbench.metrics.cache import EmbeddingCache, cache_key
from idbench.metrics.faces.align import crops_of_frames
from idbench.metrics.faces.detect import Detector, Faces, find_faces, make_detector
from idbench.metrics.networks import sources as weights
from idbench.metrics.networks.clip import ClipEmbedder, ViclipEmbedder
from idbench.metrics.networks.pack import PackRecogniser
from idbench.metrics.networks.recogniser import Recogniser
from idbench.metrics.networks.sources import Source
from idbench.metrics.settings import Protocol, plain


@dataclass(frozen=True)
class ReferenceVectors:
    """What was read from one reference image.

    Attributes:
        faces: network name -> embedding (d,) of its face, or None.
        image: network name -> embedding (d,) of the whole picture, or None.
        face_reason, image_reason: why there is none (None: there is one).
    """

    faces: dict[str, np.ndarray | None]
    image: dict[str, np.ndarray | None]
    face_reason: str | None
    image_reason: str | None


class Embedder:
    """The networks of a protocol, each loaded once and only when something is to be computed.

    Args:
        protocol: fixes how everything is read.
        networks: which to read with, of `arcface`, `curricularface`, `clip`, `viclip`.
        cache: where embeddings are kept.
        device: of torch.
        sources: where each network's weights come from; by default all are embedded.
    """

    def __init__(
        self, protocol: Protocol, networks: Sequence[str], cache: EmbeddingCache, device: str,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self.protocol, self.cache, self.device = protocol, cache, device
        self.sources = weights.parse() if sources is None else sources
        self.recognisers = tuple(n for n in ("arcface", "curricularface") if n in networks)
        self.reads_clip, self.reads_viclip = "clip" in networks, "viclip" in networks
        self.clips_faces = self.reads_clip and protocol.clip_region == "face"
        self.reads_faces = bool(self.recognisers) or self.clips_faces
        self.timings: dict[str, float] = {}
        self._loaded: dict[str, Any] = {}
        self._references: dict[Path, ReferenceVectors] = {}
        self._texts: dict[tuple[str, str], np.ndarray] = {}
        self._shares: dict[str, float] = {}
        self._hashes: dict[str, str] = {}

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the time of the block to `timings[what]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[what] = self.timings.get(what, 0.0) + time.perf_counter() - start

    # -- networks

    def _network(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._loaded:
            with self.timed("load"):
                self._loaded[name] = make()
        return self._loaded[name]

    def detector(self) -> Detector:
        """The detector of the protocol."""
        settings = self.protocol.detection
        pack = weights.pack_folder(self.sources)
        return self._network("detector", lambda: make_detector(settings, self.device, pack))

    def recogniser(self, name: str) -> Recogniser | PackRecogniser:
        """The recogniser of that name."""
        return self._network(name, lambda: self.sources[name].load(self.device))

    def clip(self) -> ClipEmbedder:
        """CLIP."""
        return self._network("clip", lambda: self.sources["clip"].load(self.device))

    def viclip(self) -> ViclipEmbedder:
        """ViCLIP."""
        return self._network("viclip", lambda: self.sources["viclip"].load(self.device))

    @property
    def reads(self) -> tuple[str, ...]:
        """The networks it reads with, the detector apart."""
        return (*self.recognisers, *["clip"] * self.reads_clip, *["viclip"] * self.reads_viclip)

    def providers(self) -> dict[str, list[str]]:
        """onnxruntime's execution providers of each network of a pack, as they run."""
        made: dict[str, Any] = {"detector": self.detector()} if self.reads_faces else {}
        for name in self.recognisers:
            if self.sources[name].kind == "insightface":
                made[name] = self.recogniser(name)
        return {n: list(m.providers) for n, m in made.items() if hasattr(m, "providers")}

    def weight_hashes(self) -> dict[str, str]:
        """sha256 of every weight file this embedder reads, by file name."""
        hashes = dict(self.detector().weight_hashes()) if self.reads_faces else {}
        for name in self.reads:
            hashes |= self.sources[name].hashes()
        return hashes

    def _hash(self, name: str) -> dict[str, str]:
        if name not in self._hashes:  # the manifest is read once, not for every video
            self._hashes[name] = self.sources[name].identity()
        return {name: self._hashes[name]}

    # -- faces

    def faces(self, frames: np.ndarray, source: str, indices: Sequence[int]) -> list[Faces]:
        """Faces of uint8 RGB frames (k, h, w, 3): frame j is frame `indices[j]` of `source`."""
        settings = self.protocol.detection
        part = plain(settings)
        key = cache_key(
            source, indices, part, self.detector().weight_hashes(), self.protocol.precision
        )
        stored = self.cache.get(key)
        if stored is None:
            with self.timed("detect"):
                found = find_faces(self.detector(), frames, settings)
            self.cache.put(key, _pack_faces(found))
            return found
        return _unpack_faces(stored)

    def face_vectors(
        self, frames: np.ndarray, faces: Sequence[Faces], source: str, indices: Sequence[int]
    ) -> dict[str, list[np.ndarray]]:
        """Recogniser name -> for each frame the embeddings (faces, d). Crops are made once."""
        settings = self.protocol.detection
        counts = [len(f) for f in faces]
        crops: dict[int, np.ndarray] = {}
        vectors: dict[str, list[np.ndarray]] = {}
        for name in self.recognisers:
            weights = {**self.detector().weight_hashes(), **self._hash(name)}
            start = self.protocol.curricular_crop if name == "curricularface" else settings.crop
            part = plain(settings)
            if start != settings.crop:
                part["crop_first"] = start
            key = cache_key(source, indices, part, weights, self.protocol.precision)
            stored = self.cache.get(key)
            if stored is None:
                if start not in crops:
                    with self.timed("align"):
                        crops[start] = crops_of_frames(frames, faces, start, settings.crop)
                network = self.recogniser(name)
                with self.timed("embed faces"):
                    stored = {"vectors": network.embed(crops[start])}
                self.cache.put(key, stored)
            vectors[name] = np.split(stored["vectors"], np.cumsum(counts)[:-1])
        return vectors

    def clip_face_vectors(
        self, frames: np.ndarray, faces: Sequence[Faces], source: str, indices: Sequence[int]
    ) -> list[np.ndarray]:
        """CLIP's embeddings (faces, d) of each frame's aligned crops, for CLIPDist of faces."""
        protocol = self.protocol
        part = {
            "picture": plain(protocol.clip_picture), "region": protocol.clip_region,
            "crop": protocol.clip_crop, "detection": plain(protocol.detection),
        }
        weights = {**self.detector().weight_hashes(), **self._hash("clip")}
        key = cache_key(source, indices, part, weights, protocol.precision)
        stored = self.cache.get(key)
        if stored is None:
            with self.timed("align"):
                crops = crops_of_frames(frames, faces, protocol.clip_crop, protocol.clip_crop)
            network = self.clip()
            with self.timed("embed faces"):
                stored = {"vectors": network.pictures(crops, protocol.clip_picture)}
            self.cache.put(key, stored)
        return np.split(stored["vectors"], np.cumsum([len(f) for f in faces])[:-1])

    # -- whole pictures, videos, texts

    def frame_vectors(
        self, frames: np.ndarray, source: str, indices: Sequence[int]
    ) -> dict[str, np.ndarray]:
        """`clip` -> embeddings (k, d) of whole frames."""
        if not self.reads_clip or self.protocol.clip_region != "frame":
            return {}
        part = {"picture": plain(self.protocol.clip_picture), "region": self.protocol.clip_region}
        key = cache_key(source, indices, part, self._hash("clip"), self.protocol.precision)
        stored = self.cache.get(key)
        if stored is None:
            network = self.clip()
            with self.timed("embed frames"):
                stored = {"vectors": network.pictures(frames, self.protocol.clip_picture)}
            self.cache.put(key, stored)
        return {"clip": stored["vectors"]}

    def video_vector(
        self, frames: np.ndarray, source: str, indices: Sequence[int]
    ) -> dict[str, np.ndarray]:
        """`viclip` -> embedding (d,) of the frames (8, h, w, 3) that the protocol samples."""
        if not self.reads_viclip or not len(indices):
            return {}
        part = {"picture": plain(self.protocol.video_picture)}
        key = cache_key(source, indices, part, self._hash("viclip"), self.protocol.precision)
        stored = self.cache.get(key)
        if stored is None:
            network = self.viclip()
            with self.timed("embed video"):
                stored = {"vector": network.video(frames, self.protocol.video_picture)}
            self.cache.put(key, stored)
        return {"viclip": stored["vector"]}

    def text_vectors(self, text: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """`viclip` -> embedding (d,) of the prompt; and the share of it that was read."""
        if not self.reads_viclip:
            return {}, {}
        memory = ("viclip", text)
        if memory not in self._texts:
            source = hashlib.sha256(text.encode("utf-8")).hexdigest()
            key = cache_key(source, (), {}, self._hash("viclip"), self.protocol.precision)
            stored = self.cache.get(key)
            if stored is None:
                network = self.viclip()
                with self.timed("embed text"):
                    stored = {
                        "vector": network.texts([text])[0],
                        "share_read": np.asarray(network.tokenizer.share_read(text), np.float64),
                    }
                self.cache.put(key, stored)
            self._texts[memory] = stored["vector"]
            self._shares[text] = float(stored["share_read"])
        return {"viclip": self._texts[memory]}, {"viclip": self._shares[text]}

    # -- references

    def reference(self, image: Path) -> ReferenceVectors:
        """The vectors of a reference image, computed once a process and kept in the cache."""
        image = Path(image)
        if image not in self._references:
            self._references[image] = self._read_reference(image)
        return self._references[image]

    def _read_reference(self, image: Path) -> ReferenceVectors:
        nothing: dict[str, np.ndarray | None] = {name: None for name in self.recognisers}
        clip_nothing: dict[str, np.ndarray | None] = {"clip": None} if self.reads_clip else {}
        try:
            with Image.open(image) as opened:
                frames = np.array(opened.convert("RGB"))[None]
            source = sha256_file(image)
        except (OSError, UnidentifiedImageError, ValueError) as error:
            reason = f"the reference {image.name} cannot be read ({type(error).__name__})"
            return ReferenceVectors(nothing, clip_nothing, reason, reason)
        pictures = {k: v[0] for k, v in self.frame_vectors(frames, source, (0,)).items()}
        if not self.reads_faces:
            return ReferenceVectors({}, pictures, None, None)
        faces = self.faces(frames, source, (0,))
        if not len(faces[0]):
            reason = f"no face was found in the reference {image.name}"
            if self.clips_faces:
                return ReferenceVectors(nothing, clip_nothing, reason, reason)
            return ReferenceVectors(nothing, pictures, reason, None)
        # Faces are sorted by size: the largest is the reference's person.
        found = self.face_vectors(frames, faces, source, (0,))
        if self.clips_faces:
            pictures = {"clip": self.clip_face_vectors(frames, faces, source, (0,))[0][0]}
        return ReferenceVectors({k: v[0][0] for k, v in found.items()}, pictures, None, None)


def _pack_faces(faces: Sequence[Faces]) -> dict[str, np.ndarray]:
    return {
        "counts": np.array([len(f) for f in faces], np.int64),
        "retried": np.array([f.retried for f in faces], bool),
        "boxes": np.concatenate([f.boxes for f in faces]),
        "landmarks": np.concatenate([f.landmarks for f in faces]),
        "scores": np.concatenate([f.scores for f in faces]),
    }


def _unpack_faces(stored: dict[str, np.ndarray]) -> list[Faces]:
    cuts = np.cumsum(stored["counts"])[:-1]
    parts = [np.split(stored[name], cuts) for name in ("boxes", "landmarks", "scores")]
    retried = stored["retried"]
    return [
        Faces(boxes, landmarks, scores, bool(again))
        for boxes, landmarks, scores, again in zip(*parts, retried, strict=True)
    ]
