"""Stand-In: one face beside Wan2.1-T2V-14B, read by LoRA layers of its self-attention.

Source: arXiv 2508.07901 and github.com/WeChatCV/Stand-In.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from idbench.baselines.wan_model import OnBase
from idbench.errors import UserError, explained
from idbench.pictures import read_reference
from idbench.types import Abilities, Reference, Sample

CHECKPOINT = "Stand-In_wan2.1_T2V_14B.ckpt"
BISENET, BISENET_FILE = "bisenet", "parsing_bisenet.pth"
BACKGROUND = 0
"""BiSeNet's class of what is no head."""
SIDE = 512
BOX = 1.5
"""Side of the crop, in longer sides of the face's box."""
BORDER = 10
"""A face whose box is this near to all four borders, in pixels, is not cropped."""


class StandIn(OnBase):
    """Stand-In with its released layers on Wan2.1-T2V-14B.

    Args:
        base: Wan2.1-T2V-14B in diffusers' layout.
        parser: `bisenet`: facexlib's BiSeNet as released, its file `parsing_bisenet.pth` beside
            the checkpoint or from the catalogue; or one of `concat_id.face_tools`.
        faces: `insightface:antelopev2`, the pack as released, or another's folder; `embedded` for
            avatars.
        The others as in `WanModel`.
    """

    name = "stand_in"
    abilities = Abilities(
        people=(1, 1), licence="Apache-2.0", extra="consisid", why="it reads one face"
    )
    ENTRY = "stand-in"
    ELSEWHERE: ClassVar[Mapping[str, str]] = {BISENET_FILE: "facexlib-parsing"}
    BASE = "wan2.1-t2v-14b"
    DEFAULTS: ClassVar[Mapping[str, float]] = {**OnBase.DEFAULTS, "steps": 20, "fps": 25.0}

    def __init__(self, variant: str | None = None, *, parser: str = BISENET, **others: Any) -> None:
        super().__init__(variant, parser="none" if parser == BISENET else parser, **others)
        self.bisenet = parser == BISENET

    @property
    def files(self) -> tuple[str, ...]:
        return (CHECKPOINT, BISENET_FILE) if self.bisenet else (CHECKPOINT,)

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), **({"parser": BISENET} if self.bisenet else {})}

    def _load(self, place: str) -> Any:
        from diffusers import WanPipeline

        from idbench.baselines.stand_in_network import StandInTransformer3DModel
        from idbench.checkpoints import read_checkpoint
        from idbench.models.concat_id.families.wan21 import build_flow_scheduler

        state = read_checkpoint(self.path(CHECKPOINT)).state
        with explained(f"{self.base} cannot be loaded", "download it again"):
            transformer = self._read(StandInTransformer3DModel, self.base / "transformer")
        pipeline = self._read_wan(
            WanPipeline, self.base, transformer=transformer,
            scheduler=build_flow_scheduler(self.shift),
        )
        transformer.add_loras(state, self.folder / CHECKPOINT)
        return pipeline

    def _prepare(self, reference: Reference) -> tuple[np.ndarray, str | None]:
        """The face on white, uint8 RGB (512, 512, 3), as the release prepares it."""
        image = read_reference(reference.image)
        faces = self.pictures.tools.find(image)
        crop, problem = square(image, faces.boxes[0] if len(faces) else None)
        if self._foreground is not None:
            head = np.asarray(self._foreground(crop)) >= 0.5
            crop = np.where(head[..., None], crop, np.uint8(255))
        return crop, problem

    @cached_property
    def _foreground(self) -> Any:
        """What finds the head in a crop, as `concat_id.references.Foreground`; None: nothing."""
        if not self.bisenet:
            return self.pictures.tools.foreground
        from idbench.baselines.face_crop import BiSeNet, as_tensor

        bisenet = BiSeNet(self.path(BISENET_FILE), self.device or "cpu")
        return lambda crop: bisenet.classes(as_tensor(crop) / 127.5 - 1) != BACKGROUND

    def _frames(self, sample: Sample) -> np.ndarray:
        import torch

        from idbench.baselines.wan_parts import decode, encode_pictures, encode_text
        from idbench.models.concat_id.families import Wan

        pipeline = self.networks
        transformer = pipeline.transformer
        dtype = transformer.dtype
        (reference,) = sample.references
        shape = self._noise_shape(pipeline)

        def network(latents: Any, _: Any, text: Any, time: Any) -> Any:
            found = transformer(latents.transpose(1, 2).to(dtype), time, text, return_dict=False)[0]
            return found.transpose(1, 2)

        with torch.inference_mode():
            text = encode_text(pipeline, [sample.prompt, self.negative_prompt]).to(dtype)
            face = encode_pictures(pipeline, [self.prepared(reference)])
            room = torch.empty(1, shape[1], shape[0], *shape[2:], device=text.device, dtype=dtype)
            transformer(room, torch.zeros(1, device=text.device), text[:1], picture=face)
            latents = Wan(pipeline.scheduler).sample(
                network, [sample.seed], shape, text[:1], None, self.steps, self.guidance, text[1:]
            )
            return decode(pipeline, latents)


def square(image: np.ndarray, box: np.ndarray | None) -> tuple[np.ndarray, str | None]:
    """The face in `box` (left, top, right, bottom in pixels; None: the whole picture) as uint8 RGB
    (512, 512, 3), padded with white, and what could not be done."""
    import cv2

    from idbench.models.concat_id.references import pad

    height, width = image.shape[:2]
    problem = None if box is not None else "no face found: whole image used"
    if box is not None:
        left, top, right, bottom = (int(value) for value in box)
        if not (
            left <= BORDER and top <= BORDER
            and right >= width - BORDER and bottom >= height - BORDER
        ):
            half = int(max(right - left, bottom - top) * BOX) // 2
            x, y = (left + right) // 2, (top + bottom) // 2
            image = image[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
    rows, columns = image.shape[:2]
    if not rows or not columns:
        raise UserError("the face lies outside of the picture")
    side = max(rows, columns)
    canvas = pad(image, side, side, grey=255)
    return cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA), problem
