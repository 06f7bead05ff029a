"""The metrics against plain numpy, and what their rows say when something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idbench.metrics import clipdist, several_people, viclip
from idbench.metrics.base import Embeddings, cosine
from idbench.metrics.faces.detect import Faces
from idbench.metrics.faces.match import match_faces
from idbench.metrics.identity_similarity import ARCSIM, CURSIM, similarity
from idbench.metrics.protocols import (
    PROTOCOLS,
    STRICT,
    Protocol,
    get_protocol,
    sample_frames,
    sample_video_frames,
)
from idbench.types import Reference, Sample


def _plain_cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (
        sum(x * x for x in a) ** 0.5 * sum(y * y for y in b) ** 0.5
    )


def _sample(names=("ann", "bob"), prompt="two people smile"):
    references = tuple(Reference("face", n, Path(f"{n}.png")) for n in names)
    return Sample("s1", "multi", "p1", prompt, "test", references, 0)


def _embeddings(faces, references, sample=None, protocol=STRICT, reasons=None):
    """Embeddings of hand-made faces: a list a frame of (x position, vector)."""
    sample = sample or _sample()
    vectors = [np.array([v for _, v in frame]).reshape(len(frame), -1) for frame in faces]
    boxes = [np.array([[x, 0, x + 5, 5] for x, _ in f], np.float32).reshape(-1, 4) for f in faces]
    return Embeddings(
        sample=sample,
        protocol=protocol,
        frames=tuple(range(len(faces))),
        faces=tuple(Faces(b, np.zeros((len(b), 5, 2)), np.ones(len(b))) for b in boxes),
        matches=tuple(match_faces(v, references) for v in vectors),
        face_vectors={"arcface": vectors, "curricularface": [v[:, ::-1] for v in vectors]},
        reference_vectors={
            "arcface": references,
            "curricularface": [None if r is None else r[::-1] for r in references],
        },
        reference_reasons=reasons or tuple(None for _ in references),
    )


ANN, BOB = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])


def _value(rows, identity=None, frame=None):
    found = [r for r in rows if r.identity == identity and r.frame == frame]
    assert len(found) == 1
    return found[0]


def test_a_cosine_does_not_depend_on_the_other_rows():
    """To the last digit: a face has one value, however many faces or frames are compared."""
    rng = np.random.default_rng(0)
    rows, vector = rng.normal(size=(33, 512)).astype(np.float32), rng.normal(size=512)
    alone = np.array([cosine(row[None], vector)[0] for row in rows])
    for count in (1, 2, 3, 8, 33):
        np.testing.assert_array_equal(cosine(rows[:count], vector), alone[:count])
    assert cosine(rows[:0], vector).shape == (0,)
    assert np.isnan(cosine(np.array([[0.0, 0.0], [np.nan, 1.0]]), np.ones(2))).all()


def test_identity_metrics_are_cosines():
    rng = np.random.default_rng(0)
    faces, reference = rng.normal(size=(7, 12)), rng.normal(size=12)
    expected = [_plain_cosine(face, reference) for face in faces]
    np.testing.assert_allclose(similarity(faces, reference), expected, atol=1e-12)
    clamped = [max(0.0, v) for v in expected]
    assert min(expected) < 0
    np.testing.assert_allclose(similarity(faces, reference, clamp=True), clamped, atol=1e-12)


def test_clipdist_is_one_minus_cosine_and_viclip_a_cosine():
    rng = np.random.default_rng(1)
    frames, reference = rng.normal(size=(5, 8)), rng.normal(size=8)
    expected = [1 - _plain_cosine(frame, reference) for frame in frames]
    np.testing.assert_allclose(clipdist.clipdist(frames, reference), expected, atol=1e-12)
    assert viclip.viclip(frames[0], reference) == pytest.approx(1 - expected[0], abs=1e-12)
    assert clipdist.clipdist(reference[None], reference)[0] == pytest.approx(0, abs=1e-12)


def test_a_frame_without_the_person_stays_unscored_and_leaves_the_mean():
    near = np.array([0.8, 0.0, 0.6])
    rows = ARCSIM.scores(_embeddings([[(10, ANN), (50, BOB)], [(12, near)]], [ANN, BOB]))
    assert _value(rows, "ann", 0).value == pytest.approx(1.0)
    assert _value(rows, "ann", 1).value == pytest.approx(0.8)
    assert _value(rows, "ann").value == pytest.approx(0.9)
    missed = _value(rows, "bob", 1)
    assert missed.status == "unscored" and missed.value is None and "fewer faces" in missed.reason
    assert _value(rows, "bob").value == pytest.approx(1.0)
    assert _value(rows).value == pytest.approx(0.95)


def test_a_video_that_never_shows_one_person_is_not_scored_by_the_other_alone():
    rows = ARCSIM.scores(_embeddings([[(10, ANN)], [(11, ANN)]], [ANN, BOB]))
    assert _value(rows, "ann").value == pytest.approx(1.0)
    video = _value(rows)
    assert video.status == "unscored" and video.reason.startswith("bob: ")


def test_a_reference_without_a_face_is_named():
    reason = "no face was found in the reference bob.png"
    faces = [[(10, ANN), (50, BOB)]]
    rows = CURSIM.scores(_embeddings(faces, [ANN, None], reasons=(None, reason)))
    assert _value(rows, "bob", 0).reason == reason and _value(rows, "bob").reason == reason
    assert "bob.png" in _value(rows).reason
    coverage = several_people.face_coverage(_embeddings(faces, [ANN, None], reasons=(None, reason)))
    assert _value(coverage, "bob").reason == reason and _value(coverage, "ann").value == 1.0


def test_not_finite_embeddings_are_unscored():
    rows = ARCSIM.scores(_embeddings([[(10, np.full(3, np.nan))]], [ANN], _sample(("ann",))))
    assert {row.status for row in rows} == {"unscored"}
    assert _value(rows).reason == "ann: the embedding is not finite"


def test_clamp_is_the_protocols():
    clamped = Protocol("test-clamp", 1, "", clamp=True)
    faces = [[(1, -ANN)]]
    one = _sample(("ann",))
    for protocol, value in ((STRICT, -1.0), (clamped, 0.0)):
        rows = ARCSIM.scores(_embeddings(faces, [ANN], one, protocol))
        assert _value(rows, "ann", 0).value == value


def test_people_metrics_of_two_identities():
    swapped = [(50, ANN), (10, BOB)]
    straight = [(10, ANN), (50, BOB)]
    mixed = np.array([0.6, 0.8, 0.0])  # nearer to bob, and the only face: it is his
    e = _embeddings([straight, straight, swapped, [(30, mixed)]], [ANN, BOB])
    order = several_people.order(e)
    assert [_value(order, frame=k).value for k in range(4)] == [1.0, 1.0, 0.0, None]
    assert _value(order).value == 1.0
    assert _value(several_people.swaps(e)).value == pytest.approx(1 / 3)
    margin = several_people.own_minus_other(e)
    assert _value(margin, "bob", 3).value == pytest.approx(0.8 - 0.6)
    assert _value(margin, "bob").value == pytest.approx((3 * 1.0 + 0.2) / 4)
    assert _value(margin, "ann", 3).status == "unscored"
    coverage = several_people.face_coverage(e)
    assert _value(coverage, "ann").value == 0.75 and _value(coverage).value == 0.875


def test_people_metrics_say_nothing_of_one_identity():
    e = _embeddings([[(1, ANN)]], [ANN], _sample(("ann",)))
    for metric in (several_people.ORDER, several_people.OWN_MINUS_OTHER, several_people.SWAP_RATE):
        assert metric.rows(e) == metric.unscored(e.sample, "no video") == []


def test_an_empty_prompt_is_unscored():
    e = _embeddings([[(1, ANN)]], [ANN], _sample(("ann",), prompt="  "))
    assert viclip.scores(e)[0].reason == "no prompt was given"


def test_every_protocol_is_described_in_its_own_words():
    """A new version must not show the old one's summary, and a list has 58 columns for it."""
    shown = [p.summary for p in PROTOCOLS.values()]
    assert len(set(shown)) == len(shown) and all(10 < len(line) <= 58 for line in shown)
    assert "first default" in STRICT.summary and "As strict-v1" in get_protocol(
        "strict-v2").description


def test_protocols_are_named_by_themselves_and_frozen():
    assert all(p.name == name for name, p in PROTOCOLS.items())
    with pytest.raises(AttributeError):
        STRICT.clamp = True
    from idbench.errors import UserError

    with pytest.raises(UserError, match="did you mean 'strict-v.'"):
        get_protocol("strict-v9")


def test_frames_are_sampled_once_each():
    assert sample_frames(STRICT, 9) == tuple(range(9))
    assert sample_frames(STRICT, 16) == tuple(range(16))
    assert sample_frames(STRICT, 49) == (
        0, 3, 6, 9, 12, 16, 19, 22, 25, 28, 32, 35, 38, 41, 44, 48
    )
    assert sample_frames(STRICT, 1) == (0,) and sample_frames(STRICT, 0) == ()


def test_viclip_reads_the_middle_of_eight_intervals():
    assert sample_video_frames(STRICT, 16) == (0, 2, 4, 6, 8, 10, 12, 14)
    assert sample_video_frames(STRICT, 80) == (4, 14, 24, 34, 44, 54, 64, 74)
    assert sample_video_frames(STRICT, 9) == (0, 1, 2, 3, 4, 5, 6, 7)
    assert sample_video_frames(STRICT, 3) == (0, 1, 2, 2, 2, 2, 2, 2)
