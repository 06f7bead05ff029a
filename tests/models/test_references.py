"""Preparing reference images."""

from __future__ import annotations

import numpy as np
import pytest

from idbench.models.concat_id import references

MARKS = np.array([[80, 90], [112, 90], [96, 105], [84, 122], [108, 122]], float)


def picture() -> np.ndarray:
    image = np.full((192, 192, 3), (10, 200, 10), np.uint8)
    image[60:150, 66:126] = (200, 150, 120)
    return image


def skin(crop: np.ndarray) -> np.ndarray:
    return (crop[..., 0] > 105).astype(np.float32)


def test_the_face_is_cut_out_and_the_background_is_black():
    made = references.prepare(picture(), MARKS, skin, 64, 96)
    assert made.problem is None and made.image.shape == (64, 96, 3)
    assert not made.image[:, :16].any() and not made.image[:, 80:].any()
    assert not made.image[2, 18].any()
    np.testing.assert_allclose(made.image[32, 48], (200, 150, 120), atol=6)


def test_a_rotated_face_is_made_upright():
    angle = 0.5
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    marks = (MARKS - 96) @ turn.T + 96
    y, x = np.mgrid[:192, :192]
    back = (np.stack([x, y], -1) - 96) @ turn + 96
    inside = (np.abs(back[..., 0] - 96) < 30) & (np.abs(back[..., 1] - 105) < 45)
    image = np.where(inside[..., None], [200, 150, 120], [10, 200, 10]).astype(np.uint8)
    straight = references.crop_face(picture(), MARKS, 64).astype(int)
    upright = references.crop_face(image, marks, 64).astype(int)
    assert np.abs(upright - straight).mean() < 8


def test_a_small_foreground_keeps_its_background():
    def little(crop: np.ndarray) -> np.ndarray:
        mask = np.zeros(crop.shape[:2], np.float32)
        mask[:10, :10] = 1
        return mask

    made = references.prepare(picture(), MARKS, little, 64, 96)
    assert "40%" in made.problem
    assert made.image[2, 18].any()


def test_without_a_face_the_whole_image_is_used_and_said_so():
    made = references.prepare(picture(), None, skin, 64, 96)
    assert "no face" in made.problem
    np.testing.assert_allclose(made.image[2, 18], (10, 200, 10), atol=3)


@pytest.mark.parametrize("size", [(30, 90), (90, 30), (64, 96), (7, 7)])
def test_fitting_keeps_the_aspect_and_centres(size):
    fitted = references.fit_and_pad(np.full((*size, 3), 255, np.uint8), 64, 96)
    rows, columns = np.where(fitted[..., 0] > 128)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height == 64 or width == 96
    assert abs(height / width - size[0] / size[1]) < 0.06
    assert abs((rows.min() + rows.max()) / 2 - 31.5) <= 0.5
