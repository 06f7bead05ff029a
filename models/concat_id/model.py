"""Concat-ID as a model of idbench: samples in, videos out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from idbench import embedded
from idbench.errors import UserError
from idbench.files import sha256_once
from idbench.models.concat_id.about import (
    ABILITIES,
    EMBEDDED,
    EMBEDDED_BASE,
    MAXIMUM_REFERENCES,
    NEGATIVE,
    SAMPLINGS,
    VARIANTS,
    Defaults,
)
from idbench.models.concat_id.reference_pictures import ReferencePictures
from idbench.names import number, switch, whole
from idbench.released_files import local
from idbench.types import Sample, Video

if TYPE_CHECKING:
    from idbench.models.concat_id.generator import Generator
    from idbench.models.concat_id.pipeline import VideoPipeline

REFERENCES = {
    "given": "guided with the scale `reference_guidance`",
    "zeroed": "zeros replace their latents, as dropout does in training: the control",
    "both_branches": "both branches of guidance see them, as the paper samples",
    "one_branch": "only the conditional branch of guidance sees them",
    "shared_index": "all have the temporal position of the first (CogVideoX's form)",
    "noisy": "with the pixel noise of training, standard deviation exp(N(-3, 0.5))",
}
FITTING = {
    (): "base", ("face",): "single", ("face", "garment"): "tryon",
    ("face", "background"): "background",
}
"""The variant for the kinds of a sample's references; all others are several people."""


class ConcatID:
    """Concat-ID, with the embedded weights or with those of a model folder.

    Args:
        variant: one of `variants_known`, or None: the one that fits each sample's references.
            A folder has one transformer for all but `base`.
        weights: a model folder in diffusers' layout (see `idbench convert`), for the networks
            of CogVideoX-5B's or Wan2.1's form in any size. None: the embedded weights.
        steps, guidance: of sampling.
        reference_guidance: scale of the references' guidance, against zeroed references; 1: none,
            as released. See `Family.sample`.
        frames, height, width: of the video. Embedded: trained at 9 frames of 64x96. A folder's
            defaults are those of its base's release; its training's export has its own size and
            its own way of preparing faces.
        batch: samples generated together. What is generated does not depend on it.
        bfloat16: embedded: compute the transformer's matrix products in bfloat16 (about 1.3
            times as fast on processors with AVX-512 BF16; off gives the same video on every
            machine up to rounding). A folder's networks are loaded in bfloat16.
        device, offload, tiling: of a folder's networks; see `folder.open_folder`.
        negative: Wan's form only: text of the unconditional branch, `...` in the release; None: a
            zeroed embedding.
        sampling: CogVideoX's form only: `default`; `released`: exactly the released sampler, see
            `families.cogvideox.ReleasedCogVideoX`; `detail`: more steps near the end, see
            `families.cogvideox.DetailCogVideoX`.
        faces, parser, alignment, preparation: how face references are prepared; see `face_tools`.
        references: one of `REFERENCES`: `given`, the control `zeroed`, or an ablation.

    Attributes:
        pictures: the references, prepared.
    """

    name = "concat_id"
    revision = "1"
    maximum_references = MAXIMUM_REFERENCES
    abilities = ABILITIES
    VARIANTS = VARIANTS
    embedded_defaults: ClassVar[Defaults] = EMBEDDED

    def __init__(
        self, variant: str | None = None, *, weights: str | None = None,
        steps: int | None = None, guidance: float | None = None, frames: int | None = None,
        height: int | None = None, width: int | None = None, batch: int = 8,
        bfloat16: bool = True, device: str | None = None, offload: str = "none",
        tiling: bool = False, negative: str | None = NEGATIVE, faces: str = "embedded",
        parser: str | None = None, alignment: str | None = None, references: str = "given",
        sampling: str = "default", preparation: str = "default",
        reference_guidance: float | None = None,
    ) -> None:
        _check_names(variant, references, sampling)
        self.references, self.zeroed = references, references == "zeroed"
        self.folder = None if weights is None else local(str(weights))
        usual = EMBEDDED_BASE if variant == "base" else self.embedded_defaults
        if self.folder is not None:
            from idbench.models.concat_id.model_folder import defaults_of

            usual = defaults_of(self.folder)
            if negative not in (NEGATIVE, "", None) and usual.negative is None:
                raise UserError("negative belongs to Wan's form; leave it out for CogVideoX's.")
            if sampling != "default" and usual.negative is not None:
                raise UserError(
                    "sampling belongs to CogVideoX's form; Wan's always samples as its release "
                    "does."
                )
            if references == "shared_index" and usual.negative is not None:
                raise UserError("shared_index belongs to CogVideoX's form; use another.")
        elif device or offload != "none" or tiling or negative not in (NEGATIVE, ""):
            raise UserError(
                "device, offload, tiling and negative belong to the networks of a model folder; "
                "name it with weights=FOLDER or leave them out."
            )

        def given(value: Any, name: str) -> Any:
            return getattr(usual, name) if value is None else value

        self.variant = variant
        self.steps = whole("steps", given(steps, "steps"))
        self.guidance = number("guidance", given(guidance, "guidance"))
        self.reference_guidance = number(
            "reference_guidance", given(reference_guidance, "reference_guidance")
        )
        self.frames = whole("frames", given(frames, "frames"))
        self.height = whole("height", given(height, "height"))
        self.width = whole("width", given(width, "width"))
        self.fps = usual.fps
        self.batch, self.bfloat16 = whole("batch", batch), switch("bfloat16", bfloat16)
        if self.steps < 1 or self.batch < 1:
            raise UserError("steps and batch must be at least 1.")
        if not math.isfinite(self.guidance) or not math.isfinite(self.reference_guidance):
            raise UserError("guidance and reference_guidance must be finite.")
        self.device, self.offload = device, str(offload)
        self.tiling = switch("tiling", tiling)
        if usual.negative is None and negative == NEGATIVE:
            negative = ""  # not read; earlier runs have it among their settings
        self.negative = None if negative is None else str(negative)
        self.pictures = ReferencePictures(
            self.height, self.width, str(faces), str(given(parser, "parser")),
            given(alignment, "alignment"), str(preparation), device or "cpu",
        )
        self.sampling = sampling

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes what is generated."""
        names = ["variant", "steps", "guidance", "frames", "height", "width", "bfloat16"]
        if self.folder is not None:
            names += ["tiling", "negative"]
        # Runs of earlier versions do not have these: they are named only where they differ.
        usual = {"references": "given", "sampling": "default", "reference_guidance": 1.0}
        return {
            **{name: getattr(self, name) for name in names}, **self.pictures.settings(),
            **{n: getattr(self, n) for n, value in usual.items() if getattr(self, n) != value},
        }

    def weight_hashes(self) -> Mapping[str, str]:
        """sha256 of the weight files of this model, by file name; of a folder's by their place in
        it."""
        known = embedded.entries()
        names = ["face_parser"] if self.pictures.parser == "embedded" else []
        if self.folder is None:
            variants = self._choices() if self.variant is None else [self.variant]
            texts = ("text_encoder", "text_encoder_tokenizer")
            names = ["vae", *texts, *names, *(f"transformer_{v}" for v in variants)]
        hashes = {known[n]["file"]: known[n]["sha256"] for n in names if n in known}
        if self.folder is not None:
            from idbench.models.concat_id.model_folder import files_of

            hashes |= {
                path.relative_to(self.folder).as_posix(): sha256_once(path)
                for path in files_of(self.folder)
            }
        return {**hashes, **self.pictures.hashes()}

    @cached_property
    def generator(self) -> Generator:
        """The networks, once they are asked for."""
        # Imported late: a finished run only asks how the model describes itself.
        from idbench.models.concat_id.generator import Generator

        return Generator(self)

    def use_device(self, device: str) -> None:
        """Put a folder's networks on `device`, unless a setting names another. The embedded
        networks are small, and stay on the CPU."""
        opened = "generator" in vars(self) and "folder_pipeline" in vars(self.generator)
        if self.folder is not None and self.device is None and not opened:
            self.device = device

    def load(self) -> None:
        """Load the networks that every variant needs (the transformer follows with its sample).
        Raises UserError: once, before the first sample: a size or steps that they cannot make."""
        self.generator.load()

    def variant_of(self, sample: Sample) -> str:
        """The variant that generates `sample`."""
        if self.variant is not None:
            return self.variant
        kinds = tuple(reference.kind for reference in sample.references)
        if kinds == ("face",) * 3 and "multi3" in self._choices():
            return "multi3"
        return FITTING.get(kinds, "multi")

    def _choices(self) -> list[str]:
        """The variants that samples are generated with where none is named."""
        return [v for v in variants_known() if v in {*FITTING.values(), "multi", "multi3"}]

    def pipeline(self, variant: str) -> VideoPipeline:
        """The pipeline of a variant, its networks loaded once."""
        return self.generator.pipeline(variant)

    def generate(self, samples: Sequence[Sample]) -> Iterator[Video]:
        """One video per sample, in order."""
        return self.generator.generate(samples)


def variants_known() -> list[str]:
    """`VARIANTS`, and those of further embedded transformers that a recipe has written."""
    trained = (name.removeprefix("transformer_") for name in sorted(embedded.entries())
               if name.startswith("transformer_"))
    return list(dict.fromkeys([*VARIANTS, *trained]))


def _check_names(variant: str | None, references: str, sampling: str) -> None:
    if variant is not None and variant not in variants_known():
        raise UserError(
            f"concat_id has no variant {variant!r}; use one of {', '.join(variants_known())}."
        )
    if references not in REFERENCES:
        raise UserError(f"references is one of {', '.join(REFERENCES)}, not {references!r}.")
    if sampling not in SAMPLINGS:
        raise UserError(f"sampling is one of {', '.join(SAMPLINGS)}, not {sampling!r}.")
    if references != "given" and variant == "base":
        raise UserError(
            "concat_id@base sees no references; leave references out, or use another variant."
        )
