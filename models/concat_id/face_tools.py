"""The tools that prepare a face reference: detector, alignment and face parser.

`FaceTools.prepare` combines three choices:

    faces      embedded (MTCNN), or insightface:FOLDER (SCRFD of a pack such as antelopev2)
    alignment  upright: a window around the head, which our pairs and embedded networks use;
               arcface: five points onto ArcFace's template in 448x448, as Concat-ID's release does
    parser     embedded (made for avatars), none, or a SegFormer face parser of 19 classes by
               folder or hub id, such as jonathandinu/face-parsing, which the release uses

`released` and `released_wan` compute the released pixels with such a pack and parser; see
`references.prepare_released`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from idbench import embedded
from idbench.checkpoints import listed
from idbench.devices import check_device
from idbench.errors import UserError, explained
from idbench.files import sha256_once
from idbench.metrics.faces.crops import find_faces
from idbench.metrics.faces.detect import Faces, detector_hashes, make_detector
from idbench.metrics.protocols import Detection
from idbench.models.concat_id.about import alignment_of, check_preparation
from idbench.models.concat_id.references import (
    Foreground,
    Prepared,
    prepare,
    prepare_released,
)
from idbench.released_files import local, released_folder

CLASSES = 19
PARSER_FILES = ("config.json", "preprocessor_config.json", "*.safetensors")
BACKGROUND = (0, 14, 15, 16, 18)
"""Classes that the released code sets to black: background, hat, ear ring, necklace, clothes.
Source: Concat-ID's inference code; the classes are those of CelebAMask-HQ."""
RELEASED_SIZE = 640
"""Side of the square that SCRFD searches. Source: Concat-ID's inference code."""


@dataclass(frozen=True)
class FaceTools:
    """What prepares face references.

    Attributes:
        find: finds the faces of uint8 RGB (H, W, 3), the largest first.
        foreground: finds the head in a crop; None leaves the background.
        alignment: `upright` or `arcface`.
        hashes: sha256 of the user's own weight files by name; empty for the embedded ones.
        preparation: see `load_tools`.
    """

    find: Callable[[np.ndarray], Faces]
    foreground: Foreground | None
    alignment: str
    hashes: Mapping[str, str]
    preparation: str = "default"

    def prepare(
        self, image: np.ndarray, height: int, width: int, fill: float = 1.0
    ) -> Prepared:
        """A photograph, uint8 RGB, as a reference for a video of (height, width). Of several faces
        the largest is used, as in the release, and `problem` says so. `fill`: see
        `references.prepare`; the released preparation fills the whole canvas."""
        found = self.find(image).landmarks
        largest = found[0] if len(found) else None
        if self.preparation != "default" and self.foreground is not None:
            made = prepare_released(
                image, largest, self.foreground, height, width,
                wrapped=self.preparation == "released_wan",
            )
        else:
            made = prepare(
                image, largest, self.foreground, height, width, self.alignment, fill
            )
        if len(found) < 2:
            return made
        several = f"{len(found)} faces found: the largest is used"
        return replace(made, problem="; ".join(filter(None, (several, made.problem))))

    def locate(self, image: np.ndarray) -> np.ndarray | None:
        """The landmarks (5, 2) of the largest face of uint8 RGB (H, W, 3), or None."""
        found = self.find(image).landmarks
        return found[0] if len(found) else None


def load_tools(
    faces: str = "embedded", parser: str = "embedded", alignment: str | None = None,
    device: str = "cpu", preparation: str = "default",
) -> FaceTools:
    """The tools of these names; by default, an insightface pack aligns as the release does.
    `preparation` is `default`, or `released` or `released_wan`: the released pixels of the
    CogVideoX and of the Wan form, from a pack and a SegFormer.
    Raises UserError: unknown names, missing or damaged weights, those of another network, or an
    unusable device."""
    check_device(device)
    check_preparation(preparation, faces, parser, alignment)
    released = preparation != "default"
    find, hashes = load_finder(faces, device, released)
    foreground, more = load_foreground(parser, device, released)
    return FaceTools(
        find, foreground, alignment_of(faces, alignment), {**hashes, **more}, preparation
    )


def load_foreground(
    source: str, device: str = "cpu", released: bool = False
) -> tuple[Foreground | None, dict[str, str]]:
    """What finds the head in a face crop, and the sha256 of its files; None for `none`. `released`
    resizes the crop for a SegFormer with Pillow, as the release's transformers does. Raises
    UserError: missing, damaged, or with other classes."""
    if source == "none":
        return None, {}
    if source == "embedded":
        from idbench.metrics.networks.parser import face_foreground

        return (face_foreground if "face_parser" in embedded.entries() else None), {}
    import torch
    import transformers
    from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

    if released:  # before version 5 it is the only one, and has the other name
        SegformerImageProcessor = getattr(
            transformers, "SegformerImageProcessorPil", SegformerImageProcessor
        )
    folder = _parser_folder(source)
    network: Any
    with explained(f"The face parser {folder} cannot be read", "download it again"):
        processor = SegformerImageProcessor.from_pretrained(folder)
        network, loading = SegformerForSemanticSegmentation.from_pretrained(
            folder, output_loading_info=True
        )
    _check_parser(network, loading["missing_keys"], folder)
    network = network.to(device).eval()

    @torch.no_grad()
    def foreground(crop: np.ndarray) -> np.ndarray:
        inputs = processor(images=crop, return_tensors="pt").to(device)
        logits = torch.nn.functional.interpolate(
            network(**inputs).logits.float(), crop.shape[:2], mode="bilinear"
        )
        found = logits[0].argmax(0).cpu().numpy()
        return (~np.isin(found, BACKGROUND)).astype(np.float32)

    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".json"))
    return foreground, {f"parser/{path.name}": sha256_once(path) for path in files}


def _check_parser(network: Any, missing: Iterable[str], folder: Path) -> None:
    if network.config.num_labels != CLASSES:
        raise UserError(
            f"The SegFormer {folder} knows {network.config.num_labels} classes, a face parser "
            f"{CLASSES}; use one such as jonathandinu/face-parsing."
        )
    first = str(network.config.id2label[0])
    if first.lower() not in ("background", "label_0"):
        raise UserError(
            f"The SegFormer {folder} is not a face parser: its first class is {first!r}, not the "
            "background; use one such as jonathandinu/face-parsing."
        )
    # The batch counters are only used in training.
    missing = [name for name in missing if not name.endswith("batches_tracked")]
    if missing:
        raise UserError(f"The face parser {folder} lacks {listed(missing)}; download it again.")


def _parser_folder(source: str) -> Path:
    """The folder of a SegFormer: `source`, or the files of a hub id in the hub's cache."""
    try:
        folder = released_folder(source, None, PARSER_FILES)
    except UserError as error:
        raise UserError(f"The parser {source} cannot be used: {error}") from error
    if not (folder / "config.json").is_file():
        raise UserError(
            f"There is no face parser in {source!r}; parser is embedded, none, or the folder or "
            "hub id of a SegFormer face parser."
        )
    return folder


def load_finder(
    faces: str, device: str = "cpu", released: bool = False
) -> tuple[Callable[[np.ndarray], Faces], dict[str, str]]:
    """What finds the faces of uint8 RGB (H, W, 3), the largest first, and its files' sha256;
    `released` searches once, without a grey border. Raises UserError: an unknown name, or missing
    weights."""
    kind, _, folder = faces.partition(":")
    pack = None
    if faces == "embedded":
        detection = Detection()
    elif kind == "insightface" and folder:
        pack = local(folder)
        half = (0.5, 0.5, 0.5)
        detection = Detection(detector="pack", size=RELEASED_SIZE, height=0, thresholds=half)
    else:
        raise UserError(
            f"faces is embedded or insightface:FOLDER, the folder of a pack such as antelopev2, "
            f"not {faces!r}."
        )
    if released:  # one search alone
        detection = replace(detection, retry_padding=0.0, border=0.0)
    detector = make_detector(detection, device, pack)

    def find(image: np.ndarray) -> Faces:
        return find_faces(detector, image[None], detection)[0]

    return find, {} if pack is None else detector_hashes(detection, pack)
