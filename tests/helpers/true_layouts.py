"""The published checkpoints' names and shapes, written out, and plain forms of their networks.

Written from the published layouts to judge idbench's classes: none of them takes part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional as F

State = Mapping[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]


# -- CurricularFace, IR-101 (TFace)

IR_101_BLOCKS = [
    (first if block == 0 else out, out, 2 if block == 0 else 1)
    for first, out, count in ((64, 64, 3), (64, 128, 13), (128, 256, 30), (256, 512, 3))
    for block in range(count)
]
"""Channels in, channels out and stride of each of the 49 blocks."""


def ir_101_shapes() -> Shapes:
    """glint360k_curricular_face_r101_backbone.bin."""
    found: Shapes = {"input_layer.0.weight": (64, 3, 3, 3), "input_layer.2.weight": (64,)}
    found |= _norm("input_layer.1", 64)
    for i, (channels, out, _) in enumerate(IR_101_BLOCKS):
        block = f"body.{i}"
        if channels != out:
            found[f"{block}.shortcut_layer.0.weight"] = (out, channels, 1, 1)
            found |= _norm(f"{block}.shortcut_layer.1", out)
        found |= _norm(f"{block}.res_layer.0", channels)
        found[f"{block}.res_layer.1.weight"] = (out, channels, 3, 3)
        found |= _norm(f"{block}.res_layer.2", out)
        found[f"{block}.res_layer.3.weight"] = (out,)
        found[f"{block}.res_layer.4.weight"] = (out, out, 3, 3)
        found |= _norm(f"{block}.res_layer.5", out)
    found |= _norm("output_layer.0", 512)
    found |= {"output_layer.3.weight": (512, 25088), "output_layer.3.bias": (512,)}
    found |= _norm("output_layer.4", 512, affine=False)
    return found


def ir_101(state: State, x: torch.Tensor) -> torch.Tensor:
    """(n, 3, 112, 112) to (n, 512)."""
    x = F.conv2d(x, state["input_layer.0.weight"], padding=1)
    x = F.prelu(_batch_norm(state, "input_layer.1", x), state["input_layer.2.weight"])
    for i, (channels, out, stride) in enumerate(IR_101_BLOCKS):
        name = f"body.{i}"
        short = x[:, :, ::stride, ::stride]
        if channels != out:
            short = F.conv2d(short, state[f"{name}.shortcut_layer.0.weight"])
            short = _batch_norm(state, f"{name}.shortcut_layer.1", short)
        y = _batch_norm(state, f"{name}.res_layer.0", x)
        y = F.conv2d(y, state[f"{name}.res_layer.1.weight"], padding=1)
        y = _batch_norm(state, f"{name}.res_layer.2", y)
        y = F.prelu(y, state[f"{name}.res_layer.3.weight"])
        y = F.conv2d(y, state[f"{name}.res_layer.4.weight"], stride=stride, padding=1)
        x = _batch_norm(state, f"{name}.res_layer.5", y) + short
    x = _batch_norm(state, "output_layer.0", x).flatten(1)
    x = F.linear(x, state["output_layer.3.weight"], state["output_layer.3.bias"])
    return _batch_norm(state, "output_layer.4", x)


def _norm(name: str, width: int, affine: bool = True) -> Shapes:
    kinds = ("weight", "bias") * affine + ("running_mean", "running_var")
    return {f"{name}.{kind}": (width,) for kind in kinds} | {f"{name}.num_batches_tracked": ()}


def _batch_norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    view = (1, -1, *[1] * (x.ndim - 2))
    mean, var = (state[f"{name}.running_{k}"].view(view) for k in ("mean", "var"))
    x = (x - mean) / torch.sqrt(var + 1e-5)
    if f"{name}.weight" in state:
        x = x * state[f"{name}.weight"].view(view) + state[f"{name}.bias"].view(view)
    return x


# -- ViCLIP, ViT-L/14 (InternVideo)


def viclip_shapes(vision_layers: int = 24, text_layers: int = 12) -> Shapes:
    """ViClip-InternVid-10M-FLT.pth, or the same with fewer layers."""
    vision, text = "vision_encoder", "text_encoder"
    found: Shapes = {
        "temp": (),
        f"{vision}.class_embedding": (1024,),
        f"{vision}.positional_embedding": (257, 1024),
        f"{vision}.temporal_positional_embedding": (1, 8, 1024),
        f"{vision}.proj": (1024, 768),
        f"{vision}.conv1.weight": (1024, 3, 1, 14, 14),
        f"{text}.positional_embedding": (32, 768),
        f"{text}.text_projection": (768, 768),
        f"{text}.token_embedding.weight": (49408, 768),
    }
    for name, width in (("ln_pre", 1024), ("ln_post", 1024)):
        found |= _pair(f"{vision}.{name}", (width,), width)
    found |= _pair(f"{text}.ln_final", (768,), 768)
    for tower, width, layers in ((vision, 1024, vision_layers), (text, 768, text_layers)):
        for i in range(layers):
            block = f"{tower}.transformer.resblocks.{i}"
            found[f"{block}.attn.in_proj_weight"] = (3 * width, width)
            found[f"{block}.attn.in_proj_bias"] = (3 * width,)
            found |= _pair(f"{block}.attn.out_proj", (width, width), width)
            found |= _pair(f"{block}.ln_1", (width,), width)
            found |= _pair(f"{block}.mlp.c_fc", (4 * width, width), 4 * width)
            found |= _pair(f"{block}.mlp.c_proj", (width, 4 * width), width)
            found |= _pair(f"{block}.ln_2", (width,), width)
    return found


def viclip_video(state: State, video: torch.Tensor, layers: int) -> torch.Tensor:
    """(n, 3, frames, size, size) to (n, 768): every patch of every frame is one token."""
    tower = "vision_encoder"
    n, _, frames = video.shape[:3]
    places = state[f"{tower}.positional_embedding"]
    times = state[f"{tower}.temporal_positional_embedding"][0]
    if frames == 1:
        times = times.mean(0, keepdim=True)
    kernel = state[f"{tower}.conv1.weight"][:, :, 0].flatten(1)
    tokens = [(state[f"{tower}.class_embedding"] + places[0]).expand(n, 1, -1)]
    for frame in range(frames):
        patches = F.unfold(video[:, :, frame], 14, stride=14).transpose(1, 2) @ kernel.T
        tokens.append(patches + places[1:] + times[frame])
    x = _layer_norm(state, f"{tower}.ln_pre", torch.cat(tokens, 1))
    for i in range(layers):
        x = _block(state, f"{tower}.transformer.resblocks.{i}", x, heads=16)
    return _layer_norm(state, f"{tower}.ln_post", x[:, 0]) @ state[f"{tower}.proj"]


def viclip_text(state: State, tokens: torch.Tensor, layers: int) -> torch.Tensor:
    """Ids (n, 32) to (n, 768), read at the largest id."""
    tower = "text_encoder"
    x = state[f"{tower}.token_embedding.weight"][tokens] + state[f"{tower}.positional_embedding"]
    ahead = torch.ones(32, 32, dtype=torch.bool).triu(1)
    for i in range(layers):
        x = _block(state, f"{tower}.transformer.resblocks.{i}", x, heads=12, hidden=ahead)
    x = _layer_norm(state, f"{tower}.ln_final", x)
    ends = x[torch.arange(len(x)), tokens.argmax(1)]
    return ends @ state[f"{tower}.text_projection"]


def _pair(name: str, weight: tuple[int, ...], bias: int) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": (bias,)}


def _linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _layer_norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def _block(
    state: State, name: str, x: torch.Tensor, heads: int, hidden: torch.Tensor | None = None
) -> torch.Tensor:
    y = _layer_norm(state, f"{name}.ln_1", x)
    y = y @ state[f"{name}.attn.in_proj_weight"].T + state[f"{name}.attn.in_proj_bias"]
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in y.chunk(3, -1))
    weights = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if hidden is not None:
        weights = weights.masked_fill(hidden, float("-inf"))
    y = (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + _linear(state, f"{name}.attn.out_proj", y)
    y = _linear(state, f"{name}.mlp.c_fc", _layer_norm(state, f"{name}.ln_2", x))
    return x + _linear(state, f"{name}.mlp.c_proj", y * torch.sigmoid(1.702 * y))


# -- random weights


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors that keep a deep network's numbers near 1, every one of them felt."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: tuple[int, ...], scale: float, mean: float = 0.0) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale + mean

    found = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(1000)
        elif name.endswith("running_var"):
            found[name] = normal(shape, 0.2, 1.0).abs() + 0.1
        elif "_embedding" in name:
            found[name] = normal(shape, 0.5)
        elif len(shape) > 1:
            last = name.endswith(("proj", "projection"))  # these are multiplied from the right
            inputs = shape[0] if last else math.prod(shape[1:])
            found[name] = normal(shape, inputs**-0.5)
        elif name.endswith(("bias", "running_mean", "temp")):
            found[name] = normal(shape, 0.1)
        else:  # norms and slopes
            found[name] = normal(shape, 0.1, 0.6)
    return found
