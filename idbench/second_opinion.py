"""DlibSim as a second opinion: added where embedded recognisers would judge photographs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from idbench.files import sha256_once
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.protocols import get_protocol
from idbench.registry import METRICS
from idbench.suite import load_suite
from idbench.types import Sample

NAME = "dlibsim"
RECOGNISERS = ("arcface", "curricularface")
WHY = "The embedded recognisers are trained on avatars, and the references are not avatars"


def with_second_opinion(
    metrics: Sequence[str], samples: Iterable[Sample], protocol: str, weights: Sequence[str],
    say: Callable[[str], None],
) -> Sequence[str]:
    """`metrics`, with DlibSim if it is installed and the references are photographs.

    Unchanged if the caller chose metrics or named other recognisers, under a protocol that does not
    define DlibSim, and for pictures of the suite avatars. `say` is told what was done, or how to
    install it."""
    named = {text.partition("=")[0] for text in weights}
    chosen = any(not name.startswith("+") for name in metrics) or f"+{NAME}" in metrics
    if chosen or named.intersection(RECOGNISERS):
        return metrics
    if not get_protocol(protocol).defines(METRICS.load(NAME)) or not _photographs(samples):
        return metrics
    if not dlib_resnet.installed():
        say(f"{WHY}: install DlibSim for a second opinion (`{dlib_resnet.INSTALL}`).")
        return metrics
    say(f"{WHY}: DlibSim, a recogniser trained on photographs, is scored too.")
    return [*metrics, f"+{NAME}"]


def _photographs(samples: Iterable[Sample]) -> bool:
    """Whether the samples have face references, and none is a picture of the suite avatars."""
    pictures = {r.image for s in samples for r in s.references if r.kind == "face"}
    known = set(load_suite("avatars").checksums.values())
    readable = [path for path in pictures if path.is_file()]
    return bool(readable) and not any(sha256_once(path) in known for path in readable)
