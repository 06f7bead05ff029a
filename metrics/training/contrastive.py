"""Trains CLIP on frames and prompts of avatars, and ViCLIP, from that CLIP, on clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from idbench import embedded
from idbench.errors import UserError
from idbench.metrics.networks.clip import (
    MEAN_STD,
    ClipEmbedder,
    ReducedTokenizer,
    ViclipEmbedder,
    build_clip,
    clip_vocabulary,
    prepare_pictures,
)
from idbench.metrics.networks.video_text import ViCLIP, from_clip
from idbench.metrics.protocols import STRICT, Picture, sample_video_frames
from idbench.metrics.training.fitting import DEVICE, Config, Task, trainer
from idbench.metrics.training.rendered_data import Frames, Settings, batches, dataset, portraits
from idbench.metrics.training.second_tasks import (
    Helpers,
    MotionHelpers,
    mentioned,
    poses,
    truth,
)
from idbench.prompts.avatars.scene import Scene
from idbench.prompts.language import Description, describe, description
from idbench.prompts.language import vocabulary as words_of_prompts
from idbench.prompts.sampling import EDITS, edited
from idbench.training.resumable_loop import Values

GROUP = 32
"""Prompts that each video is compared with."""
SHIFT = 3
"""Pixels by which training pictures are shifted at most; what leaves one side enters the other."""


def _with_vocabulary(recipe: Config, key: str) -> Config:
    """The network's config with the tokens of CLIP that prompts can contain. `key`: of the number
    of the text tower's rows."""
    vocabulary = clip_vocabulary(words_of_prompts())
    text = {**recipe["network"]["text"], key: ReducedTokenizer(vocabulary).size}
    return {**recipe["network"], "vocabulary": vocabulary, "text": text}


def contrastive_loss(
    pictures: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """CLIP's symmetric cross-entropy of embeddings (n, d) of n pairs, and the share found.

    Source: Radford et al., CLIP (arXiv 2103.00020), figure 3.
    """
    logits = scale * F.normalize(pictures.float()) @ F.normalize(texts.float()).T
    own = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    return loss, (logits.argmax(1) == own).float().mean()


def small_pictures(data: Frames, size: int) -> np.ndarray:
    """The frames as the networks see them, before normalising: uint8 (S, T, size, size, 3)."""
    frames = data.frames.reshape(-1, *data.frames.shape[2:])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in MEAN_STD["clip"])
    parts = []
    for start in range(0, len(frames), 256):
        x = prepare_pictures(frames[start : start + 256], size, Picture()) * std + mean
        parts.append((x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts).reshape(*data.frames.shape[:2], size, size, 3)


def training_pictures(pictures: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Normalised (n, 3, s, s), each shifted, of other exposure and a little noisy."""
    shifts = rng.integers(-SHIFT, SHIFT + 1, (len(pictures), 2))
    x = np.stack([
        np.roll(picture, shift, (-3, -2)) for picture, shift in zip(pictures, shifts, strict=True)
    ]).astype(np.float32)
    shape = (len(x), *[1] * (x.ndim - 1))
    x *= rng.uniform(0.94, 1.06, shape).astype(np.float32)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    noise = torch.randn(x.shape, generator=generator)  # several times as fast as numpy's
    noise *= torch.from_numpy(rng.uniform(0, 6, shape).astype(np.float32))
    y = (torch.from_numpy(x) + noise).clamp_(0, 255) / 255.0
    mean, std = (torch.tensor(v) for v in MEAN_STD["clip"])
    return ((y - mean) / std).movedim(-1, -3)


def _prompts(
    recipe: Config, scenes: Sequence[Scene], rng: np.random.Generator
) -> list[Description]:
    """A prompt of each scene: with probability `everything` it names as much as fits, otherwise a
    random part by the recipe's `chances`."""
    return [
        description(
            scene, rng, EDITS if rng.random() < recipe["everything"] else None,
            recipe["chances"],
        )
        for scene in scenes
    ]


def _joint_loss(
    recipe: Config, step: int, contrast: tuple[torch.Tensor, torch.Tensor], seen: torch.Tensor
) -> tuple[torch.Tensor, Values]:
    """Contrastive loss plus `attributes` times the loss of the attributes read from the images.

    In the first `attributes_alone` steps the contrast counts nothing: a tower that does not see
    an attribute yet learns nothing from prompts that name it.
    """
    loss, found = contrast
    share = float(step >= recipe.get("attributes_alone", 0))
    values = {"found": found, "attributes": seen.detach()}
    return share * loss + recipe["attributes"] * seen, values


def _clip(recipe: Config, config: Config, folder: Path) -> Task:
    settings, size = Settings(**recipe["data"]), config["vision"]["image_size"]
    # Square portraits are included: CLIPDist compares videos with such.
    sources = dataset(settings, folder), portraits(settings.seeds, folder)
    scenes = [scene for source in sources for scene in source.scenes]
    pictures = [shown for source in sources for shown in small_pictures(source, size)]
    network = build_clip(config).to(DEVICE)
    tokenizer = ReducedTokenizer(config["vocabulary"], config["text"]["context_length"])
    batch, seed = int(recipe["batch"]), int(recipe["seed"])
    helpers = Helpers(network.visual, config["embed_dim"]).to(DEVICE)
    answers = torch.from_numpy(np.stack([truth(scene) for scene in scenes]))

    def loss_of(step: int) -> tuple[torch.Tensor, Values]:
        rng = np.random.default_rng([seed, step])
        chosen = list(batches(len(scenes), batch, seed, step, settings.group))
        texts = _prompts(recipe, [scenes[i] for i in chosen], rng)
        drawn = np.stack([pictures[i][rng.integers(len(pictures[i]))] for i in chosen])
        images = network.encode_image(training_pictures(drawn, rng).to(DEVICE))
        words = network.encode_text(tokenizer([text.text for text in texts]).to(DEVICE))
        scale = network.logit_scale.exp().clamp(max=100.0)
        with torch.autocast(DEVICE, enabled=False):
            contrast = contrastive_loss(images, words, scale)
            seen = helpers(images, answers[chosen].to(DEVICE))
        return _joint_loss(recipe, step, contrast, seen)

    return {"network": network, "helpers": helpers}, loss_of


def _measure_clip(
    recipe: Config, config: Config, folder: Path, network: nn.Module | None
) -> dict[str, Any]:
    embedder = ClipEmbedder(recipe["entry"], network=network, config=config)
    return retrieval(
        dataset(Settings(**recipe["validation"]), folder),
        lambda frames: embedder.pictures(frames, STRICT.clip_picture).mean(0), embedder.texts,
    )


def _viclip(recipe: Config, config: Config, folder: Path) -> Task:
    """ViCLIP starts from the embedded CLIP."""
    settings = [Settings(**recipe[name]) for name in ("clips", "data")]
    sets = [dataset(one, folder) for one in settings]
    size, frames = config["vision"]["size"], config["vision"]["frames"]
    pictures = [small_pictures(data, size) for data in sets]
    network = ViCLIP(config)
    start = from_clip(embedded.load_state("clip"))
    positions = "text_encoder.positional_embedding"
    start[positions] = start[positions][: config["text"]["context"]]
    missing, unexpected = network.load_state_dict(start, strict=False)
    expected = ["vision_encoder.temporal_positional_embedding"]
    if unexpected or missing != expected:
        raise UserError(
            "This ViCLIP cannot start from the embedded CLIP: they differ in "
            f"{sorted({*missing, *unexpected} - {*expected})}; use the same sizes in both recipes."
        )
    network = network.to(DEVICE)
    tokenizer = ReducedTokenizer(config["vocabulary"], config["text"]["context"])
    batch, seed = int(recipe["batch"]), int(recipe["seed"])
    helpers = MotionHelpers(network.vision_encoder, config["output"]).to(DEVICE)
    answers = [np.stack([truth(scene) for scene in data.scenes]) for data in sets]
    shown = [poses(data.landmarks) for data in sets]

    def loss_of(step: int) -> tuple[torch.Tensor, Values]:
        rng = np.random.default_rng([seed, step])
        # Clips show motion. The far more numerous stills of CLIP's own data, held for some frames
        # each, keep it from forgetting scenes.
        which = int(rng.random() < recipe["stills"])
        scenes, per_scene = sets[which].scenes, sets[which].frames.shape[1]
        chosen = list(batches(len(scenes), batch, seed + which, step, settings[which].group))
        times = np.array(sample_video_frames(STRICT, per_scene)[:frames])
        if which:
            times = np.sort(np.arange(frames) * per_scene // frames)
        texts = _prompts(recipe, [scenes[i] for i in chosen], rng)
        true = answers[which][chosen]
        said = [mentioned(row, text.mentioned) for row, text in zip(true, texts, strict=True)]
        at = np.array(chosen)[:, None], times
        clips = training_pictures(pictures[which][at], rng).transpose(1, 2)
        videos = network.encode_video(clips.to(DEVICE))
        words = network.encode_text(tokenizer([text.text for text in texts]).to(DEVICE))
        scale = 1 / network.temp.clamp(min=0.01)
        given = (torch.from_numpy(part).to(DEVICE) for part in (np.stack(said), shown[which][at]))
        with torch.autocast(DEVICE, enabled=False):
            contrast = contrastive_loss(videos, words, scale)
            seen = helpers(videos, torch.from_numpy(true).to(DEVICE))
            seen = seen + helpers.motion(words, *given)
        return _joint_loss(recipe, step, contrast, seen)

    return {"network": network, "helpers": helpers}, loss_of


def _measure_viclip(
    recipe: Config, config: Config, folder: Path, network: nn.Module | None
) -> dict[str, Any]:
    embedder = ViclipEmbedder(recipe["entry"], network=network, config=config)

    def of_clip(frames: np.ndarray) -> np.ndarray:
        chosen = list(sample_video_frames(STRICT, len(frames)))
        return embedder.video(frames[chosen], STRICT.video_picture)

    return retrieval(dataset(Settings(**recipe["validation"]), folder), of_clip, embedder.texts)


def recall_at_1(videos: np.ndarray, texts: np.ndarray, group: int = GROUP) -> tuple[float, float]:
    """Share of videos whose own prompt is the nearest of `group`, and of prompts likewise;
    embeddings (n, d) in pairs, n cut to a multiple of `group`."""
    count = len(videos) // group * group
    similarity = np.einsum(
        "gnd,gmd->gnm",
        videos[:count].reshape(-1, group, videos.shape[1]),
        texts[:count].reshape(-1, group, texts.shape[1]),
    )
    own = np.arange(group)
    return (
        float((similarity.argmax(2) == own).mean()),
        float((similarity.argmax(1) == own).mean()),
    )


def retrieval(
    data: Frames, of_clip: Callable[[np.ndarray], np.ndarray],
    of_texts: Callable[[Sequence[str]], np.ndarray],
) -> dict[str, Any]:
    """Retrieval of prompts among 32 by true clips of validation people: how well it has learned.

    `expression_preferred`, `motion_preferred`: see `preferred`.

    `r1_full`: prompts that name all that fits in 30 words (background, garments, expressions,
    motions); `r1_partial`: prompts that name a random part, of which several may be true of one
    video, so that 1 is out of reach.
    """
    videos = np.stack([of_clip(frames) for frames in data.frames])
    videos /= np.linalg.norm(videos, axis=1, keepdims=True)
    measured: dict[str, Any] = {
        f"{attribute}_preferred": preferred(data.scenes, videos, of_texts, attribute)
        for attribute in ("expression", "motion")
    }
    for name, mention in (("full", EDITS), ("partial", None)):
        texts = [describe(scene, np.random.default_rng([0, 17, i]), mention)
                 for i, scene in enumerate(data.scenes)]
        to_text, to_video = recall_at_1(videos, of_texts(texts))
        measured[f"r1_{name}"] = round(to_text, 4)
        measured[f"r1_{name}_text_to_video"] = round(to_video, 4)
    return {**measured, "videos": len(videos) // GROUP * GROUP, "prompts": GROUP}


def preferred(
    scenes: Sequence[Scene], videos: np.ndarray, of_texts: Callable[[Sequence[str]], np.ndarray],
    attribute: str,
) -> float:
    """How often a video of one person is nearer to its own prompt than to one in which `attribute`
    was changed, worded the same. Chance is 0.5."""
    rng = np.random.default_rng([0, 23])
    alone = [i for i, scene in enumerate(scenes) if len(scene.people) == 1]
    texts = [
        describe(scene, np.random.default_rng([0, 29, i]), (attribute, "background"))
        for i in alone for scene in (scenes[i], edited(scenes[i], attribute, rng))
    ]
    own, wrong = of_texts(texts).reshape(len(alone), 2, -1).transpose(1, 0, 2)
    shown = videos[alone]
    return round(float(((shown * own).sum(1) > (shown * wrong).sum(1)).mean()), 4)


train_clip = trainer(_clip, _measure_clip, partial(_with_vocabulary, key="vocab_size"))
train_viclip = trainer(_viclip, _measure_viclip, partial(_with_vocabulary, key="vocabulary"))
