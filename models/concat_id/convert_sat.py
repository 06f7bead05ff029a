"""Concat-ID on CogVideoX-5B in SAT's layout: its tensors' names and shapes in diffusers' layout.

Two tensors change more than their name. SAT has query, key and value in one matrix, and a layer's
modulation in one matrix of twelve parts, which diffusers divides into attention (parts 0-2 for the
video, 6-8 for the text) and feed-forward (3-5 and 9-11).
"""

from __future__ import annotations

from typing import Any

import torch

from idbench.checkpoints import listed
from idbench.errors import UserError, explained
from idbench.models.concat_id.checkpoint_layouts import (
    Rule,
    State,
    layer_count,
    pairs,
    to_ours,
    to_theirs,
)
from idbench.models.concat_id.families import CogVideoX

PREFIX = "model.diffusion_model."
COMPUTED = {
    "use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": False,
    "patch_size_t": None, "ofs_embed_dim": None, "patch_size": 2, "norm_eps": 1e-5,
    "activation_fn": "gelu-approximate", "timestep_activation_fn": "silu",
    "flip_sin_to_cos": True, "freq_shift": 0,
}
"""Settings that the released code computes with."""

_WHOLE = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "transformer.final_layernorm": "norm_final", "mixins.patch_embed.proj": "patch_embed.proj",
    "mixins.patch_embed.text_proj": "patch_embed.text_proj",
    "mixins.final_layer.norm_final": "norm_out.norm", "mixins.final_layer.linear": "proj_out",
    "mixins.final_layer.adaLN_modulation.1": "norm_out.linear",
}
_LAYER = {
    "transformer.layers.{i}.input_layernorm": "norm1.norm",
    "transformer.layers.{i}.post_attention_layernorm": "norm2.norm",
    "transformer.layers.{i}.attention.dense": "attn1.to_out.0",
    "transformer.layers.{i}.mlp.dense_h_to_4h": "ff.net.0.proj",
    "transformer.layers.{i}.mlp.dense_4h_to_h": "ff.net.2",
    "mixins.adaln_layer.query_layernorm_list.{i}": "attn1.norm_q",
    "mixins.adaln_layer.key_layernorm_list.{i}": "attn1.norm_k",
}
UNUSED = {
    "transformer.position_embeddings.weight": "SAT makes it, the rotary network never reads it",
    "transformer.word_embeddings.weight": "SAT makes it, the network never reads it",
    "mixins.pos_embed.freqs_sin": "a table that is computed, not learned",
    "mixins.pos_embed.freqs_cos": "a table that is computed, not learned",
}
"""Tensors in some checkpoints that no network reads: kept aside for converting back."""
PARTS = {
    "first_stage_model.": "the autoencoder is CogVideoX's own: give its folder with --base",
    "conditioner.": "the text encoder is CogVideoX's own: give its folder with --base",
    "denoiser.": "the noise schedule is in the scheduler's settings",
}
"""Prefixes of tensors of other networks than the transformer, and why they are refused."""
_OTHERS = {"lora": "a LoRA adapter", "mixins.pos_embed.pos_embedding": "CogVideoX-2B"}


def _modulation_split(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    parts = tensor.chunk(12)
    return torch.cat(parts[0:3] + parts[6:9]), torch.cat(parts[3:6] + parts[9:12])


def _modulation_join(tensors: Any) -> torch.Tensor:
    attention, feed_forward = (tensor.chunk(6) for tensor in tensors)
    return torch.cat(attention[:3] + feed_forward[:3] + attention[3:] + feed_forward[3:])


def _qkv_split(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    # Clones, because a file of tensors may not hold three views of one piece of memory.
    return tuple(part.clone() for part in tensor.chunk(3))


def rules(layers: int) -> list[Rule]:
    """Rules for every tensor of a checkpoint with this many layers, named without `PREFIX`."""
    made = pairs(_WHOLE)
    for i in range(layers):
        block = f"transformer_blocks.{i}"
        made += pairs({t.format(i=i): f"{block}.{o}" for t, o in _LAYER.items()})
        for end in ("weight", "bias"):
            made.append(Rule(
                f"transformer.layers.{i}.attention.query_key_value.{end}",
                tuple(f"{block}.attn1.to_{part}.{end}" for part in "qkv"), _qkv_split, torch.cat,
            ))
            made.append(Rule(
                f"mixins.adaln_layer.adaLN_modulations.{i}.1.{end}",
                (f"{block}.norm1.linear.{end}", f"{block}.norm2.linear.{end}"),
                _modulation_split, _modulation_join,
            ))
    return made


def is_released(names: State) -> bool:
    """Whether a checkpoint with these names is in SAT's layout."""
    return any(name.startswith(PREFIX) for name in names)


def sort(
    state: State, what: str = "the checkpoint"
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, str]]:
    """Divide a checkpoint into the network and what is unused, by SAT's name without `PREFIX`, and
    what is refused, by full name with the reason. Raises UserError: a checkpoint of another
    base."""
    network, aside, refused = {}, {}, {}
    for name, tensor in state.items():
        short = name.removeprefix(PREFIX)
        other = next((base for part, base in _OTHERS.items() if part in short), None)
        part = next((start for start in PARTS if name.startswith(start)), None)
        if part is not None:
            refused[name] = PARTS[part]
        elif not name.startswith(PREFIX):
            raise UserError(
                f"{what} contains {listed([name])} that belongs to no part of Concat-ID; nothing "
                "was converted."
            )
        elif other is not None:
            raise UserError(
                f"{what} is of {other} ({name}), not of Concat-ID on CogVideoX-5B; use "
                "mp_rank_00_model_states.pt of Concat-ID."
            )
        elif short in UNUSED:
            aside[short] = tensor
        else:
            network[short] = tensor
    return network, aside, refused


def from_released(network: State, what: str = "the checkpoint") -> dict[str, torch.Tensor]:
    """The network's tensors in SAT's names (without `PREFIX`), in diffusers' names.
    Raises UserError: tensors are missing or unknown."""
    return to_ours(network, rules(layer_count(network, "transformer.layers.")), what)


def to_released(state: State, what: str = "the folder") -> dict[str, torch.Tensor]:
    """Back, with `PREFIX`; raises as `from_released`."""
    made = to_theirs(state, rules(layer_count(state, "transformer_blocks.")), what)
    return {PREFIX + name: tensor for name, tensor in made.items()}


def config_of(network: State, what: str = "the checkpoint") -> dict[str, Any]:
    """The configuration of `CogVideoXTransformer3DModel` for SAT's names without `PREFIX`.
    Raises UserError: shapes of another base."""
    wrong = f"{what} lacks a tensor of CogVideoX, or one has another shape"
    with explained(wrong, "it belongs to another base or is damaged: download it again"):
        width, channels, *patch = network["mixins.patch_embed.proj.weight"].shape
        rows = network["mixins.final_layer.linear.weight"].shape[0]
        head = network["mixins.adaln_layer.query_layernorm_list.0.weight"].shape[0]
        time_width = network["time_embed.0.weight"].shape[0]
        text_width = network["mixins.patch_embed.text_proj.weight"].shape[1]
    if patch != [2, 2] or rows != 4 * channels or not head or width % head:
        raise UserError(
            f"{what} belongs to another base: patches of {tuple(patch)}, {channels} channels in "
            f"and {rows} numbers a patch out; text-to-video CogVideoX-5B has patches of (2, 2) and "
            "as many channels out as in."
        )
    return {
        "num_attention_heads": width // head, "attention_head_dim": head,
        "in_channels": channels, "out_channels": channels, "patch_size": 2,
        "time_embed_dim": time_width, "text_embed_dim": text_width,
        "num_layers": layer_count(network, "transformer.layers."),
        "max_text_seq_length": CogVideoX.text_tokens, "use_rotary_positional_embeddings": True,
        # Of the tables of positions in CogVideoX-5B: 49 frames of 480x720.
        "sample_height": 60, "sample_width": 90, "sample_frames": 49,
    }
