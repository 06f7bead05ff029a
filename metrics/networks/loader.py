"""The networks of a protocol, each loaded once, the threads that run them, and cache keys."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

from idbench.devices import AUTO, may_have_gpu, resolve
from idbench.metrics.embedding_cache import cache_key
from idbench.metrics.faces.detect import detector_hashes, make_detector
from idbench.metrics.networks.weight_sources import Source, pack_folder, parse
from idbench.metrics.protocol_types import Protocol, plain
from idbench.provenance import cores

T = TypeVar("T")
R = TypeVar("R")

STEPS = {
    "faces": ("detector",), "arcface": ("detector", "arcface"),
    "curricularface": ("detector", "curricularface"), "clip faces": ("detector", "clip"),
    "clip": ("clip",), "viclip": ("viclip",), "text": ("viclip",),
}
"""What is computed of a source -> the networks that it depends on; the last one computes it."""


class NetworkLoader:
    """The networks of a protocol, each loaded only once it has something to compute.

    Attributes:
        timings: seconds spent so far: load, detect, align, embed faces, embed frames, embed video,
            embed text, score.

    Args:
        networks: whose embeddings are read: `arcface`, `curricularface`, `clip`, `viclip`.
        device: as on the command line; `auto` is looked up when the first network is loaded.
        sources: where each network's weights come from; default: all are embedded.
    """

    def __init__(
        self, protocol: Protocol, networks: Sequence[str], device: str,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self.protocol, self._device = protocol, device
        self.sources = parse() if sources is None else sources
        self.recognisers = tuple(n for n in ("arcface", "curricularface") if n in networks)
        self.reads_clip, self.reads_viclip = "clip" in networks, "viclip" in networks
        self.clips_faces = self.reads_clip and protocol.clip_region in ("face", "both")
        self.clips_frames = self.reads_clip and protocol.clip_region in ("frame", "both")
        self.reads_faces = bool(self.recognisers) or self.clips_faces
        self.timings: dict[str, float] = {}
        self._loaded: dict[str, Any] = {}
        self._hashes: dict[str, dict[str, str]] = {}
        self._parts = _parts(protocol)
        self._lock = threading.RLock()
        self._here = threading.local()

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the time of the block to `timings[what]`; threads add theirs."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.timings[what] = self.timings.get(what, 0.0) + time.perf_counter() - start

    @cached_property
    def device(self) -> str:
        """Of torch."""
        return resolve(self._device)

    def devices(self) -> list[str]:
        """The device, once a network was loaded."""
        return [self.device] if self._loaded else []

    # -- threads

    @cached_property
    def threads(self) -> int:
        """Sources that are computed side by side: on a CPU one a core, or as OMP_NUM_THREADS says.
        """
        if self._device != "cpu" and (self._device != AUTO or may_have_gpu()):
            return 1
        limit = os.environ.get("OMP_NUM_THREADS", "")
        return min(cores(), int(limit)) if limit.isdigit() and int(limit) else cores()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, "scoring", initializer=self._begin_thread)

    def each(
        self, function: Callable[[T], R], items: Sequence[T],
        done: Callable[[], None] = lambda: None,
    ) -> list[R]:
        """`function` of each item, in order, in threads that each run networks on one core; `done`
        is called after each. An error ends it, after what has begun."""
        if not items or getattr(self._here, "ours", False):
            return [function(item) for item in items]
        results = []
        for result in self._pool.map(function, items):
            results.append(result)
            done()
        return results

    def _begin_thread(self) -> None:
        self._here.ours = True

    # -- networks

    def network(self, name: str) -> Any:
        """The network of that name: `detector`, one of `networks`, or one that a metric runs."""
        with self._lock:
            if name not in self._loaded:
                with self.timed("load"):
                    self._loaded[name] = make_detector(
                        self.protocol.detection, self.device, pack_folder(self.sources)
                    ) if name == "detector" else self.sources[name].load(self.device)
        if getattr(self._here, "ours", False) and not getattr(self._here, "limited", False):
            import torch

            # More threads would round differently, and values would depend on the machine.
            torch.set_num_threads(1)
            self._here.limited = True
        return self._loaded[name]

    def batch_notes(self) -> list[str]:
        """Of each loaded network whose batches were halved: that values may differ in last digits.
        """
        return [
            f"{name} ran in batches of {made.batches.size} because the memory was full; values may "
            "differ in their last digits"
            for name, made in sorted(self._loaded.items())
            if getattr(getattr(made, "batches", None), "halved", False)
        ]

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
        """Step -> key, of everything read from one source, by the frames for faces and CLIP, and
        those for ViCLIP (empty: not read)."""
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
    clip = {"picture": plain(protocol.clip_picture)}
    return {
        "faces": detection,
        "arcface": embedded,
        "curricularface": {**embedded, "crop_first": protocol.curricular_crop}
        if shrunk else embedded,
        "clip faces": {**clip, "region": "face", "crop": protocol.clip_crop, "detection": embedded},
        "clip": {**clip, "region": "frame"},
        "viclip": {"picture": plain(protocol.video_picture)},
        "text": {},
    }
