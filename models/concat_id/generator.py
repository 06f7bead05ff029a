"""Concat-ID's networks, loaded once, make the videos that `model.ConcatID` describes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from idbench.models.concat_id import networks
from idbench.models.concat_id.about import NOISE_MEAN, NOISE_SCALE
from idbench.models.concat_id.autoencoder import to_frames, to_tensor
from idbench.models.concat_id.families import CogVideoX, check_size, check_steps
from idbench.models.concat_id.model_folder import open_folder
from idbench.models.concat_id.pipeline import ConcatIDPipeline, ConcatIDWanPipeline, VideoPipeline
from idbench.types import Sample, Video

if TYPE_CHECKING:
    from idbench.models.concat_id.model import ConcatID


class Generator:
    """Makes the videos of one model, by `folder_pipeline` of a model folder, or by `parts` of the
    embedded weights: autoencoder, text encoder and noise schedule."""

    def __init__(self, model: ConcatID) -> None:
        self.model = model
        self._transformers: dict[str, Any] = {}

    @cached_property
    def folder_pipeline(self) -> VideoPipeline:
        model = self.model
        assert model.folder is not None
        return open_folder(
            model.folder, device=model.device, bfloat16=model.bfloat16, tiling=model.tiling,
            offload=model.offload, sampling=model.sampling,
        )

    @cached_property
    def parts(self) -> tuple[Any, Any, Any]:
        return networks.load_vae(), networks.load_text_encoder(), networks.build_scheduler()

    def load(self) -> None:
        """Load the networks that every variant needs (the transformer follows with its sample).
        Raises UserError: once, before the first sample: a size or steps that they cannot make."""
        model = self.model
        if model.folder is not None:
            self.folder_pipeline.check_settings(
                model.steps, model.frames, model.height, model.width
            )
            return
        vae, _, scheduler = self.parts
        frames, pixels = CogVideoX.compression(vae)
        check_size(2 * pixels, frames, model.frames, model.height, model.width)  # patches of 2x2
        check_steps(model.steps, scheduler)

    def pipeline(self, variant: str) -> VideoPipeline:
        """The pipeline of a variant, its networks loaded once."""
        if self.model.folder is not None:
            return self.folder_pipeline
        vae, text, scheduler = self.parts
        if variant not in self._transformers:
            self._transformers[variant] = networks.load_transformer(f"transformer_{variant}")
        return ConcatIDPipeline(
            text.tokenizer, text.network, vae, self._transformers[variant], scheduler,
            sampling=self.model.sampling,
        )

    def generate(self, samples: Sequence[Sample]) -> Iterator[Video]:
        """One video per sample, in order. On a CPU each of several samples has a core to itself,
        which at these sizes is faster than splitting every operation, and makes the same video
        with any number of cores; a folder's networks are large and make one sample at a time."""
        model = self.model
        if model.folder is not None:
            for sample in samples:
                yield self._video(sample)
            return
        cores = torch.get_num_threads()
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for start in range(0, len(samples), model.batch):
                group = samples[start : start + model.batch]
                # In the pool as well: with other numbers of threads, faces are found a little
                # differently.
                pool.submit(self._prepare, group).result()
                yield from pool.map(self._video, group)

    def _prepare(self, samples: Sequence[Sample]) -> None:
        """Load the networks that samples share, and prepare their references, once."""
        model = self.model
        for sample in samples:
            model.pipeline(model.variant_of(sample))
            if model.variant_of(sample) != "base" and not model.zeroed:
                self.prepared(sample)

    def prepared(self, sample: Sample) -> np.ndarray:
        """The references of a sample as its network was trained on them, uint8 RGB (M, H, W, 3)."""
        fill = 1.0
        if self.model.folder is None:
            fill = networks.reference_fill(f"transformer_{self.model.variant_of(sample)}")
        return np.array([self.model.pictures.prepare(r, fill) for r in sample.references])

    def _video(self, sample: Sample) -> Video:
        model = self.model
        variant = model.variant_of(sample)
        shown = () if variant == "base" else sample.references
        images = None
        if model.zeroed and shown:  # not prepared: they are not seen
            images, shown = torch.zeros(1, len(shown), 3, model.height, model.width), ()
        elif shown:
            images = to_tensor(self.prepared(sample)[:, None])[:, :, 0].unsqueeze(0)
            if model.references == "noisy":
                images = with_noise(images, sample.seed)
        pipeline = model.pipeline(variant)
        pipeline.set_progress_bar_config(disable=True)  # the harness shows one of samples
        chosen: dict[str, Any] = {
            "zeroed": model.zeroed, "shared": model.references == "shared_index",
            "reference_guidance": {"one_branch": model.guidance, "both_branches": 1.0}.get(
                model.references, model.reference_guidance
            ),
        }
        if model.folder is None:
            chosen["bfloat16"] = model.bfloat16
        elif isinstance(pipeline, ConcatIDWanPipeline):
            chosen["negative"] = model.negative
        video = pipeline(
            [sample.prompt], images, [sample.seed], model.steps, model.guidance, model.frames,
            model.height, model.width, **chosen,
        )
        notes = tuple(
            f"reference {r.name}: {problem}" for r in shown
            if r.kind == "face" and (problem := model.pictures.problems.get(str(r.image)))
        )
        return Video(to_frames(video)[0], model.fps, notes)


def with_noise(images: torch.Tensor, seed: int) -> torch.Tensor:
    """Reference images (1, M, 3, H, W) in [-1, 1] with the pixel noise of training."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(1, images.shape[1], 1, 1, 1, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    return images + (NOISE_MEAN + NOISE_SCALE * level).exp() * noise
