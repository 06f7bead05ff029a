"""Names and shapes of the released checkpoints, tiny or full size, with random numbers."""

from __future__ import annotations

import torch

from idbench.models.concat_id import convert_sat

WIDTH, HEAD, LAYERS = 32, 16, 2


def sat_shapes(
    width=WIDTH, head=HEAD, layers=LAYERS, channels=4, time=24, text=20
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released CogVideoX form, as SAT writes them."""
    shapes: dict[str, tuple[int, ...]] = {"transformer.position_embeddings.weight": (64, width)}

    def layer(name, rows, *columns):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, *columns), (rows,)

    layer("time_embed.0", time, width)
    layer("time_embed.2", time, time)
    layer("transformer.final_layernorm", width)
    layer("mixins.patch_embed.proj", width, channels, 2, 2)
    layer("mixins.patch_embed.text_proj", width, text)
    layer("mixins.final_layer.norm_final", width)
    layer("mixins.final_layer.linear", 4 * channels, width)
    layer("mixins.final_layer.adaLN_modulation.1", 2 * width, time)
    for i in range(layers):
        block = f"transformer.layers.{i}"
        layer(f"{block}.input_layernorm", width)
        layer(f"{block}.post_attention_layernorm", width)
        layer(f"{block}.attention.query_key_value", 3 * width, width)
        layer(f"{block}.attention.dense", width, width)
        layer(f"{block}.mlp.dense_h_to_4h", 4 * width, width)
        layer(f"{block}.mlp.dense_4h_to_h", width, 4 * width)
        layer(f"mixins.adaln_layer.adaLN_modulations.{i}.1", 12 * width, time)
        layer(f"mixins.adaln_layer.query_layernorm_list.{i}", head)
        layer(f"mixins.adaln_layer.key_layernorm_list.{i}", head)
    return {convert_sat.PREFIX + name: shape for name, shape in shapes.items()}


def wan_shapes(
    adaln, width=128, layers=LAYERS, channels=4, text=20, freq=16, ffn=40
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released Wan forms."""
    shapes: dict[str, tuple[int, ...]] = {"head.modulation": (1, 2, width)}

    def layer(name, rows, *columns):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, *columns), (rows,)

    layer("patch_embedding", width, channels, 1, 2, 2)
    layer("text_embedding.0", width, text)
    layer("text_embedding.2", width, width)
    layer("time_embedding.0", width, freq)
    layer("time_embedding.2", width, width)
    layer("time_projection.1", 6 * width, width)
    layer("head.head", 4 * channels, width)
    if adaln:
        layer("time_projection_ref.1", 6 * width, width)
    for i in range(layers):
        block = f"blocks.{i}"
        shapes[f"{block}.modulation"] = (1, 6, width)
        if adaln:
            shapes[f"{block}.modulation_ref"] = (1, 6, width)
        for kind in ("self_attn", "cross_attn"):
            for part in "qkvo":
                layer(f"{block}.{kind}.{part}", width, width)
            for part in "qk":
                shapes[f"{block}.{kind}.norm_{part}.weight"] = (width,)
        layer(f"{block}.norm3", width)
        layer(f"{block}.ffn.0", ffn, width)
        layer(f"{block}.ffn.2", width, ffn)
    return shapes


def random_state(shapes, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    return {
        name: (0.3 * torch.randn(shape, generator=generator)).to(dtype)
        for name, shape in shapes.items()
    }


def write_sat(folder, state, **beside):
    (folder / "1").mkdir(parents=True)
    (folder / "latest").write_text("1\n")
    torch.save({"module": state, **beside}, folder / "1" / "mp_rank_00_model_states.pt")
    return folder
