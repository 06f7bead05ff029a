"""How videos are scored: the protocol, the metrics and the networks, and the key of all that.

DlibSim is a second opinion, added where embedded recognisers alone would judge photographs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from idbench import embedded
from idbench.differences import metric_weight_differences
from idbench.errors import UserError, explained
from idbench.files import sha256_json, sha256_once
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.networks.weight_sources import NETWORKS, Source, parse
from idbench.metrics.protocol_types import Protocol
from idbench.metrics.protocols import choose_metrics, get_protocol
from idbench.names import DEFAULT_PROTOCOL
from idbench.provenance import opencv_version, package_versions
from idbench.published_weights import published_weights
from idbench.registry import METRICS, metric_version
from idbench.runs import Run
from idbench.suite import load_suite
from idbench.types import Sample

SECOND_OPINION = "dlibsim"
_RECOGNISERS = ("arcface", "curricularface")
_WHY = "The embedded recognisers are trained on avatars, and the references are not avatars"


@dataclass(frozen=True)
class Scoring:
    """What a video is scored with: the protocol, names of metrics, `weights` as on the command
    line, and where the weights of each network come from."""

    protocol: Protocol
    metrics: tuple[str, ...]
    weights: tuple[str, ...]
    sources: Mapping[str, Source]

    @classmethod
    def of(
        cls, protocol: str = DEFAULT_PROTOCOL, metrics: Sequence[str] = (),
        weights: Sequence[str] = (),
    ) -> Scoring:
        """From the names on the command line; `+NAME` adds a metric to the defaults. Raises
        UserError: an unknown protocol or metric, one that the protocol does not define, or missing
        weights."""
        found = get_protocol(protocol)
        chosen = choose_metrics(found, metrics)
        named = published_weights(weights, _networks(chosen))
        return cls(found, chosen, tuple(weights), parse(named))

    @cached_property
    def key(self) -> dict[str, Any]:
        """Everything that moves a score apart from the video, as JSON; equal keys, comparable
        scores. Imports no network.

        Weights are named by their sha256, the user's also by how they are read, never by their
        path. Other files that metrics read are `metric_weights`."""
        there = embedded.entries()
        besides: dict[str, str] = {}
        for name in self.metrics:
            with explained(
                f"The metric {name} of {METRICS.target(name)} does not name its weights",
                "report this to its authors",
            ):
                besides |= METRICS.load(name).weight_hashes(self.sources)
        return {
            "protocol": self.protocol.as_dict(),
            "weights": {
                name: self.sources[name].identity() for name in NETWORKS
                if name in there or self.sources[name].path is not None
            },
            **({"metric_weights": dict(sorted(besides.items()))} if besides else {}),
            "detector": self._detector(),
            "opencv": opencv_version(),
            "metrics": {name: metric_version(name) for name in sorted(self.metrics)},
        }

    def _detector(self) -> str:
        """The detector that will find the faces: its weights, and the package that runs them."""
        pack = self.protocol.detection.detector == "pack" and "detector" in self.sources
        version = package_versions().get("insightface" if pack else "facenet-pytorch", "missing")
        return f"{self.sources['detector'].identity()} {version}" if pack else version

    @cached_property
    def sha256(self) -> str:
        """The hash of `key`, without OpenCV's version: runs scored before do not have it."""
        return sha256_json({k: v for k, v in self.key.items() if k != "opencv"})

    def check(self, run: Run) -> None:
        """Refuse to mix protocols or weights in one folder. Raises UserError: the run is scored
        under another protocol, or with other weights."""
        before, key = run.file.scoring, self.key
        if before.protocol and before.protocol != key["protocol"]:
            raise UserError(
                f"{run.folder} is scored under the protocol {before.protocol_name}, not "
                f"{self.protocol.name}; rescore it with `idbench score {run.folder} "
                f"--protocol {self.protocol.name}`, or choose another folder with --out."
            )
        other = [n for n, w in key["weights"].items() if before.weights.get(n, w) != w]
        other += [place for place, *_ in metric_weight_differences(
            before.metric_weights, key.get("metric_weights") or {})]
        if (before.detector or key["detector"]) != key["detector"]:
            other.append("detector")
        if (before.opencv or key["opencv"]) != key["opencv"]:
            other.append("OpenCV")
        if other:
            given = "".join(f" --weights {shlex.quote(text)}" for text in self.weights)
            raise UserError(
                f"{run.folder} is scored with other weights or packages ({', '.join(other)}); "
                f"rescore all of it with `idbench score {run.folder}{given}`, or choose another "
                "folder with --out."
            )


def _networks(metrics: Sequence[str]) -> set[str]:
    """The networks that metrics read or run."""
    found: set[str] = set()
    for metric in map(METRICS.load, metrics):
        found.update(metric.networks)
        found.update(one if isinstance(one, str) else one.name for one in metric.runs)
    return found


def with_second_opinion(
    metrics: Sequence[str], samples: Iterable[Sample], protocol: str, weights: Sequence[str],
    say: Callable[[str], None],
) -> Sequence[str]:
    """`metrics`, with DlibSim if it is installed and the references are photographs.

    Unchanged if the caller chose metrics or named other recognisers, under a protocol that does not
    define DlibSim, and for pictures of the suite avatars. `say` is told what was done, or how to
    install it."""
    named = {text.partition("=")[0] for text in weights}
    chosen = any(not name.startswith("+") for name in metrics) or f"+{SECOND_OPINION}" in metrics
    if chosen or named.intersection(_RECOGNISERS):
        return metrics
    defined = get_protocol(protocol).defines(METRICS.load(SECOND_OPINION))
    if not defined or not _photographs(samples):
        return metrics
    if not dlib_resnet.installed():
        say(f"{_WHY}: install DlibSim for a second opinion (`{dlib_resnet.INSTALL}`).")
        return metrics
    say(f"{_WHY}: DlibSim, a recogniser trained on photographs, is scored too.")
    return [*metrics, f"+{SECOND_OPINION}"]


def _photographs(samples: Iterable[Sample]) -> bool:
    """Whether the samples have face references, and none is a picture of the suite avatars."""
    pictures = {r.image for s in samples for r in s.references if r.kind == "face"}
    known = set(load_suite("avatars").checksums.values())
    readable = [path for path in pictures if path.is_file()]
    return bool(readable) and not any(sha256_once(path) in known for path in readable)
