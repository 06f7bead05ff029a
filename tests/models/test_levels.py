"""The instrument that shows at which noise level identity comes from the reference."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from idbench.errors import UserError
from idbench.models.concat_id import networks
from idbench.models.concat_id.families import CogVideoX
from idbench.models.concat_id.training import levels


def test_read_faces_counts_right_references():
    known = np.eye(3)
    same = levels.read_faces(known, known)
    assert (same.right, same.auc, same.margin) == (3, 1.0, pytest.approx(2**0.5, abs=1e-4))
    turned = levels.read_faces(known[[1, 2, 0]], known)
    assert turned.right == 0 and turned.auc < 0.5 and turned.margin < 0


def test_psnr_is_that_of_the_heads():
    truth = np.zeros((1, 4, 4, 3), np.uint8)
    image = truth + np.uint8(10)
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :2] = True
    image[0, 2:] = 255
    assert levels.psnr(image, truth, mask) == pytest.approx(20 * np.log10(255 / 10), abs=0.01)


def test_a_network_that_copies_is_seen_at_every_level(monkeypatch, tmp_path):
    """A network that knows the truth where it sees a reference, and else predicts nothing."""
    faces = levels.validation_faces(3)
    alphas = networks.build_scheduler().alphas_cumprod.float()

    def predict(transformer, latents, references, text, times, clip_frames):
        first = next(i for i in range(3) if torch.equal(text[0], faces.text[i]))
        truth = faces.latents[first : first + len(latents)]
        a = alphas[times].view(-1, 1, 1, 1, 1)
        known = (a.sqrt() * latents - truth) / (1 - a).sqrt()
        return known if bool(references.any()) else torch.zeros_like(latents)

    monkeypatch.setattr(CogVideoX, "predict", staticmethod(predict))

    def colour(image, box, marks):  # of the face's middle
        x, y = marks.mean(0).astype(int)
        return image[y - 3 : y + 3, x - 3 : x + 3].mean((0, 1)) / 255

    rows = levels.measure(None, faces, {"colour": colour}, levels=(-3.0, 9.0), batch=2)
    assert [(row.decibel, row.condition) for row in rows] == [
        (-3.0, "reference"), (-3.0, "zeroed"), (9.0, "reference"), (9.0, "zeroed"),
        (None, "autoencoder"),
    ]
    limit = rows[-1]
    for with_reference, without in (rows[:2], rows[2:4]):
        assert with_reference.loss == pytest.approx(0, abs=1e-4) and without.loss > 0.1
        assert with_reference.psnr == pytest.approx(limit.psnr, abs=0.1)
        assert without.psnr < limit.psnr - 3
        assert with_reference.seen["colour"].right == limit.seen["colour"].right
    levels.plot({"network": rows[:4]}, tmp_path / "levels.png")
    assert (tmp_path / "levels.png").stat().st_size > 5000


def test_unknown_weights_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="There are no weights .*idbench list weights"):
        levels.load_weights(str(tmp_path / "none"))


def test_the_command_writes_table_and_plot(monkeypatch, tmp_path, capsys):
    row = levels.Level(0.0, "reference", 0.1, 20.0, {"dlib": levels.Read(1, 0.5, 0.0)})
    monkeypatch.setattr(levels, "validation_faces", lambda people, fill: people)
    monkeypatch.setattr(levels, "readers", dict)
    monkeypatch.setattr(levels, "load_weights", str)
    monkeypatch.setattr(levels, "measure", lambda *_: [row])
    levels.main(["transformer_single", "--people", "2", "--out", str(tmp_path)])
    stored = json.loads((tmp_path / "levels.json").read_text())
    assert stored["people"] == 2 and stored["weights"]["transformer_single"][0]["psnr"] == 20.0
    assert (tmp_path / "levels.png").is_file() and "dlib 1/2" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["levels.json", "levels.png"])
def test_foreign_files_are_kept(name, tmp_path, monkeypatch):
    monkeypatch.setattr(levels, "readers", lambda: pytest.fail("measured before it was checked"))
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="is not a measurement of levels of idbench"):
        levels.main(["transformer_single", "--out", str(tmp_path)])
    assert (tmp_path / name).read_text() == "mine"


def test_own_files_are_replaced(tmp_path, monkeypatch):
    read = levels.Read(1, 1.0, 0.5)
    rows = [levels.Level(0.0, c, 0.1, 20.0, {"dlib": read}) for c in levels.CONDITIONS]
    monkeypatch.setattr(levels, "readers", dict)
    monkeypatch.setattr(levels, "validation_faces", lambda people, fill: None)
    monkeypatch.setattr(levels, "load_weights", lambda name: None)
    monkeypatch.setattr(levels, "measure", lambda *_: [
        *rows, levels.Level(None, "autoencoder", None, 30.0, {"dlib": read})])
    for _ in range(2):
        levels.main(["transformer_single", "--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["levels.json", "levels.png"]
