"""Odd files through the whole scorer, a real face in them: a value, or a reason, never a crash."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from idbench.metrics import embedder
from idbench.metrics.faces.crops import find_faces
from idbench.metrics.faces.detect import Faces
from idbench.metrics.networks.recogniser import Recogniser
from idbench.metrics.protocols import STRICT
from idbench.metrics.scorer import Scorer
from idbench.types import Reference, Video
from idbench.video import read_video

NEEDS_THREE_FRAMES = {"identity_slope"}


def encode(
    path: Path, face: np.ndarray, size: tuple[int, int], count: int = 3,
    codec: str = "libx264", pixels: str = "yuv420p", times: list[int] | None = None,
    alpha: bool = False,
) -> Path:
    """A video of a face that moves a little; `times` in 1/100 s for a variable rate."""
    height, width = size
    side = min(size)
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = height, width, pixels
        if times:
            stream.codec_context.time_base = Fraction(1, 100)
        for index in range(count):
            picture = np.full((height, width, 3), 128, np.uint8)
            top, left = (height - side) // 2, (width - side) // 2
            picture[top : top + side, left : left + side] = np.roll(small, 2 * index, axis=1)
            layout = "rgb24"
            if alpha:
                opaque = np.full((height, width, 1), 255, np.uint8)
                picture, layout = np.concatenate([picture, opaque], -1), "rgba"
            frame = av.VideoFrame.from_ndarray(picture, format=layout)
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


ODD = {
    "one-frame.mp4": lambda p, f: encode(p, f, (160, 160), count=1),
    "portrait.mp4": lambda p, f: encode(p, f, (240, 136)),
    "odd.mkv": lambda p, f: encode(p, f, (161, 183), codec="ffv1", pixels="yuv444p"),
    "ten-bit.mkv": lambda p, f: encode(p, f, (160, 160), codec="ffv1", pixels="yuv422p10le"),
    "variable-rate.mp4": lambda p, f: encode(p, f, (160, 160), times=[0, 5, 90]),
    "alpha.mov": lambda p, f: encode(p, f, (160, 160), codec="png", pixels="rgba", alpha=True),
    "still.png": lambda p, f: Image.fromarray(f).save(p),
}


@pytest.mark.parametrize("name", list(ODD))
def test_odd_files_are_scored_like_any_other(tiny_weights, sample, one_face, tmp_path, name):
    ODD[name](tmp_path / name, one_face)
    video = read_video(tmp_path / name)
    rows = Scorer().score(sample, video, "0" * 64)
    whole = {r.metric: r for r in rows if r.identity is None and r.frame is None}
    unscored = {metric for metric, row in whole.items() if row.value is None}
    assert unscored <= (NEEDS_THREE_FRAMES if len(video.frames) < 3 else set()), unscored
    assert all(np.isfinite(r.value) for r in rows if r.value is not None)
    assert whole["face_coverage"].value == 1.0, "the face is seen however the file is packed"


def test_a_frame_that_is_a_line_is_not_enlarged_until_memory_is_full(monkeypatch):
    """2 x 8000 pixels would become 256 x 1,024,000: 3 GB a frame."""
    asked = []

    class Detector:
        def detect(self, frames):
            asked.append(frames.shape)
            return [Faces.none() for _ in frames]

    settings = STRICT.detection
    found = find_faces(Detector(), np.zeros((3, 2, 8000, 3), np.uint8), settings)
    assert [len(faces) for faces in found] == [0, 0, 0] and not asked
    find_faces(Detector(), np.zeros((1, 8, 400, 3), np.uint8), settings)
    assert asked == [(1, 256, 12800, 3), (1, 256, 12800, 3)], "both searches"


def test_an_embedding_that_is_not_finite_costs_its_own_frame_alone(
    tiny_weights, sample, one_face, monkeypatch
):
    real = Recogniser.embed

    def broken(self, crops):
        vectors = real(self, crops)
        if len(vectors) == 3:
            vectors[1] = np.nan
        return vectors

    frames = np.stack([np.roll(one_face, 2 * i, axis=1) for i in range(3)])
    monkeypatch.setattr(Recogniser, "embed", broken)
    rows = Scorer().score(sample, Video(frames, 8.0), "0" * 64)
    of = {(r.metric, r.identity, r.frame): r for r in rows}
    assert of["arcsim", "ann", 1].value is None and of["arcsim", "ann", 1].reason
    kept = [of["arcsim", "ann", frame].value for frame in (0, 2)]
    assert of["arcsim", None, None].value == pytest.approx(np.mean(kept))
    assert of["viclip", None, None].value is not None


def test_a_reference_of_several_people_stands_for_its_largest_face(
    tiny_weights, sample, group_photo, tmp_path
):
    Image.fromarray(group_photo).save(tmp_path / "group.png")
    one = replace(sample, references=(Reference("face", "group", tmp_path / "group.png"),))
    scorer = Scorer()
    rows = scorer.score(one, Video(group_photo[None], 8.0), "0" * 64)
    whole = {r.metric: r for r in rows if r.identity is None and r.frame is None}
    # The same picture: of its six faces only the reference's own has a cosine of 1.
    assert whole["arcsim"].value == pytest.approx(1.0, abs=1e-4)
    (frame,) = scorer.faces(one)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in frame["boxes"]]
    assert len(areas) == 6 and frame["assignment"]["group"] == int(np.argmax(areas))
    assert scorer.reference_notes == {"group": "6 faces in the image; the largest is used"}


def test_a_reference_whose_embedding_is_not_finite_is_none_and_says_so(
    tiny_weights, sample, one_face, monkeypatch
):
    frames = np.stack([np.roll(one_face, 2 * i, axis=1) for i in range(3)])
    real = Recogniser.embed

    def scored(broken):
        def embed(self, crops):
            vectors = real(self, crops)
            if self.name in broken and len(vectors) == 1:  # the reference's; a video has three
                vectors[:] = np.nan
            return vectors

        with monkeypatch.context() as patch:
            patch.setattr(Recogniser, "embed", embed)
            rows = Scorer().score(sample, Video(frames, 8.0), "0" * 64)
        return {r.metric: r for r in rows if r.identity is None and r.frame is None}

    whole = scored({"arcface", "curricularface"})
    reason = "ann: the embedding of the reference ann.png is not finite"
    for metric in ("arcsim", "cursim", "face_coverage", "identity_slope"):
        assert whole[metric].reason == reason
    assert whole["clipdist_frame"].value is not None and whole["viclip"].value is not None
    whole = scored({"curricularface"})
    assert whole["cursim"].reason == "ann: the reference has no embedding"
    assert whole["arcsim"].value is not None and whole["face_coverage"].value == 1.0


def test_a_reference_is_read_upright_whatever_the_cache_holds(
    tiny_weights, sample, one_face, tmp_path, monkeypatch
):
    """A phone's photograph lies on its side in the file, and EXIF says how to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    Image.fromarray(one_face).transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    phone = replace(sample, references=(Reference("face", "ann", turned),))
    clip = Video(one_face[None], 8.0)
    # What an idbench read that did not turn pictures, in the same cache.
    lying = tmp_path / "lying.png"
    Image.fromarray(np.rot90(one_face)).save(lying)
    with monkeypatch.context() as before:
        before.setattr(embedder, "is_plain", lambda path: True)
        before.setattr(embedder, "read_rgb", lambda path: np.array(Image.open(lying)))
        old = values(Scorer(cache_dir=tmp_path / "cache").score(phone, clip, "0" * 64))
    wanted = values(Scorer().score(sample, clip, "0" * 64))
    assert old != wanted
    assert values(Scorer(cache_dir=tmp_path / "cache").score(phone, clip, "0" * 64)) == wanted


def values(rows):
    return {(r.metric, r.identity, r.frame): r.value for r in rows}
