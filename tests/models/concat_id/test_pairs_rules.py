"""Pairs: which videos are kept, and how people are followed through one."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict

import numpy as np
import pytest

from idbench.errors import UserError
from idbench.metrics.faces.detect import Faces
from idbench.models.concat_id.pairs import people as rules
from idbench.models.concat_id.pairs import tracking
from idbench.models.concat_id.pairs.settings import PairSettings, make_settings, read_settings
from idbench.models.concat_id.pairs.store import Row

PAPER = PairSettings()


@pytest.mark.parametrize("caption, human", [
    ("A man walks.", True), ("WOMAN with a dog", True), ("two people talk", True),
    ("She smiles.", True), ("a portrait of a Person.", True), ("", False),
    ("Manhattan at night", False), ("a humane shelter for dogs", False), ("the waves roll", False),
])
def test_captions_with_a_human_term_as_a_whole_word(caption: str, human: bool) -> None:
    assert rules.has_human_term(caption) is human


def test_the_human_terms_are_a_setting() -> None:
    asked = make_settings({"human_terms": ["player", "groom", "femme", "C++ dev"]}).human_terms
    captions = {
        "A PLAYER runs.": True, "The groom smiles": True, "une femme rit": True,
        "a c++ dev types": True, "A man walks.": False, "players run": False,
    }
    for caption, kept in captions.items():
        assert rules.has_human_term(caption, asked) is kept, caption
    assert make_settings({"human_terms": "player, groom"}).human_terms == "player, groom"
    for none in ("none", "None", None):
        terms = make_settings({"human_terms": none}).human_terms
        assert rules.has_human_term("the waves roll", terms)
    with pytest.raises(UserError, match="human_terms must be words separated by commas"):
        make_settings({"human_terms": 3})


@pytest.mark.parametrize("caption, term, human", [
    ("一个男人在走路", "男人", True), ("الرجل يمشي", "رجل", True), ("남자가 걷는다", "남자", True),
    ("ผู้ชายเดิน", "ผู้ชาย", True), ("Мужчина идёт", "мужчина", True), ("мужчины", "мужчина", False),
    (unicodedata.normalize("NFD", "un garçon rit"), "garçon", True), ("une fille", "garçon", False),
])
def test_human_terms_of_other_languages(caption: str, term: str, human: bool) -> None:
    assert rules.has_human_term(caption, f"{term},xyz") is human


def why_dropped(counts: list[int], cosines: list[float | None]) -> str | None:
    """Of a video with such frames, whose caption is fine."""
    person = tracking.PersonFaces(0.5, 0.1, ())
    record = tracking.VideoRecord(9, 8.0, 64, 96, tuple(counts), tuple(cosines), (person,))
    return rules.why_dropped(Row(1, "a.mp4", "A man.", "", record=record), PAPER)


@pytest.mark.parametrize("counts, reason", [
    ([1] * 10, None), ([1] * 7 + [2] * 3, None), ([1] * 6 + [2] * 4, rules.COUNT),
    ([0] * 10, rules.NO_FACE), ([0] * 6 + [1] * 4, rules.NO_FACE), ([4] * 10, rules.TOO_MANY),
    ([3] * 10, None), ([], rules.NO_FACE), ([1, 1, 0, 0], rules.COUNT),
])
def test_thirty_percent_of_frames_may_have_another_number_of_people(
    counts: list[int], reason: str | None
) -> None:
    assert why_dropped(counts, [0.9] * max(len(counts) - 1, 0)) == reason


@pytest.mark.parametrize("cosines, dropped", [
    ([0.9] * 7 + [0.49] * 3, False), ([0.9] * 6 + [0.49] * 4, True), ([0.5] * 10, False),
    # Frames with unequal counts are no evidence either way.
    ([None] * 9 + [0.9], False), ([None] * 8 + [0.9, 0.1], True), ([], False),
])
def test_thirty_percent_of_consecutive_frames_may_differ(
    cosines: list[float | None], dropped: bool
) -> None:
    assert why_dropped([1] * 11, cosines) == (rules.IDENTITY if dropped else None)


def test_the_papers_values_are_the_defaults() -> None:
    assert (PAPER.frames_per_second, PAPER.faces_kept) == (2.0, 5)
    assert (PAPER.count_share, PAPER.identity_share, PAPER.identity_cosine) == (0.3, 0.3, 0.5)
    assert (PAPER.cross, PAPER.tradeoff, PAPER.multi) == ((0.7, 0.9), (0.9, 0.99), (0.87, 0.97))
    assert PAPER.face_area == (0.04, 0.9) and PAPER.tradeoff_kept == 50_000


@pytest.mark.parametrize("values, words", [
    ({"cros": [0.7, 0.9]}, "did you mean 'cross'?"),
    ({"cross": [0.9, 0.7]}, "two increasing numbers"),
    ({"cross": 0.7}, "two numbers"), ({"cross": ["a", 1]}, "two increasing numbers"),
    ({"cross": [0.7, 1.2]}, "between -1 and 1"), ({"count_share": 3}, "between 0 and 1"),
    ({"count_share": float("nan")}, "between 0 and 1"), ({"faces_kept": 2.5}, "whole number"),
    ({"faces_kept": 0}, "faces_kept"), ({"people": 4}, "people"), ({"seed": True}, "a number"),
    ({"frames_per_second": 0}, "frames_per_second"), ({"calibration_anchors": [0.7]}, "anchors"),
    ({"calibration_anchors": [["a", 0.1], ["b", 0.2]]}, "anchors"),
    ({"calibration_anchors": [[0.7, "x"], [0.9, 0.5]]}, "anchors"),
    ({"calibration_anchors": [[0.7, 0.1], [1.5, 0.5]]}, "anchors"),
])
def test_wrong_thresholds_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=".*" + words.replace("?", r"\?")):
        make_settings(values)


def test_a_later_setting_wins(tmp_path) -> None:
    (tmp_path / "r.yaml").write_text("cross: [0.5, 0.6]\nseed: 3\n")
    found = make_settings(read_settings(tmp_path / "r.yaml"), {"seed": 4})
    assert found.cross == (0.5, 0.6) and found.seed == 4
    (tmp_path / "r.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="must contain lines"):
        read_settings(tmp_path / "r.yaml")
    with pytest.raises(UserError, match="missing"):
        read_settings(tmp_path / "none.yaml")


def frame(index: int, people: list[tuple[int, float]]) -> tracking.FrameFaces:
    """Faces of (identity, x) in the order given, as a detector might list them."""
    count = len(people)
    boxes = np.array([[x - 5, 10, x + 5, 22] for _, x in people], np.float32).reshape(count, 4)
    vectors = np.eye(8, dtype=np.float32)[[i for i, _ in people]].reshape(count, 8)
    rng = np.random.default_rng(index)
    vectors = vectors + rng.normal(0, 0.05, vectors.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    crops = tuple(f"{index}:{i}".encode() for i, _ in people)
    found = Faces(boxes, np.zeros((count, 5, 2), np.float32), np.ones(count, np.float32))
    return tracking.FrameFaces(index, found, vectors, crops)


def test_people_are_followed_whatever_order_the_detector_lists_them_in() -> None:
    frames = [frame(k, [(0, 20), (1, 70)] if k % 2 else [(1, 70), (0, 20)]) for k in range(6)]
    people, vectors, conflicts, crops = tracking.people_of(frames, (64, 96), 3, 5, "ab")
    assert [round(p.x * 96) for p in people] == [20, 70] and conflicts == 0
    assert vectors.argmax(1).tolist() == [0, 1]
    assert {crops[f.image].split(b":")[1] for f in people[0].faces} == {b"0"}
    assert [f.frame for f in people[1].faces] == [0, 1, 2, 4, 5]
    assert people[0].share == pytest.approx(10 * 12 / (64 * 96), abs=1e-6)
    cosines = tracking.consecutive_cosines(frames)
    assert len(cosines) == 5 and all(c is not None and c > 0.9 for c in cosines)


def test_faces_of_frames_in_another_order_are_dropped() -> None:
    usual, swapped = [(0, 20), (1, 70)], [(0, 80), (1, 30)]
    frames = [frame(k, swapped if k in (2, 3) else usual) for k in range(8)]
    people, _, conflicts, _ = tracking.people_of(frames, (64, 96), 3, 5, "ab")
    assert conflicts == 2
    assert not {2, 3} & {f.frame for p in people for f in p.faces}


def test_a_frame_with_other_people_shows_in_the_cosines() -> None:
    frames = [frame(0, [(0, 20)]), frame(1, [(1, 20)]), frame(2, [(1, 20), (2, 70)])]
    first, second = tracking.consecutive_cosines(frames)
    assert first is not None and abs(first) < 0.5 and second is None


def test_one_of_two_people_replaced_is_seen() -> None:
    frames = [frame(0, [(0, 20), (1, 70)]), frame(1, [(0, 20), (2, 70)])]
    (cosine,) = tracking.consecutive_cosines(frames)
    assert cosine is not None and cosine < 0.5


def test_too_many_people_give_none() -> None:
    frames = [frame(k, [(i, 10 + 20 * i) for i in range(4)]) for k in range(3)]
    assert tracking.people_of(frames, (64, 96), 3, 5, "ab")[0] == ()


@pytest.mark.parametrize("count, kept, positions", [
    (1, 5, [0]), (3, 5, [0, 1, 2]), (9, 5, [0, 2, 4, 6, 8]), (100, 2, [0, 99]), (7, 1, [0]),
])
def test_faces_kept_are_spread_over_the_video(count: int, kept: int, positions: list[int]) -> None:
    assert tracking.spread(count, kept) == positions


def test_a_record_survives_json() -> None:
    import json

    frames = [frame(k, [(0, 20)]) for k in range(3)]
    people = tracking.people_of(frames, (64, 96), 3, 5, "ab")[0]
    record = tracking.VideoRecord(9, 8.0, 64, 96, (1, 1, 0), (0.9, None), people, flow=0.1)
    assert tracking.RECORD.validate_python(json.loads(json.dumps(asdict(record)))) == record
