"""References beyond the face's own scene: pairs by similarity, garments, backgrounds."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from idbench.errors import UserError
from idbench.metrics.faces.crops import FaceEmbedder
from idbench.models.concat_id import scenes
from idbench.models.concat_id.pairs.calibration import Identities, calibrate
from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.training import latents, loop, scene_pairs
from idbench.prompts.avatars.scene import Garment, Person, Scene

from .conftest import VAE, recipe, samples

SCENE = Scene((Person(10_000, garment=Garment("red")),), "library", "soft", seed=4)


def faces_of(people: int, each: int, noise: float = 0.25):
    """Scenes of one person, then of two, whose embeddings are the person's with noise."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(people, 32))

    def vectors(identity: int) -> np.ndarray:
        made = own[identity] + noise * rng.normal(size=(2, 32))
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    found, count = [], 0
    for number in range(people * each):
        shown = [number % people]
        if number >= people * each // 2:
            shown.append((number + 1) % people)
        boxes = np.tile(np.array([0.2, 0.2, 0.6, 0.7]), (2, len(shown), 1))
        references = tuple((count + 2 * i, count + 2 * i + 1) for i in range(len(shown)))
        count += 2 * len(shown)
        found.append(scene_pairs.Faces(
            f"scene {number}", tuple(shown), references, np.stack([vectors(i) for i in shown]),
            boxes,
        ))
    return found


def test_scenes_are_paired_as_videos_are(capsys):
    faces = faces_of(6, 12)
    chosen = scene_pairs.choose(faces, {"one": "cross", "two": "multi2_cross"}, 0)
    said = capsys.readouterr().err
    people, identities = scene_pairs.people_of(faces)
    settings, about = calibrate(people, Identities(identities, 0), PairSettings())
    assert len(about["steps"]) == 7 and all(step in said for step in about["steps"])
    low, high = settings.cross
    place = {s: k for k, s in enumerate(people.video.tolist()) if people.group[k] == 1}
    owner = {r: (s, i, p) for s, f in enumerate(faces)
             for p, i in enumerate(f.identities) for r in f.references[p]}
    assert len(chosen["one"]) > 20 and len(chosen["two"]) > 5
    for scene, (references,) in chosen["one"].items():
        (other, identity, _), = {owner[r] for r in references}
        assert other != scene and len(faces[other].identities) == 1
        assert identity == faces[scene].identities[0]
        cosine = float(people.vectors[place[scene]] @ people.vectors[place[other]])
        assert low - 1e-5 <= cosine < high + 1e-5
    for scene, row in chosen["two"].items():
        assert len(row) == 2 and len(faces[scene].identities) == 2
        assert all(owner[r][0] != scene for references in row for r in references)


def test_the_least_similar_of_the_similar_is_the_partner_of_stage_three():
    faces = faces_of(6, 12)
    chosen = scene_pairs.choose(faces, {"one": "tradeoff"}, 0)["one"]
    people, identities = scene_pairs.people_of(faces)
    low, high = calibrate(people, Identities(identities, 0), PairSettings())[0].tradeoff
    place = {s: k for k, s in enumerate(people.video.tolist())}
    single = [k for k in range(len(people)) if people.group[k] == 1]
    for scene, (references,) in chosen.items():
        cosines = {k: float(people.vectors[place[scene]] @ people.vectors[k])
                   for k in single if k != place[scene]}
        within = {k: c for k, c in cosines.items() if low + 1e-5 <= c < high - 1e-5}
        partner, = {s for s, f in enumerate(faces) if references[0] in f.references[0]}
        assert cosines[place[partner]] <= min(within.values(), default=1.0) + 1e-5
    assert chosen


def test_scenes_without_a_face_are_in_no_pair():
    faces = faces_of(6, 12)
    hidden = replace(faces[0], embeddings=np.full_like(faces[0].embeddings, np.nan))
    half = replace(faces[1], embeddings=faces[1].embeddings.copy())
    half.embeddings[0, 1] = np.nan
    faces[:2] = [hidden, half]
    people, _ = scene_pairs.people_of(faces)
    assert 0 not in people.video and 1 in people.video
    assert np.linalg.norm(people.vectors, axis=1) == pytest.approx(1, abs=1e-4)
    chosen = scene_pairs.choose(faces, {"one": "cross"}, 0)["one"]
    used = {r for row in chosen.values() for references in row for r in references}
    assert not used & {*hidden.references[0], half.references[0][1]}
    with pytest.raises(UserError, match="output of pairs 'crossed'"):
        scene_pairs.choose(faces, {"one": "crossed"}, 0)
    with pytest.raises(UserError, match="No face was found"):
        scene_pairs.people_of([hidden])


def test_samples_get_the_references_of_their_partners(home, monkeypatch):  # noqa: F811
    def choose(faces, wanted, seed):
        assert wanted == {"one": "cross"} and len(faces) == 10
        return {"one": {0: (faces[3].references[0],)}}

    monkeypatch.setattr("idbench.models.concat_id.training.scene_samples.choose", choose)
    for path in sorted((home / "latents").glob("*/*")):
        shape = np.load(path / "references.npy").shape[:3]
        np.save(path / "embeddings.npy", np.ones((*shape, 4), np.float16))
        np.save(home / "data" / path.parent.name / path.name / "boxes.npy",
                np.ones((shape[0], 2, 3, 4)))
    pool = samples(home, groups={"image_one": 1.0}, pairs={"one": "cross"}, cross=1.0)
    assert {name: len(records) for name, records in pool.groups.items()} == {
        "image_one": 2, "image_two": 0, "clip_two": 0}
    record, rng = pool.groups["image_one"][0], np.random.default_rng(0)
    drawn = {pool._reference(record, 0, 1.0, 0.0, rng) for _ in range(50)}
    assert drawn == set(pool._faces[3].references[0])


def test_a_group_without_pairs_is_refused(home, monkeypatch):  # noqa: F811
    monkeypatch.setattr("idbench.models.concat_id.training.scene_samples.choose",
                        lambda faces, wanted, seed: {"one": {}})
    for path in sorted((home / "latents").glob("*/*")):
        shape = np.load(path / "references.npy").shape[:3]
        np.save(path / "embeddings.npy", np.ones((*shape, 4), np.float16))
        np.save(home / "data" / path.parent.name / path.name / "boxes.npy",
                np.ones((shape[0], 2, 3, 4)))
    with pytest.raises(UserError, match="No sample of image_one has a pair"):
        samples(home, groups={"image_one": 1.0}, pairs={"one": "cross"})


def test_pairs_need_embeddings(home):  # noqa: F811
    for path in (home / "data").glob("*/*"):
        np.save(path / "boxes.npy", np.ones((6, 2, 3, 4)))
    with pytest.raises(UserError, match="train concat_id_latents"):
        samples(home, pairs={"one": "cross"})


def test_a_subject_comes_after_the_face(home):  # noqa: F811
    for path in sorted((home / "latents").glob("image_one/*")):
        count = len(np.load(path / "references.npy"))
        np.save(path / "garment.npy", np.full((count, 4, 4, 6), 7, np.float16))
    changes = {"groups": {"image_one": 1.0}, "subject": "garment", "steps": 2}
    pool = samples(home, **changes)
    batch = pool.draw("image_one", 3, 0.0, np.random.default_rng(0))
    assert batch["references"].shape == (3, 2, 4, 4, 6)
    held = batch["references"]
    assert (held[:, 1] == 7).all() and not (held[:, 0] == 7).any()
    with pytest.raises(UserError, match="clip_two have no garment"):
        samples(home, subject="garment")
    loop.train(recipe(**changes), home / "garments")


def test_subjects_show_the_garment_and_the_place():
    garment = scenes.subject_reference("garment", SCENE)
    blue = replace(SCENE, people=(Person(10_000, garment=Garment("blue")),))
    red, cold = garment[85, 48], scenes.subject_reference("garment", blue)[85, 48]
    red, cold = red.astype(int), cold.astype(int)
    assert red[0] > 1.5 * red[2] and cold[2] > 1.2 * cold[0]
    place = scenes.subject_reference("background", SCENE)
    other = scenes.subject_reference("background", replace(SCENE, background="beach"))
    assert place.shape == other.shape == (128, 192, 3)
    assert np.abs(place.astype(int) - other).mean() > 20
    assert scenes.prepared_subject("garment", SCENE, 64, 96).shape == (64, 96, 3)
    with pytest.raises(UserError, match="garment, background"):
        scenes.subject_reference("hat", SCENE)


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
    assert scenes.read_shard(source).scenes[0] == SCENE
    vae = build_vae(VAE).eval()
    latents.encode_subjects(vae, source, target, 3)
    garment, place = np.load(target / "garment.npy"), np.load(target / "background.npy")
    assert garment.shape == place.shape == (2, 4, 4, 6)
    assert not np.allclose(garment, place)
    assert not np.array_equal(garment[0], garment[1])  # the same image, other pixel noise
    before = (target / "garment.npy").stat().st_mtime_ns
    latents.encode_subjects(vae, source, target, 3)
    assert (target / "garment.npy").stat().st_mtime_ns == before


def test_references_are_embedded_where_a_face_is_found():
    from idbench.prompts.avatars.render import render_portrait

    faces = np.stack([render_portrait(identity, size=96).frames[0] for identity in (1, 2)])
    images = np.concatenate([faces, np.zeros_like(faces[:1])])
    vectors = FaceEmbedder().embed_largest(images)
    assert np.isnan(vectors[2]).all()
    lengths = torch.from_numpy(vectors[:2]).norm(dim=1)
    assert lengths.numpy() == pytest.approx(1.0, abs=1e-4)
    assert vectors[0] @ vectors[1] < 0.7
