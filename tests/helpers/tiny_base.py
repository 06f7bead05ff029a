"""Tiny random bases in diffusers' folder layout, CogVideoX's and Wan's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import UMT5Config, UMT5EncoderModel

from idbench.models.concat_id import networks
from idbench.models.concat_id.autoencoder import build_vae

WORDS = ["a", "person", "smiles", "."]
TEXT = {"d_model": 20, "num_layers": 1, "num_heads": 2, "d_kv": 6, "d_ff": 16}


def cogvideox_base(folder: Path) -> tuple[Path, Any]:
    """A tiny base in diffusers' layout, its autoencoder with temporal compression."""
    torch.manual_seed(0)
    tokenizer = networks.build_tokenizer(WORDS)
    vae = build_vae({
        "block_out_channels": [8, 8, 8], "layers_per_block": 1, "latent_channels": 4,
        "norm_num_groups": 2, "sample_height": 32, "sample_width": 48, "scaling_factor": 0.7,
    })
    transformer = networks.build_transformer({
        "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "in_channels": 4,
        "out_channels": 4, "time_embed_dim": 16, "text_embed_dim": 20, "sample_height": 60,
        "sample_width": 90, "sample_frames": 49, "max_text_seq_length": 226,
    })
    CogVideoXPipeline(
        tokenizer, networks.build_text_encoder({**TEXT, "vocab_size": len(tokenizer)}), vae,
        transformer, CogVideoXDDIMScheduler.from_config(networks.build_scheduler().config),
    ).save_pretrained(folder)
    return folder, transformer


def wan_base(folder: Path) -> tuple[Path, Any]:
    """The folder and its transformer."""
    torch.manual_seed(0)
    tokenizer = networks.build_tokenizer(WORDS)
    text = UMT5EncoderModel(UMT5Config(
        **TEXT, vocab_size=len(tokenizer), dropout_rate=0.0, is_encoder_decoder=False
    ))
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    transformer = WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=128, in_channels=4, out_channels=4, text_dim=20,
        freq_dim=16, ffn_dim=32, num_layers=1,
    )
    WanPipeline(
        tokenizer, text, vae, FlowMatchEulerDiscreteScheduler(), transformer
    ).save_pretrained(folder)
    return folder, transformer
