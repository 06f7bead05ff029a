"""DlibSim: how much a person in the video resembles their reference, read by dlib's recogniser.

Formula: 1 - |d(face) - d(reference)|, with d dlib's descriptor (128 numbers, not normalised). dlib
calls two faces the same person above 0.4 (a distance below 0.6). The value of an identity is the
mean over the frames in which the person was found; that of the video is the mean over its
identities. Faces are matched to people by this metric itself, not by ArcFace.

A second opinion for photographs of real people, for which the embedded recognisers are not made,
and for systems trained with an ArcFace loss: its network was trained on other data by another loss.

Source: King, dlib (http://dlib.net/face_recognition.py.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from idbench.files import sha256_once
from idbench.metrics.base import Embeddings, Metric, each_frame
from idbench.metrics.faces.crops import find_faces
from idbench.metrics.faces.detect import Detector
from idbench.metrics.faces.match import match_frames
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.networks.dlib_resnet import DlibRecogniser
from idbench.metrics.networks.weight_sources import Network
from idbench.metrics.protocol_types import Detection
from idbench.pictures import UnreadablePicture, read_rgb, why_unread
from idbench.types import Score

SAME_PERSON = 0.4
"""dlib's threshold: more than this is the same person."""
MOST_FACES = 8
"""Faces of a frame that are read, the largest: a crowd would take minutes."""


def similarity(faces: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """1 - distance of descriptors (n, 128) to a reference's (128,): (n,), at most 1."""
    return 1.0 - np.linalg.norm(np.asarray(faces) - reference, axis=-1)


def scores(embeddings: Embeddings) -> list[Score]:
    """Rows a frame and identity, an identity, and one of the video."""
    network = embeddings.network("dlib")
    references = [
        _person([_photograph(image, embeddings) for image in person.images])
        for person in embeddings.sample.people
    ]
    faces = [of.largest(MOST_FACES) for of in embeddings.faces]
    vectors = [
        network.embed(embeddings.sampled_frames[index], of.boxes)
        for index, of in zip(embeddings.frames, faces, strict=True)
    ]
    matches = match_frames(
        embeddings.protocol.matching, faces, vectors,
        [None if isinstance(reference, str) else reference for reference in references], similarity,
    )

    def of_frame(k: int, r: int) -> float | str | None:
        reference, match = references[r], matches[k]
        if isinstance(reference, str):
            return reference
        face = match.face_of_reference[r]
        return match.reasons[r] if face is None else float(match.similarity[face, r])

    return each_frame(embeddings, "dlibsim", of_frame)


def _person(read: Sequence[np.ndarray | str]) -> np.ndarray | str:
    """The mean descriptor of a person's photographs that show a face, or why there is none."""
    usable = [one for one in read if not isinstance(one, str)]
    return np.mean(usable, axis=0) if usable else read[0]


def _photograph(image: Path, embeddings: Embeddings) -> np.ndarray | str:
    """The descriptor (128,) of an image's largest face, or why there is none."""
    network, detector = embeddings.network("dlib"), embeddings.network("detector")
    try:
        return _descriptor(
            image, sha256_once(image), network, detector, embeddings.protocol.detection)
    except (OSError, UnreadablePicture) as error:
        return why_unread(image, error)


@lru_cache(maxsize=4096)
def _descriptor(
    image: Path, sha256: str, network: DlibRecogniser, detector: Detector, detection: Detection
) -> np.ndarray | str:
    picture = read_rgb(image)
    (faces,) = find_faces(detector, picture[None], detection)
    if not len(faces):
        return f"no face was found in the reference {image.name}"
    return network.embed(picture, faces.boxes[:1])[0]


def _landmarks() -> dict[str, str]:
    file = dlib_resnet.landmarks_file()
    return {file.name: sha256_once(file)}


METRIC = Metric(
    name="dlibsim",
    title="DlibSim",
    higher_is_better=True,
    range=(-2.0, 1.0),
    formula="mean over frames of 1 - |d(face) - d(reference)|; above 0.4: the same person",
    source="King, dlib (http://dlib.net/face_recognition.py.html)",
    scores=scores,
    weights=_landmarks,
    runs=(
        Network(
            "dlib", lambda source, device: dlib_resnet.load(source.file()),
            default=dlib_resnet.recogniser_file,
        ),
    ),
    needs_frames=True, matches_itself=True,
    computed="named",
    about="identity",
    note=(
        "DlibSim is 1 minus the distance of dlib's descriptors; above 0.4, dlib takes two faces "
        "for the same person. It was trained on photographs, not on avatars."
    ),
)
