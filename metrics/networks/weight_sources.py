"""Where a network's weights come from: `embedded`, or a file or folder that the user names.

    arcface=insightface:FOLDER            the recogniser of an insightface pack
    curricularface=curricularface:FILE    glint360k_curricular_face_r101_backbone.bin
    clip=open_clip:NAME:FILE              any model of open_clip, by its name there
    viclip=viclip:FILE                    ViClip-InternVid-10M-FLT.pth
    detector=insightface:FOLDER           SCRFD of a pack, where a protocol asks for one

What is not named is embedded. The detector defaults to that of ArcFace's pack. A metric may bring
a `Network` of its own, which is named in the same way. Importing this module loads no network;
files are checked when they are named, and read when they are first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idbench import embedded
from idbench.checkpoints import check_file, fit, read_state
from idbench.embedded import WeightError
from idbench.errors import UserError
from idbench.files import sha256_once
from idbench.metrics.faces.detect import Detector, make_detector
from idbench.metrics.networks.pack import PackRecogniser, pack_file, pack_hash
from idbench.metrics.protocol_types import Detection
from idbench.names import one_of
from idbench.registry import METRICS
from idbench.released_files import local

if TYPE_CHECKING:
    from torch import nn

    from idbench.metrics.networks.clip import ClipEmbedder, ViclipEmbedder
    from idbench.metrics.networks.recogniser import Recogniser


@dataclass(frozen=True)
class Network:
    """A network that metrics read with or run, and how its weights are loaded.

    Attributes:
        load: (source, torch device) -> the network, ready to use. `Source.file` is its weights.
        form: how a source is written: KIND:FILE, KIND:FOLDER or KIND:NAME:FILE.
        default: the weight file used when none is named; None: one must be named.
    """

    name: str
    load: Callable[[Source, str], Any]
    form: str = "file:FILE"
    default: Callable[[], Path] | None = None


@dataclass(frozen=True)
class Source:
    """Where one network's weights come from.

    Attributes:
        kind: the KIND of the network's form (empty: embedded or the network's default).
        path: the file, or the pack's folder (None: embedded or the default).
        model: the NAME of a form KIND:NAME:FILE, such as a model of open_clip.
    """

    network: Network
    kind: str = ""
    path: Path | None = None
    model: str = ""

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def embedded(self) -> bool:
        """Whether the weights are those that come with idbench."""
        return self.path is None and self.name in NETWORKS

    def file(self) -> Path:
        """The weight file. Raises UserError: it, or its model in the pack, is missing or empty."""
        if self.embedded:
            return embedded.weight_path(self.name)
        if self.kind == "insightface" and self.path:
            return pack_file(self.path, self._task)
        path = self.path or (self.network.default and self.network.default())
        if path is None:
            raise WeightError(
                f"The network {self.name} has no embedded weights; pass them with "
                f"--weights {self.name}={self.network.form}."
            )
        check_file(path)
        return path

    def hashes(self) -> dict[str, str]:
        """sha256 of the weight file, by name: `NAME`, or `NETWORK/NAME` if not embedded."""
        if self.embedded:
            self.file()  # checks it
            return embedded.hashes(self.name)
        return {f"{self.name}/{self.file().name}": self._digest()}

    def identity(self) -> str:
        """What moves a number: the file's sha256 and, if not embedded, how it is read; not its
        path."""
        if self.embedded:
            return str(embedded.entry(self.name)["sha256"])
        kind = f"{self.kind}:{self.model}" if self.model else self.kind or "default"
        return f"{kind}:{self._digest()}"

    def _digest(self) -> str:
        if self.kind == "insightface" and self.path:
            return pack_hash(self.path, self._task)
        return sha256_once(self.file())

    @property
    def _task(self) -> str:
        return "detection" if self.name == "detector" else "recognition"

    def words(self) -> str:
        """For people: the kind and the file's name."""
        if self.path is None:
            return "embedded" if self.embedded else "default"
        folder = f"{self.path.name}/" if self.kind == "insightface" else ""
        return f"{self.kind}:{f'{self.model}:' if self.model else ''}{folder}{self.file().name}"

    def load(self, device: str = "cpu") -> Any:
        """The loaded network, such as a recogniser, a ClipEmbedder or a ViclipEmbedder.
        Raises UserError: the file is damaged, or holds the weights of another network."""
        return self.network.load(self, device)


def parse(texts: Sequence[str] = ()) -> dict[str, Source]:
    """("arcface=insightface:FOLDER", ...) to the sources of all networks, by name; `detector` and a
    plugin's network only if named. Raises UserError: another form, a network named twice, or a
    missing file."""
    found: dict[str, Source] = {}
    for text in texts:
        name, equals, spec = text.partition("=")
        if not equals:
            raise UserError(
                f"--weights {text} is not NETWORK=SOURCE; write for example --weights "
                f"arcface={NETWORKS['arcface'].form}."
            )
        if name in found:
            raise UserError(f"--weights names {name} twice; remove one.")
        found[name] = _parse_one(_named(name), spec)
        found[name].hashes()
    arcface = found.get("arcface")
    if arcface and arcface.kind == "insightface":
        found.setdefault("detector", Source(DETECTOR, arcface.kind, arcface.path))
    return {**{name: Source(network) for name, network in NETWORKS.items()}, **found}


def find(sources: Mapping[str, Source], network: str | Network) -> Source:
    """The source of a network that a metric runs: the one named, or else its default."""
    if isinstance(network, str):
        return sources.get(network) or Source(NETWORKS[network])
    return sources.get(network.name) or Source(network)


def pack_folder(sources: Mapping[str, Source]) -> Path | None:
    """The pack whose SCRFD is used by protocols that ask for it, or None."""
    return sources["detector"].path if "detector" in sources else None


def _named(name: str) -> Network:
    """The network of that name, built in or of a metric."""
    known = {**NETWORKS, DETECTOR.name: DETECTOR}
    if name not in known:
        for _, metric in METRICS.usable():
            known |= {one.name: one for one in metric.runs if isinstance(one, Network)}
    return known[one_of("network of --weights", name, known)]


def _parse_one(network: Network, spec: str) -> Source:
    kind, _, rest = spec.partition(":")
    if kind == "embedded" and not rest and network.name in NETWORKS:
        return Source(network)
    wanted, _, arguments = network.form.partition(":")
    model = ""
    if arguments.startswith("NAME:"):
        model, _, rest = rest.partition(":")
    if kind != wanted or not rest or (arguments.startswith("NAME:") and not model):
        also = " or embedded" if network.name in NETWORKS else ""
        # A path alone is the usual mistake.
        meant = f"{network.name}={wanted}:{spec}"
        hint = f" Did you mean {meant}?" if not model and Path(spec).exists() else ""
        raise UserError(f"--weights {network.name}={spec} is not {network.form}{also}.{hint}")
    if kind == "open_clip":
        import open_clip

        one_of("open_clip model", model, open_clip.list_models())
    return Source(network, kind, local(rest), model)


# Torch is imported when a network is loaded.


def _arcface(source: Source, device: str) -> Recogniser | PackRecogniser:
    """The embedded one, or the recogniser of an insightface pack."""
    from idbench.metrics.networks.recogniser import Recogniser

    return PackRecogniser(source.path, device) if source.path else Recogniser("arcface", device)


def _curricularface(source: Source, device: str) -> Recogniser:
    """The embedded one, or the released IR-101."""
    from idbench.metrics.networks.recogniser import IR_101, Recogniser, build_recogniser

    network = None
    if source.path:
        network = _fitted(build_recogniser, IR_101, source.path, "CurricularFace's IR-101")
    return Recogniser("curricularface", device, network)


def _viclip(source: Source, device: str) -> ViclipEmbedder:
    """The embedded one, or the released ViT-L/14."""
    from idbench.metrics.networks.clip import ViclipEmbedder
    from idbench.metrics.networks.video_text import VIT_L_14, ViCLIP

    if source.path is None:
        return ViclipEmbedder(device=device)
    network = _fitted(ViCLIP, VIT_L_14, source.path, "ViCLIP's ViT-L/14")
    return ViclipEmbedder(device=device, network=network, config=VIT_L_14)


def _clip(source: Source, device: str) -> ClipEmbedder:
    """The embedded one, or a model of open_clip."""
    from idbench.metrics.networks.clip import ClipEmbedder, load_open_clip

    if source.path is None:
        return ClipEmbedder(device=device)
    network, config = load_open_clip(source.model, source.path)
    return ClipEmbedder(device=device, network=network, config=config)


def _detector(source: Source, device: str) -> Detector:
    """SCRFD of an insightface pack."""
    return make_detector(Detection(detector="pack"), device, source.path)


def _fitted(
    build: Callable[[dict[str, Any]], nn.Module], config: dict[str, Any], path: Path, what: str
) -> nn.Module:
    import torch

    with torch.device("meta"):  # the file's tensors become the network's: no second copy
        network = build(config)
    return fit(network, read_state(path), path, what)


NETWORKS = {
    network.name: network for network in (
        Network("arcface", _arcface, "insightface:FOLDER"),
        Network("curricularface", _curricularface, "curricularface:FILE"),
        Network("clip", _clip, "open_clip:NAME:FILE"),
        Network("viclip", _viclip, "viclip:FILE"),
    )
}
"""The networks that come with idbench, by name."""
DETECTOR = Network("detector", _detector, "insightface:FOLDER")
"""SCRFD, of a pack that the user names."""
