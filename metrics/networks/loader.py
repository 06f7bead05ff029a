"""The networks of a protocol, each loaded once, and the cache keys of what they compute."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from idbench.metrics.cache import cache_key
from idbench.metrics.faces.detect import detector_hashes, make_detector
from idbench.metrics.networks.weight_sources import Source, pack_folder, parse
from idbench.metrics.protocol_types import Protocol, plain

STEPS = {
    "faces": ("detector",),
    "arcface": ("detector", "arcface"),
    "curricularface": ("detector", "curricularface"),
    "clip faces": ("detector", "clip"),
    "clip": ("clip",),
    "viclip": ("viclip",),
    "text": ("viclip",),
}
"""What is computed of a source -> the networks that it depends on; the last one computes it."""


class NetworkLoader:
    """The networks of a protocol, each loaded only once it has something to compute.

    Args:
        protocol: fixes how everything is read.
        networks: whose embeddings are read: `arcface`, `curricularface`, `clip`, `viclip`.
        device: of torch.
        sources: where each network's weights come from; by default all are embedded.
    """

    def __init__(
        self, protocol: Protocol, networks: Sequence[str], device: str,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self.protocol, self.device = protocol, device
        self.sources = parse() if sources is None else sources
        self.recognisers = tuple(n for n in ("arcface", "curricularface") if n in networks)
        self.reads_clip, self.reads_viclip = "clip" in networks, "viclip" in networks
        self.clips_faces = self.reads_clip and protocol.clip_region == "face"
        self.clips_frames = self.reads_clip and protocol.clip_region == "frame"
        self.reads_faces = bool(self.recognisers) or self.clips_faces
        self.timings: dict[str, float] = {}
        self._loaded: dict[str, Any] = {}
        self._hashes: dict[str, dict[str, str]] = {}
        self._parts = _parts(protocol)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the time of the block to `timings[what]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[what] = self.timings.get(what, 0.0) + time.perf_counter() - start

    # -- networks

    def network(self, name: str) -> Any:
        """The network of that name: `detector`, one of `networks`, or one that a metric runs."""
        if name not in self._loaded:
            with self.timed("load"):
                self._loaded[name] = (
                    make_detector(
                        self.protocol.detection, self.device, pack_folder(self.sources))
                    if name == "detector" else self.sources[name].load(self.device)
                )
        return self._loaded[name]

    @property
    def reads(self) -> tuple[str, ...]:
        """The networks whose embeddings are read, without the detector."""
        return (*self.recognisers, *["clip"] * self.reads_clip, *["viclip"] * self.reads_viclip)

    def providers(self) -> dict[str, list[str]]:
        """onnxruntime's execution providers of each loaded network of a pack."""
        return {
            name: list(made.providers) for name, made in self._loaded.items()
            if hasattr(made, "providers")
        }

    def weight_hashes(self) -> dict[str, str]:
        """sha256 of the weight files of `reads` and the detector, by name; loads no network."""
        hashes = dict(self._hash("detector")) if self.reads_faces else {}
        for name in self.reads:
            hashes |= self.sources[name].hashes()
        return hashes

    def _hash(self, name: str) -> dict[str, str]:
        if name not in self._hashes:  # the manifest is read once, not for every video
            self._hashes[name] = (
                detector_hashes(self.protocol.detection, pack_folder(self.sources))
                if name == "detector" else {name: self.sources[name].identity()}
            )
        return self._hashes[name]

    # -- keys

    def key(self, step: str, source: str, indices: Sequence[int]) -> str:
        """The cache key of what a step, of `STEPS`, computes from frames of a source."""
        hashes = {k: v for name in STEPS[step] for k, v in self._hash(name).items()}
        return cache_key(source, indices, self._parts[step], hashes, self.protocol.precision)

    def keys(
        self, source: str, indices: Sequence[int], video_indices: Sequence[int]
    ) -> dict[str, str]:
        """Step -> key, of everything that is read from one source.

        Args:
            indices: the frames for faces and CLIP.
            video_indices: the frames for ViCLIP; empty: it is not read.
        """
        steps = ["faces"] * self.reads_faces + list(self.recognisers)
        steps += ["clip faces"] * self.clips_faces + ["clip"] * self.clips_frames
        found = {step: self.key(step, source, indices) for step in steps}
        if self.reads_viclip and video_indices:
            found["viclip"] = self.key("viclip", source, video_indices)
        return found


def _parts(protocol: Protocol) -> dict[str, dict[str, Any]]:
    """Step -> the fields of the protocol that affect it. The rule of a crop is one of them."""
    detection = plain(protocol.detection)
    largest = {"largest": protocol.largest_faces} if protocol.largest_faces else {}
    embedded = {**detection, **largest}
    shrunk = protocol.curricular_crop != protocol.detection.crop
    clip = {"picture": plain(protocol.clip_picture), "region": protocol.clip_region}
    return {
        "faces": detection,
        "arcface": embedded,
        "curricularface": {**embedded, "crop_first": protocol.curricular_crop}
        if shrunk else embedded,
        "clip faces": {**clip, "crop": protocol.clip_crop, "detection": embedded},
        "clip": clip,
        "viclip": {"picture": plain(protocol.video_picture)},
        "text": {},
    }
