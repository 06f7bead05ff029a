"""Concat-ID as a model of idbench: samples in, videos out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from idbench import embedded
from idbench.errors import UserError
from idbench.models.concat_id import networks, references
from idbench.models.concat_id.autoencoder import to_frames, to_tensor
from idbench.models.concat_id.conditioning import MAXIMUM_REFERENCES
from idbench.models.concat_id.pipeline import ConcatIDPipeline
from idbench.types import Reference, Sample, Video

VARIANTS = ("base", "single", "multi")


class ConcatID:
    """Concat-ID with the embedded weights.

    Args:
        variant: `base` (ignores references), `single`, `multi`, or None: what fits the number
            of references of each sample.
        steps, guidance: of sampling.
        frames, height, width: of the video; trained at 9 frames of 64x96.
        batch: samples handed out together. What is generated does not depend on it.
        bfloat16: compute the transformer's matrix products in bfloat16 (about 1.3 times as
            fast on processors with AVX-512 BF16; off gives the same video on every machine
            up to rounding).

    Attributes:
        problems: by reference image, what its preparation could not do; see `Prepared`.
    """

    name = "concat_id"
    revision = "1"
    maximum_references = MAXIMUM_REFERENCES

    def __init__(
        self, variant: str | None = None, *, steps: int = 10, guidance: float = 3.0,
        frames: int = networks.FRAMES, height: int = networks.HEIGHT, width: int = networks.WIDTH,
        batch: int = 8, bfloat16: bool = True,
    ) -> None:
        if variant is not None and variant not in VARIANTS:
            raise UserError(
                f"concat_id has no variant {variant!r}; take one of {', '.join(VARIANTS)}."
            )
        if steps < 1 or batch < 1:
            raise UserError("steps and batch must be at least 1; raise the setting.")
        self.variant, self.steps, self.guidance = variant, int(steps), float(guidance)
        self.frames, self.height, self.width = int(frames), int(height), int(width)
        self.batch, self.bfloat16 = int(batch), bool(bfloat16)
        self.problems: dict[str, str] = {}
        self._transformers: dict[str, Any] = {}
        self._prepared: dict[tuple[str, Path], np.ndarray] = {}

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes what is generated."""
        return {
            "variant": self.variant, "steps": self.steps, "guidance": self.guidance,
            "frames": self.frames, "height": self.height, "width": self.width,
            "bfloat16": self.bfloat16,
        }

    def weight_hashes(self) -> Mapping[str, str]:
        """sha256 of the weight files of this model, by file name."""
        variants = VARIANTS if self.variant is None else (self.variant,)
        names = ["vae", "text_encoder", "text_encoder_tokenizer", "face_parser"]
        names += [f"transformer_{v}" for v in variants]
        known = embedded.entries()
        return {known[n]["file"]: known[n]["sha256"] for n in names if n in known}

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        return networks.load_vae(), networks.load_text_encoder(), networks.build_scheduler()

    def load(self) -> None:
        """Load the networks that every variant needs (the transformer follows with its sample)."""
        _ = self._parts

    def variant_of(self, sample: Sample) -> str:
        """The variant that generates `sample`."""
        if self.variant is not None:
            return self.variant
        return {0: "base", 1: "single"}.get(len(sample.references), "multi")

    def pipeline(self, variant: str) -> ConcatIDPipeline:
        """The pipeline of a variant, its networks loaded once."""
        vae, text, scheduler = self._parts
        if variant not in self._transformers:
            self._transformers[variant] = networks.load_transformer(f"transformer_{variant}")
        pipeline = ConcatIDPipeline(
            text.tokenizer, text.network, vae, self._transformers[variant], copy(scheduler)
        )
        pipeline.set_progress_bar_config(disable=True)  # the harness shows one of samples
        return pipeline

    def generate(self, samples: Sequence[Sample]) -> Iterator[Video]:
        """One video a sample, in order.

        On CPU each of two or more samples has a core to itself, which at these sizes is faster
        than splitting every operation (5.0 against 2.5 s a video of two people on two cores).
        """
        cores = torch.get_num_threads()
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for start in range(0, len(samples), self.batch):
                group = samples[start : start + self.batch]
                for sample in group:  # shared networks are loaded, and references prepared, once
                    self.pipeline(self.variant_of(sample))
                    if self.variant_of(sample) != "base":
                        for reference in sample.references:
                            self.prepare(reference)
                yield from pool.map(self._video, group)

    def _video(self, sample: Sample) -> Video:
        variant = self.variant_of(sample)
        images = None
        if variant != "base" and sample.references:
            prepared = np.array([self.prepare(r) for r in sample.references])
            images = to_tensor(prepared[:, None])[:, :, 0].unsqueeze(0)
        video = self.pipeline(variant)(
            [sample.prompt], images, [sample.seed], self.steps, self.guidance, self.frames,
            self.height, self.width, self.bfloat16,
        )
        return Video(to_frames(video)[0], networks.FPS)

    def prepare(self, reference: Reference) -> np.ndarray:
        """A reference as uint8 RGB (height, width, 3) for the VAE; remembered by path."""
        key = (reference.kind, reference.image)
        if key not in self._prepared:
            try:
                image = np.asarray(Image.open(reference.image).convert("RGB"))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"The reference {reference.image} cannot be read ({error}); replace it."
                ) from error
            size = self.height, self.width
            if reference.kind != "face":
                result = references.plain(image, *size)
            else:
                result = references.prepare(image, self._landmarks(image), self._foreground, *size)
            if result.problem:
                self.problems[str(reference.image)] = result.problem
            self._prepared[key] = result.image
        return self._prepared[key]

    @cached_property
    def _detector(self) -> tuple[Any, Any]:
        from idbench.metrics.faces.detect import make_detector
        from idbench.metrics.protocols import get_protocol

        detection = get_protocol("strict-v1").detection
        return make_detector(detection), detection

    def _landmarks(self, image: np.ndarray) -> np.ndarray | None:
        """Landmarks (5, 2) of the largest face, or None."""
        from idbench.metrics.faces.detect import find_faces

        detector, detection = self._detector
        faces = find_faces(detector, image[None], detection)[0]
        return faces.landmarks[0] if len(faces) else None

    @cached_property
    def _foreground(self) -> references.Foreground | None:
        """The embedded face parser; None where its weights are not there."""
        from idbench.metrics.networks.parser import face_foreground

        return face_foreground if "face_parser" in embedded.entries() else None
