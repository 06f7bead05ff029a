"""ID-Animator: its inventory, both layouts of its adapter, and its folder to a video."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from tiny_consisid import face_picture, run_of, world_of_faces
from tiny_pack import make_pack
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from idbench.baselines import id_animator_parts as parts
from idbench.baselines.face_attention import Resampler, UNetFaceAttention
from idbench.baselines.id_animator import IDAnimator
from idbench.errors import UserError
from idbench.types import Reference, Sample
from idbench.video import read_video

TEXT = 32
"""Width of the tiny text encoder."""
WIDTHS = (32, 32, 64, 64)
SIZE = ("base=none", "bfloat16=false", "steps=2", "frames=4", "height=64", "width=64", "device=cpu")
HIDDEN = [WIDTHS[i // 4] for i in range(0, 12)] + [
    (64, 64, 32, 32)[1 + i // 6] for i in range(0, 18)
] + [64, 64]
"""Of the 32 attentions: down 0-11, up 12-29, middle 30-31."""


def released_adapter(hidden=HIDDEN, text=TEXT, image=16):
    """animator.ckpt's tensors, written from the published layout: by number, rank 128."""
    generator = torch.Generator().manual_seed(3)

    def make(*shape):
        return 0.05 * torch.randn(*shape, generator=generator)

    faces = {}
    for i in range(1, 32, 2):
        h = hidden[i] if hidden is HIDDEN else hidden(i)
        for layer, width in (("q", h), ("k", text), ("v", text), ("out", h)):
            faces[f"{i}.to_{layer}_lora.down.weight"] = make(128, width)
            faces[f"{i}.to_{layer}_lora.up.weight"] = make(h, 128)
        faces[f"{i}.to_k_face.weight"] = make(h, text)
        faces[f"{i}.to_v_face.weight"] = make(h, text)
    torch.manual_seed(4)
    return Resampler(text, 4, 64, 12, 16, image, text).state_dict(), faces


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The Space's files with tiny networks, and a pack beside them."""
    root = tmp_path_factory.mktemp("id_animator") / "ID-Animator"
    sd = root / "animatediff" / "sd"
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=WIDTHS, layers_per_block=2, cross_attention_dim=TEXT,
        attention_head_dim=8,
    )
    unet.save_pretrained(sd / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(sd / "vae")
    words = {w: i for i, w in enumerate(
        ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz,.3",
         *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz,.3")]
    )}
    (sd / "tokenizer").mkdir(parents=True)
    (sd / "tokenizer" / "vocab.json").write_text(json.dumps(words))
    (sd / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(
        str(sd / "tokenizer/vocab.json"), str(sd / "tokenizer/merges.txt"), model_max_length=77
    ).save_pretrained(sd / "tokenizer")
    CLIPTextModel(CLIPTextConfig(
        vocab_size=len(words), hidden_size=TEXT, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )).save_pretrained(sd / "text_encoder")
    CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        image_size=224, patch_size=56, projection_dim=8,
    )).save_pretrained(root / "image_encoder")
    torch.save(released_motion(unet.config), root / parts.MOTION)
    image_proj, faces = released_adapter()
    torch.save({"image_proj": image_proj, "face_adapter": faces}, root / parts.ADAPTER)
    make_pack(root.parent / "buffalo_l")
    return root


def released_motion(config):
    """mm_sd_v15_v2.ckpt's names: AnimateDiff's own, with stored position tables."""
    from diffusers import MotionAdapter

    state = MotionAdapter(block_out_channels=config["block_out_channels"]).state_dict()
    found = {}
    for name, value in state.items():
        if "pos_embed" in name:
            continue
        head, tail = name.split(".motion_modules.")
        number, rest = tail.split(".", 1)
        for ours, theirs in ((".norm1", ".norms.0"), (".norm2", ".norms.1"), (".norm3", ".ff_norm"),
                             (".attn1", ".attention_blocks.0"), (".attn2", ".attention_blocks.1")):
            rest = rest.replace(ours, theirs)
        found[f"{head}.motion_modules.{number}.temporal_transformer.{rest}"] = value
    found["up_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0"
          ".attention_blocks.0.pos_encoder.pe"] = torch.zeros(1, 32, 64)
    return {"state_dict": found}


def model(folder, **settings):
    chosen = {
        "weights": str(folder), "pack": str(folder.parent / "buffalo_l"), "base": "none",
        "bfloat16": False, "steps": 1, "frames": 2, "height": 64, "width": 64, "device": "cpu",
    }
    return IDAnimator(**{**chosen, **settings})


def test_the_released_adapter_has_its_size():
    """Resampler 29,918,208 and 16 face attentions 31,899,648: 61,817,856 numbers."""
    with torch.device("meta"):
        resampler = Resampler()
        widths = [320] * 2 + [640] * 2 + [1280] * 2 + [1280] * 3 + [640] * 3 + [320] * 3 + [1280]
        faces = nn.ModuleList(UNetFaceAttention(width) for width in widths)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (resampler, faces)]
    assert sizes == [29_918_208, 31_899_648] and sum(sizes) == 61_817_856
    shapes = {name: tuple(p.shape) for name, p in resampler.named_parameters()}
    assert shapes["latents"] == (1, 16, 768)
    assert shapes["layers.3.0.to_kv.weight"] == (1536, 768)
    assert shapes["layers.3.1.1.weight"] == (3072, 768)


def test_processors_are_numbered_as_released():
    """With Stable Diffusion 1.5's widths: odd numbers, down 0-11, up 12-29, middle 30-31."""
    from diffusers import MotionAdapter, UNetMotionModel

    with torch.device("meta"):
        network = UNetMotionModel.from_unet2d(
            UNet2DConditionModel(cross_attention_dim=768), MotionAdapter(), load_weights=False
        )
    names = parts.numbered(list(network.attn_processors))
    assert len(names) == 32
    assert all(("attn2" in name) == bool(i % 2) for i, name in enumerate(names))
    widths = [
        network.get_submodule(n.removesuffix(".processor")).to_q.out_features for n in names[1::2]
    ]
    assert widths == [320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320,
                      320, 1280]


def test_a_run_from_the_released_layout(folder, tmp_path):
    world = world_of_faces(tmp_path, side=64)
    pack = f"pack={folder.parent / 'buffalo_l'}"
    done = world.run(*run_of("id_animator", folder, "single", pack, *SIZE))
    assert done.returncode == 0, done.stderr
    videos = sorted((tmp_path / "out").glob("samples/*/video.mp4"))
    assert len(videos) == 2
    assert read_video(videos[0]).frames.shape == (4, 64, 64, 3)
    done = world.run(*run_of("id_animator", folder, "multi", pack, *SIZE))
    assert done.returncode == 2
    assert "takes 1 person, not 2 (it averages the tokens" in " ".join(done.stderr.split())


def test_the_defaults_are_the_authors(folder, tmp_path, monkeypatch):
    made = IDAnimator(weights="here", pack="there")
    assert (made.steps, made.guidance, made.frames, made.scale) == (30, 8.0, 16, 0.8)
    assert (made.height, made.width, made.fps) == (512, 512, 9.0)
    schedule = parts.build_scheduler().config
    assert schedule.beta_schedule == "linear" and schedule.steps_offset == 1
    monkeypatch.setenv("IDBENCH_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="run `idbench weights get buffalo_l`"):
        _ = IDAnimator(weights="here").pack


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_both_layouts_are_read(tmp_path, prefix):
    image_proj, faces = released_adapter()
    state = {f"{prefix}image_proj_model.{n}": t for n, t in image_proj.items()}
    state |= {f"{prefix}adapter_modules.{n}": t for n, t in faces.items()}
    torch.save({"state_dict": state}, tmp_path / "animator.ckpt")
    found = parts.read_adapter(tmp_path / "animator.ckpt")
    assert found[0].keys() == image_proj.keys() and found[1].keys() == faces.keys()
    torch.save({"state_dict": {"other.weight": torch.zeros(1)}}, tmp_path / "animator.ckpt")
    with pytest.raises(UserError, match="no checkpoint of ID-Animator"):
        parts.read_adapter(tmp_path / "animator.ckpt")


def test_several_pictures_of_one_person_are_averaged(folder, tmp_path):
    references = []
    for number in range(2):
        path = tmp_path / f"{number}.png"
        Image.fromarray(face_picture(seed=number, side=64)).save(path)
        references.append(Reference("face", "ann", path))
    made = model(folder)
    seen = []
    made.load()
    tokens = [made.prepared(reference) for reference in references]
    made.networks.unet.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(kwargs["encoder_hidden_states"]),
        with_kwargs=True,
    )
    sample = Sample("s", "single", "p", "a person smiles", "c", tuple(references), 1)
    assert made.abilities.refusal(sample) is None
    (video,) = made.generate([sample])
    assert video.frames.shape == (2, 64, 64, 3)
    assert not torch.allclose(tokens[0], tokens[1])
    # The second half of the batch is the prompt's, its last 16 tokens are the faces'.
    assert torch.allclose(seen[0][-1, -16:], (tokens[0] + tokens[1])[0] / 2, atol=1e-6)
    assert torch.allclose(seen[0][0, -16:], made._encoder.nothing()[0], atol=1e-6)


def test_face_attention_is_the_published_sum():
    """text attention with LoRA + scale x attention to the face, then the output with LoRA."""
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    attention = Attention(32, cross_attention_dim=12, heads=4, dim_head=8)
    part = UNetFaceAttention(32, 12, 8, 3)
    for lora in (part.to_q_lora, part.to_k_lora, part.to_v_lora, part.to_out_lora):
        nn.init.normal_(lora.up.weight)
    part.scale = 0.7
    attention.set_processor(part)
    x, words, face = torch.randn(2, 5, 32), torch.randn(2, 6, 12), torch.randn(2, 3, 12)

    def attend(q, k, v):
        q, k, v = (t.view(2, -1, 4, 8).transpose(1, 2) for t in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).reshape(2, 5, 32)

    with torch.no_grad():
        q = attention.to_q(x) + part.to_q_lora(x)
        mixed = attend(q, attention.to_k(words) + part.to_k_lora(words),
                       attention.to_v(words) + part.to_v_lora(words))
        mixed = mixed + 0.7 * attend(q, part.to_k_face(face), part.to_v_face(face))
        wanted = attention.to_out[0](mixed) + part.to_out_lora(mixed)
        found = attention(x, torch.cat([words, face], dim=1))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_another_motion_module_is_refused(folder, tmp_path):
    """The first version has no module in the middle."""
    state = torch.load(folder / parts.MOTION)["state_dict"]
    first = {n: t for n, t in state.items() if not n.startswith("mid_block")}
    torch.save({"state_dict": first}, tmp_path / "mm_sd_v15.ckpt")
    unet = {"block_out_channels": WIDTHS, "layers_per_block": 2, "norm_num_groups": 32}
    with pytest.raises(UserError, match="does not hold the weights of AnimateDiff's motion module"):
        parts.load_motion(tmp_path / "mm_sd_v15.ckpt", unet)


def test_the_picture_of_an_unseen_face_is_refused(folder, tmp_path):
    path = tmp_path / "dark.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    sample = Sample("s", "single", "p", "a", "c", (Reference("face", "ann", path),), 1)
    with pytest.raises(UserError, match="No face was found in the reference .*dark.png"):
        list(model(folder).generate([sample]))
