"""ViCLIP of long prompts, and OpenS2V-Eval's further parts."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from idbench.errors import UserError
from idbench.metrics import opens2v, viclip
from idbench.metrics.base import Embeddings
from idbench.metrics.networks.clip import FullTokenizer
from idbench.metrics.networks.weight_sources import parse
from idbench.metrics.protocols import STRICT, choose_metrics, get_protocol, sample_frames
from idbench.metrics.scorer import Scorer
from idbench.types import Sample, Video

LONG = "A woman smiles in the park. " + "a man " * 40


def sample(prompt: str = "a man") -> Sample:
    return Sample("s" * 16, "single", "p1", prompt, "c", (), 0)


def test_a_long_prompt_is_read_in_parts_that_fit():
    tokenizer = FullTokenizer(32)
    parts = viclip.parts_of(LONG, lambda text: tokenizer.share_read(text) >= 1.0)
    assert parts[0] == "A woman smiles in the park."
    assert " ".join(parts).split() == LONG.split() and len(parts) >= 4
    assert all(tokenizer.share_read(part) == 1.0 for part in parts)
    assert viclip.parts_of("one\ntwo; three", lambda text: True) == [
        "one", "two;", "three"]


def test_its_value_is_the_mean_over_the_parts():
    texts = {"Up.": [1.0, 0.0], "Down.": [0.0, 1.0]}
    network = SimpleNamespace(
        tokenizer=FullTokenizer(32), texts=lambda asked: np.array([texts[t] for t in asked])
    )
    of = Embeddings(sample("Up. Down."), STRICT, (0,), network=lambda name: network,
                    video_vector={"viclip": np.array([0.6, 0.8])})
    (row,) = viclip.sentence_scores(of)
    assert row.value == pytest.approx(0.7)
    (row,) = viclip.sentence_scores(Embeddings(sample(" "), STRICT, (0,)))
    assert row.reason == "no prompt was given"


def test_prompts_that_are_read_in_part_are_kept_with_their_share(tiny_weights):
    video = Video(np.zeros((8, 32, 48, 3), np.uint8), 8.0)
    scorer = Scorer("strict-v3")
    scorer.score(sample(), video, "0" * 64)
    assert scorer.prompts_cut == {}
    scorer.score(sample(LONG), video, "0" * 64)
    assert scorer.prompts_cut == {"p1": pytest.approx(30 / 87, abs=0.02)}


def test_motion_amplitude_is_the_scripts_mean_of_signed_flow():
    rng = np.random.default_rng(0)
    base = cv2.resize(rng.integers(0, 255, (12, 18, 3), dtype=np.uint8), (144, 96),
                      interpolation=cv2.INTER_CUBIC)
    frames = np.stack([np.roll(base, i, axis=1) for i in range(4)])
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
    flows = [
        cv2.resize(cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0), (16, 10),
                   interpolation=cv2.INTER_AREA)
        for a, b in zip(grey, grey[1:], strict=False)
    ]
    expected = abs(np.mean(np.mean(np.array(flows), axis=0)))
    assert opens2v.motion_amplitude(frames) == pytest.approx(expected, abs=1e-6)
    assert 0.2 < expected < 0.6  # one pixel to the right and none down
    assert opens2v.motion_amplitude(np.repeat(frames[:1], 3, 0)) == pytest.approx(0, abs=1e-3)
    far = np.stack([np.roll(base, 6 * i, axis=1) for i in range(3)])
    assert opens2v.motion_amplitude(far) == 1.0


def test_aesthetics_are_read_by_the_file_that_is_given(tmp_path):
    torch.manual_seed(0)
    head = nn.Sequential(
        nn.Linear(768, 1024), nn.Dropout(), nn.Linear(1024, 128), nn.Dropout(),
        nn.Linear(128, 64), nn.Dropout(), nn.Linear(64, 16), nn.Linear(16, 1),
    ).eval()
    path = tmp_path / "aesthetic-model.pth"
    torch.save({f"layers.{k}": v for k, v in head.state_dict().items()}, path)
    predict = parse([f"aesthetic=mlp:{path}"])["aesthetic"].load()
    vectors = torch.nn.functional.normalize(torch.randn(3, 768)).numpy()
    of = Embeddings(sample(), STRICT, (0, 1, 2), frame_vectors={"clip": vectors},
                    network=lambda name: predict)
    rows = opens2v.aesthetic_scores(of)
    with torch.no_grad():
        expected = head(torch.from_numpy(vectors))[:, 0].numpy()
    np.testing.assert_allclose([row.value for row in rows[:3]], expected, atol=1e-6)
    assert rows[-1].value == pytest.approx(float(expected.mean()), abs=1e-6)
    small = Embeddings(sample(), STRICT, (0,), frame_vectors={"clip": np.ones((1, 16))})
    assert "clip=open_clip:ViT-L-14:FILE" in opens2v.aesthetic_scores(small)[0].reason


def test_under_opens2vs_protocol_aesthetics_are_of_its_frames(tiny_weights):
    protocol = get_protocol("opens2v-v3")
    assert "aesthetic" not in choose_metrics(protocol)
    assert {"aesthetic", "motion_amplitude"} <= set(
        choose_metrics(protocol, ["+aesthetic", "+motion_amplitude"]))
    taken = Counter(sample_frames(protocol, 3))
    of = Embeddings(sample(), protocol, (0, 1, 2), repeats=tuple(taken.values()),
                    frame_vectors={"clip": np.repeat([[0.0], [1.0], [5.0]], 768, 1)},
                    network=lambda name: lambda vectors: vectors[:, 0])
    # 32 of linspace(0, 2, 32), cut: 16 times frame 0, 15 times frame 1, once frame 2
    assert opens2v.aesthetic_scores(of)[-1].value == pytest.approx((15 * 1 + 5) / 32)


def test_the_total_needs_every_part():
    parts = {"aesthetic": 5.5, "motion_smoothness": 0.9, "motion_amplitude": 0.2,
             "facesim": 0.5, "gmescore": 0.7, "naturalscore": 3.0}
    expected = 0.18 * 0.5 + 0.09 * 0.9 + 0.03 * 0.2 + 0.25 * 0.5 + 0.15 * 0.7 + 0.30 * 0.5
    assert opens2v.total_score(parts, "human") == pytest.approx(expected)
    with pytest.raises(UserError, match="lacks nexusscore; give every part"):
        opens2v.total_score(parts, "open")
    expected = 0.16 * 0.5 + 0.06 * 0.9 + 0.02 * 0.2 + 0.20 * 0.5 + 0.12 * 0.7 + 0.24 * 0.5
    total = opens2v.total_score({**parts, "nexusscore": 0.01}, "open")
    assert total == pytest.approx(expected + 0.20 * 0.01 / 0.05)
    for weights in opens2v.WEIGHTS.values():
        assert sum(weights.values()) == pytest.approx(1.0)
    of = Embeddings(sample(), STRICT, (0,))
    for metric in (opens2v.TOTAL, opens2v.MOTION_SMOOTHNESS):
        (row,) = metric.rows(of)
        assert row.value is None
    assert "Q-Align" in opens2v.MOTION_SMOOTHNESS.rows(of)[0].reason
