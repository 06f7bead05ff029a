"""The released Concat-ID-Wan checkpoints: their tensors' names in idbench's network.

The release has the names of the original Wan code; the AdaLN form adds `time_projection_ref` and a
`modulation_ref` in each block. Every tensor keeps its shape.
"""

from __future__ import annotations

from typing import Any

import torch

from idbench.errors import UserError, explained
from idbench.models.concat_id.checkpoint_layouts import (
    Rule,
    State,
    layer_count,
    pairs,
    to_ours,
    to_theirs,
)

HEAD_DIM = 128
"""Channels of a head in every published Wan; they cannot be read from a tensor's shape."""
COMPUTED = {
    "attention_head_dim": HEAD_DIM, "eps": 1e-6, "qk_norm": "rms_norm_across_heads",
    "reference_ffn_quirk": True,
}
"""Settings that the released code computes with; the last in the AdaLN form."""

_WHOLE = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
}
_BLOCK = {
    **{
        f"{theirs}.{t}": f"{ours}.{o}"
        for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for t, o in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
    },
    # Wan numbers its norms in the order of its code, diffusers in the order of their use.
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
_BLOCK_ALONE = {
    **{
        f"{theirs}.norm_{part}.weight": f"{ours}.norm_{part}.weight"
        for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for part in "qk"
    },
    "modulation": "scale_shift_table",
}
_OTHERS = {
    "img_emb.": "an image-to-video Wan", "vace_": "Wan VACE", "ref_conv.": "another Wan",
    "lora": "a LoRA adapter",
}


def rules(layers: int, adaln: bool) -> list[Rule]:
    """Rules for every tensor of a checkpoint with this many blocks."""
    made = [Rule("head.modulation", ("scale_shift_table",)), *pairs(_WHOLE)]
    if adaln:
        made += pairs({"time_projection_ref.1": "reference_time_proj"})
    for i in range(layers):
        made += pairs({f"blocks.{i}.{t}": f"blocks.{i}.{o}" for t, o in _BLOCK.items()})
        alone = {**_BLOCK_ALONE, **({"modulation_ref": "reference_table"} if adaln else {})}
        made += [Rule(f"blocks.{i}.{t}", (f"blocks.{i}.{o}",)) for t, o in alone.items()]
    return made


def is_released(names: State) -> bool:
    """Whether a checkpoint with these names is in the original Wan layout."""
    return any(name.startswith("blocks.0.self_attn.") for name in names)


def from_released(state: State, what: str = "the checkpoint") -> dict[str, torch.Tensor]:
    """A released state dict, plain or AdaLN, in our names. Raises UserError: tensors are missing,
    or belong to no Concat-ID-Wan."""
    for name in state:
        for part, base in _OTHERS.items():
            if part in name:
                raise UserError(
                    f"{what} is of {base} ({name}), not of text-to-video Wan2.1 with Concat-ID; "
                    "use first_stage.pt or second_stage_adaln.pt of Concat-ID-Wan."
                )
    return to_ours(state, rules(layer_count(state, "blocks."), _has_adaln(state)), what)


def to_released(state: State, what: str = "the folder") -> dict[str, torch.Tensor]:
    """Our state dict in the released names; raises as `from_released`."""
    adaln = "reference_time_proj.weight" in state
    return to_theirs(state, rules(layer_count(state, "blocks."), adaln), what)


def config_of(state: State, what: str = "the checkpoint") -> dict[str, Any]:
    """The configuration of `ConcatIDWanTransformer3DModel` for a released state dict.
    Raises UserError: shapes that no text-to-video Wan2.1 has."""
    wrong = f"{what} lacks a tensor of Wan2.1, or one has another shape"
    with explained(wrong, "it belongs to another base or is damaged: download it again"):
        width, channels, *patch = state["patch_embedding.weight"].shape
        rows = state["head.head.weight"].shape[0]
        ffn_dim = state["blocks.0.ffn.0.weight"].shape[0]
        text_dim = state["text_embedding.0.weight"].shape[1]
        freq_dim = state["time_embedding.0.weight"].shape[1]
    if patch != [1, 2, 2] or width % HEAD_DIM or rows != 4 * channels:
        raise UserError(
            f"{what} belongs to another base: patches of {tuple(patch)}, width {width}, {channels} "
            f"channels in and {rows} numbers a patch out; text-to-video Wan2.1 has patches of "
            f"(1, 2, 2), heads of {HEAD_DIM} and as many channels out as in."
        )
    return {
        "patch_size": (1, 2, 2), "num_attention_heads": width // HEAD_DIM,
        "attention_head_dim": HEAD_DIM, "in_channels": channels, "out_channels": channels,
        "text_dim": text_dim, "freq_dim": freq_dim, "ffn_dim": ffn_dim,
        "num_layers": layer_count(state, "blocks."), "reference_adaln": _has_adaln(state),
        # What the released AdaLN weights were trained with.
        "reference_ffn_quirk": True,
    }


def _has_adaln(state: State) -> bool:
    return "time_projection_ref.1.weight" in state
