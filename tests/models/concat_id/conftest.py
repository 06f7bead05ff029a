"""Tiny random networks in Wan's form."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel

from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel

# Heads of 24 channels split as the real 128 do: a third each, without rounding.
WAN = {
    "num_attention_heads": 2, "attention_head_dim": 24, "in_channels": 4, "out_channels": 4,
    "text_dim": 12, "freq_dim": 16, "ffn_dim": 40, "num_layers": 2,
}


def shaken(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter moved at random, so that no gate is closed and no two are equal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.fixture
def wan_base():
    torch.manual_seed(0)
    return shaken(WanTransformer3DModel(**WAN))


@pytest.fixture(params=["plain", "adaln", "adaln-without-quirk"])
def wan(request):
    torch.manual_seed(0)
    return shaken(
        ConcatIDWanTransformer3DModel(
            **WAN, reference_adaln=request.param != "plain",
            reference_ffn_quirk=request.param != "adaln-without-quirk",
        )
    )


@pytest.fixture
def wan_inputs():
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "hidden_states": normal(2, 4, 3, 4, 6), "references": normal(2, 4, 2, 4, 6),
        "encoder_hidden_states": normal(2, 5, 12), "timestep": torch.tensor([900.0, 300.0]),
    }
