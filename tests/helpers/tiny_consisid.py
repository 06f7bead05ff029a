"""ConsisID's released folder with tiny random networks: the true files and names."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import ConsisIDPipeline, ConsisIDTransformer3DModel
from PIL import Image
from tiny_base import TEXT, WORDS
from tiny_pack import make_pack
from toy import World, make_suite

from idbench.models.concat_id import networks
from idbench.models.concat_id.autoencoder import build_vae
from idbench.suite import write_checksums

PACK = "face_crop=pack"
RELEASED = {
    "num_attention_heads": 48, "num_layers": 42, "in_channels": 32, "is_train_face": True,
    "use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True,
}
"""The released transformer's settings, of ConsisID and of Ingredients."""
SIZE = ("frames=9", "height=32", "width=48", "steps=2", "device=cpu")
"""What the tiny networks make."""
WIDTH = 64
"""Of the tiny EVA tower: one attention head."""
SMALL = {
    "num_attention_heads": 2, "attention_head_dim": 48, "num_layers": 2, "in_channels": 8,
    "out_channels": 4, "time_embed_dim": 16, "text_embed_dim": 20, "sample_height": 4,
    "sample_width": 6, "sample_frames": 9, "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True, "is_train_face": True, "cross_attn_dim_head": 8,
    "cross_attn_num_heads": 2, "LFE_id_dim": 512 + 24, "LFE_vit_dim": WIDTH, "LFE_dim_head": 8,
    "LFE_num_heads": 2, "LFE_num_querie": 4, "LFE_output_dim": 64,
}


def make_folder(
    folder: Path, transformer: type[ConsisIDTransformer3DModel] = ConsisIDTransformer3DModel
) -> Path:
    """Write the folder; without facexlib's two files."""
    torch.manual_seed(0)
    tokenizer = networks.build_tokenizer(WORDS)
    vae = build_vae({
        "block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "latent_channels": 4,
        "norm_num_groups": 2, "sample_height": 32, "sample_width": 48, "scaling_factor": 0.7,
        "temporal_compression_ratio": 4,
    })
    ConsisIDPipeline(
        tokenizer, networks.build_text_encoder({**TEXT, "vocab_size": len(tokenizer)}), vae,
        transformer(**SMALL), networks.build_scheduler(),
    ).save_pretrained(folder)
    faces = folder / "face_encoder"
    make_antelope(faces / "models" / "antelopev2")
    torch.save(eva_state(), faces / "EVA02_CLIP_L_336_psz14_s6B.pt")
    return folder


def make_antelope(folder: Path) -> Path:
    """A pack with antelopev2's file names."""
    made = make_pack(folder)
    shutil.move(made / "det_10g.onnx", made / "scrfd_10g_bnkps.onnx")
    shutil.move(made / "w600k_r50.onnx", made / "glintr100.onnx")
    return made


def eva_shapes(
    width: int = WIDTH, side: int = 2, depth: int = 24, out: int = 24
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an EVA02-CLIP image tower as released, `side` patches of 14 wide."""
    hidden = int(width * 2.6667)
    shapes = {
        "cls_token": (1, 1, width), "pos_embed": (1, side * side + 1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,), "head.weight": (out, width),
        "head.bias": (out,), "rope.freqs_cos": (side * side, 64),
        "rope.freqs_sin": (side * side, 64),
    }
    for block in range(depth):
        at = f"blocks.{block}"
        for norm in ("norm1", "norm2", "attn.inner_attn_ln"):
            shapes |= {f"{at}.{norm}.weight": (width,), f"{at}.{norm}.bias": (width,)}
        for linear in ("q_proj", "k_proj", "v_proj", "proj"):
            shapes[f"{at}.attn.{linear}.weight"] = (width, width)
        for bias in ("q_bias", "v_bias", "proj.bias"):
            shapes[f"{at}.attn.{bias}"] = (width,)
        for table in ("cos", "sin"):
            shapes[f"{at}.attn.rope.freqs_{table}"] = (side * side, 64)
        for linear, rows, columns in (("w1", hidden, width), ("w2", hidden, width),
                                      ("w3", width, hidden)):
            shapes[f"{at}.mlp.{linear}.weight"] = (rows, columns)
            shapes[f"{at}.mlp.{linear}.bias"] = (rows,)
        shapes |= {f"{at}.mlp.ffn_ln.weight": (hidden,), f"{at}.mlp.ffn_ln.bias": (hidden,)}
    return {f"visual.{name}": shape for name, shape in shapes.items()}


def eva_state() -> dict[str, torch.Tensor]:
    """A tiny EVA02-CLIP file."""
    generator = torch.Generator().manual_seed(1)
    state = {n: 0.2 * torch.randn(s, generator=generator) for n, s in eva_shapes().items()}
    return {**state, "text.logit_scale": torch.ones(())}


def face_picture(people: int = 1, seed: int = 0, side: int = 32) -> np.ndarray:
    """Dark noise of 640 x 640 with blocks that the tiny pack takes for faces.

    Args:
        side: of a block: 32 for a search at 640 pixels, 64 for one at 320.
    """
    picture = np.random.default_rng(seed).integers(0, 60, (640, 640, 3), dtype=np.uint8)
    for person in range(people):
        top, left = (256, 320) if person == 0 else (96, 96 + 64 * person)
        picture[top : top + side, left : left + side] = 255
    return picture


def world_of_faces(folder: Path, side: int = 32) -> World:
    """Commands run in `folder`, with a small suite whose references have faces."""
    suite = make_suite(folder / "suite")
    for number, path in enumerate(sorted((suite / "references").iterdir())):
        Image.fromarray(face_picture(seed=number, side=side)).save(path)
    write_checksums(suite)
    return World(folder, suite)


def run_of(model: str, weights: Path, split: str, *settings: str) -> list[str]:
    """Arguments of `idbench run` of two samples on the CPU."""
    pairs = [f"weights={weights}", *settings]
    return [
        "run", "--model", model, "--split", split, "--suite", "suite", "--limit", "2",
        "--out", "out", "--no-score", *(word for pair in pairs for word in ("--set", pair)),
    ]
