"""At which noise level identity comes from the reference, and where detail is lost.

    python -m idbench.models.concat_id.training.levels transformer_single --out levels

True frames of validation people are noised to known levels and denoised in one step, with the
right reference and with a zeroed one, then decoded and read by recognisers at the true landmarks.
What a recogniser sees more of with the reference is what the network takes from it at that level.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from idbench import embedded
from idbench.errors import UserError
from idbench.files import atomic_path, check_output, write_json
from idbench.metrics.validation.readers import Embed, readers
from idbench.models.concat_id import about, networks, references
from idbench.models.concat_id.autoencoder import decode, encode, to_frames, to_tensor
from idbench.models.concat_id.families import CogVideoX
from idbench.models.concat_id.training.checkpoint import latest
from idbench.models.concat_id.training.rendering import head_mask
from idbench.prompts.avatars.render import render_clip, render_portrait
from idbench.prompts.avatars.scene import VALIDATION_IDENTITIES
from idbench.prompts.language import describe
from idbench.prompts.sampling import random_scene
from idbench.statistics import area_under_curve

LEVELS = (-6.0, -3.0, 0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 24.0)
"""Signal-to-noise ratios of the noisy latents, in dB."""
CONDITIONS = ("reference", "zeroed")


@dataclass(frozen=True)
class Faces:
    """One frame and one reference of each of n people who were not trained on.

    Attributes:
        frames: uint8 (n, H, W, 3). boxes: (n, 4). landmarks: (n, 5, 2): of the frames' faces.
        heads: bool (n, H, W), the pixels of the heads.
        latents: (n, 1, C, h, w) of the frames. references: (n, 1, C, h, w), prepared.
        text: (n, L, D), of the prompts.
        portraits: the references as photographs, uint8 (n, S, S, 3), with their boxes (n, 4) and
            landmarks (n, 5, 2).
    """

    frames: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    heads: np.ndarray
    latents: torch.Tensor
    references: torch.Tensor
    text: torch.Tensor
    portraits: tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Read:
    """What one recogniser sees in n faces.

    Attributes:
        right: faces whose nearest reference of all n is the right one.
        auc: chance that a face is nearer to its own reference than to another's.
        margin: similarity to the own reference minus the mean of that to the others.
    """

    right: int
    auc: float
    margin: float


@dataclass(frozen=True)
class Level:
    """What is left at one level under one condition.

    Attributes:
        decibel: of the noisy latents; None: the frames after encoding and decoding alone.
        loss: of the velocity, the mean over the latents.
        psnr: of the heads' pixels, dB.
        seen: by recogniser.
    """

    decibel: float | None
    condition: str
    loss: float | None
    psnr: float
    seen: dict[str, Read]


def validation_faces(people: int, fill: float = 1.0) -> Faces:
    """Rendered anew from the end of the validation range, which no training has seen.

    Args:
        fill: of the references, see `references.prepare`.
    """
    clips, portraits, prompts = [], [], []
    for identity in VALIDATION_IDENTITIES[::-1][:people]:
        rng = np.random.default_rng([0, identity])
        scene = random_scene(rng, 1, [identity])
        clips.append(render_clip(scene, 2, about.HEIGHT, about.WIDTH))
        portraits.append(render_portrait(identity))
        prompts.append(describe(scene, rng))
    vae = networks.load_vae()
    frames, boxes, landmarks = _faces_of(clips, 1)
    prepared = np.stack([_prepared(portrait, fill) for portrait in portraits])
    return Faces(
        frames, boxes, landmarks, np.stack([head_mask(clip)[1] > 0 for clip in clips]),
        encode(vae, to_tensor(frames[:, None])), encode(vae, to_tensor(prepared[:, None])),
        networks.load_text_encoder()(prompts), _faces_of(portraits, 0),
    )


def _faces_of(clips: Sequence[Any], t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame `t` of each clip, with the boxes and landmarks of the first person."""
    return (
        np.stack([clip.frames[t] for clip in clips]),
        np.stack([clip.boxes[t, 0] for clip in clips]),
        np.stack([clip.landmarks[t, 0] for clip in clips]),
    )


def _prepared(portrait: Any, fill: float) -> np.ndarray:
    """A reference prepared at the true landmarks and the true mask; see `references.prepare`."""
    mask, marks = head_mask(portrait)[0], portrait.landmarks[0, 0].astype(np.float64)
    prepared = references.prepare(
        portrait.frames[0], marks, lambda crop: references.crop_mask(mask, marks, len(crop)),
        about.HEIGHT, about.WIDTH, fill=fill,
    )
    return prepared.image


def read_faces(own: np.ndarray, known: np.ndarray) -> Read:
    """Compare faces (n, d) with the references (n, d) of the same people, by distance."""
    similarity = 1.0 - np.linalg.norm(own[:, None] - known[None], axis=-1)
    same = np.eye(len(own), dtype=bool)
    right = int((similarity.argmax(1) == np.arange(len(own))).sum())
    others = (similarity.sum(1) - similarity[same]) / (len(own) - 1)
    margin = float((similarity[same] - others).mean())
    auc = area_under_curve(similarity[same], similarity[~same])
    return Read(right, round(float(auc or 0.0), 3), round(margin, 4))


@torch.no_grad()
def measure(
    transformer: Any, faces: Faces, embed: Mapping[str, Embed],
    levels: Sequence[float] = LEVELS, batch: int = 8,
) -> list[Level]:
    """All levels under both conditions, then the frames through the autoencoder alone.

    Args:
        transformer: a CogVideoX transformer of the embedded scale.
        batch: faces that are denoised at once.
    """
    family, vae = CogVideoX(networks.build_scheduler()), networks.load_vae()
    known = {name: _embed_all(function, *faces.portraits) for name, function in embed.items()}
    noise = torch.randn(faces.latents.shape, generator=torch.Generator().manual_seed(0))

    def seen(decibel: float | None, condition: str, loss: float | None, latents: Any) -> Level:
        images = to_frames(decode(vae, latents))[:, 0]
        reads = {
            name: read_faces(_embed_all(function, images, faces.boxes, faces.landmarks),
                             known[name])
            for name, function in embed.items()
        }
        return Level(decibel, condition, loss, psnr(images, faces.frames, faces.heads), reads)

    measured, known_levels = [], family.decibels()
    for decibel in levels:
        time = int((known_levels - decibel).abs().argmin())
        times = torch.full((len(faces.latents),), time)
        noised = family.add_noise(faces.latents, noise, (times + 0.5) / len(known_levels))
        for condition in CONDITIONS:
            shown = faces.references * float(condition == "reference")
            parts = [slice(i, i + batch) for i in range(0, len(times), batch)]
            velocity = torch.cat([
                family.predict(
                    transformer, noised.latents[part], shown[part], faces.text[part], times[part],
                    networks.CLIP_LATENT_FRAMES,
                ).float()
                for part in parts
            ])
            loss = float((velocity - noised.target).square().mean())
            clean = family.denoised(noised.latents, velocity, times)
            measured.append(seen(decibel, condition, loss, clean))
    measured.append(seen(None, "autoencoder", None, faces.latents))
    return measured


def psnr(images: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Mean over images of the PSNR of their masked pixels, in dB."""
    error = np.square(images.astype(np.float64) - truth).mean(-1)
    each = [row[inside].mean() for row, inside in zip(error, mask, strict=True)]
    return round(float(np.mean(10 * np.log10(255**2 / np.array(each)))), 2)


def _embed_all(
    embed: Embed, images: np.ndarray, boxes: np.ndarray, landmarks: np.ndarray
) -> np.ndarray:
    return np.stack([embed(*row) for row in zip(images, boxes, landmarks, strict=True)])


def load_weights(name: str) -> Any:
    """An embedded transformer by name, or the averaged weights of a training folder. Raises
    UserError: there are none."""
    if name in embedded.entries():
        return networks.load_transformer(name)
    found = latest(Path(name) / "checkpoints")
    if found is None:
        raise UserError(
            f"There are no weights {name!r}; name embedded weights (`idbench list weights`) or "
            "the folder of a training with checkpoints."
        )
    transformer = networks.build_transformer(embedded.entry("transformer_base")["config"])
    stored = load_file(found / "average.0.safetensors")
    for i, parameter in enumerate(transformer.parameters()):
        parameter.data.copy_(stored[str(i)])
    networks.use_matrix_attention(transformer)
    return transformer.eval()


def plot(measured: Mapping[str, Sequence[Level]], path: Path) -> None:
    """Draw AUC and PSNR by level of one or more networks; grey: through the autoencoder alone."""
    from matplotlib.figure import Figure

    names = list(next(iter(measured.values()))[0].seen)
    figure = Figure(figsize=(3.2 * (len(names) + 1), 3.2), layout="constrained")
    axes = figure.subplots(1, len(names) + 1)
    for number, (label, rows) in enumerate(measured.items()):
        for condition, style in zip(CONDITIONS, ("-", ":"), strict=True):
            chosen = [row for row in rows if row.condition == condition]
            x = [row.decibel for row in chosen]
            look = {"linestyle": style, "color": f"C{number}", "marker": "."}
            for axis, name in zip(axes, names, strict=False):
                axis.plot(x, [row.seen[name].auc for row in chosen], **look,
                          label=f"{label}, {condition}")
            axes[-1].plot(x, [row.psnr for row in chosen], **look)
    for row in rows:
        if row.decibel is None:  # the best possible, whatever the network
            for axis, name in zip(axes, names, strict=False):
                axis.axhline(row.seen[name].auc, color="grey", linewidth=0.8)
            axes[-1].axhline(row.psnr, color="grey", linewidth=0.8)
    for axis, name in zip(axes, [f"{name}: AUC" for name in names] + ["PSNR of heads (dB)"],
                          strict=True):
        axis.set(title=name, xlabel="noisy latents (dB)")
    axes[0].legend(fontsize=6)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": "idbench levels"})


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="+", help="embedded weights, or folders of trainings")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("levels"))
    parser.add_argument("--fill", type=float, help="of the references, for folders of trainings "
                        "on data with `fill`; embedded weights say it themselves")
    arguments = parser.parse_args(given)
    for name in ("levels.json", "levels.png"):
        check_output(arguments.out / name, "measurement of levels")
    embed, measured = readers(), {}
    for name in arguments.weights:
        fill = arguments.fill or networks.reference_fill(name)
        faces = validation_faces(arguments.people, fill=fill)
        measured[name] = measure(load_weights(name), faces, embed)
        print(name)
        for row in measured[name]:
            seen = ", ".join(f"{n} {r.right}/{arguments.people} AUC {r.auc} margin {r.margin}"
                             for n, r in row.seen.items())
            print(f"{row.decibel} dB, {row.condition}: loss {row.loss}, PSNR {row.psnr}, {seen}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = {name: [asdict(row) for row in levels] for name, levels in measured.items()}
    write_json(arguments.out / "levels.json", {"people": arguments.people, "weights": rows})
    plot(measured, arguments.out / "levels.png")


if __name__ == "__main__":
    main()
