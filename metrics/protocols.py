"""Protocols: frozen, named and versioned, they fix everything that moves a number."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from idbench.names import unknown


@dataclass(frozen=True)
class Detection:
    """How faces are found and aligned. Part of the key of the face embeddings.

    Attributes:
        detector: `mtcnn`, or `scrfd:FOLDER` (an insightface pack folder).
        height: frames less tall than this are enlarged to it (bicubic) before detection, with
            their shape kept; taller frames are used as they are. Pixels.
        minimum_face: smallest face searched for, in pixels after that enlargement.
        thresholds: of the detector's stages (MTCNN: three; SCRFD: the last one is used).
        retry_padding: a frame without a face is searched once more with this share of its
            height and width added on each side (0: no second search).
        retry_grey: the value of that padding, 0..255.
        alignment: `similarity5`: least-squares similarity of five points onto ArcFace's template.
        crop: side of the aligned crop, pixels.
        colour: order of the channels given to the networks.
    """

    detector: str = "mtcnn"
    height: int = 256
    minimum_face: int = 48
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    retry_padding: float = 0.25
    retry_grey: int = 128
    alignment: str = "similarity5"
    crop: int = 112
    colour: str = "rgb"


@dataclass(frozen=True)
class Picture:
    """How a whole picture is made ready for a vision tower.

    Attributes:
        resize: `squash` (height and width to the network's size, shape not kept, nothing cut)
            or `crop` (shorter side to the network's size, then the centre).
        normalisation: `clip` or `imagenet` (mean and standard deviation).
        interpolation: `bicubic`, antialiased.
    """

    resize: str = "squash"
    normalisation: str = "clip"
    interpolation: str = "bicubic"


@dataclass(frozen=True)
class Protocol:
    """Everything that moves a number. Two runs are comparable when their protocols are equal.

    Attributes:
        name, version: the protocol's; any change of a field is a new version.
        frames: how many frames the face metrics and CLIPDist look at.
        sampler: `linspace-unique`: see `sample_frames`.
        detection: how faces are found and aligned.
        matching: `one-to-one`: each frame's faces and the references are assigned so that the
            sum of ArcSim cosines is largest; a face stands for at most one reference. CurSim
            uses the same assignment, so that both speak of the same face.
        reference_face: `largest` face of a reference image with several.
        clamp: whether negative cosines become 0.
        missing_face: `unscored`: a frame without the person's face stays as an unscored row
            and is counted by coverage; it leaves the mean.
        clip_picture: whole frame and whole reference image for CLIPDist.
        clip_region: `frame` or `face` (aligned crop).
        video_frames: how many frames ViCLIP reads.
        video_sampler: `middle-of-intervals` (VBench); see `sample_video_frames`.
        video_picture: how ViCLIP's frames are made ready.
        precision: in which the networks run.
    """

    name: str
    version: int
    description: str
    frames: int = 16
    sampler: str = "linspace-unique"
    detection: Detection = Detection()
    matching: str = "one-to-one"
    reference_face: str = "largest"
    clamp: bool = False
    missing_face: str = "unscored"
    clip_picture: Picture = Picture()
    clip_region: str = "frame"
    video_frames: int = 8
    video_sampler: str = "middle-of-intervals"
    video_picture: Picture = Picture()
    precision: str = "float32"

    def as_dict(self) -> dict[str, Any]:
        """All fields, nested, as JSON values; written to run.json."""
        return asdict(self)


STRICT = Protocol(
    name="strict-v1",
    version=1,
    description=(
        "The default: up to 16 different frames, no clamp, frames without the person's face "
        "stay as unscored rows, one-to-one matching, whole frames never cut."
    ),
)

PROTOCOLS: dict[str, Protocol] = {STRICT.name: STRICT}
DEFAULT_PROTOCOL = STRICT.name


def get_protocol(name: str | Protocol = DEFAULT_PROTOCOL) -> Protocol:
    """The protocol of that name.

    Raises:
        UserError: no such protocol; names the nearest.
    """
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def sample_frames(protocol: Protocol, count: int) -> tuple[int, ...]:
    """Frame indices for faces and CLIPDist of a video of `count` frames, ascending.

    `linspace-unique`: `linspace(0, count - 1, frames)` cut to whole numbers, as ConsisID samples,
    then each index once. So a video of at most `frames` frames is read whole, each frame with
    equal weight, where plain linspace would count some frames twice.
    """
    if count < 1:
        return ()
    if protocol.sampler != "linspace-unique":
        raise ValueError(f"unknown sampler {protocol.sampler!r}")
    indices = np.linspace(0, count - 1, protocol.frames).astype(int)
    return tuple(int(i) for i in np.unique(indices))


def sample_video_frames(protocol: Protocol, count: int) -> tuple[int, ...]:
    """The `video_frames` frame indices that ViCLIP reads, ascending, repeats allowed.

    `middle-of-intervals` (VBench): the video is cut into equal intervals, the middle frame of
    each is read. A video with fewer frames than that is read whole and its last frame repeated,
    since the network has a fixed number of temporal positions.
    """
    if count < 1:
        return ()
    if protocol.video_sampler != "middle-of-intervals":
        raise ValueError(f"unknown video sampler {protocol.video_sampler!r}")
    used = min(protocol.video_frames, count)
    edges = np.linspace(0, count, used + 1).astype(int)
    middle = [int((a + b - 1) // 2) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return tuple(middle + [count - 1] * (protocol.video_frames - used))
