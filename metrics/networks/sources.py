"""Where a network's weights come from: `embedded`, or a file or folder that the user names.

    arcface=insightface:FOLDER            the recogniser of an insightface pack
    curricularface=curricularface:FILE    glint360k_curricular_face_r101_backbone.bin
    clip=open_clip:NAME:FILE              any model of open_clip, by its name there
    viclip=viclip:FILE                    ViClip-InternVid-10M-FLT.pth
    detector=insightface:FOLDER           SCRFD of a pack, where a protocol asks for one

What is not named is embedded. The detector is by default that of ArcFace's pack. Importing this
loads no network; files are looked at when named, read when first needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idbench import embedded
from idbench.checkpoints import check_file
from idbench.errors import UserError
from idbench.files import sha256_once
from idbench.names import unknown

NETWORKS = ("arcface", "curricularface", "clip", "viclip")
"""The networks that metrics read with."""
FORMS = {
    "arcface": "insightface:FOLDER",
    "curricularface": "curricularface:FILE",
    "clip": "open_clip:NAME:FILE",
    "viclip": "viclip:FILE",
    "detector": "insightface:FOLDER",
}
"""Network -> how its weights are named, apart from `embedded`."""
PUBLISHED = {
    "aa54ae6dc9f7ac6e262809f1a81d6108e221952bf836aee4cb677ef19246c6ec":
        "glint360k_curricular_face_r101_backbone.bin",
    "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91":
        "det_10g.onnx of buffalo_l",
    "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43":
        "w600k_r50.onnx of buffalo_l",
}
"""sha256 -> the published file, of those that ConsisID's and OpenS2V's scripts read."""


@dataclass(frozen=True)
class Source:
    """Where one network's weights come from.

    Attributes:
        network: which, of `FORMS`.
        kind: `embedded`, `insightface`, `curricularface`, `open_clip` or `viclip`.
        path: the file, or the pack's folder (None: embedded).
        model: the name in open_clip.
    """

    network: str
    kind: str = "embedded"
    path: Path | None = None
    model: str = ""

    def file(self) -> Path:
        """The weight file.

        Raises:
            UserError: it, or its model in the pack, is missing or empty.
        """
        if self.path is None:
            return embedded.weight_path(self.network)
        if self.kind == "insightface":
            from idbench.metrics.networks.pack import pack_file

            task = "detection" if self.network == "detector" else "recognition"
            return pack_file(self.path, task)
        check_file(self.path)
        return self.path

    def hashes(self) -> dict[str, str]:
        """sha256 of the weight file, by name: `NAME`, and of the user's `NETWORK/NAME`."""
        if self.path is None:
            return {self.file().name: embedded.entry(self.network)["sha256"]}
        file = self.file()
        return {f"{self.network}/{file.name}": sha256_once(file)}

    def identity(self) -> str:
        """What moves a number: the file's sha256, and for the user's how it is read.

        The path is no part of it: equal files in other places give equal scores.
        """
        if self.path is None:
            return str(embedded.entry(self.network)["sha256"])
        kind = f"{self.kind}:{self.model}" if self.model else self.kind
        return f"{kind}:{sha256_once(self.file())}"

    def words(self) -> str:
        """For people: the kind and the file's name."""
        if self.path is None:
            return "embedded"
        folder = f"{self.path.name}/" if self.kind == "insightface" else ""
        return f"{self.kind}:{f'{self.model}:' if self.model else ''}{folder}{self.file().name}"

    def load(self, device: str = "cpu") -> Any:
        """The network, ready: a recogniser (`embed`), a ClipEmbedder or a ViclipEmbedder.

        Raises:
            UserError: the file is damaged, or holds other weights than those.
        """
        return _LOADERS[self.network](self, device)


def parse(texts: Sequence[str] = ()) -> dict[str, Source]:
    """("arcface=insightface:FOLDER", ...) to the sources of all networks.

    `detector` is there only where a pack is named.

    Raises:
        UserError: not of these forms, a network named twice, or a missing file.
    """
    found: dict[str, Source] = {}
    for text in texts:
        network, equals, spec = text.partition("=")
        if not equals:
            raise UserError(
                f"--weights {text} is no NETWORK=SOURCE; write for example --weights "
                f"arcface={FORMS['arcface']}."
            )
        if network not in FORMS:
            raise unknown("network of --weights", network, FORMS)
        if network in found:
            raise UserError(f"--weights names {network} twice; leave one.")
        found[network] = _parse_one(network, spec)
        found[network].hashes()
    sources = {name: found.get(name, Source(name)) for name in NETWORKS}
    if "detector" in found:
        sources["detector"] = found["detector"]
    elif sources["arcface"].kind == "insightface":
        sources["detector"] = Source("detector", "insightface", sources["arcface"].path)
    return sources


def pack_folder(sources: Mapping[str, Source]) -> Path | None:
    """The pack whose detector protocols that ask for SCRFD use, or None."""
    return sources["detector"].path if "detector" in sources else None


def _parse_one(network: str, spec: str) -> Source:
    kind, _, rest = spec.partition(":")
    if kind == "embedded" and not rest and network != "detector":
        return Source(network)
    form = FORMS[network]
    wanted, _, arguments = form.partition(":")
    model = ""
    if arguments.startswith("NAME:"):
        model, _, rest = rest.partition(":")
    if kind != wanted or not rest or (arguments.startswith("NAME:") and not model):
        also = "" if network == "detector" else " or embedded"
        raise UserError(f"--weights {network}={spec} is not {form}{also}; write it so.")
    if model:
        import open_clip

        if model not in open_clip.list_models():
            raise unknown("open_clip model", model, open_clip.list_models())
    return Source(network, kind, Path(rest).expanduser(), model)


# -- loading


def _arcface(source: Source, device: str) -> Any:
    from idbench.metrics.networks.pack import PackRecogniser
    from idbench.metrics.networks.recogniser import Recogniser

    if source.path is None:
        return Recogniser("arcface", device)
    return PackRecogniser(source.path, device)


def _curricularface(source: Source, device: str) -> Any:
    from idbench.metrics.networks.ir import IR_101
    from idbench.metrics.networks.recogniser import Recogniser, build_recogniser

    if source.path is None:
        return Recogniser("curricularface", device)
    network = _fitted(lambda: build_recogniser(IR_101), source, "CurricularFace's IR-101")
    return Recogniser("curricularface", device, network=network)


def _viclip(source: Source, device: str) -> Any:
    from idbench.metrics.networks.clip import ViclipEmbedder
    from idbench.metrics.networks.viclip import VIT_L_14, ViCLIP

    if source.path is None:
        return ViclipEmbedder("viclip", device)
    network = _fitted(lambda: ViCLIP.from_config(VIT_L_14), source, "ViCLIP's ViT-L/14")
    return ViclipEmbedder("viclip", device, network=network, config=VIT_L_14)


def _clip(source: Source, device: str) -> Any:
    from idbench.metrics.networks.clip import ClipEmbedder, load_open_clip

    if source.path is None:
        return ClipEmbedder("clip", device)
    network, config = load_open_clip(source.model, source.path)
    return ClipEmbedder("clip", device, network=network, config=config)


def _fitted(build: Any, source: Source, what: str) -> Any:
    import torch

    from idbench.checkpoints import fit, read_state

    assert source.path is not None
    with torch.device("meta"):  # the file's tensors become the network's: no second copy
        network = build()
    return fit(network, read_state(source.path), source.path, what)


_LOADERS = {
    "arcface": _arcface, "curricularface": _curricularface, "clip": _clip, "viclip": _viclip,
}
