"""References beyond the face's own scene: pairs by similarity, garments, backgrounds."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from idbench.errors import UserError
from idbench.models.concat_id import data, subjects
from idbench.models.concat_id import train as training
from idbench.prompts.avatars.scene import Garment, Person, Scene

from .conftest import VAE
from .test_training import home, recipe  # noqa: F401

SCENE = Scene((Person(10_000, garment=Garment("red")),), "library", "soft", seed=4)


def test_pairs_are_cut_at_the_quantiles_and_never_within_a_scene():
    angles = np.array([0.0, 0.1, 0.4, 1.0, 2.0])  # of five references in the plane
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    embeddings[4] = np.nan  # no face was found there
    groups = [[(0, 7), (1, 7), (2, 8), (3, 9), (4, 10)]]
    everything, (low, high) = subjects.similar_pairs(embeddings, groups, (0.0, 1.0))
    assert everything == {0: [2, 3], 1: [2, 3], 2: [0, 1, 3], 3: [0, 1, 2]}
    assert (low, high) == pytest.approx((np.cos(1.0), np.cos(0.3)), abs=1e-6)
    alike, _ = subjects.similar_pairs(embeddings, groups, (0.5, 1.0))
    unlike, _ = subjects.similar_pairs(embeddings, groups, (0.0, 0.49))
    assert alike == {1: [2], 2: [0, 1, 3], 0: [2], 3: [2]}
    assert unlike == {0: [3], 3: [0, 1], 1: [3]}
    assert subjects.similar_pairs(embeddings, [[(0, 1)]], (0.0, 1.0))[0] == {}


def _embed(home, change=None):  # noqa: F811
    """Write embeddings for every encoded shard of the fixture; all people alike."""
    for path in sorted((home / "latents").glob("*/*")):
        shape = np.load(path / "references.npy").shape[:3]
        vectors = np.zeros((*shape, 4), np.float16)
        vectors[..., 0] = 1
        np.save(path / "embeddings.npy", vectors if change is None else change(path, vectors))


def test_samples_without_a_pair_are_left_out(home, capsys):  # noqa: F811
    def without_clips(path, vectors):
        return vectors * np.float16(np.nan) if path.parent.name == "clip_two" else vectors

    _embed(home, without_clips)
    asked = recipe(groups={"image_one": 1.0}, similar=[0.0, 1.0], cross=1.0)
    pool = training.load_pool(asked, home / "x")
    assert pool.sizes() == {"image_one": 12, "image_two": 0, "clip_two": 0}
    assert "12 image_one" in capsys.readouterr().out
    record, rng = pool.groups["image_one"][0], np.random.default_rng(0)
    drawn = {pool._reference(record, 0, 1.0, rng) for _ in range(50)}
    assert drawn == set(pool._partners(record.own[0])) and not drawn & set(record.own[0])


def test_pairs_need_embeddings(home):  # noqa: F811
    with pytest.raises(UserError, match="train concat_id_latents"):
        training.load_pool(recipe(similar=[0.0, 1.0]), home / "x")


def test_a_subject_comes_after_the_face(home, monkeypatch):  # noqa: F811
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(home))
    for path in sorted((home / "latents").glob("image_one/*")):
        count = len(np.load(path / "references.npy"))
        np.save(path / "garment.npy", np.full((count, 4, 4, 6), 7, np.float16))
    pool = training.load_pool(recipe(), home / "x")
    batch = pool.draw("image_one", 3, 1, 0.0, np.random.default_rng(0), "garment")
    assert batch.references.shape == (3, 2, 4, 4, 6)
    assert (batch.references[:, 1] == 7).all() and not (batch.references[:, 0] == 7).any()
    with pytest.raises(UserError, match="clip_two have no garment"):
        pool.draw("clip_two", 2, 2, 0.0, np.random.default_rng(0), "garment")
    training.train(
        recipe(groups={"image_one": 1.0}, subject="garment", steps=2), home / "garments"
    )


def test_subjects_show_the_garment_and_the_place():
    garment = subjects.subject_reference("garment", SCENE)
    blue = replace(SCENE, people=(Person(10_000, garment=Garment("blue")),))
    red, cold = garment[85, 48], subjects.subject_reference("garment", blue)[85, 48]
    red, cold = red.astype(int), cold.astype(int)
    assert red[0] > 1.5 * red[2] and cold[2] > 1.2 * cold[0]
    place = subjects.subject_reference("background", SCENE)
    other = subjects.subject_reference("background", replace(SCENE, background="beach"))
    assert place.shape == other.shape == (128, 192, 3)
    assert np.abs(place.astype(int) - other).mean() > 20
    assert subjects.prepared_subject("garment", SCENE, 64, 96).shape == (64, 96, 3)
    with pytest.raises(UserError, match="garment, background"):
        subjects.subject_reference("hat", SCENE)


def test_subjects_of_a_shard_are_encoded_once(tmp_path):
    from idbench.models.concat_id.autoencoder import build_vae

    source, target = tmp_path / "set" / "00000", tmp_path / "latents"
    source.mkdir(parents=True)
    target.mkdir()
    np.save(source / "references.npy", np.zeros((2, 3, 1, 16, 24, 3), np.uint8))
    for name in ("frames", "faces", "boxes"):
        np.save(source / f"{name}.npy", np.zeros(1))
    truth = [{"caption": "a person", "scene": asdict(SCENE)}] * 2
    (source / "truth.json").write_text(json.dumps(truth))
    assert data.read_shard(source).scenes[0] == SCENE
    vae = build_vae(VAE).eval()
    subjects.encode_subjects(vae, source, target, 3)
    garment, place = np.load(target / "garment.npy"), np.load(target / "background.npy")
    assert garment.shape == place.shape == (2, 4, 4, 6)
    assert not np.allclose(garment, place)
    assert not np.array_equal(garment[0], garment[1])  # the same image, other pixel noise
    before = (target / "garment.npy").stat().st_mtime_ns
    subjects.encode_subjects(vae, source, target, 3)
    assert (target / "garment.npy").stat().st_mtime_ns == before


def test_references_are_embedded_where_a_face_is_found():
    from idbench.prompts.avatars.render import render_portrait

    faces = np.stack([render_portrait(identity, size=96).frames[0] for identity in (1, 2)])
    images = np.concatenate([faces, np.zeros_like(faces[:1])])
    vectors = subjects.ReferenceEmbedder()(images)
    assert np.isnan(vectors[2]).all()
    lengths = torch.from_numpy(vectors[:2]).norm(dim=1)
    assert lengths.numpy() == pytest.approx(1.0, abs=1e-4)
    assert vectors[0] @ vectors[1] < 0.7
