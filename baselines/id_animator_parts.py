"""ID-Animator's networks from their released files, on diffusers' and transformers' classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.loaders.single_file_utils import (
    convert_animatediff_checkpoint_to_diffusers,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from PIL import Image
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from idbench.baselines.face_attention import Resampler, UNetFaceAttention
from idbench.checkpoints import check_file, check_fit, fit, read_checkpoint
from idbench.embedded import WeightError

ADAPTER, MOTION = "animator.ckpt", "mm_sd_v15_v2.ckpt"
TOKENS, RANK = 16, 128
HEADS, HEAD = 12, 64
"""Of the resampler."""
CROP = 224
TEXT = "cond_stage_model.transformer."


def build_pipeline(folder: Path, base: Path | None, scale: float, dtype: torch.dtype) -> Any:
    """The AnimateDiff pipeline with the adapter's processors, from the released `folder`; the file
    `base`, a checkpoint of Stable Diffusion, replaces the folder's weights; `scale` is of the face.
    Raises WeightError: a file holds another network."""
    sd = folder / "animatediff" / "sd"
    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True}
    unet = UNet2DConditionModel.from_pretrained(sd, subfolder="unet", **options)
    vae = AutoencoderKL.from_pretrained(sd, subfolder="vae", **options)
    text = CLIPTextModel.from_pretrained(sd / "text_encoder", dtype=dtype, local_files_only=True)
    if base is not None:
        _replace(base, unet, vae, text)
    motion = load_motion(folder / MOTION, unet.config)
    nn.Module.to(motion, dtype)
    network = UNetMotionModel.from_unet2d(unet, motion)
    add_adapter(network, read_adapter(folder / ADAPTER)[1], folder / ADAPTER, scale)
    nn.Module.to(network, dtype)
    return AnimateDiffPipeline(
        vae=vae, text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(sd / "tokenizer"),
        unet=network, motion_adapter=None, scheduler=build_scheduler(),
    )


def build_scheduler() -> DDIMScheduler:
    """The authors' schedule, which is linear in beta. Source: their inference-v2.yaml."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1,
        clip_sample=False,
    )


def load_motion(path: Path, unet: Mapping[str, Any]) -> MotionAdapter:
    """AnimateDiff's second motion module, for a U-Net of this configuration.
    Raises WeightError: missing, damaged, or another version's (the first has no module in the
    middle)."""
    state = {
        name: value for name, value in read_checkpoint(path, mapped=True).state.items()
        if "motion_modules." in name
    }
    made = MotionAdapter(
        block_out_channels=unet["block_out_channels"],
        motion_layers_per_block=unet["layers_per_block"],
        motion_norm_num_groups=unet["norm_num_groups"], use_motion_mid_block=True,
    )
    wanted = {n: t for n, t in made.state_dict().items() if "pos_embed" not in n}
    converted = convert_animatediff_checkpoint_to_diffusers(state)
    check_fit(converted, wanted, path, "AnimateDiff's motion module mm_sd_v15_v2")
    made.load_state_dict(converted, strict=False)
    return made


def read_adapter(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors of the resampler and of the face attentions in `animator.ckpt`: {image_proj,
    face_adapter}, or one state dict with the prefixes `image_proj_model.` and `adapter_modules.`,
    with or without `module.`. Raises WeightError: missing, damaged, or neither."""
    check_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightError(f"{path} is damaged or no checkpoint; download it again.") from error
    if isinstance(content, Mapping) and {"image_proj", "face_adapter"} <= content.keys():
        return dict(content["image_proj"]), dict(content["face_adapter"])
    content = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    plain = {str(name).removeprefix("module."): value for name, value in content.items()}
    image, faces = (
        {n.removeprefix(prefix): value for n, value in plain.items() if n.startswith(prefix)}
        for prefix in ("image_proj_model.", "adapter_modules.")
    )
    if not image or not faces or len(image) + len(faces) != len(plain):
        raise WeightError(
            f"{path} is no checkpoint of ID-Animator: it has neither image_proj and face_adapter "
            "nor their tensors in one state dict; download animator.ckpt again."
        )
    return image, faces


def add_adapter(
    network: UNetMotionModel, state: Mapping[str, torch.Tensor], path: Path, scale: float
) -> None:
    """Put the face attentions of `state` on every cross-attention to the text.
    Raises WeightError: other names or shapes."""
    text = network.config.cross_attention_dim
    processors = dict(network.attn_processors)
    made: dict[str, UNetFaceAttention] = {}
    for index, name in enumerate(numbered(list(processors))):
        if index % 2:  # every second one attends to the text
            width = network.get_submodule(name.removesuffix(".processor")).to_q.out_features
            made[str(index)] = UNetFaceAttention(width, text, RANK, TOKENS)
            processors[name] = made[str(index)]
    fit(nn.ModuleDict(made), state, path, "ID-Animator's face attentions")
    for processor in made.values():
        processor.scale = scale
    network.set_attn_processor(processors)


def numbered(names: list[str]) -> list[str]:
    """Names of processors in the order that the released file numbers: down, up, middle, without
    those of the motion modules."""
    order = ("down_blocks", "up_blocks", "mid_block")
    still = [name for name in names if "motion_modules" not in name]
    return sorted(still, key=lambda name: order.index(name.partition(".")[0]))


class ImageTokens(nn.Module):
    """CLIP ViT-H's tokens of a face, and the resampler's of those."""

    def __init__(self, folder: Path, text: int) -> None:
        super().__init__()
        self.clip = CLIPVisionModelWithProjection.from_pretrained(
            folder / "image_encoder", local_files_only=True, dtype=torch.float32
        )
        path = folder / ADAPTER
        made = Resampler(text, 4, HEAD, HEADS, TOKENS, self.clip.config.hidden_size, text)
        self.resampler = fit(made, read_adapter(path)[0], path, "ID-Animator's resampler")
        self._processor = CLIPImageProcessor()
        self.eval().requires_grad_(False)

    def tokens(self, crop: np.ndarray) -> torch.Tensor:
        """(1, 16, D) of an aligned face, uint8 RGB."""
        picture = Image.fromarray(crop).resize((CROP, CROP))
        pixels = self._processor(images=picture, return_tensors="pt").pixel_values
        return self._resample(pixels)

    def nothing(self) -> torch.Tensor:
        """(1, 16, D) of a picture of zeros, for the unconditional branch."""
        return self._resample(torch.zeros(1, 3, CROP, CROP))

    def _resample(self, pixels: torch.Tensor) -> torch.Tensor:
        weight = self.resampler.latents
        states = self.clip(pixels.to(weight.device, weight.dtype), output_hidden_states=True)
        return self.resampler(states.hidden_states[-2])


def _replace(path: Path, unet: Any, vae: Any, text: Any) -> None:
    """Fill in the weights of a checkpoint of Stable Diffusion 1.x in one file."""
    state = read_checkpoint(path).state
    parts = (
        (unet, convert_ldm_unet_checkpoint(dict(state), unet.config), "U-Net"),
        (vae, convert_ldm_vae_checkpoint(dict(state), vae.config), "autoencoder"),
        (text, _text_state(state, text), "text encoder"),
    )
    for network, found, what in parts:
        check_fit(found, network.state_dict(), path, f"Stable Diffusion 1.5's {what}")
        network.load_state_dict(found)


def _text_state(state: Mapping[str, torch.Tensor], text: Any) -> dict[str, torch.Tensor]:
    """The text encoder's tensors, named as this version of transformers does."""
    wanted = text.state_dict()
    found = {}
    for name, value in state.items():
        # The positions' numbers are computed.
        if name.startswith(TEXT) and "position_ids" not in name:
            plain = name.removeprefix(TEXT)
            found[plain if plain in wanted else plain.removeprefix("text_model.")] = value
    return found
