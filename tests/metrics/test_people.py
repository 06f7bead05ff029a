"""Own minus other by order, and drift: against plain numpy, on chance, and with people missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idbench.metrics import clipdist, drift, several_people
from idbench.metrics.base import Embeddings
from idbench.metrics.faces.detect import Faces
from idbench.metrics.faces.match import match_faces, match_frames, places
from idbench.metrics.protocols import STRICT, get_protocol
from idbench.types import Reference, Sample


def _embeddings(frames, references, at=None):
    """Embeddings of hand-made faces: for each frame a list of (x of the centre, vector)."""
    names = [f"p{i}" for i in range(len(references))]
    sample = Sample(
        "s", "multi", "p", "people talk", "test",
        tuple(Reference("face", n, Path(f"{n}.png")) for n in names), 0,
    )
    vectors = [np.array([v for _, v in f]) if f else np.zeros((0, 2)) for f in frames]
    boxes = [np.array([[x - 5, 0, x + 5, 9] for x, _ in f], float).reshape(-1, 4) for f in frames]
    return Embeddings(
        sample=sample, protocol=STRICT, frames=tuple(at or range(len(frames))),
        faces=tuple(Faces(b, np.zeros((len(b), 5, 2)), np.ones(len(b))) for b in boxes),
        matches=tuple(match_faces(v, references) for v in vectors),
        face_vectors={"arcface": vectors}, reference_vectors={"arcface": references},
        reference_reasons=tuple(
            None if r is not None else "no face was found in the reference" for r in references
        ),
    )


def _value(rows, identity=None, frame=None):
    (found,) = [r for r in rows if r.identity == identity and r.frame == frame]
    return found


def test_clipdist_of_a_person_who_was_never_found_says_so():
    """No face in one frame, another's in the other: two reasons, one sentence."""
    ann, bob = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    e = replace(_embeddings([[], [(1, bob)]], [ann, bob]), protocol=get_protocol("strict-v3"),
                image_reasons=(None, None), image_vectors={"clip": [ann, bob]},
                frame_vectors={"clip": np.ones((2, 2))})
    e.face_vectors["clip"] = e.face_vectors["arcface"]
    rows = clipdist.scores(e)
    assert _value(rows, "p0", 0).reason != _value(rows, "p0", 1).reason
    assert _value(rows, "p0").reason == "the person was found in no frame"


@pytest.mark.parametrize("count", [2, 3])
def test_faces_that_ignore_the_references_are_at_zero_by_order_and_above_it_assigned(count):
    """The reason for the metric by order: on random faces the assignment finds a difference."""
    rng = np.random.default_rng(count)
    by_order, assigned = [], []
    for _ in range(600):
        references = list(rng.normal(size=(count, 64)))
        frame = [(rng.uniform(0, 100), rng.normal(size=64)) for _ in range(count)]
        e = _embeddings([frame], references)
        by_order.append(_value(several_people.own_minus_other_by_order(e)).value)
        assigned.append(_value(several_people.own_minus_other(e)).value)
    error = np.std(by_order) / np.sqrt(len(by_order))
    assert abs(np.mean(by_order)) < 4 * error and error < 0.01
    assert np.mean(assigned) > 10 * np.std(assigned) / np.sqrt(len(assigned))
    assert np.mean(assigned) > 0.04


def test_by_order_is_the_place_and_not_the_likeness():
    ann, bob, cat = np.eye(3)
    likeness = {"straight": [(10, ann), (50, bob), (90, cat)],
                "first two changed": [(50, ann), (10, bob), (90, cat)]}
    e = _embeddings(list(likeness.values()), [ann, bob, cat])
    rows = several_people.own_minus_other_by_order(e)
    assert [_value(rows, f"p{i}", 0).value for i in range(3)] == pytest.approx([1, 1, 1])
    # The face at the first place is bob's: cosine to ann 0, to the others 1 and 0.
    assert [_value(rows, f"p{i}", 1).value for i in range(3)] == pytest.approx([-0.5, -0.5, 1])
    assert _value(rows).value == pytest.approx(np.mean([0.25, 0.25, 1.0]))
    assert _value(several_people.own_minus_other(e)).value == pytest.approx(1.0)


def test_by_order_looks_at_the_largest_faces_and_needs_as_many_as_references():
    ann, bob = np.eye(2)
    crowd = [(60, ann), (90, bob), (5, bob)]  # as a detector gives them: largest first
    e = _embeddings([crowd, [(10, ann)], []], [ann, bob])
    rows = several_people.own_minus_other_by_order(e)
    assert _value(rows, "p0", 0).value == pytest.approx(1.0)
    for frame in (1, 2):
        assert _value(rows, "p0", frame).reason == "fewer faces than references"
    alone = _embeddings([[(10, ann)], []], [ann, bob])
    assert _value(several_people.own_minus_other_by_order(alone)).value is None
    without = _embeddings([crowd], [ann, None])
    rows = several_people.own_minus_other_by_order(without)
    assert _value(rows, "p0").reason == "no other reference has a face embedding"
    assert _value(rows, "p1").reason == "no face was found in the reference"
    assert several_people.OWN_MINUS_OTHER_BY_ORDER.rows(_embeddings([[(1, ann)]], [ann])) == []


def _turned(cosine):
    return np.array([cosine, np.sqrt(1 - cosine**2)])


def test_slope_and_worst_frame_of_a_person_who_is_lost():
    ann = np.array([1.0, 0.0])
    at, cosines = (0, 10, 20, 30, 48), np.array([0.9, 0.8, 0.75, 0.3, 0.1])
    e = _embeddings([[(1, _turned(c))] for c in cosines], [ann], at)
    times = np.array(at) / 48
    expected = np.polyfit(times, cosines, 1)[0]
    assert expected < -0.7
    assert _value(drift.slopes(e), "p0").value == pytest.approx(expected, abs=1e-9)
    assert _value(drift.slopes(e)).value == pytest.approx(expected, abs=1e-9)
    assert _value(drift.worst(e), "p0").value == pytest.approx(0.1)
    steady = _embeddings([[(1, _turned(0.6))]] * 5, [ann], at)
    assert _value(drift.slopes(steady)).value == pytest.approx(0.0, abs=1e-9)


def test_of_several_people_the_slope_is_the_mean_and_the_worst_the_worst():
    ann, bob = np.array([1.0, 0, 0, 0]), np.array([0, 0, 1.0, 0])

    def faces(a, b):
        return [(10, np.array([*_turned(a), 0, 0])), (50, np.array([0, 0, *_turned(b)]))]

    e = _embeddings([faces(0.9, 0.7), faces(0.9, 0.6), faces(0.9, 0.5)], [ann, bob])
    assert _value(drift.slopes(e), "p1").value == pytest.approx(-0.2)
    assert _value(drift.slopes(e)).value == pytest.approx(-0.1)
    assert _value(drift.worst(e), "p0").value == pytest.approx(0.9)
    assert _value(drift.worst(e)).value == pytest.approx(0.5)


def test_the_slope_is_that_of_scipy_to_the_last_digit():
    from scipy.stats import linregress

    rng = np.random.default_rng(0)
    for count in range(3, 40):
        times, values = np.sort(rng.random(count)), rng.normal(size=count)
        assert drift.slope(times, values) == float(linregress(times, values).slope)
    with pytest.raises(ValueError, match="all equal"):
        drift.slope(np.ones(4), np.arange(4.0))


def test_frames_without_the_person_leave_slope_and_worst_and_too_few_have_no_slope():
    ann = np.array([1.0, 0.0])
    frames = [[(1, _turned(0.9))], [], [(1, _turned(0.5))], [(1, np.full(2, np.nan))]]
    e = _embeddings(frames, [ann])
    assert "fewer than 3 frames" in _value(drift.slopes(e), "p0").reason
    assert _value(drift.slopes(e)).value is None
    assert _value(drift.worst(e)).value == pytest.approx(0.5)
    early = _embeddings([[(1, ann)]] * 3 + [[]] * 7, [ann])
    assert "less than half" in _value(drift.slopes(early), "p0").reason
    nobody = _embeddings([[], []], [ann])
    assert _value(drift.worst(nobody)).reason == "p0: the person was found in no frame"
    one = _embeddings([[(1, ann)]], [ann])
    assert _value(drift.worst(one)).value == 1.0 and _value(drift.slopes(one)).value is None
    without = _embeddings([[(1, ann)]] * 4, [None])
    assert "reference" in _value(drift.slopes(without)).reason


def test_places_are_those_of_the_largest_faces_from_left_to_right():
    boxes = np.array([[50, 0, 90, 9], [0, 0, 30, 9], [100, 0, 110, 9]], float)  # largest first
    assert places(boxes, 3) == (1, 0, 2) and places(boxes, 2) == (1, 0) and places(boxes, 1) == (0,)
    assert places(boxes[:1], 2) == () and places(boxes[:0], 1) == ()


def test_each_rule_matches_frames_by_its_own_order():
    """The larger face is at the right and is nearer to the second reference."""
    boxes = np.array([[50, 0, 90, 9], [0, 0, 30, 9]], float)
    pair = Faces(boxes, np.zeros((2, 5, 2)), np.ones(2))
    none = Faces(boxes[:0], np.zeros((0, 5, 2)), np.ones(0))
    one = Faces(boxes[:1], np.zeros((1, 5, 2)), np.ones(1))
    ann, bob = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    frames, vectors = (none, pair, one), (np.zeros((0, 2)), np.array([bob, ann]), bob[None])

    def matched(rule, references, vectors=vectors):
        return [m.face_of_reference for m in match_frames(rule, frames, vectors, references)]

    assert matched("one-to-one", [ann, bob]) == [(None, None), (1, 0), (None, 0)]
    assert matched("left-to-right", [bob, ann]) == [(None, None), (1, 0), (None, None)]
    assert matched("largest", [ann]) == [(None,), (0,), (0,)]
    assert matched("largest-else-one-to-one", [ann]) == matched("largest", [ann])
    assert matched("largest-else-one-to-one", [ann, bob]) == matched("one-to-one", [ann, bob])
    by_place = match_frames("left-to-right", frames, None, [ann, bob])
    assert [m.reasons[0] for m in by_place] == [
        "no face in the frame", None, "fewer faces than references"]
    assert np.isnan(by_place[1].similarity).all() and by_place[1].similarity.shape == (2, 2)
