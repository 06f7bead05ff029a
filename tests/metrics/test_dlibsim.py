"""DlibSim: a recogniser trained on photographs, alone and as the default for photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idbench import scoring
from idbench.errors import UserError
from idbench.metrics import dlibsim
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.scorer import Scorer
from idbench.metrics.validation import photographs
from idbench.registry import METRICS
from idbench.suite import load_suite
from idbench.types import Reference, Video

ONLY = [dlibsim.METRIC]


def whole(rows):
    return {r.identity: r for r in rows if r.frame is None}


def test_a_person_resembles_their_reference_and_nobody_else(tiny_weights, sample, one_face):
    video = Video(np.stack([one_face[:, ::-1], one_face]), 8.0)
    rows = Scorer(metrics=ONLY).score(sample, video, "a" * 64)
    values = whole(rows)
    assert values["ann"].value == values[None].value > 0.6
    frames = [r.value for r in rows if r.frame is not None]
    assert len(frames) == 2 and frames[1] > 0.95, "the second frame is the reference"


def test_two_people_are_matched_by_this_metric_itself(
    tiny_weights, sample, group_photo, tmp_path
):
    scorer = Scorer(metrics=ONLY)
    (faces,) = scorer.embedder.network("detector").detect(group_photo[None])
    references = []
    for n, (x0, y0, x1, y1) in enumerate(faces.boxes[[1, 4]].astype(int)):
        path = tmp_path / f"{n}.png"
        Image.fromarray(group_photo[max(0, y0 - 60):y1 + 60, max(0, x0 - 60):x1 + 60]).save(path)
        references.append(Reference("face", f"person{n}", path))
    both = replace(sample, references=tuple(references))
    values = whole(scorer.score(both, Video(group_photo[None], 8.0), "b" * 64))
    assert min(values["person0"].value, values["person1"].value) > 0.7


def test_alone_it_says_nothing_about_recognisers_that_it_does_not_use(tiny_weights):
    assert not any("embedded recognisers" in note for note in Scorer(metrics=ONLY).notes)
    both = Scorer(metrics=[*ONLY, METRICS.load("arcsim")])
    assert any("embedded recognisers" in note for note in both.notes)


def test_a_reference_without_a_face_is_unscored_with_the_reason(
    tiny_weights, sample, one_face, tmp_path
):
    Image.new("RGB", (96, 96), "grey").save(tmp_path / "wall.png")
    wall = replace(sample, references=(Reference("face", "wall", tmp_path / "wall.png"),))
    rows = Scorer(metrics=ONLY).score(wall, Video(one_face[None], 8.0), "c" * 64)
    assert whole(rows)[None].value is None
    assert "no face was found in the reference wall.png" in whole(rows)[None].reason


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_reference_that_cannot_be_read_is_unscored_with_the_reason(
    tiny_weights, sample, one_face, tmp_path, content
):
    if content:
        (tmp_path / "gone.png").write_bytes(content)
    gone = replace(sample, references=(Reference("face", "gone", tmp_path / "gone.png"),))
    rows = Scorer(metrics=ONLY).score(gone, Video(one_face[None], 8.0), "e" * 64)
    assert "the reference gone.png cannot be read" in whole(rows)[None].reason


def test_several_photographs_of_a_person_are_averaged(tiny_weights, sample, one_face, tmp_path):
    image = sample.references[0].image
    Image.new("RGB", (96, 96), "grey").save(tmp_path / "wall.png")
    Image.fromarray(one_face[:, ::-1].copy()).save(tmp_path / "other.png")
    video = Video(one_face[None], 8.0)

    def value(*further: str) -> float:
        reference = Reference("face", "ann", image, tuple(tmp_path / name for name in further))
        asked = replace(sample, references=(reference,))
        return whole(Scorer(metrics=ONLY).score(asked, video, "d" * 64))[None].value

    assert value("wall.png") == value(), "a photograph without a face does not count"
    assert value() > value("other.png") > 0.6


def test_only_the_sampled_frames_are_decoded(tiny_weights):
    scorer = Scorer(metrics=ONLY)
    assert scorer.reads_frames and not scorer.reads_pixels
    assert len(scorer._needed(300)) == 16


def test_photographs_get_the_second_opinion_and_avatars_do_not(sample):
    said: list[str] = []

    def chosen(samples, metrics=(), protocol="strict-v3", weights=()):
        return list(scoring.with_second_opinion(
            metrics, samples, protocol, weights, said.append))

    assert chosen([sample]) == ["+dlibsim"] and "DlibSim" in said.pop()
    assert chosen([sample], ["+motion"]) == ["+motion", "+dlibsim"]
    said.clear()
    assert chosen([sample], ["arcsim"]) == ["arcsim"]
    assert chosen([sample], protocol="consisid-v1") == []
    assert chosen([sample], weights=["arcface=insightface:x"]) == []
    assert chosen(load_suite("avatars").samples("single", 2)) == []
    assert not said


def test_without_the_packages_it_says_how_to_install_them(sample, monkeypatch):
    monkeypatch.setattr(dlib_resnet, "find_spec", lambda name: None)
    said: list[str] = []
    found = scoring.with_second_opinion((), [sample], "strict-v3", (), said.append)
    assert list(found) == []
    assert "pip install dlib-bin" in said[0]
    with pytest.raises(UserError, match="pip install dlib-bin"):
        dlibsim.METRIC.weight_hashes({})


def test_a_file_of_another_network_is_refused(tmp_path: Path):
    (tmp_path / "x.dat").write_bytes(b"not of dlib")
    with pytest.raises(UserError, match=r"x\.dat does not hold dlib's face recogniser"):
        dlib_resnet.DlibRecogniser(tmp_path / "x.dat")


def test_dlib_tells_people_of_photographs_apart():
    found = {(one.recogniser, one.photographs[:3]): one
             for one in photographs.measure(lambda note: None, people=3, photos=3)}
    assert found["DlibSim", "ORL"].auc > 0.99 and found["DlibSim", "ORL"].faces == 9
    assert found["DlibSim", "ins"].auc == 1.0 and found["DlibSim", "ins"].faces == 12
    assert found["DlibSim", "ORL"].same > dlibsim.SAME_PERSON > found["DlibSim", "ORL"].different
