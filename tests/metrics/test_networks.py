"""The networks: published layouts, losses against plain numpy, towers against open_clip."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from idbench.metrics.networks.clip import (
    MEAN_STD,
    OTHER,
    ReducedTokenizer,
    build_clip,
    clip_vocabulary,
    prepare_pictures,
)
from idbench.metrics.networks.parser import CLASSES, FaceParser, build_parser, face_foreground
from idbench.metrics.networks.recogniser import (
    DEPTHS,
    IR,
    IResNet,
    PReLU,
    Recogniser,
    build_recogniser,
    crops_to_input,
)
from idbench.metrics.networks.video_text import ViCLIP, from_clip
from idbench.metrics.protocols import Picture
from idbench.metrics.training.recognisers import ArcFaceHead, CurricularFaceHead

from .conftest import ARCFACE, CLIP, CURRICULARFACE, VOCABULARY

PARSER = {"size": 32, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1],
          "num_attention_heads": [1, 1, 1, 1], "sr_ratios": [4, 2, 1, 1],
          "decoder_hidden_size": 8}


def _parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_iresnet_has_the_published_size_and_keys():
    with torch.device("meta"):
        network = IResNet(DEPTHS[50])
    assert _parameters(network) == pytest.approx(43.6e6, rel=0.002)
    keys = {"conv1.weight", "layer3.13.conv2.weight", "layer1.0.downsample.1.running_var",
            "layer2.0.prelu.weight", "bn2.bias", "fc.weight", "features.running_mean"}
    assert keys <= set(network.state_dict())
    assert network.state_dict()["fc.weight"].shape == (512, 512 * 7 * 7)


def test_ir_has_the_published_size_and_keys():
    with torch.device("meta"):
        network = IR(DEPTHS[100])
    assert _parameters(network) == pytest.approx(65.15e6, rel=0.002)
    keys = {"input_layer.2.weight", "body.3.shortcut_layer.1.weight", "body.48.res_layer.5.bias",
            "body.0.res_layer.2.running_mean", "body.0.res_layer.3.weight",
            "output_layer.3.weight", "output_layer.4.running_var"}
    assert keys <= set(network.state_dict()) and "output_layer.4.weight" not in network.state_dict()


def test_prelu_is_torchs():
    x = torch.randn(2, 5, 3, 3)
    ours, theirs = PReLU(5), torch.nn.PReLU(5)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(5))
        theirs.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(x), theirs(x))


def _plain_margin(cosine, margin):
    if cosine > math.cos(math.pi - margin):
        return math.cos(math.acos(cosine) + margin)
    return cosine - math.sin(math.pi - margin) * margin


@pytest.mark.parametrize("head_class", [ArcFaceHead, CurricularFaceHead])
def test_margin_losses_are_the_papers(head_class):
    torch.manual_seed(0)
    head = head_class(6, 4, margin=0.5, scale=16.0).eval()
    vectors, labels = torch.randn(9, 6), torch.randint(0, 4, (9,))
    vectors[0] = -head.weight[labels[0]].detach()  # beyond pi - margin
    logits = head.logits(vectors, labels).detach().numpy()
    w = head.weight.detach().double().numpy()
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    for i in range(9):
        x = vectors[i].double().numpy()
        cosines = w @ x / np.linalg.norm(x)
        true = cosines[labels[i]]
        for j, cosine in enumerate(cosines):
            if j == labels[i]:
                expected = _plain_margin(true, 0.5)
            elif head_class is CurricularFaceHead and cosine > math.cos(
                math.acos(np.clip(true, -1, 1)) + 0.5
            ):
                expected = cosine * (0.0 + cosine)  # t is 0 before training
            else:
                expected = cosine
            assert logits[i, j] == pytest.approx(16 * expected, abs=2e-3)


def test_curriculums_t_follows_the_true_cosines_in_training_only():
    head = CurricularFaceHead(3, 2)
    x, y = head.weight.detach()[[0, 1]].clone(), torch.tensor([0, 1])
    head.eval()(x, y)
    assert head.t.item() == 0
    head.train()(x, y).backward()
    assert head.t.item() == pytest.approx(0.01, abs=1e-5)


@pytest.mark.parametrize("config", [ARCFACE, CURRICULARFACE])
def test_recognisers_give_vectors_of_length_one_whatever_the_batch(config):
    torch.manual_seed(1)
    recogniser = Recogniser("test", network=build_recogniser(config))
    crops = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    vectors = recogniser.embed(crops)
    assert vectors.shape == (5, config["embedding"]) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    recogniser.batches.size = 2
    np.testing.assert_allclose(recogniser.embed(crops), vectors, atol=1e-5)
    assert len(recogniser.embed(crops[:0])) == 0


def test_crops_are_scaled_to_minus_one_and_one():
    crops = np.stack([np.zeros((112, 112, 3), np.uint8), np.full((112, 112, 3), 255, np.uint8)])
    x = crops_to_input(crops, 112)
    assert x[0].unique().tolist() == [-1.0] and x[1].unique().tolist() == [1.0]
    assert crops_to_input(crops, 48).shape == (2, 3, 48, 48)


def _clip_pair():
    torch.manual_seed(2)
    clip = build_clip(CLIP).eval()
    vision, text = CLIP["vision"], CLIP["text"]
    viclip = ViCLIP({
        "vision": {
            "size": vision["image_size"], "patch": vision["patch_size"], "width": vision["width"],
            "layers": vision["layers"], "heads": vision["width"] // vision["head_width"],
            "frames": 8,
        },
        "text": {"vocabulary": text["vocab_size"], "context": text["context_length"],
                 "width": text["width"], "layers": text["layers"], "heads": text["heads"]},
        "output": CLIP["embed_dim"],
    }).eval()
    missing, unexpected = viclip.load_state_dict(from_clip(clip.state_dict()), strict=False)
    assert not unexpected
    assert missing == ["vision_encoder.temporal_positional_embedding"]
    assert viclip.temp.item() == pytest.approx(0.07)
    return clip, viclip


@torch.no_grad()
def test_viclip_of_one_frame_is_the_clip_it_came_from():
    clip, viclip = _clip_pair()
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(
        viclip.encode_video(x[:, :, None]), clip.encode_image(x), atol=1e-5, rtol=1e-4
    )
    tokens = ReducedTokenizer(VOCABULARY)(["A woman smiles in the park.", "a man"])
    torch.testing.assert_close(
        viclip.encode_text(tokens), clip.encode_text(tokens), atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_viclip_knows_the_order_of_frames_by_its_temporal_positions_alone():
    _, viclip = _clip_pair()
    video = torch.randn(1, 3, 8, 32, 32)
    backwards = video.flip(2)
    torch.testing.assert_close(
        viclip.encode_video(video), viclip.encode_video(backwards), atol=1e-5, rtol=1e-4
    )
    viclip.vision_encoder.temporal_positional_embedding.normal_()
    assert (viclip.encode_video(video) - viclip.encode_video(backwards)).abs().max() > 1e-3


def test_viclip_has_the_published_size_and_keys():
    with torch.device("meta"):
        network = ViCLIP({
            "vision": {"size": 224, "patch": 14, "width": 1024, "layers": 24, "heads": 16,
                       "frames": 8},
            "text": {"vocabulary": 49408, "context": 32, "width": 768, "layers": 12, "heads": 12},
            "output": 768,
        })
    state = network.state_dict()
    assert state["vision_encoder.conv1.weight"].shape == (1024, 3, 1, 14, 14)
    assert state["vision_encoder.temporal_positional_embedding"].shape == (1, 8, 1024)
    assert state["vision_encoder.positional_embedding"].shape == (257, 1024)
    assert state["text_encoder.positional_embedding"].shape == (32, 768)
    assert {"temp", "vision_encoder.proj", "text_encoder.text_projection",
            "vision_encoder.transformer.resblocks.23.attn.in_proj_weight",
            "text_encoder.transformer.resblocks.11.mlp.c_proj.bias"} <= set(state)


def test_reduced_tokens_keep_known_words_apart_and_end_with_the_largest_id():
    tokenizer = ReducedTokenizer(clip_vocabulary(["red hat"]), context=6)
    known, other, long = tokenizer(["red hat", "blue", "red hat red hat red hat"])
    assert known.tolist() == [1, *sorted(known[1:3].tolist(), reverse=known[1] > known[2]),
                              tokenizer.size - 1, 0, 0]
    assert min(known[1:3]) >= 2 + OTHER > other[1] >= 2
    assert long[-1] == tokenizer.size - 1 and (long[:-1] < tokenizer.size - 1).all()
    assert tokenizer.share_read("red hat") == 1.0
    assert tokenizer.share_read("red hat red hat red hat") == pytest.approx(4 / 6)


def test_pictures_are_squashed_or_cut_and_normalised():
    frame = np.zeros((1, 20, 40, 3), np.uint8)
    frame[:, :, :10] = 255
    mean, std = np.array(MEAN_STD["clip"])
    squashed = prepare_pictures(frame, 8, Picture("squash"))[0].permute(1, 2, 0).numpy() * std
    np.testing.assert_allclose(squashed[:, 0] + mean, 1, atol=1e-5)
    np.testing.assert_allclose(squashed[:, -1] + mean, 0, atol=1e-5)
    cut = prepare_pictures(frame, 20, Picture("crop"))[0].permute(1, 2, 0).numpy() * std + mean
    np.testing.assert_allclose(cut, 0, atol=1e-5)  # the white quarter is cut away


def test_the_parsers_foreground_is_all_but_background_and_garment():
    torch.manual_seed(0)
    parser = FaceParser(network=build_parser(PARSER), size=32)
    crop = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    mask = face_foreground(crop, parser)
    p = parser.probabilities(crop[None])[0]
    assert mask.shape == (50, 40) and p.shape == (len(CLASSES), 50, 40)
    expected = 1 - p[CLASSES.index("background")] - p[CLASSES.index("garment")]
    np.testing.assert_allclose(mask, expected, atol=1e-5)
