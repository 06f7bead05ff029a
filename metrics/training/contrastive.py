"""Trains CLIP on frames and prompts of avatars, and ViCLIP, from that CLIP, on clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
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
from idbench.metrics.training.attribute_classes import mentioned, poses, truth
from idbench.metrics.training.fitting import DEVICE, train_network, write_entry
from idbench.metrics.training.helper_heads import Helpers, MotionHelpers
from idbench.metrics.training.rendered_data import Settings, batches, dataset, portraits
from idbench.metrics.training.retrieval import EVERYTHING, measure
from idbench.prompts.avatars.scene import Scene
from idbench.prompts.language import Description, description
from idbench.prompts.language import vocabulary as words_of_prompts
from idbench.training.resumable_loop import Values

SHIFT = 3
"""Pixels by which training pictures are shifted at most; what leaves one side enters the other."""


@cache
def vocabulary() -> tuple[int, ...]:
    """The tokens of CLIP that prompts can contain."""
    return tuple(clip_vocabulary(words_of_prompts()))


def prompt_of(
    scene: Scene, rng: np.random.Generator, everything: float = 0.5,
    chances: Mapping[str, float] | None = None,
) -> Description:
    """A prompt of the scene; with probability `everything` it names as much as fits.

    Otherwise it names a random part; `chances` as of `prompts.language.description`.
    """
    return description(scene, rng, EVERYTHING if rng.random() < everything else None, chances)


def with_vocabulary(recipe: Mapping[str, Any], entry: str) -> dict[str, Any]:
    """The network's config with its vocabulary, as the manifest keeps it."""
    config = {**recipe["network"], "vocabulary": list(vocabulary())}
    rows = ReducedTokenizer(config["vocabulary"]).size
    key = "vocab_size" if entry == "clip" else "vocabulary"
    config["text"] = {**config["text"], key: rows}
    return config


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


def small_pictures(frames: np.ndarray, size: int) -> np.ndarray:
    """uint8 frames (n, h, w, 3) as the networks see them, before normalising: (n, s, s, 3)."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in MEAN_STD["clip"])
    parts = []
    for start in range(0, len(frames), 256):
        x = prepare_pictures(frames[start : start + 256], size, Picture()) * std + mean
        parts.append((x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


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


def train_clip(
    recipe: Mapping[str, Any], state_dir: Path, resume: bool = False, evaluate: bool = False
) -> dict[str, Any]:
    """Train CLIP by a recipe and write the embedded weights; with `evaluate`, only measure them."""
    def of_clip(embedder: ClipEmbedder, frames: np.ndarray) -> np.ndarray:
        return embedder.pictures(frames, STRICT.clip_picture).mean(0)

    config = with_vocabulary(recipe, "clip")
    return _train(recipe, state_dir, resume, evaluate, config, _fit_clip, ClipEmbedder, of_clip)


def _fit_clip(
    recipe: Mapping[str, Any], state_dir: Path, cache_dir: Path, resume: bool,
    config: Mapping[str, Any],
) -> tuple[nn.Module, int]:
    torch.manual_seed(recipe["seed"])
    scenes, pictures = _still_pictures(recipe, cache_dir, config["vision"]["image_size"])
    network = build_clip(config).to(DEVICE)
    tokenizer = ReducedTokenizer(config["vocabulary"], config["text"]["context_length"])
    batch, seed, group = int(recipe["batch"]), int(recipe["seed"]), Settings(**recipe["data"]).group
    helpers = Helpers(network.visual, config["embed_dim"]).to(DEVICE)
    answers = torch.from_numpy(np.stack([truth(scene) for scene in scenes]))

    def loss_of(step: int) -> tuple[torch.Tensor, Values]:
        rng = np.random.default_rng([seed, step])
        chosen = list(batches(len(scenes), batch, seed, step, group))
        texts = [prompt_of(scenes[i], rng, recipe["everything"], recipe["chances"]) for i in chosen]
        drawn = np.stack([pictures[i][rng.integers(len(pictures[i]))] for i in chosen])
        images = network.encode_image(training_pictures(drawn, rng).to(DEVICE))
        words = network.encode_text(tokenizer([text.text for text in texts]).to(DEVICE))
        scale = network.logit_scale.exp().clamp(max=100.0)
        return _joint_loss(recipe, step, images, words, scale, helpers, answers[chosen])

    modules = {"network": network, "helpers": helpers}
    steps = train_network(recipe, state_dir, resume, modules, loss_of)
    return network.float().cpu().eval(), steps


def _joint_loss(
    recipe: Mapping[str, Any], step: int, images: torch.Tensor, words: torch.Tensor,
    scale: torch.Tensor, helpers: Helpers, answers: torch.Tensor,
    motion: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, Values]:
    """Contrastive loss plus `attributes` times the loss of the attributes read from the images.

    In the first `attributes_alone` steps the contrast counts nothing: a tower that does not see
    an attribute yet learns nothing from prompts that name it.

    Args:
        motion: `said` and `shown` of `MotionHelpers.motion`; None: `helpers` has none.
    """
    with torch.autocast(DEVICE, enabled=False):
        loss, found = contrastive_loss(images, words, scale)
        seen = helpers(images, answers.to(DEVICE))
        if motion is not None:
            assert isinstance(helpers, MotionHelpers)
            seen = seen + helpers.motion(words, *(part.to(DEVICE) for part in motion))
    contrast = float(step >= recipe.get("attributes_alone", 0))
    values = {"found": found, "attributes": seen.detach()}
    return contrast * loss + recipe["attributes"] * seen, values


def _still_pictures(
    recipe: Mapping[str, Any], cache_dir: Path, size: int
) -> tuple[list[Scene], list[np.ndarray]]:
    """Scenes, and the pictures of each. Square portraits are included: CLIPDist compares videos
    with such."""
    settings = Settings(**recipe["data"])
    scenes: list[Scene] = []
    pictures: list[np.ndarray] = []
    for source in (dataset(settings, cache_dir), portraits(settings.seeds, cache_dir)):
        small = small_pictures(source.frames.reshape(-1, *source.frames.shape[2:]), size)
        scenes += source.scenes
        pictures += list(small.reshape(len(source.scenes), -1, *small.shape[1:]))
    return scenes, pictures


def train_viclip(
    recipe: Mapping[str, Any], state_dir: Path, resume: bool = False, evaluate: bool = False
) -> dict[str, Any]:
    """As `train_clip`, for ViCLIP, which starts from the embedded CLIP."""
    def of_clip(embedder: ViclipEmbedder, frames: np.ndarray) -> np.ndarray:
        chosen = list(sample_video_frames(STRICT, len(frames)))
        return embedder.video(frames[chosen], STRICT.video_picture)

    config = with_vocabulary(recipe, "viclip")
    return _train(recipe, state_dir, resume, evaluate, config, _fit_viclip, ViclipEmbedder, of_clip)


def _fit_viclip(
    recipe: Mapping[str, Any], state_dir: Path, cache_dir: Path, resume: bool,
    config: Mapping[str, Any],
) -> tuple[ViCLIP, int]:
    torch.manual_seed(recipe["seed"])
    settings = [Settings(**recipe[name]) for name in ("clips", "data")]
    sets = [dataset(one, cache_dir) for one in settings]
    size, frames = config["vision"]["size"], config["vision"]["frames"]
    pictures = [small_pictures(d.frames.reshape(-1, *d.frames.shape[2:]), size) for d in sets]
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
    answers = [np.stack([truth(s) for s in d.scenes]) for d in sets]
    shown = [poses(d.landmarks) for d in sets]

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
        texts = [prompt_of(scenes[i], rng, recipe["everything"], recipe["chances"]) for i in chosen]
        said = np.stack([mentioned(answers[which][i], text.mentioned)
                         for i, text in zip(chosen, texts, strict=True)])
        rows = np.array(chosen)[:, None] * per_scene + times
        clips = training_pictures(pictures[which][rows], rng).transpose(1, 2)
        videos = network.encode_video(clips.to(DEVICE))
        words = network.encode_text(tokenizer([text.text for text in texts]).to(DEVICE))
        scale = 1 / network.temp.clamp(min=0.01)
        motion = torch.from_numpy(said), torch.from_numpy(shown[which][chosen][:, times])
        right = torch.from_numpy(answers[which][chosen])
        return _joint_loss(recipe, step, videos, words, scale, helpers, right, motion)

    modules = {"network": network, "helpers": helpers}
    steps = train_network(recipe, state_dir, resume, modules, loss_of)
    return network.float().cpu().eval(), steps


def _train(
    recipe: Mapping[str, Any], state_dir: Path, resume: bool, evaluate: bool,
    config: Mapping[str, Any], fit: Callable[..., tuple[nn.Module, int]],
    make_embedder: Callable[..., Any], of_clip: Callable[[Any, np.ndarray], np.ndarray],
) -> dict[str, Any]:
    """Fit a network, unless only the embedded one is measured; measure it, and write its entry.

    Args:
        of_clip: embedder and frames (n, h, w, 3) of a clip -> its embedding (d,).
    """
    cache_dir, network, steps = state_dir.parent / "metrics-data", None, 0
    if not evaluate:
        network, steps = fit(recipe, state_dir, cache_dir, resume, config)
    embedder = make_embedder(recipe["entry"], network=network, config=config)
    clips = dataset(Settings(**recipe["validation"]), cache_dir)
    measured = measure(clips, lambda frames: of_clip(embedder, frames), embedder.texts)
    write_entry(recipe, network and network.state_dict(), steps, config, measured)
    return measured
