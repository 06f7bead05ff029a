"""What dlib sees in generated videos."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from idbench.metrics.faces.detect import Faces
from idbench.models.concat_id.training import outside
from idbench.types import Reference


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


def test_finished_runs_are_read(monkeypatch, capsys):
    """Two videos of two people; dlib's embedding is the red of the picture."""
    pictures = {"a.png": 10, "b.png": 90, "a.mp4": 20, "b.mp4": 80}
    face = Faces(np.zeros((1, 4), np.float32), np.zeros((1, 5, 2), np.float32), np.ones(1))

    def picture(path):
        return np.full((4, 4, 3), pictures[path.name], np.uint8)

    monkeypatch.setattr(outside, "dlib_embedding", lambda frame, box: frame[0, 0, :1] / 100.0)
    monkeypatch.setattr(outside.FaceEmbedder, "find", lambda self, images: [face] * len(images))
    monkeypatch.setattr(outside, "read_rgb", picture)
    monkeypatch.setattr(
        outside, "read_video", lambda path: SimpleNamespace(frames=np.stack([picture(path)] * 3)))
    records = [
        SimpleNamespace(
            video=Path(f"{name}.mp4"), identities=(name,), sample=SimpleNamespace(
                people=[Reference("face", name, Path(f"{name}.png"))]))
        for name in "ab"
    ]
    run = SimpleNamespace(records=lambda: records)
    monkeypatch.setattr(outside.Run, "open", lambda folder: run)
    outside.main(["runs/some"])
    assert capsys.readouterr().out == (
        "runs/some: right reference of 100.0% of people, AUC 1.000, margin 0.600 [0.600, 0.600]\n")
