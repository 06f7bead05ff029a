"""What a protocol is: frozen data that fixes everything that moves a number.

What its names mean is in `rules` (which frames, and from them to one value) and `faces.match`
(matching of faces).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idbench.metrics.base import Metric


def _later(default: Any) -> Any:
    """A field that the first protocols had not: left out of `plain` where it has its default."""
    return field(default=default, metadata={"later": True})


def _words(default: Any) -> Any:
    """A field for readers, which moves no number: never part of `plain`."""
    return field(default=default, metadata={"words": True})


@dataclass(frozen=True)
class Detection:
    """How faces are found and aligned. Part of the key of the face embeddings.

    Attributes:
        detector: `mtcnn`; `pack` (SCRFD of the insightface pack that the run was given); or
            `scrfd:FOLDER` (the same, of that folder).
        height: frames less tall than this are enlarged to it (bicubic) before detection, with
            their shape kept; taller frames are used as they are. Pixels.
        minimum_face: smallest face searched for, in pixels after that enlargement (MTCNN).
        thresholds: of the detector's stages (MTCNN: three; SCRFD: the last one is used).
        retry_padding: a frame without a face is searched once more with this share of its
            height and width added on each side (0: no second search).
        retry_grey: the value of that padding, 0..255.
        alignment: `similarity5`: least-squares similarity of five points onto ArcFace's template.
        crop: side of the aligned crop, pixels.
        colour: order of the channels given to the networks.
        size: side of SCRFD's square input, pixels (0: MTCNN has none).
        retry_crop: where ArcFace's crop of a face found only in the padded frame is cut: `frame`
            (black beyond it), or `padded` (the padded frame). The padding is rounded to whole
            pixels under `frame` and truncated under `padded`, as the published scripts do.
        border: a face whose box comes nearer to the frame's border than this share of the box's
            longer side is measured again with the padding around the frame (0: never).
        crop_beyond: the value that aligned crops have beyond the frame, 0..255.
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
    size: int = _later(0)
    retry_crop: str = _later("frame")
    border: float = _later(0.0)
    crop_beyond: int = _later(0)


@dataclass(frozen=True)
class Picture:
    """How a whole image is preprocessed for a vision tower.

    Attributes:
        resize: `squash` (height and width to the network's size, shape not kept, nothing cut)
            or `crop` (shorter side to the network's size, then the centre).
        normalisation: `clip` or `imagenet` (mean and standard deviation).
        interpolation: `bicubic` or `bilinear`, antialiased; or, as published scripts do it
            without, on whole numbers 0..255: `bicubic-torchvision` (VBench), `bilinear-cv2`
            (InternVideo's demo; `squash` alone); or `open_clip`, the library's own transform of
            8-bit pictures (antialiased bicubic; `crop` alone).
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
        sampler: which, by a name in `rules.SAMPLERS`.
        detection: how faces are found and aligned.
        matching: how the faces of a frame are matched to references, by a name in
            `faces.match.MATCHINGS`. CurSim uses the same assignment as ArcSim, so that both
            speak of the same face.
        reference_face: `largest` face of a reference image with several.
        clamp: whether negative cosines become 0.
        missing_face: `unscored`: a frame without the person's face stays as an unscored row
            and is counted by coverage; what it does to the mean is the rule's.
        clip_picture: preprocessing of CLIPDist's images.
        clip_region: what CLIPDist compares: `frame` (whole frame and whole reference), `face`
            (the aligned crop of both), or `both`: faces, and whole frames as `clipdist_frame`.
        video_frames: how many frames ViCLIP reads.
        video_sampler: which, by a name in `rules.SAMPLERS`.
        video_picture: how ViCLIP's frames are made ready.
        precision: in which the networks run.
        rule: from frames to one value of a person, by a name in `rules.RULES`.
        pairs: what ArcSim and CurSim read of a frame: `assigned` (each reference its own face)
            or `maximum` (the best pair of any reference and any of the two largest faces).
        people: `any`, or `one`: a sample of several people is unscored.
        metrics: names of those that it defines; empty: all but those `computed="listed"`.
        also: names of metrics `computed="listed"` that it defines besides.
        curricular_crop: side of the aligned crop that is shrunk to `detection.crop` for CurSim.
        clip_crop: side of the aligned crop for `clip_region` `face`.
        reference_picture: how a reference file is read: `upright` (turned by its EXIF, laid over
            white, high byte of 16 bits) or `converted` (Pillow's `convert("RGB")`, as scripts do).
        largest_faces: how many of a frame's largest faces are embedded and matched (0: all).
        human_identity: how VBench-2.0's rule reads frames: `plain`, or `script`, with what its
            script does besides; see `human_identity`.
        networks: (role, checkpoint) that its published values were measured with.
        summary: one short line for lists. Unlike `description`, which scored runs store and are
            compared by, it may change.
        source: where the protocol comes from.
        notes: what a reader of its values has to know; printed under every table.
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
    rule: str = _later("mean-of-scored")
    pairs: str = _later("assigned")
    people: str = _later("any")
    metrics: tuple[str, ...] = _later(())
    also: tuple[str, ...] = _later(())
    curricular_crop: int = _later(112)
    clip_crop: int = _later(224)
    reference_picture: str = _later("upright")
    largest_faces: int = _later(0)
    human_identity: str = _later("plain")
    networks: tuple[tuple[str, str], ...] = _later(())
    summary: str = _words("")
    source: str = _words("idbench")
    notes: tuple[str, ...] = _words(())

    def as_dict(self) -> dict[str, Any]:
        """All fields that move a number, nested, as JSON values; written to run.json."""
        return dict(json.loads(json.dumps(plain(self))))  # tuples become lists

    def defines(self, metric: Metric) -> bool:
        """Whether `metric` has a meaning under this protocol."""
        if metric.name in self.also:
            return True
        return metric.name in self.metrics if self.metrics else metric.computed != "listed"


def plain(part: Any) -> dict[str, Any]:
    """The fields of a `Protocol`, `Detection` or `Picture` that move a number, nested.

    A field that was added later is left out where it has its default. So protocols that do not
    use it keep their cache keys, and runs scored before it was there stay comparable.
    """
    found: dict[str, Any] = {}
    for one in fields(part):
        value = getattr(part, one.name)
        if one.metadata.get("words") or (one.metadata.get("later") and value == one.default):
            continue
        found[one.name] = plain(value) if is_dataclass(value) else value
    return found
