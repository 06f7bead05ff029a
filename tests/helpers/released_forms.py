"""What the released Concat-ID networks compute, from their own state dicts, as plain functions.

Written from the published description to judge idbench's networks and conversions: no class of
diffusers or idbench takes part.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

State = Mapping[str, torch.Tensor]


def linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def layer_norm(
    x: torch.Tensor, state: State | None = None, name: str = "", eps: float = 1e-6
) -> torch.Tensor:
    affine = (state[f"{name}.weight"], state[f"{name}.bias"]) if state else (None, None)
    return F.layer_norm(x, x.shape[-1:], *affine, eps=eps)


def root_norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * state[f"{name}.weight"]


def sinusoid(timestep: torch.Tensor, width: int) -> torch.Tensor:
    rates = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = timestep.double()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(B, heads, n, d) each -> (B, n, heads * d)."""
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def split(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def turn(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate pairs of channels of (B, heads, n, d) by `angles` (n, d / 2), as complex numbers."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(
        -2
    ).float()


def angles_of(places: torch.Tensor, widths: tuple[int, int, int]) -> torch.Tensor:
    """Angles (n, d / 2) of (time, row, column) places (n, 3)."""
    parts = []
    for axis, width in enumerate(widths):
        rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        parts.append(places[:, axis, None].double() * rates)
    return torch.cat(parts, dim=1)


def grid(times: range, rows: range, columns: range) -> torch.Tensor:
    return torch.tensor([(t, r, c) for t in times for r in rows for c in columns])


def wan(
    state: State, latents: torch.Tensor, reference: torch.Tensor, text: torch.Tensor,
    timestep: torch.Tensor, heads: int,
) -> torch.Tensor:
    """Concat-ID-Wan with one reference, plain or AdaLN by what is in the state dict.

    Args:
        latents: (B, C, N, H, W). reference: (B, C, 1, H, W). text: (B, L, D).
    """
    adaln = "time_projection_ref.1.weight" in state
    emb = sinusoid(timestep, state["time_embedding.0.weight"].shape[1])
    emb = linear(state, "time_embedding.2", F.silu(linear(state, "time_embedding.0", emb)))
    mod = linear(state, "time_projection.1", F.silu(emb)).unflatten(1, (6, -1))
    mod_ref = mod
    if adaln:
        mod_ref = linear(state, "time_projection_ref.1", F.silu(emb)).unflatten(1, (6, -1))
    context = F.gelu(linear(state, "text_embedding.0", text), approximate="tanh")
    context = linear(state, "text_embedding.2", context)
    x = torch.cat([latents, reference], dim=2)
    x = F.conv3d(x, state["patch_embedding.weight"], state["patch_embedding.bias"], (1, 2, 2))
    frames, height, width = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    n = height * width
    dim = x.shape[2] // heads
    places = grid(range(frames), range(height), range(width))
    places[-n:] = grid(range(frames - 1, frames), range(height), range(width, 2 * width))
    angles = angles_of(places, (dim - 2 * (dim // 3), dim // 3, dim // 3))
    layers = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    for i in range(layers):
        b = f"blocks.{i}"
        a = (state[f"{b}.modulation"] + mod).unbind(1)
        r = (state[f"{b}.modulation_ref"] + mod_ref).unbind(1) if adaln else a
        # The released quirk: rows 0 and 1 again at the feed-forward's input.
        at = 0 if adaln else 3

        def both(y, video, ref, n=n):
            return torch.cat([video(y[:, :-n]), ref(y[:, -n:])], dim=1)

        y = both(
            layer_norm(x), lambda y, a=a: y * (1 + a[1][:, None]) + a[0][:, None],
            lambda y, r=r: y * (1 + r[1][:, None]) + r[0][:, None],
        )
        q = split(root_norm(state, f"{b}.self_attn.norm_q", linear(state, f"{b}.self_attn.q", y)),
                  heads)
        k = split(root_norm(state, f"{b}.self_attn.norm_k", linear(state, f"{b}.self_attn.k", y)),
                  heads)
        v = split(linear(state, f"{b}.self_attn.v", y), heads)
        y = linear(state, f"{b}.self_attn.o", attention(turn(q, angles), turn(k, angles), v))
        x = x + both(y, lambda y, a=a: y * a[2][:, None], lambda y, r=r: y * r[2][:, None])
        video = x[:, :-n]
        y = layer_norm(video, state, f"{b}.norm3")
        q = root_norm(state, f"{b}.cross_attn.norm_q", linear(state, f"{b}.cross_attn.q", y))
        k = root_norm(state, f"{b}.cross_attn.norm_k", linear(state, f"{b}.cross_attn.k", context))
        v = linear(state, f"{b}.cross_attn.v", context)
        y = attention(split(q, heads), split(k, heads), split(v, heads))
        x = torch.cat([video + linear(state, f"{b}.cross_attn.o", y), x[:, -n:]], dim=1)
        y = both(
            layer_norm(x), lambda y, a=a: y * (1 + a[4][:, None]) + a[3][:, None],
            lambda y, r=r, at=at: y * (1 + r[at + 1][:, None]) + r[at][:, None],
        )
        y = F.gelu(linear(state, f"{b}.ffn.0", y), approximate="tanh")
        y = linear(state, f"{b}.ffn.2", y)
        x = x + both(y, lambda y, a=a: y * a[5][:, None], lambda y, r=r: y * r[5][:, None])
    shift, scale = (state["head.modulation"] + emb[:, None]).unbind(1)
    x = layer_norm(x) * (1 + scale[:, None]) + shift[:, None]
    x = linear(state, "head.head", x).view(len(x), frames, height, width, 2, 2, -1)
    x = x.permute(0, 6, 1, 2, 4, 3, 5).reshape(len(x), -1, frames, 2 * height, 2 * width)
    return x[:, :, :-1]


def sat(
    state: State, latents: torch.Tensor, references: torch.Tensor, text: torch.Tensor,
    timestep: torch.Tensor, heads: int,
) -> torch.Tensor:
    """Concat-ID on CogVideoX-5B in SAT's layout, keys without `model.diffusion_model.`.

    Args:
        latents: (B, N, C, H, W). references: (B, M, C, H, W). text: (B, L, D).
    """
    frames = latents.shape[1]
    emb = sinusoid(timestep, state["time_embed.0.weight"].shape[1])
    emb = linear(state, "time_embed.2", F.silu(linear(state, "time_embed.0", emb)))
    images = torch.cat([latents, references], dim=1)
    count = images.shape[1]
    patches = F.conv2d(
        images.flatten(0, 1), state["mixins.patch_embed.proj.weight"],
        state["mixins.patch_embed.proj.bias"], 2,
    )
    height, width = patches.shape[2:]
    patches = patches.flatten(2).transpose(1, 2).reshape(len(latents), -1, patches.shape[1])
    words = linear(state, "mixins.patch_embed.text_proj", text)
    length = words.shape[1]
    x = torch.cat([words, patches], dim=1)
    dim = x.shape[2] // heads
    angles = angles_of(
        grid(range(count), range(height), range(width)), (dim // 4, dim * 3 // 8, dim * 3 // 8)
    )
    angles = torch.cat([angles.new_zeros(length, dim // 2), angles])
    layers = 1 + max(
        int(k.split(".")[2]) for k in state if k.startswith("transformer.layers.")
    )
    for i in range(layers):
        b = f"transformer.layers.{i}"
        mod = linear(state, f"mixins.adaln_layer.adaLN_modulations.{i}.1", F.silu(emb))
        mod = mod.unflatten(1, (12, 1, -1)).unbind(1)

        def each(y, image, word, length=length):
            return torch.cat([word(y[:, :length]), image(y[:, length:])], dim=1)

        def modulated(y, at, mod=mod, each=each):
            return each(y, lambda z: z * (1 + mod[at + 1]) + mod[at],
                        lambda z: z * (1 + mod[at + 7]) + mod[at + 6])

        def gated(y, at, mod=mod, each=each):
            return each(y, lambda z: z * mod[at], lambda z: z * mod[at + 6])

        y = modulated(layer_norm(x, state, f"{b}.input_layernorm", 1e-5), 0)
        q, k, v = linear(state, f"{b}.attention.query_key_value", y).chunk(3, -1)
        q, k, v = split(q, heads), split(k, heads), split(v, heads)
        q = layer_norm(q, state, f"mixins.adaln_layer.query_layernorm_list.{i}")
        k = layer_norm(k, state, f"mixins.adaln_layer.key_layernorm_list.{i}")
        y = attention(turn(q, angles), turn(k, angles), v)
        x = x + gated(linear(state, f"{b}.attention.dense", y), 2)
        y = modulated(layer_norm(x, state, f"{b}.post_attention_layernorm", 1e-5), 3)
        y = F.gelu(linear(state, f"{b}.mlp.dense_h_to_4h", y), approximate="tanh")
        x = x + gated(linear(state, f"{b}.mlp.dense_4h_to_h", y), 5)
    x = layer_norm(x, state, "transformer.final_layernorm", 1e-5)[:, length:]
    shift, scale = linear(
        state, "mixins.final_layer.adaLN_modulation.1", F.silu(emb)
    )[:, None].chunk(2, -1)
    x = layer_norm(x, state, "mixins.final_layer.norm_final") * (1 + scale) + shift
    x = linear(state, "mixins.final_layer.linear", x)
    x = x.view(len(x), count, height, width, -1, 2, 2)
    x = x.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(x), count, -1, 2 * height, 2 * width)
    return x[:, :frames]
