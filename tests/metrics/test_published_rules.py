"""The published scripts' values, written down once more in plain numpy, against the protocols.

A made-up video has faces with random boxes and embeddings in each frame. The protocol sees it
through the whole scorer, with the networks replaced; the plain functions below see the same
frames and embeddings, and do what each script is described to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from idbench.metrics.embedder import Embedder, ReferenceVectors
from idbench.metrics.faces.detect import Faces
from idbench.metrics.scorer import Scorer
from idbench.types import Reference, Sample, Video

TOLERANCE = 1e-6
NETWORKS = ("arcface", "curricularface")


@dataclass
class World:
    """Frames with faces, and references, as detector and recognisers would see them.

    `boxes[t]` is (faces, 4) in no order; `faces[network][t]` (faces, d), unnormalised.
    """

    boxes: list[np.ndarray]
    faces: dict[str, list[np.ndarray]]
    references: dict[str, list[np.ndarray]]
    names: list[str] = field(default_factory=list)


def make_world(
    rng: np.random.Generator, frames: int, people: int = 1, most: int = 3, empty: float = 0.2,
    lean: float = 0.0,
) -> World:
    """`lean` turns faces to (above 0) or from (below 0) the first reference."""
    counts = [0 if rng.random() < empty else int(rng.integers(1, most + 1)) for _ in range(frames)]
    corners = [rng.uniform(0, 300, (n, 2)) for n in counts]
    boxes = [np.hstack([c, c + rng.uniform(10, 90, (len(c), 2))]) for c in corners]
    sizes = {"arcface": 16, "curricularface": 24}
    references = {k: [rng.normal(size=d) for _ in range(people)] for k, d in sizes.items()}
    faces = {
        k: [rng.normal(size=(n, d)) + lean * references[k][0] for n in counts]
        for k, d in sizes.items()
    }
    return World(boxes, faces, references, [f"person{i}" for i in range(people)])


def area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def score(monkeypatch: pytest.MonkeyPatch, protocol: str, world: World) -> dict[tuple, object]:
    """(metric, identity, frame) -> Score, of the whole scorer on `world`."""

    def order(t: int) -> list[int]:  # as a detector sorts: largest first
        return sorted(range(len(world.boxes[t])), key=lambda i: -area(world.boxes[t][i]))

    def unit(vectors):
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    def read(self, video):
        indices = video.frames[:, 0, 0, 0].tolist()
        assert len(indices) == len(set(indices))
        video.faces = [
            Faces(world.boxes[t][order(t)].reshape(-1, 4), np.zeros((len(order(t)), 5, 2)),
                  np.ones(len(order(t))))
            for t in indices
        ]
        for n in self.recognisers:
            video.face_vectors[n] = [unit(world.faces[n][t][order(t)]) for t in indices]

    def reference(image):
        who = world.names.index(Path(image).stem)
        vectors = {n: unit(of[who]) for n, of in world.references.items()}
        return ReferenceVectors(vectors, {}, None, None)

    monkeypatch.setattr(Embedder, "read", read)
    monkeypatch.setattr(Embedder, "references", lambda self, images: [*map(reference, images)])
    references = tuple(Reference("face", n, Path(f"{n}.png")) for n in world.names)
    sample = Sample("s", "any", "p", "a person smiles", "test", references, 0)
    names = ("arcsim", "cursim", "face_coverage", "not_measured")
    scorer = Scorer(protocol, None, [m for m in _all_metrics() if m.name in names])
    frames = np.zeros((len(world.boxes), 8, 8, 3), np.uint8)
    frames += np.arange(len(frames), dtype=np.uint8)[:, None, None, None]  # told by their colour
    rows = scorer.score(sample, Video(frames, 8.0), "0" * 64)
    found = {(row.metric, row.identity, row.frame): row for row in rows}
    assert len(found) == len(rows)
    return found


def _all_metrics():
    from idbench.registry import METRICS

    return [METRICS.load(name) for name in METRICS.builtin]


# -- the scripts' rules, from their description


def cos(a, b) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def plain_consisid(world: World) -> tuple[float, float]:
    """16 frames; of each the largest face; max(0, cosine); no face: next frame; mean or 0."""
    arc, cur = [], []
    for t in np.linspace(0, len(world.boxes) - 1, 16, dtype=int):
        if len(world.boxes[t]) == 0:
            continue
        face = max(range(len(world.boxes[t])), key=lambda i: area(world.boxes[t][i]))
        arc.append(max(0.0, cos(world.faces["arcface"][t][face], world.references["arcface"][0])))
        cur.append(max(0.0, cos(world.faces["curricularface"][t][face],
                                world.references["curricularface"][0])))
    return (np.mean(arc) if arc else 0.0), (np.mean(cur) if cur else 0.0)


def plain_opens2v(world: World) -> tuple[float, float]:
    """The same on 32 frames; CurSim loses the frames that are 0 after the clamp."""
    arc, cur = [], []
    for t in np.linspace(0, len(world.boxes) - 1, 32, dtype=int):
        if len(world.boxes[t]) == 0:
            continue
        face = max(range(len(world.boxes[t])), key=lambda i: area(world.boxes[t][i]))
        c = max(0.0, cos(world.faces["curricularface"][t][face],
                         world.references["curricularface"][0]))
        a = max(0.0, cos(world.faces["arcface"][t][face], world.references["arcface"][0]))
        if c != 0.0:
            cur.append(c)
        arc.append(a)
    return (np.mean(arc) if arc else 0.0), (np.mean(cur) if cur else 0.0)


def plain_ingredients(world: World) -> float:
    """24 frames; the two largest faces; the best of all pairs; an error without a face."""
    values = []
    for t in np.linspace(0, len(world.boxes) - 1, 24, dtype=int):
        if len(world.boxes[t]) == 0:
            raise TypeError("the script iterates over nothing")
        faces = sorted(range(len(world.boxes[t])), key=lambda i: area(world.boxes[t][i]))[-2:]
        values.append(max(
            cos(reference, world.faces["arcface"][t][i])
            for reference in world.references["arcface"] for i in faces
        ))
    return float(np.mean(values))


CASES = [
    # frames, most faces a frame, share without a face, lean to the reference
    (49, 3, 0.2, 0.0), (49, 1, 0.0, 1.0), (49, 6, 0.5, -0.5), (81, 2, 0.9, 0.3), (5, 2, 0.3, 0.0),
    (1, 1, 0.0, 0.5), (16, 4, 0.1, -2.0), (17, 4, 0.0, 0.0), (33, 3, 0.4, 0.2), (2, 3, 0.5, 0.0),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("protocol", "plain"),
    [("consisid-v1", plain_consisid), ("opens2v-v1", plain_opens2v),
     ("consisid-v2", plain_consisid), ("opens2v-v2", plain_opens2v), ("opens2v-v3", plain_opens2v)],
)
def test_one_person_as_the_published_script(monkeypatch, protocol, plain, case):
    frames, most, empty, lean = case
    for seed in range(4):
        world = make_world(np.random.default_rng(seed), frames, 1, most, empty, lean)
        found, (arc, cur) = score(monkeypatch, protocol, world), plain(world)
        assert found["arcsim", None, None].value == pytest.approx(arc, abs=TOLERANCE)
        assert found["cursim", None, None].value == pytest.approx(cur, abs=TOLERANCE)


def test_opens2v_drops_zeros_of_cursim_alone(monkeypatch):
    """The fault shows: on half negative cosines CurSim is above what ArcSim's rule would give."""
    world = make_world(np.random.default_rng(3), 64, empty=0.0)
    for network in NETWORKS:
        for t, faces in enumerate(world.faces[network]):
            faces[:] = world.references[network][0] * (1 if t % 4 < 2 else -1)
    found = score(monkeypatch, "opens2v-v1", world)
    assert found["cursim", None, None].value == pytest.approx(1.0)
    arc = found["arcsim", None, None].value
    assert 0.3 < arc < 0.7 and arc == pytest.approx(plain_opens2v(world)[0], abs=TOLERANCE)


@pytest.mark.parametrize("protocol", ["consisid-v1", "opens2v-v1", "paper-v3"])
def test_nothing_found_is_the_scripts_zero_and_plainly_flagged(monkeypatch, protocol):
    world = make_world(np.random.default_rng(0), 20, empty=1.0)
    found = score(monkeypatch, protocol, world)
    for metric in ("arcsim", "cursim"):
        assert found[metric, None, None].value == 0.0
        person = found[metric, "person0", None]
        assert person.value is None and "no face" in person.reason
    assert found["not_measured", None, None].value == 1.0
    assert found["face_coverage", None, None].value == 0.0
    seen = score(monkeypatch, protocol, make_world(np.random.default_rng(0), 20, empty=0.5))
    assert seen["not_measured", None, None].value == 0.0


def test_the_default_never_writes_zero_for_missing(monkeypatch):
    found = score(monkeypatch, "strict-v3", make_world(np.random.default_rng(0), 20, empty=1.0))
    assert found["arcsim", None, None].value is None
    assert not any(metric == "not_measured" for metric, _, _ in found)


@pytest.mark.parametrize("protocol", ["consisid-v1", "opens2v-v1"])
def test_samples_of_several_people_are_left_out_with_the_reason(monkeypatch, protocol):
    found = score(monkeypatch, protocol, make_world(np.random.default_rng(1), 20, people=2))
    assert {row.value for row in found.values()} == {None}
    assert f"{protocol} leaves out" in found["arcsim", None, None].reason


@pytest.mark.parametrize("people", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_ingredients_is_the_maximum_of_pairs(monkeypatch, case, people):
    frames, most, empty, lean = case
    for seed in range(4):
        world = make_world(np.random.default_rng(seed), frames, people, most, empty, lean)
        found = score(monkeypatch, "ingredients-v1", world)
        video = found["arcsim", None, None]
        try:
            expected = plain_ingredients(world)
        except TypeError:
            assert video.value is None and "published script stops" in video.reason
        else:
            assert video.value == pytest.approx(expected, abs=TOLERANCE)
        assert not any(metric == "cursim" for metric, _, _ in found)


def test_ingredients_lets_one_good_person_hide_a_missing_one(monkeypatch):
    """The fault shows, and the default does not have it."""
    world = make_world(np.random.default_rng(2), 30, people=2, most=1, empty=0.0)
    for network in NETWORKS:
        for faces in world.faces[network]:
            faces[:] = world.references[network][0]
    best = score(monkeypatch, "ingredients-v1", world)["arcsim", None, None]
    assert best.value == pytest.approx(1.0)
    strict = score(monkeypatch, "strict-v3", world)["arcsim", None, None]
    assert strict.value is None and strict.reason.startswith("person1: ")


@pytest.mark.parametrize("case", CASES)
def test_the_papers_protocol_is_consisids_for_one_person(monkeypatch, case):
    frames, most, empty, lean = case
    world = make_world(np.random.default_rng(7), frames, 1, most, empty, lean)
    found, (arc, cur) = score(monkeypatch, "paper-v3", world), plain_consisid(world)
    assert found["arcsim", None, None].value == pytest.approx(arc, abs=TOLERANCE)
    assert found["cursim", None, None].value == pytest.approx(cur, abs=TOLERANCE)


def test_the_papers_protocol_counts_a_missing_person_of_several_as_zero(monkeypatch):
    world = make_world(np.random.default_rng(2), 30, people=2, most=1, empty=0.0)
    for network in NETWORKS:
        for faces in world.faces[network]:
            faces[:] = world.references[network][1]
    found = score(monkeypatch, "paper-v3", world)
    assert found["arcsim", None, None].value == pytest.approx(0.5)
    assert found["arcsim", "person0", None].value is None
    assert found["not_measured", "person0", None].value == 1.0
    assert found["not_measured", None, None].value == 0.5


def test_frame_rows_stay_one_a_frame_where_the_sampler_repeats(monkeypatch):
    world = make_world(np.random.default_rng(5), 3, most=1, empty=0.0)
    found = score(monkeypatch, "consisid-v1", world)
    rows = [found["arcsim", "person0", t].value for t in range(3)]
    counts = np.bincount(np.linspace(0, 2, 16, dtype=int))
    assert len(set(counts)) > 1
    mean = np.dot(rows, counts) / counts.sum()
    assert found["arcsim", None, None].value == pytest.approx(mean, abs=TOLERANCE)
