"""Rendered scenes as training sees them: rendered, encoded, and drawn."""

from __future__ import annotations

import json
from dataclasses import asdict

import forked
import numpy as np
import pytest
import torch

from idbench.errors import UserError
from idbench.models.concat_id import references, scenes
from idbench.models.concat_id.autoencoder import build_vae
from idbench.models.concat_id.training import latents, rendering
from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import Person, Scene

from .conftest import SETS, VAE, samples


def test_an_exact_reference_is_of_the_very_image(home, monkeypatch):
    by_frame = {**SETS, "image_one": {**SETS["image_one"], "by_frame": True}}
    monkeypatch.setattr(scenes, "load_recipe", lambda name: {"sets": by_frame})
    opened = samples(home, groups={"image_one": 1.0}, exact=1.0)
    known = torch.stack(opened.references)
    drawn = opened.draw("image_one", 20, 0.0, np.random.default_rng(1), exact=1.0)
    for shown, reference in zip(drawn["latents"], drawn["references"], strict=True):
        images = opened.groups["image_one"]
        place = next(i for i, r in enumerate(images) if (r.latents == shown).all())
        assert (known[images[place].own[0][place % 2]] == reference[0]).all()


def test_exact_references_need_data_that_has_them(home):
    with pytest.raises(UserError, match="No sample of image_one .* `by_frame: true`"):
        samples(home, groups={"image_one": 1.0}, exact=0.5)


def test_exact_references_mix_with_groups_of_clips(home, monkeypatch):
    by_frame = {**SETS, "image_one": {**SETS["image_one"], "by_frame": True}}
    monkeypatch.setattr(scenes, "load_recipe", lambda name: {"sets": by_frame})
    opened = samples(home, groups={"image_one": 0.5, "clip_two": 0.5}, exact=0.5)
    drawn = opened.draw("clip_two", 2, 0.0, np.random.default_rng(1), exact=0.5)
    assert len(drawn["latents"]) == 2


def test_steps_on_part_of_the_tokens_keep_every_head(home):
    pool = samples(home, groups={"image_one": 1.0}, background_tokens=0.4,
                   phases=[{"until": 5}, {"until": 8, "background_tokens": 1.0}])
    batch = pool.batch(0)
    video, references = batch["tokens"][:, :3], batch["tokens"][:, 3:]
    assert bool((video == 1).any(1).all()) and int(video.max()) < 6  # the head and 0.4 of 5
    assert references.tolist() == [[6, 7, 8, 9, 10, 11]] * 4  # so narrow that there is no margin
    assert "tokens" not in pool.batch(5) and "heads" not in batch


@pytest.mark.parametrize("sets", [None, [1], {"a": 1}, {"a": {"scenes": 1, "actors": 2}}])
def test_a_recipe_that_renders_no_scenes_is_one_sentence(sets):
    content = {"name": "mine"} if sets is None else {"name": "mine", "sets": sets}
    with pytest.raises(UserError, match="The recipe 'mine' has no usable sets of scenes"):
        scenes.sets_of(content)


def test_cross_references_come_from_another_scene(home):
    pool = samples(home)
    record = pool.groups["image_one"][0]
    rng = np.random.default_rng(0)
    own = {pool._reference(record, 0, 0.0, 0.0, rng) for _ in range(50)}
    cross = {pool._reference(record, 0, 1.0, 0.0, rng) for _ in range(50)}
    assert own <= set(record.own[0]) and not cross & set(record.own[0])
    known = dict(pool.of_identity[record.identities[0]])
    assert cross <= set(known)


def test_a_clips_first_latent_frame_is_also_an_image(home):
    pool = samples(home, groups={"image_two": 1.0})
    assert torch.equal(pool.groups["image_two"][0].latents, pool.groups["clip_two"][0].latents[:1])
    sizes = {name: len(records) for name, records in pool.groups.items()}
    assert sizes == {"image_one": 12, "image_two": 4, "clip_two": 4}


def test_text_and_references_are_dropped_independently_at_their_rates(home):
    pool = samples(home, batch={"image": 4000, "clip": 4000})
    batch = pool.batch(0)
    text, references = batch["keep_text"], batch["keep_references"]
    assert abs(float(references.mean()) - 0.9) < 0.02 and abs(float(text.mean()) - 0.9) < 0.02
    assert 0.003 < float(((1 - references) * (1 - text)).mean()) < 0.02
    times = (batch["uniform"] * 4000).long().sort().values
    assert torch.equal(times, torch.arange(4000))  # one time in each part


def test_groups_are_drawn_by_their_share(home):
    pool = samples(home, groups={"image_one": 3, "clip_two": 1}, batch={"image": 1, "clip": 1})
    names = [pool.batch(step)["group"] for step in range(600)]
    assert abs(names.count("clip_two") / 600 - 0.25) < 0.05


def test_processes_share_the_rows_of_a_batch(home):
    pool = samples(home)
    whole = pool.batch(3)
    parts = [next(pool.batches(pool.recipe, 3, rank, 2, False)) for rank in (0, 1)]
    for rank, part in enumerate(parts):
        assert part["group"] == whole["group"]
        assert torch.equal(part["noise"], whole["noise"][rank::2])


def test_square_portraits_become_references_and_no_samples(tmp_path):
    source, target = tmp_path / "portrait" / "00000", tmp_path / "latents"
    source.mkdir(parents=True)
    arrays = {
        "frames": (2, 1, 24, 24, 3), "faces": (2, 1, 24, 24), "references": (2, 3, 1, 16, 24, 3),
    }
    for name, shape in arrays.items():
        np.save(source / f"{name}.npy", np.zeros(shape, np.uint8))
    np.save(source / "boxes.npy", np.zeros((2, 1, 3, 4), np.float32))
    truth = [{"caption": "a person", "scene": asdict(Scene((Person(10_000),)))}] * 2
    (source / "truth.json").write_text(json.dumps(truth))
    text = lambda captions: np.zeros((len(captions), 32, 12), np.float16)  # noqa: E731
    latents.encode_shard(build_vae(VAE).eval(), text, source, target, 1, False)
    assert np.load(target / "references.npy").shape == (2, 3, 1, 4, 4, 6)
    assert not (target / "latents.npy").exists()


def test_shards_are_encoded_by_processes_and_only_where_something_is_missing(tmp_path, monkeypatch):
    sets = {"image_one": {"scenes": 4, "people": 1, "frames": 2, "identities": 2, "shard": 2}}
    monkeypatch.setattr(scenes, "load_recipe", lambda name: {"sets": sets})
    forked.fork_pools(monkeypatch)
    rendering.render({"sets": sets, "seed": 3, "workers": 1}, tmp_path / "data")
    content = {"data": "data", "seed": 5, "workers": 2, "threads": 1}
    assert latents.prepare(content, tmp_path / "latents") == {"shards": 2}
    shards = [tmp_path / "latents" / "image_one" / f"{k:05d}" for k in range(2)]
    names = {"latents", "references", "text", "embeddings", "garment", "background"}
    assert all({p.stem for p in shard.iterdir()} == names for shard in shards)
    assert np.load(shards[0] / "latents.npy").shape == (2, 2, 16, 16, 24)
    for missing in (shards[0] / "references.npy", shards[1] / "text.npy"):
        missing.unlink()
    before = {p: p.stat().st_mtime_ns for shard in shards for p in shard.iterdir()}
    monkeypatch.setattr(  # starting them again proves no more
        rendering, "in_processes", lambda function, jobs, *_: [function(*job) for job in jobs])
    latents.prepare(content, tmp_path / "latents")
    assert (shards[0] / "references.npy").exists() and (shards[1] / "text.npy").exists()
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())


def test_aligned_faces_have_the_size_and_place_of_their_references():
    described = scenes.RenderSet("seen", 1, frames=1, references=1, fill=0.75, aligned=True)
    size = described.fill * 64 / references.CROP_SCALE
    apart = {None: [], size: []}
    for identity in range(10_000, 10_006):
        scene = Scene((Person(identity),), seed=identity)
        for face_size, differences in apart.items():
            clip = render_clip(scene, 1, 64, 96, face_size=face_size)
            shown = rendering._references(clip, described, np.random.default_rng(0))[0, 0]
            assert not shown[:8].any() and not shown[-8:].any() and not shown[:, :24].any()
            head = shown.any(-1)
            differences.append(np.abs(shown.astype(int) - clip.frames[0])[head].mean())
    assert np.mean(apart[size]) < 0.6 * np.mean(apart[None]), apart


def test_aligned_people_are_near_the_middle_of_their_parts():
    scene = Scene((Person(10_000), Person(10_001)), seed=3)
    clip = render_clip(scene, 1, 64, 96, face_size=14.5)
    eyes = clip.landmarks[0, :, :2, 0].mean(1)
    assert eyes == pytest.approx([24, 72], abs=5)


@pytest.mark.parametrize("by_frame", [True, False])
def test_references_by_frame_show_their_frames(by_frame, monkeypatch):
    cut = []
    monkeypatch.setattr(rendering.references, "crop_face", lambda frame, *rest: cut.append(frame)
                        or np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr(rendering.references, "crop_mask", lambda *rest: np.zeros((64, 64)))
    described = scenes.RenderSet("seen", 1, frames=2, references=6, by_frame=by_frame)
    clip = render_clip(Scene((Person(10_000, motion="turn left"),)), 2, 64, 96)
    rendering._references(clip, described, np.random.default_rng(0))
    shown = [int((frame == clip.frames[1]).all()) for frame in cut]
    assert (shown == [0, 1, 0, 1, 0, 1]) is by_frame
