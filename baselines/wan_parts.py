"""What the pipelines of the systems on Wan2.1 share: solver, text, latents and cut-out references.

`wan_model` has what needs no network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler
from PIL import Image

from idbench.models.concat_id.autoencoder import to_frames
from idbench.models.concat_id.face_tools import FaceTools
from idbench.models.concat_id.families import Wan
from idbench.models.concat_id.references import crop_face, pad
from idbench.pictures import read_reference
from idbench.types import Reference

CROP = 512
"""Side of a face that is cut out, in pixels."""


def unipc(shift: float) -> UniPCMultistepScheduler:
    """Wan's default solver: order 2, flow prediction, noise levels shifted towards noise."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
        num_train_timesteps=1000, solver_order=2, solver_type="bh2",
    )


def encode_text(pipeline: Any, prompts: list[str]) -> torch.Tensor:
    """UMT5 embeddings (B, 512, D), padding zeroed, as Wan reads them."""
    return Wan(None).encode_text(
        pipeline.tokenizer, pipeline.text_encoder, prompts, pipeline._execution_device
    )


def encode_pictures(pipeline: Any, pictures: list[np.ndarray]) -> torch.Tensor:
    """Latents (1, C, M, h, w) of M pictures, uint8 RGB of one size, each encoded alone."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).unsqueeze(2)
    images = pixels.to(pipeline._execution_device).float() / 127.5 - 1
    alone = [Wan.encode(pipeline.vae, image[None]) for image in images]
    return torch.cat(alone, dim=1).transpose(1, 2)


def decode(pipeline: Any, latents: torch.Tensor) -> np.ndarray:
    """uint8 RGB (frames, height, width, 3) of latents (1, N, C, h, w), the last step of a video."""
    frames = to_frames(Wan.decode(pipeline.vae, latents))[0]
    pipeline.maybe_free_model_hooks()
    return frames


# References


def cut_out(reference: Reference, tools: FaceTools) -> tuple[np.ndarray, str | None]:
    """A face as a crop around its head on white, anything else (or without a face) whole: uint8 RGB
    of any size, and what could not be done."""
    image = read_reference(reference.image)
    if reference.kind != "face":
        return image, None
    landmarks = tools.locate(image)
    if landmarks is None:
        return image, "no face found: whole image used"
    crop = crop_face(image, np.asarray(landmarks, np.float64), CROP)
    if tools.foreground is None:
        return crop, "no face parser: background kept"
    share = np.asarray(tools.foreground(crop), np.float32)[..., None]
    return (crop * share + 255 * (1 - share)).round().astype(np.uint8), None


def on_white(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`image` resized to fit into (height, width) and centred on white, uint8 RGB. Source:
    Phantom's `load_ref_images`."""
    ratio = image.shape[1] / image.shape[0]
    wider = ratio > width / height
    size = (width, max(1, int(width / ratio))) if wider else (max(1, int(height * ratio)), height)
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    return pad(np.asarray(small), height, width, grey=255)
