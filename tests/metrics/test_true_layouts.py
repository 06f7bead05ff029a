"""Networks of the published shapes and names, number for number against plain computations.

Random weights of the published names and shapes are written as a published file would be, read by
`--weights`' own path, and compared with `true_layouts`, written from the layouts alone, and with
transformers' CLIP. Embeddings have length 1; the tolerance is 2e-5 of that, float32.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from true_layouts import (
    ir_101,
    ir_101_shapes,
    random_state,
    viclip_shapes,
    viclip_text,
    viclip_video,
)

from idbench.checkpoints import fit
from idbench.errors import UserError
from idbench.metrics.networks import weight_sources
from idbench.metrics.networks.clip import FullTokenizer, ViclipEmbedder, prepare_pictures
from idbench.metrics.networks.recogniser import IR_101, build_recogniser
from idbench.metrics.networks.video_text import VIT_L_14, ViCLIP
from idbench.metrics.protocols import PROTOCOLS

TOLERANCE = 2e-5
VBENCH_PICTURE = PROTOCOLS["viclip-vbench"].video_picture
INTERNVIDEO_PICTURE = PROTOCOLS["viclip-internvideo"].video_picture
PROMPTS = [
    "A woman smiles in the park.",
    "a man, " + "who walks along the beach at sunset with a small brown dog and " * 4,
]


def _shapes(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


# -- CurricularFace


def test_ir_101_has_exactly_the_published_names_and_shapes():
    with torch.device("meta"):
        network = build_recogniser(IR_101)
    assert _shapes(network) == ir_101_shapes()
    # 260.9 MB: the size of the published file, whose records add a little.
    assert sum(v.numel() for v in network.state_dict().values()) * 4 / 1e6 == pytest.approx(
        260.9, abs=0.1
    )


@torch.inference_mode()
def test_curricularface_from_a_file_computes_what_its_layout_says(tmp_path):
    state = random_state(ir_101_shapes())
    path = tmp_path / "glint360k_curricular_face_r101_backbone.bin"
    torch.save(state, path)
    source = weight_sources.parse([f"curricularface=curricularface:{path}"])["curricularface"]
    recogniser = source.load()
    crop = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    x = torch.tensor(crop).permute(0, 3, 1, 2).float() / 255.0
    expected = F.normalize(ir_101(state, (x - 0.5) / 0.5))[0].numpy()
    (found,) = recogniser.embed(crop)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert 0.9 < np.std(expected) * 512**0.5 < 1.1  # all 512 numbers take part


# -- ViCLIP


def test_viclip_has_exactly_the_published_names_and_shapes():
    with torch.device("meta"):
        network = ViCLIP(VIT_L_14)
    assert _shapes(network) == viclip_shapes()
    assert sum(v.numel() for v in network.state_dict().values()) * 4 / 1e9 == pytest.approx(
        1.71, abs=0.005
    )


LAYERS = 2
SMALL = {
    "output": 768, "vision": {**VIT_L_14["vision"], "layers": LAYERS},
    "text": {**VIT_L_14["text"], "layers": LAYERS},
}
"""The published widths, two layers a tower."""


@pytest.fixture(scope="module")
def viclip():
    """(random state of the published widths with two layers a tower, the embedder of it)."""
    state = random_state(viclip_shapes(2, 2), seed=1)
    with torch.device("meta"):
        network = ViCLIP(SMALL)
    fit(network, state, Path("small.pth"), "ViCLIP")
    return state, ViclipEmbedder(network=network, config=SMALL)


@torch.inference_mode()
def test_viclips_vision_tower_attends_over_all_frames_as_the_plain_form(viclip):
    places = "vision_encoder.positional_embedding"
    state = {**viclip[0], places: viclip[0][places][:17]}  # 56 pixels instead of 224: for time
    config = {**SMALL, "vision": {**SMALL["vision"], "size": 56}}
    network = fit(ViCLIP(config), state, Path("small.pth"), "ViCLIP")
    embedder = ViclipEmbedder(network=network, config=config)
    frames = np.random.default_rng(2).integers(0, 256, (8, 90, 160, 3), dtype=np.uint8)
    x = prepare_pictures(frames, 56, VBENCH_PICTURE).transpose(0, 1)[None]
    expected = F.normalize(viclip_video(state, x, 2))[0].numpy()
    np.testing.assert_allclose(embedder.video(frames, VBENCH_PICTURE), expected, atol=TOLERANCE)
    backwards = embedder.video(frames[::-1].copy(), VBENCH_PICTURE)
    assert np.abs(backwards - expected).max() > 50 * TOLERANCE  # the order of frames is felt


@torch.inference_mode()
def test_viclips_vision_tower_of_one_frame_is_clips_inflated(viclip):
    """transformers' ViT-L/14 (2D) with the same weights; the frame stands at the mean time."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    state, embedder = viclip
    vision = {k.removeprefix("vision_encoder."): v for k, v in state.items() if "vision_" in k}
    theirs = CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=16,
        patch_size=14, projection_dim=768, hidden_act="quick_gelu",
    )).eval()
    time = vision.pop("temporal_positional_embedding").mean(1)
    places = vision.pop("positional_embedding").clone()
    places[1:] += time
    _load_transformers(theirs, {
        "vision_model.embeddings.class_embedding": vision.pop("class_embedding"),
        "vision_model.embeddings.patch_embedding.weight": vision.pop("conv1.weight")[:, :, 0],
        "vision_model.embeddings.position_embedding.weight": places,
        "visual_projection.weight": vision.pop("proj").T,
        **_towers(vision, "vision_model", {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}),
    })
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = F.normalize(theirs(pixel_values=x).image_embeds)
    found = F.normalize(embedder.network.encode_video(x[:, :, None]))
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_viclips_text_tower_is_clips_with_32_tokens(viclip):
    """Against the plain form, and against transformers' CLIP text model."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    state, embedder = viclip
    tokens = FullTokenizer(32)(PROMPTS)
    found = embedder.texts(PROMPTS)
    expected = F.normalize(viclip_text(state, tokens, 2)).numpy()
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)

    theirs = CLIPTextModelWithProjection(CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=2, num_attention_heads=12,
        max_position_embeddings=32, projection_dim=768, hidden_act="quick_gelu",
        eos_token_id=49407, bos_token_id=49406,
    )).eval()
    text = {k.removeprefix("text_encoder."): v for k, v in state.items() if "text_" in k[:5]}
    _load_transformers(theirs, {
        "text_model.embeddings.token_embedding.weight": text.pop("token_embedding.weight"),
        "text_model.embeddings.position_embedding.weight": text.pop("positional_embedding"),
        "text_projection.weight": text.pop("text_projection").T,
        **_towers(text, "text_model", {"ln_final": "final_layer_norm"}),
    })
    other = F.normalize(theirs(input_ids=tokens).text_embeds).numpy()
    np.testing.assert_allclose(found, other, atol=TOLERANCE)


def test_prompts_are_encoded_with_clips_vocabulary_and_cut_at_the_context():
    short, long = FullTokenizer(32)(["a photo of a cat", PROMPTS[1]])
    assert short.tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, *[0] * 25]
    assert long[-1] == 49407 and (long[:-1] != 49407).all() and len(long) == 32
    assert FullTokenizer(32).share_read("a photo of a cat") == 1.0
    assert 0.4 < FullTokenizer(32).share_read(PROMPTS[1]) < 0.7
    assert FullTokenizer(77)(PROMPTS).shape == (2, 77)


# -- the two published ways to prepare ViCLIP's frames


def test_vbenchs_frames_are_torchvisions_without_antialiasing():
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    frames = np.random.default_rng(3).integers(0, 256, (2, 151, 270, 3), dtype=np.uint8)
    published = transforms.Compose([
        transforms.Resize(224, interpolation=InterpolationMode.BICUBIC, antialias=False),
        transforms.CenterCrop(224),
        transforms.Lambda(lambda x: x.float().div(255.0)),
        transforms.Normalize(
            (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        ),
    ])
    expected = published(torch.tensor(frames).permute(0, 3, 1, 2))
    found = prepare_pictures(frames, 224, VBENCH_PICTURE)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_internvideos_frames_are_opencvs_squashed():
    frames = np.random.default_rng(4).integers(0, 256, (2, 151, 270, 3), dtype=np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    resized = np.stack([cv2.resize(f, (224, 224)) for f in frames])
    expected = ((resized / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    found = prepare_pictures(frames, 224, INTERNVIDEO_PICTURE)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_protocols_use_them():
    assert PROTOCOLS["viclip-vbench"].video_picture == VBENCH_PICTURE
    assert PROTOCOLS["paper-v3"].video_picture == VBENCH_PICTURE
    assert PROTOCOLS["viclip-internvideo"].video_picture == INTERNVIDEO_PICTURE


# -- CLIP


@torch.inference_mode()
def test_open_clip_from_a_local_file_is_transformers_clip(tmp_path):
    """ViT-B/32 of OpenAI in its widths and vocabulary, with two layers a tower."""
    import open_clip
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPModel

    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    for tower in ("vision_cfg", "text_cfg"):
        config[tower]["layers"] = LAYERS
    (tmp_path / "ViT-B-32-two-layers.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "ViT-B-32-two-layers.json")
    torch.manual_seed(0)
    theirs = CLIPModel(CLIPConfig(
        text_config={"eos_token_id": 49407, "num_hidden_layers": LAYERS},
        vision_config={"num_hidden_layers": LAYERS},
    )).eval()
    assert theirs.config.vision_config.hidden_act == "quick_gelu"
    state = _open_clip_state(theirs.state_dict())
    path = tmp_path / "open_clip_model.safetensors"
    save_file(state, path)
    source = weight_sources.parse([f"clip=open_clip:ViT-B-32-two-layers:{path}"])["clip"]
    clip = source.load()
    x = torch.randn(2, 3, 224, 224)
    expected = F.normalize(_vector(theirs.get_image_features(pixel_values=x)))
    found = clip.network.encode_image(x, normalize=True)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    tokens = FullTokenizer(77)(PROMPTS)
    expected = F.normalize(_vector(theirs.get_text_features(input_ids=tokens)))
    np.testing.assert_allclose(clip.texts(PROMPTS), expected.numpy(), atol=TOLERANCE)
    assert clip.size == 224
    # The same file read as another network is another measurement, and must fit it.
    full = weight_sources.parse([f"clip=open_clip:ViT-B-32:{path}"])["clip"]
    assert full.identity() != source.identity()
    with pytest.raises(UserError, match="open_clip's ViT-B-32: it lacks 240 tensors"):
        full.load()


def _vector(output):
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def _towers(state, tower, others):
    """CLIP's names of a tower's blocks and norms to transformers'."""
    found = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] in others:
            found[f"{tower}.{others[parts[0]]}.{parts[1]}"] = value
            continue
        block = f"{tower}.encoder.layers.{parts[2]}"
        rest = ".".join(parts[3:])
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for which, part in zip("qkv", value.chunk(3), strict=True):
                found[f"{block}.self_attn.{which}_proj.{kind}"] = part
            continue
        for old, new in (
            ("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
        ):
            rest = rest.replace(old, new)
        found[f"{block}.{rest}"] = value
    return found


def _load_transformers(network, state):
    """Into transformers' model, whatever of the names between it leaves out."""
    wanted = network.state_dict()
    names = {}
    for key in state:
        same = [k for k in wanted if k == key or k == key.split(".", 1)[1]]
        names[same[0] if same else key] = state[key]
    missing, unexpected = network.load_state_dict(names, strict=False)
    assert not unexpected and all("position_ids" in key for key in missing)


def _open_clip_state(theirs):
    """transformers' CLIP in open_clip's names."""
    found = {"logit_scale": theirs["logit_scale"]}
    direct = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
        "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
        "vision_model.post_layernorm.weight": "visual.ln_post.weight",
        "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    }
    found |= {new: theirs[old] for old, new in direct.items()}
    found["text_projection"] = theirs["text_projection.weight"].T
    found["visual.proj"] = theirs["visual_projection.weight"].T
    for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
        for i in range(LAYERS):
            old = f"{tower}.encoder.layers.{i}"
            new = f"{prefix}transformer.resblocks.{i}"
            for kind in ("weight", "bias"):
                found[f"{new}.attn.in_proj_{kind}"] = torch.cat(
                    [theirs[f"{old}.self_attn.{which}_proj.{kind}"] for which in "qkv"]
                )
                for theirs_name, ours in (
                    ("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"),
                    ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
                ):
                    found[f"{new}.{ours}.{kind}"] = theirs[f"{old}.{theirs_name}.{kind}"]
    return {name: value.contiguous().clone() for name, value in found.items()}
