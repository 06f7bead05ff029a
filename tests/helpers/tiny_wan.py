"""Tiny random releases of the systems on Wan2.1, in their true layouts."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import WanVACEPipeline, WanVACETransformer3DModel
from released_shapes import wan_shapes
from tiny_base import wan_base

from idbench.baselines.stand_in import CHECKPOINT
from idbench.baselines.wan_parts import unipc

SIZE = ("frames=5", "height=32", "width=48", "steps=2", "device=cpu")
"""What the tiny networks make quickly."""


def vace_folder(folder: Path) -> Path:
    """As Wan-AI/Wan2.1-VACE-1.3B-diffusers: two blocks, control in the first.

    The mask of a latent has as many channels as a latent has pixels.
    """
    base, _ = wan_base(folder.with_name("base-of-vace"))
    from diffusers import WanPipeline

    parts = WanPipeline.from_pretrained(base)
    pixels = parts.vae.config.scale_factor_spatial
    torch.manual_seed(0)
    transformer = WanVACETransformer3DModel(
        num_attention_heads=1, attention_head_dim=24, in_channels=4, out_channels=4, text_dim=20,
        freq_dim=16, ffn_dim=32, num_layers=2, vace_layers=[0],
        vace_in_channels=2 * 4 + pixels**2,
    )
    WanVACEPipeline(
        parts.tokenizer, parts.text_encoder, parts.vae, unipc(3.0), transformer
    ).save_pretrained(folder)
    return folder


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Small random tensors of these names and shapes."""
    generator = torch.Generator().manual_seed(0)
    return {n: 0.1 * torch.randn(s, generator=generator) for n, s in shapes.items()}


def phantom_folder(folder: Path, shards: bool = False) -> Path:
    """As bytedance-research/Phantom: a `.pth` of 1.3B, or shards of 14B, in Wan's own names."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    state = random_state(wan_shapes(False))
    if not shards:
        torch.save(state, folder / "Phantom-Wan-1.3B.pth")
        return folder
    names = sorted(state)
    for number in range(2):
        part = {name: state[name] for name in names[number::2]}
        save_file(part, folder / f"Phantom_Wan_14B-0000{number + 1}-of-00002.safetensors")
    (folder / "Phantom_Wan_14B.safetensors.index.json").write_text("{}")
    return folder


def stand_in_shapes(width: int = 128, layers: int = 1) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released LoRA layers."""
    return {
        f"blocks.{i}.self_attn.{part}_loras.{half}.weight":
            (128, width) if half == "down" else (width, 128)
        for i in range(layers) for part in "qkv" for half in ("down", "up")
    }


def stand_in_folder(folder: Path) -> Path:
    """As BowenXue/Stand-In, for `wan_base`; with a random BiSeNet beside it."""
    from facexlib.parsing.bisenet import BiSeNet

    folder.mkdir(parents=True)
    torch.save({"state_dict": random_state(stand_in_shapes())}, folder / CHECKPOINT)
    torch.manual_seed(0)
    torch.save(BiSeNet(num_class=19).state_dict(), folder / "parsing_bisenet.pth")
    return folder
