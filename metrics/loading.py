"""The networks that a protocol reads with, each loaded once, and the keys of what they give."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from idbench.metrics.cache import cache_key
from idbench.metrics.faces.detect import Detector, detector_hashes, make_detector
from idbench.metrics.networks import sources as weights
from idbench.metrics.networks.sources import Source
from idbench.metrics.settings import Protocol, plain

if TYPE_CHECKING:
    from idbench.metrics.networks.clip import ClipEmbedder, ViclipEmbedder
    from idbench.metrics.networks.pack import PackRecogniser
    from idbench.metrics.networks.recogniser import Recogniser


class Networks:
    """The networks of a protocol, each loaded once and only when something is to be computed.

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
        self.sources = weights.parse() if sources is None else sources
        self.recognisers = tuple(n for n in ("arcface", "curricularface") if n in networks)
        self.reads_clip, self.reads_viclip = "clip" in networks, "viclip" in networks
        self.clips_faces = self.reads_clip and protocol.clip_region == "face"
        self.clips_frames = self.reads_clip and protocol.clip_region == "frame"
        self.reads_faces = bool(self.recognisers) or self.clips_faces
        self.timings: dict[str, float] = {}
        self._loaded: dict[str, Any] = {}
        self._hashes: dict[str, dict[str, str]] = {}
        self._parts: dict[str, dict[str, Any]] = {}

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

    def network(self, name: str) -> Any:
        """The network of that name, such as one that a metric brings along."""
        return self._network(name, lambda: self.sources[name].load(self.device))

    def recogniser(self, name: str) -> Recogniser | PackRecogniser:
        """The recogniser of that name."""
        return self.network(name)

    def clip(self) -> ClipEmbedder:
        """CLIP."""
        return self.network("clip")

    def viclip(self) -> ViclipEmbedder:
        """ViCLIP."""
        return self.network("viclip")

    @property
    def reads(self) -> tuple[str, ...]:
        """The networks it reads with, the detector apart."""
        return (*self.recognisers, *["clip"] * self.reads_clip, *["viclip"] * self.reads_viclip)

    def providers(self) -> dict[str, list[str]]:
        """onnxruntime's execution providers of each network of a pack that was loaded."""
        return {
            name: list(made.providers) for name, made in self._loaded.items()
            if hasattr(made, "providers")
        }

    def weight_hashes(self) -> dict[str, str]:
        """sha256 of every weight file this embedder reads, by file name; loads no network."""
        hashes = dict(self._hash("detector")) if self.reads_faces else {}
        for name in self.reads:
            hashes |= self.sources[name].hashes()
        return hashes

    def _hash(self, name: str) -> dict[str, str]:
        if name not in self._hashes:  # the manifest is read once, not for every video
            self._hashes[name] = (
                detector_hashes(self.protocol.detection, weights.pack_folder(self.sources))
                if name == "detector" else {name: self.sources[name].identity()}
            )
        return self._hashes[name]

    # -- keys

    def _part(self, step: str) -> dict[str, Any]:
        """The fields of the protocol that matter for a step."""
        if step not in self._parts:
            protocol, part = self.protocol, plain(self.protocol.detection)
            if step == "curricularface" and protocol.curricular_crop != protocol.detection.crop:
                part["crop_first"] = protocol.curricular_crop
            elif step == "clip faces":
                part = {
                    "picture": plain(protocol.clip_picture), "region": protocol.clip_region,
                    "crop": protocol.clip_crop, "detection": part,
                }
            elif step == "clip":
                part = {"picture": plain(protocol.clip_picture), "region": protocol.clip_region}
            elif step == "viclip":
                part = {"picture": plain(protocol.video_picture)}
            elif step == "text":
                part = {}
            self._parts[step] = part
        return self._parts[step]

    def key(self, step: str, source: str, indices: Sequence[int]) -> str:
        """The cache's key of what a step gives of a source.

        Steps: `faces`, a recogniser, `clip faces`, `clip` (whole frames), `viclip`, `text`.
        """
        if step == "faces":
            hashes = self._hash("detector")
        elif step in ("clip", "viclip", "text"):
            hashes = self._hash("viclip" if step == "text" else step)
        else:
            network = "clip" if step == "clip faces" else step
            hashes = {**self._hash("detector"), **self._hash(network)}
        return cache_key(source, indices, self._part(step), hashes, self.protocol.precision)

    def keys(
        self, source: str, indices: Sequence[int], video_indices: Sequence[int]
    ) -> dict[str, str]:
        """Step -> key, of all that is read of one source.

        Args:
            indices: the frames for faces and CLIP.
            video_indices: the frames for ViCLIP; none: it is not read.
        """
        steps = ["faces"] * self.reads_faces + list(self.recognisers)
        steps += ["clip faces"] * self.clips_faces + ["clip"] * self.clips_frames
        found = {step: self.key(step, source, indices) for step in steps}
        if self.reads_viclip and video_indices:
            found["viclip"] = self.key("viclip", source, video_indices)
        return found
