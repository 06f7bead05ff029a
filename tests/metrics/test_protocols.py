"""Protocols: frozen fields and keys, samplers, what each loads, what runs again, what they say."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from idbench.errors import UserError
from idbench.files import sha256_json
from idbench.metrics import clipdist
from idbench.metrics.faces.crops import TEMPLATE, align_crops, crops_of_frames, find_faces
from idbench.metrics.faces.detect import Faces
from idbench.metrics.faces.match import MATCHINGS, by_place
from idbench.metrics.protocol_types import Picture, plain
from idbench.metrics.protocols import (
    PROTOCOLS,
    STRICT,
    sample_frames,
    sample_video_frames,
    with_embedded_networks,
)
from idbench.metrics.rules import RULES, SAMPLERS
from idbench.metrics.scorer import Scorer
from idbench.registry import METRICS
from idbench.types import Video

ROOT = Path(__file__).parents[2]
NAMES = [
    "strict-v3", "strict-v2", "strict-v1", "paper-v4", "paper-v3", "consisid-v2", "consisid-v1",
    "opens2v-v3", "opens2v-v2", "opens2v-v1", "ingredients-v2", "ingredients-v1", "viclip-vbench",
    "viclip-internvideo",
    "clipdist-frame-v2", "clipdist-frame", "clipdist-face-v2", "clipdist-face",
    "vbench2-identity-v2", "vbench2-identity-v1",
]
FROZEN = {  # sha256 of what moves a number
    "strict-v1": "241a7984d746ea90",
    "strict-v2": "3c4047b33fb0604d",
    "strict-v3": "db6975f3cfa47f40",
    "paper-v3": "4a4b05bb82b697ac",
    "consisid-v1": "a9064a64c8c21308",
    "opens2v-v1": "e977c68dfa914fdb",
    "ingredients-v1": "40a3f6e915397287",
    "viclip-vbench": "198c827711a9984c",
    "viclip-internvideo": "356ee17aedd73b7a",
    "clipdist-frame": "a445f16111548127",
    "clipdist-face": "011a062cdf49b14e",
    "paper-v4": "74405e3e02a258de",
    "consisid-v2": "3f325fa5d7542204",
    "opens2v-v2": "48a68f2b0842b242",
    "opens2v-v3": "77d692f454cefcae",
    "ingredients-v2": "b16785ad34823373",
    "clipdist-frame-v2": "b5172e6d63555915",
    "clipdist-face-v2": "865a0a72d6e7313c",
    "vbench2-identity-v1": "27c21ce97e455857",
    "vbench2-identity-v2": "db11268691a7226f",
}


def test_the_first_default_is_frozen_to_the_byte():
    """Changing one of these makes stored embeddings unreadable or old runs incomparable."""
    assert sha256_json(STRICT.as_dict()) == (
        "241a7984d746ea9080fce16c3ccdb4c7a182d8e1afafc87e67fc08db5b087c12"
    )
    assert sha256_json(plain(STRICT.detection)) == (
        "32ee84613770112fa635c9ae2c105bc7350038178ac0a2b833098fc09348e719"
    )
    picture = {"picture": plain(STRICT.clip_picture), "region": STRICT.clip_region}
    assert sha256_json(picture) == (
        "921f7703ab94b7de6814998cb6339e0f5685367ad6a8a9c783b846c342eb25d0"
    )
    assert sha256_json({"picture": plain(STRICT.video_picture)}) == (
        "882b2e20cd992b3c838c07d70c66e97dc470b58dfc25c895f87a5a5e5909c9bf"
    )


def test_every_protocol_is_frozen():
    found = {name: sha256_json(each.as_dict())[:16] for name, each in PROTOCOLS.items()}
    assert found == FROZEN


def test_runs_of_the_first_version_stay_comparable_with_strict_v1():
    run = json.loads((ROOT / "tests/data/old_runs/schema-1/run.json").read_text())
    assert run["scoring"]["protocol"] == json.loads(json.dumps(STRICT.as_dict()))


def test_every_protocol_is_there_and_made_of_known_names():
    assert list(PROTOCOLS) == NAMES
    known = set(METRICS.targets())
    for protocol in PROTOCOLS.values():
        assert {protocol.sampler, protocol.video_sampler} <= set(SAMPLERS)
        assert protocol.matching in MATCHINGS and protocol.rule in RULES
        assert set(protocol.metrics) <= known
    assert len({json.dumps(p.as_dict()) for p in PROTOCOLS.values()}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_has_its_section_in_the_documentation(name):
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    section = next(s for s in sections if s.startswith(f"`{name}`"))
    for row in ("Formula", "Sampler", "Networks", "Source", "Known deviation"):
        assert f"| {row}" in section, row
    for metric in PROTOCOLS[name].metrics:
        assert f"`{metric}`" in section


@pytest.mark.parametrize("count", [1, 2, 7, 15, 16, 17, 31, 49, 81, 200])
def test_the_published_samplers(count):
    for name, wanted in (("consisid-v1", 16), ("opens2v-v1", 32), ("ingredients-v1", 24)):
        expected = np.linspace(0, count - 1, wanted, dtype=int).tolist()
        assert list(sample_frames(PROTOCOLS[name], count)) == expected
    frames = list(range(count))
    found = sample_video_frames(PROTOCOLS["viclip-internvideo"], count)
    assert list(found) == (frames[:: count // 8][:8] if count >= 8 else [])
    used = min(8, count)
    starts = [int(v) for v in np.linspace(0, count, used + 1)]
    middles = [(starts[i] + starts[i + 1] - 1) // 2 for i in range(used)]
    middles += [middles[-1]] * (8 - used)
    assert list(sample_video_frames(PROTOCOLS["viclip-vbench"], count)) == middles


def test_faces_stand_for_references_from_left_to_right():
    boxes = np.array([[60, 0, 90, 30], [0, 0, 25, 25], [30, 0, 50, 20], [99, 0, 101, 2]], float)
    two = by_place(np.full((4, 2), np.nan), boxes)
    assert two.face_of_reference == (1, 0)
    assert by_place(np.full((4, 3), np.nan), boxes).face_of_reference == (1, 2, 0)
    few = by_place(np.full((1, 2), np.nan), boxes[:1])
    assert few.face_of_reference == (None, None) and "fewer faces" in few.reasons[0]


def test_crops_are_cut_large_and_shrunk_where_a_protocol_says_so(one_face):
    points = TEMPLATE[None] + 40.0
    faces = [Faces(np.zeros((1, 4)), points, np.ones(1)), Faces.none()]
    found = crops_of_frames(np.stack([one_face, one_face]), faces, 224, 112)
    assert found.shape == (1, 112, 112, 3)
    np.testing.assert_array_equal(
        found[0], cv2.resize(align_crops(one_face, points, 224)[0], (112, 112))
    )
    assert crops_of_frames(one_face[None], [Faces.none()], 224, 112).shape == (0, 112, 112, 3)


# -- through the scorer, with tiny networks


@pytest.fixture
def video(one_face):
    return Video(np.stack([np.roll(one_face, k, axis=1) for k in range(9)]), 8.0)


LOADED = {
    "viclip-vbench": {"viclip"},
    "viclip-internvideo": {"viclip"},
    "clipdist-frame": {"clip"},
    "clipdist-face": {"clip", "detector"},
    "ingredients-v1": {"arcface", "detector"},
    "consisid-v1": {"arcface", "curricularface", "detector"},
}


@pytest.mark.parametrize("name", LOADED)
def test_only_networks_of_what_a_protocol_defines_are_loaded(tiny_weights, sample, video, name):
    scorer = Scorer(name)
    rows = scorer.score(sample, video, "0" * 64)
    assert set(scorer.embedder._loaded) == LOADED[name]
    assert {row.metric for row in rows} == set(PROTOCOLS[name].metrics)
    videos = [r for r in rows if r.identity is None and r.frame is None]
    assert len(videos) == len(PROTOCOLS[name].metrics)
    assert all(row.value is not None for row in videos)


@pytest.mark.parametrize(
    ("first", "second"),
    [("strict-v1", "consisid-v1"), ("consisid-v1", "strict-v1"), ("paper-v3", "clipdist-frame"),
     ("paper-v3", "viclip-vbench"), ("paper-v3", "consisid-v1"), ("consisid-v1", "paper-v3")],
)
def test_another_protocol_of_the_same_embeddings_runs_no_network(
    tiny_weights, sample, video, tmp_path, monkeypatch, first, second
):
    names = ("arcsim", "cursim", "face_coverage")
    wanted = None if first == "paper-v3" else [METRICS.load(name) for name in names]
    Scorer(first, tmp_path / "cache", wanted).score(sample, video, "0" * 64)

    def forbidden(*_, **__):
        raise AssertionError("a network ran")

    again = Scorer(second, tmp_path / "cache", wanted)
    monkeypatch.setattr(type(again.embedder), "network", forbidden)
    monkeypatch.setattr("idbench.metrics.embedder.find_faces", forbidden)
    rows = again.score(sample, video, "0" * 64)
    assert any(row.value is not None for row in rows)


def test_internvideos_picture_is_that_of_its_demo(tiny_weights, sample, video):
    """Frames [::n // 8][:8], cv2.resize to a square, ImageNet statistics: computed apart."""
    import torch
    from torch.nn import functional as F

    scorer = Scorer("viclip-internvideo")
    found = next(r for r in scorer.score(sample, video, "0" * 64) if r.metric == "viclip")
    chosen = list(video.frames)[:: len(video.frames) // 8][:8]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = np.stack([(cv2.resize(f, (32, 32)) / 255.0 - mean) / std for f in chosen])
    viclip = scorer.embedder.network("viclip")
    with torch.no_grad():
        x = torch.from_numpy(pixels).float().permute(3, 0, 1, 2)[None]
        vector = F.normalize(viclip.network.encode_video(x))[0].numpy()
    text = viclip.texts([sample.prompt])[0]
    assert found.value == pytest.approx(float(np.dot(vector, text)), abs=1e-6)


def test_a_video_too_short_for_a_sampler_is_unscored_with_the_reason(tiny_weights, sample, video):
    short = Video(video.frames[:5], 8.0)
    row = Scorer("viclip-internvideo").score(sample, short, "0" * 64)[0]
    assert row.reason == "the video has too few frames for viclip-internvideo"
    assert Scorer("viclip-vbench").score(sample, short, "0" * 64)[0].value is not None


def test_clipdist_of_faces_is_of_the_crops(tiny_weights, sample, video, tmp_path, one_face):
    """1 - cosine of CLIP on aligned crops of 224 pixels: computed apart."""
    scorer = Scorer("clipdist-face")
    rows = scorer.score(sample, video, "0" * 64)
    crops = []
    for picture in (one_face, video.frames[4]):
        face = find_faces(scorer.embedder.network("detector"), picture[None], STRICT.detection)[0]
        crops.append(align_crops(picture, face.landmarks[:1], 224)[0])
    a, b = scorer.embedder.network("clip").pictures(np.stack(crops), Picture())
    found = next(row.value for row in rows if row.frame == 4)
    assert found == pytest.approx(1 - float(np.dot(a, b)), abs=1e-6) and found > 1e-4
    black = Video(np.zeros_like(video.frames[:1]), 8.0)
    rows = Scorer("clipdist-face").score(sample, black, "2" * 64)
    assert {row.reason for row in rows if row.frame is not None} == {"no face in the frame"}
    Image.new("RGB", (64, 64), (90, 120, 200)).save(tmp_path / "ann.png")
    rows = Scorer("clipdist-face").score(sample, video, "3" * 64)
    assert rows[-1].reason == "ann: no face was found in the reference ann.png"


def test_strict_v3_compares_faces_and_beside_them_whole_frames(tiny_weights, sample, video):
    def values(protocol, metric):
        rows = Scorer(protocol).score(sample, video, "0" * 64)
        return {row.frame: row.value for row in rows
                if row.metric == metric and row.frame is not None}

    both = replace(STRICT, clip_region="both", also=("clipdist_frame",))
    assert values(both, "clipdist_frame") == pytest.approx(values(STRICT, "clipdist"))
    faces = values(replace(STRICT, clip_region="face"), "clipdist")
    assert values(both, "clipdist") == pytest.approx(faces)
    assert values("strict-v3", "clipdist_frame") == pytest.approx(values("strict-v2", "clipdist"))
    assert not STRICT.defines(clipdist.FRAME) and PROTOCOLS["strict-v3"].defines(clipdist.FRAME)


def test_embedded_networks_in_place_of_the_protocols_are_told(tiny_weights):
    notes = " ".join(Scorer("consisid-v1").notes)
    assert "buffalo_l" in notes and "used instead" in notes and "Not measured" in notes
    assert with_embedded_networks(PROTOCOLS["consisid-v1"]).detection == STRICT.detection
    assert with_embedded_networks(STRICT) is STRICT
    assert not any("used instead" in note for note in Scorer("strict-v1").notes)
    assert "maximum rule" in " ".join(Scorer("ingredients-v1").notes)


# -- on the command line


def test_the_list_names_the_default():
    from click.testing import CliRunner

    from idbench.commands.listing import listing
    from idbench.scoring import Scoring

    rows = json.loads(CliRunner().invoke(listing, ["protocols", "--json"]).output)
    default = [r["protocol"] for r in rows if r["summary"].startswith("The default")]
    assert default == ["strict-v3"] == [Scoring.of().protocol.name] == [Scorer().protocol.name]


def test_a_run_of_the_first_default_is_never_mixed_with_one_of_today():
    from idbench.reports import tables
    from idbench.runs import Run
    from idbench.scoring import Scoring

    old = Run.open(ROOT / "tests/data/old_runs/schema-1")
    with pytest.raises(UserError, match="scored under the protocol strict-v1, not strict-v3"):
        Scoring.of().check(old)
    new = copy.deepcopy(old)
    new.file.scoring.protocol.update(Scoring.of().key["protocol"])
    with pytest.raises(UserError, match="protocol name: strict-v1 / strict-v3"):
        tables.measured([old, new])


def test_a_metric_that_the_protocol_does_not_define_is_one_sentence():
    from idbench.scoring import Scoring

    assert Scoring.of("viclip-vbench", ()).metrics == ("viclip",)
    assert "not_measured" not in Scoring.of("strict-v1", ()).metrics
    with pytest.raises(UserError, match="does not define arcsim; it defines clipdist"):
        Scoring.of("clipdist-frame", ("arcsim",))
    with pytest.raises(UserError, match="did you mean 'consisid-v2'"):
        Scoring.of("consisid", ())
