"""Tiny random networks in Wan's form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from once import once
from transformers import UMT5Config, UMT5EncoderModel

from idbench.models.concat_id import networks
from idbench.models.concat_id.pairs import built_files
from idbench.models.concat_id.pipeline import ConcatIDWanPipeline
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
def one_thread():
    """Sums are added in the order of the threads; accelerate keeps one state a process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    torch.set_num_threads(before)


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


@pytest.fixture
def wan_pipeline():
    torch.manual_seed(0)
    transformer = shaken(ConcatIDWanTransformer3DModel(**WAN, reference_adaln=True))
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.8, 1.0, 2.0],
    )
    tokenizer = networks.build_tokenizer(["a", "person", "smiles", "."])
    text = UMT5EncoderModel(UMT5Config(
        vocab_size=len(tokenizer), d_model=12, num_layers=1, num_heads=2, d_kv=6, d_ff=16,
        dropout_rate=0.0, is_encoder_decoder=False,
    ))
    made = ConcatIDWanPipeline(
        tokenizer, text.eval(), vae.eval(), transformer, FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_tokens=32,
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session", autouse=True)
def one_drawing() -> Iterator[None]:
    """The figure of the pairs page is drawn once for each content: it takes longer than all else
    that `pairs build` does here, and most tests have the same people."""
    with pytest.MonkeyPatch.context() as patch:
        once(patch, built_files, "histogram")
        yield
