"""What dlib sees in generated videos."""

from __future__ import annotations

import numpy as np
import pytest

from idbench.metrics.faces.detect import Faces
from idbench.models.concat_id.training import outside


def test_right_auc_and_margin_of_single_videos():
    read = [np.array([[0.9, 0.2, 0.1]]), np.array([[0.5, 0.4, 0.0]]), np.full((1, 3), np.nan)]
    values, margins = outside.summarise(read, [("a",), ("b",), ("c",)], ["a", "b", "c"])
    assert values["right"] == pytest.approx(1 / 3)  # the second is wrong, the third not found
    assert values["auc"] == pytest.approx(7 / 8)
    assert margins[:2] == pytest.approx([0.75, 0.15]) and np.isnan(margins[2])


def test_margins_of_two_people_compare_with_each_other():
    read = [np.array([[0.9, 0.3, 0.8], [0.1, 0.5, 0.8]])]
    values, margins = outside.summarise(read, [("a", "b")], ["a", "b", "c"])
    assert values["right"] == 0.5 and margins == pytest.approx([(0.6 + 0.4) / 2])


def test_people_are_told_apart_by_place(monkeypatch):
    """The face on the left is the first person, whichever is larger."""
    monkeypatch.setattr(outside, "dlib_embedding", lambda frame, box: np.array([box[0] / 10.0]))
    boxes = np.array([[10, 0, 40, 30], [0, 0, 9, 9]], np.float32)
    both = Faces(boxes, np.zeros((2, 5, 2), np.float32), np.ones(2, np.float32))
    frames, known = np.zeros((3, 4, 4, 3), np.uint8), np.array([[0.0], [1.0]])
    rows = outside.similarities(frames, [both, both, both.largest(1)], 2, known)
    assert rows == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0]]))
    nobody = outside.similarities(frames, [Faces.none()] * 3, 2, known)
    assert nobody.shape == (2, 2) and bool(np.isnan(nobody).all())
