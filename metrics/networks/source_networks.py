"""Loads the networks of `weight_sources`: (source, torch device) -> network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from idbench.checkpoints import fit, read_state
from idbench.metrics.faces.detect import Detector, make_detector
from idbench.metrics.networks.clip import ClipEmbedder, ViclipEmbedder, load_open_clip
from idbench.metrics.networks.ir import IR_101
from idbench.metrics.networks.pack import PackRecogniser
from idbench.metrics.networks.recogniser import Recogniser, build_recogniser
from idbench.metrics.networks.video_text import VIT_L_14, ViCLIP
from idbench.metrics.protocols import Detection

if TYPE_CHECKING:
    from idbench.metrics.networks.weight_sources import Source


def arcface(source: Source, device: str) -> Recogniser | PackRecogniser:
    """The embedded ArcFace, or the recogniser of an insightface pack."""
    if source.path is None:
        return Recogniser("arcface", device)
    return PackRecogniser(source.path, device)


def curricularface(source: Source, device: str) -> Recogniser:
    """The embedded CurricularFace, or the released IR-101."""
    if source.path is None:
        return Recogniser("curricularface", device)
    network = _fitted(lambda: build_recogniser(IR_101), source, "CurricularFace's IR-101")
    return Recogniser("curricularface", device, network=network)


def viclip(source: Source, device: str) -> ViclipEmbedder:
    """The embedded ViCLIP, or the released ViT-L/14."""
    if source.path is None:
        return ViclipEmbedder("viclip", device)
    network = _fitted(lambda: ViCLIP.from_config(VIT_L_14), source, "ViCLIP's ViT-L/14")
    return ViclipEmbedder("viclip", device, network=network, config=VIT_L_14)


def clip(source: Source, device: str) -> ClipEmbedder:
    """The embedded CLIP, or a model of open_clip."""
    if source.path is None:
        return ClipEmbedder("clip", device)
    network, config = load_open_clip(source.model, source.path)
    return ClipEmbedder("clip", device, network=network, config=config)


def detector(source: Source, device: str) -> Detector:
    """SCRFD of an insightface pack."""
    return make_detector(Detection(detector="pack"), device, source.path)


def _fitted(
    build: Callable[[], torch.nn.Module], source: Source, what: str
) -> torch.nn.Module:
    assert source.path is not None
    with torch.device("meta"):  # the file's tensors become the network's: no second copy
        network = build()
    return fit(network, read_state(source.path), source.path, what)
