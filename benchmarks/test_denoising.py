"""What references add to a denoising forward pass.

    python -m pytest benchmarks/test_denoising.py --benchmark-enable -s

The base's cost per token of the longer sequence is that of the base itself on as many tokens: N + M
frames without references. The network is the same; what could cost more is the concatenation, the
positions, and the cut. How much longer a sequence costs than the video alone is printed beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel

from idbench.models.concat_id.conditioning import denoise, rotary_embedding
from idbench.models.concat_id.networks import build_transformer
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel

sys.path.insert(0, str(Path(__file__).parent))
from interleaved import median_ratio  # noqa: E402

FRAMES, HEIGHT, WIDTH = 9, 16, 24
COGVIDEOX = {
    "num_attention_heads": 4, "attention_head_dim": 64, "num_layers": 4, "in_channels": 4,
    "out_channels": 4, "time_embed_dim": 64, "text_embed_dim": 32, "sample_height": HEIGHT,
    "sample_width": WIDTH, "sample_frames": FRAMES, "max_text_seq_length": 8,
}
WAN = {
    "num_attention_heads": 2, "attention_head_dim": 128, "num_layers": 4, "in_channels": 4,
    "out_channels": 4, "text_dim": 32, "freq_dim": 32, "ffn_dim": 1024,
}
Pass = Callable[[], object]


def cogvideox(references: int) -> tuple[Pass, Pass, Pass]:
    """With references; diffusers' own forward pass on as many frames, and on the video alone.

    The base is given its positions; what ours computes or looks up at each pass counts.
    """
    transformer: CogVideoXTransformer3DModel = build_transformer(COGVIDEOX).eval()
    z, held = (torch.randn(1, count, 4, HEIGHT, WIDTH) for count in (FRAMES, references))
    longer = torch.cat([z, held], dim=1)
    text, when = torch.randn(1, 8, 32), torch.tensor([500])

    def base(latents: torch.Tensor) -> Pass:
        rotary = rotary_embedding(transformer, latents.shape[1], 0, HEIGHT, WIDTH)
        return lambda: transformer(latents, text, when, image_rotary_emb=rotary, return_dict=False)

    return lambda: denoise(transformer, z, held, text, when), base(longer), base(z)


def wan(references: int) -> tuple[Pass, Pass, Pass]:
    """The same with diffusers' own Wan, which computes its positions in the pass."""
    base = WanTransformer3DModel(**WAN).eval()
    transformer = ConcatIDWanTransformer3DModel.from_base(base, adaln=True).eval()
    z, held = (torch.randn(1, 4, count, HEIGHT, WIDTH) for count in (FRAMES, references))
    longer = torch.cat([z, held], dim=2)
    text, when = torch.randn(1, 64, 32), torch.tensor([500.0])
    return (
        lambda: transformer(z, when, text, held),
        lambda: base(longer, when, text),
        lambda: base(z, when, text),
    )


@pytest.mark.parametrize("references", [1, 2, 3])
@pytest.mark.parametrize("family", [cogvideox, wan], ids=["cogvideox", "wan"])
def test_references_cost_what_as_many_frames_of_the_base_cost(
    benchmark, family, references
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with_references, longer, alone = family(references)
    try:
        with torch.inference_mode():
            ratio = median_ratio(with_references, longer, rounds=15)
            growth = median_ratio(with_references, alone, rounds=4)
            benchmark.pedantic(with_references, rounds=3, iterations=1)
    finally:
        torch.set_num_threads(before)
    benchmark.extra_info.update(ratio=ratio, to_the_video_alone=growth)
    print(
        f"\n{references} references / as many frames more {ratio:.3f}; / the video alone "
        f"{growth:.3f} ({(FRAMES + references) / FRAMES:.3f} times the tokens)"
    )
    assert ratio <= 1.05
