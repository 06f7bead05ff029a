"""The scorer: networks once, cache, references, timings; with tiny random networks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from idbench import embedded
from idbench.errors import UserError
from idbench.metrics.embedding_cache import EmbeddingCache, cache_key
from idbench.metrics.networks.recogniser import Recogniser
from idbench.metrics.protocols import STRICT, Picture
from idbench.metrics.scorer import Scorer
from idbench.registry import METRICS
from idbench.types import Reference, Video
from idbench.video import Clip


@pytest.fixture
def video(one_face):
    frames = np.stack([np.roll(one_face, k, axis=1) for k in range(3)])
    frames[2] = 0
    return Video(frames, 8.0)


def _by(rows, metric, identity=None, frame=None):
    found = [r for r in rows if (r.metric, r.identity, r.frame) == (metric, identity, frame)]
    assert len(found) == 1
    return found[0]


def test_all_metrics_of_a_real_face(tiny_weights, sample, video, tmp_path):
    scorer = Scorer("strict-v3", tmp_path / "cache")
    rows = scorer.score(sample, video, "0" * 64)
    assert {r.metric for r in rows} == {
        "arcsim", "cursim", "viclip", "clipdist", "clipdist_frame", "face_coverage",
        "identity_slope", "identity_worst",
    }
    assert _by(rows, "arcsim", "ann", 0).value > 0.8  # the reference is that very picture
    assert _by(rows, "arcsim", "ann", 2).reason == "no face in the frame"
    assert _by(rows, "face_coverage").value == pytest.approx(2 / 3)
    assert _by(rows, "clipdist", "ann", 0).value == pytest.approx(0, abs=1e-5)
    assert -1 <= _by(rows, "viclip").value <= 1
    assert {"load", "detect", "align", "embed faces", "embed frames", "score"} <= set(
        scorer.embedder.timings
    )
    described = scorer.faces(sample)
    assert json.loads(json.dumps(described)) == described
    assert described[0]["assignment"] == {"ann": 0} and described[2]["boxes"] == []
    hashes = scorer.weight_hashes()
    assert {"arcface.safetensors", "viclip.safetensors", "mtcnn/pnet.pt"} <= set(hashes)
    assert any("avatars" in note for note in scorer.notes)


def test_scoring_again_runs_no_network_and_gives_the_same(
    tiny_weights, sample, video, tmp_path, monkeypatch
):
    first = Scorer("strict-v3", tmp_path / "cache").score(sample, video, "0" * 64)
    again = Scorer("strict-v3", tmp_path / "cache")

    def forbidden(*_):
        raise AssertionError("a network ran")

    monkeypatch.setattr(Recogniser, "embed", forbidden)
    monkeypatch.setattr("idbench.metrics.embedder.find_faces", forbidden)
    monkeypatch.setattr("idbench.metrics.networks.clip.ClipEmbedder", forbidden)
    monkeypatch.setattr("idbench.metrics.networks.clip.ViclipEmbedder", forbidden)
    assert again.score(sample, video, "0" * 64) == first
    with pytest.raises(AssertionError, match="a network ran"):
        again.score(sample, video, "1" * 64)


def test_other_weights_are_not_read_from_the_cache(tiny_weights, sample, video, tmp_path):
    first = Scorer("strict-v3", tmp_path / "cache").score(sample, video, "0" * 64)
    state = {k: v * 1.5 + 0.1 if v.is_floating_point() else v
             for k, v in embedded.load_state("clip").items()}
    entry = embedded.entry("clip")
    embedded.save_entry("clip", state, recipe="test", seed=0, steps=0,
                        config=entry["config"], measured={}, half=False)
    second = Scorer("strict-v3", tmp_path / "cache").score(sample, video, "0" * 64)
    assert _by(first, "arcsim") == _by(second, "arcsim")
    assert _by(first, "viclip") == _by(second, "viclip")
    assert _by(first, "clipdist_frame", "ann", 2) != _by(second, "clipdist_frame", "ann", 2)


def test_networks_are_loaded_once_and_only_those_needed(tiny_weights, sample, video):
    scorer = Scorer("strict-v1", None, metrics=[METRICS.load("clipdist")])
    scorer.score(sample, video, "0" * 64)
    network = scorer.embedder.network("clip")
    scorer.score(sample, video, "1" * 64)
    assert scorer.embedder.network("clip") is network
    assert set(scorer.embedder._loaded) == {"clip"}
    assert set(scorer.weight_hashes()) == {"clip.safetensors"} and scorer.notes == ()


def test_a_reference_without_a_face_is_a_reason_that_names_the_file(
    tiny_weights, sample, video, tmp_path
):
    Image.new("RGB", (64, 64), (90, 120, 200)).save(tmp_path / "sky.png")
    sample = replace(sample, references=(Reference("face", "sky", tmp_path / "sky.png"),))
    rows = Scorer().score(sample, video, "0" * 64)
    assert _by(rows, "arcsim", "sky").reason == "no face was found in the reference sky.png"
    assert "sky.png" in _by(rows, "cursim").reason
    assert "sky.png" in _by(rows, "clipdist").reason
    assert _by(rows, "clipdist_frame").status == "scored"


def test_an_unreadable_reference_costs_only_its_own_scores(tiny_weights, sample, video, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = Reference("face", "bad", tmp_path / "bad.png")
    rows = Scorer().score(replace(sample, references=(*sample.references, bad)), video, "0" * 64)
    assert "bad.png cannot be read" in _by(rows, "clipdist", "bad").reason
    assert _by(rows, "arcsim", "ann").status == "scored"
    assert _by(rows, "arcsim").status == "unscored"


def test_a_video_without_frames_is_unscored(tiny_weights, sample):
    rows = Scorer().score(sample, Video(np.zeros((0, 8, 8, 3), np.uint8), 8.0), "0" * 64)
    assert {row.metric for row in rows} == {
        "arcsim", "cursim", "viclip", "clipdist", "clipdist_frame", "face_coverage",
        "identity_slope", "identity_worst",
    }, "the metrics that the video would have"
    assert {row.reason for row in rows} == {"the video has no frames"}


def test_swapped_weights_are_one_sentence(tiny_weights, sample, video):
    path = embedded.weight_path("clip")
    path.write_bytes(path.read_bytes()[:-4] + b"evil")
    with pytest.raises(UserError, match="clip.safetensors.z is damaged or swapped"):
        Scorer().score(sample, video, "0" * 64)


def test_golden_cache_key():
    """Changing what goes into the key makes every stored embedding unreadable: on purpose only."""
    key = cache_key(
        "ab" * 32, (0, 3, 8), {"height": 256, "detector": "mtcnn"}, {"arcface": "cd" * 32},
        "float32",
    )
    assert key == "69f951f245ddb0103f487953a2351c0bf37db4139b6b527384c9b95aa5122790"


def test_every_part_changes_the_key():
    base = ("ab" * 32, (0, 1), {"crop": 112}, {"arcface": "cd" * 32}, "float32")
    others = [
        ("ac" * 32, *base[1:]), (base[0], (0, 2), *base[2:]), (*base[:2], {"crop": 96}, *base[3:]),
        (*base[:3], {"arcface": "ce" * 32}, base[4]), (*base[:4], "bfloat16"),
    ]
    keys = {cache_key(*parts) for parts in [base, *others]}
    assert len(keys) == 6


def test_a_damaged_cache_file_is_computed_anew(tmp_path):
    cache = EmbeddingCache(tmp_path)
    source, key = "ff" * 32, "ab" * 32
    cache.put(source, {key: {"a": np.arange(3)}})
    np.testing.assert_array_equal(cache.get(source, key)["a"], [0, 1, 2])
    path = cache.path(source)
    path.write_bytes(path.read_bytes()[:40])
    again = EmbeddingCache(tmp_path)
    assert again.get(source, key) is None
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    again.put(source, {key: {"a": np.arange(4)}})
    np.testing.assert_array_equal(EmbeddingCache(tmp_path).get(source, key)["a"], np.arange(4))


def test_arrays_of_one_source_are_kept_together_in_all_shapes(tmp_path):
    source = "ff" * 32
    arrays = {
        "none": np.zeros((0, 4), np.float32), "one": np.asarray(0.5),
        "flags": np.array([True, False]), "mirrored": np.arange(6.0).reshape(2, 3)[:, ::-1],
    }
    EmbeddingCache(tmp_path).put(source, {"first": arrays})
    EmbeddingCache(tmp_path).put(source, {"second": {"x": np.arange(2)}})
    cache = EmbeddingCache(tmp_path)
    for name, value in arrays.items():
        found = cache.get(source, "first")[name]
        assert found.shape == value.shape and found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)
    assert cache.get(source, "third") is None and cache.get("ee" * 32, "first") is None
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [cache.path(source)]


def test_memory_of_the_cache_is_bounded(tmp_path):
    from idbench.metrics import embedding_cache as module

    cache = EmbeddingCache(tmp_path)
    for i in range(module.KEPT + 20):
        cache.put(f"{i:064x}", {"key": {"x": np.full(3, i)}})
    assert len(cache._read) == module.KEPT
    assert cache.get(f"{0:064x}", "key")["x"][0] == 0


@pytest.mark.parametrize("change", [
    {"curricular_crop": 224}, {"detection": replace(STRICT.detection, crop=128)},
    {"detection": replace(STRICT.detection, alignment="other5")},
    {"clip_region": "face", "clip_crop": 128}, {"clip_picture": Picture("crop")},
])
def test_what_another_crop_gives_is_not_taken_from_the_cache(
    tiny_weights, sample, video, tmp_path, change
):
    """A protocol that crops otherwise computes anew: the rule of the crop is part of the key."""
    first = replace(STRICT, clip_region="face") if "clip_region" in change else STRICT
    other = replace(first, **change)
    Scorer(first, tmp_path / "cache").score(sample, video, "0" * 64)
    keys = [set(Scorer(p).embedder.keys("0" * 64, (0, 1), (0,)).items()) for p in (first, other)]
    assert keys[0] != keys[1], "the key names the crop"
    cached = Scorer(other, tmp_path / "cache").score(sample, video, "0" * 64)
    assert cached == Scorer(other).score(sample, video, "0" * 64)


def test_each_searched_video_is_heard_of_before_the_window_is_done(tiny_weights, sample, one_face):
    scorer, heard = Scorer(metrics=[METRICS.load("arcsim")]), []
    scorer.searched = lambda: heard.append(len(heard))
    items = [
        (replace(sample, id=f"s{n}"), Clip(2, 8.0, np.stack([one_face + n] * 2), f"{n}" * 64))
        for n in range(3)
    ]
    scorer.score_all(items)
    assert heard == [0, 1, 2], "the reference, in which faces are searched too, does not count"
    scorer.score_all(items[:1])


def test_several_photographs_of_one_person_give_the_mean_of_their_embeddings(
    tiny_weights, sample, video, group_photo, tmp_path
):
    other = tmp_path / "other.png"
    Image.fromarray(group_photo[:, -500:]).save(other)
    blank = tmp_path / "blank.png"
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(blank)
    scorer = Scorer("strict-v3")
    (one,) = sample.references
    vectors = [scorer.embedder.person([path]).faces["arcface"] for path in (one.image, other)]
    expected = sum(v / np.linalg.norm(v) for v in vectors)
    both = scorer.embedder.person((one.image, other, blank))
    np.testing.assert_allclose(
        both.faces["arcface"], expected / np.linalg.norm(expected), atol=1e-6
    )
    assert both.face_reason is None and "blank.png: no face was found" in both.note
    assert both.image["clip"].shape == scorer.embedder.person([other]).image["clip"].shape
    asked = replace(sample, references=(replace(one, more=(other, blank)),))
    read = scorer.embed(asked, video, "0" * 64)
    np.testing.assert_array_equal(read.reference_vectors["arcface"][0], both.faces["arcface"])
    nobody = scorer.embedder.person((blank, blank))
    assert nobody.face_reason == "no face was found in the reference blank.png"
