"""Tiny random networks: every test of this folder runs without trained weights."""

from __future__ import annotations

import pytest
import torch

from idbench.models.concat_id import networks
from idbench.models.concat_id.autoencoder import build_vae

TRANSFORMER = {
    "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "time_embed_dim": 16,
    "text_embed_dim": 12, "in_channels": 4, "out_channels": 4, "sample_height": 4,
    "sample_width": 6, "sample_frames": 9,
}
VAE = {
    "block_out_channels": [8, 8, 8], "layers_per_block": 1, "latent_channels": 4,
    "norm_num_groups": 2, "sample_height": 16, "sample_width": 24, "scaling_factor": 0.7,
}
TEXT = {"d_model": 12, "num_layers": 1, "num_heads": 2, "d_kv": 6, "d_ff": 16}


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    network = networks.build_transformer(TRANSFORMER).eval()
    with torch.no_grad():  # diffusers starts nothing at zero, but make sure that gates are open
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.fixture
def vae():
    torch.manual_seed(1)
    return build_vae(VAE).eval()


@pytest.fixture
def text():
    torch.manual_seed(2)
    tokenizer = networks.build_tokenizer(["a", "person", "smiles", "."])
    network = networks.build_text_encoder({**TEXT, "vocab_size": len(tokenizer)}).eval()
    return networks.TextEncoder(tokenizer, network)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "latents": normal(2, 3, 4, 4, 6), "references": normal(2, 2, 4, 4, 6),
        "text": normal(2, 32, 12), "times": torch.tensor([900, 300]),
    }
