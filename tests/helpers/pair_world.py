"""A toy world for `pairs build`: "videos" are JSON files, embeddings are drawn near an identity's.

    {"people": [{"identity": 3, "noise": 0.2, "x": 0.5, "share": 0.1}], "counts": [1, 1, 1],
     "cosines": [0.9, 0.9], "flow": 0.1, "motion": 2.0, "garment": true}
"""

from __future__ import annotations

import json
import random
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from idbench.models.concat_id.pairs.curation import BuildRequest, Built, build
from idbench.models.concat_id.pairs.reader import ReaderSettings
from idbench.models.concat_id.pairs.settings import make_settings
from idbench.models.concat_id.pairs.tracking import Face, PersonFaces, VideoRecord
from idbench.video import UnreadableVideo

WIDTH = 256


def identity_vector(identity: int) -> np.ndarray:
    """The true direction of an identity."""
    vector = np.random.default_rng([5, identity]).normal(size=WIDTH)
    return vector / np.linalg.norm(vector)


def vector_at(identity: int, cosine: float, direction: int) -> np.ndarray:
    """A unit vector at that cosine to the identity's, turned towards a random direction."""
    base = identity_vector(identity)
    other = np.random.default_rng([6, direction]).normal(size=WIDTH)
    other -= (other @ base) * base
    other /= np.linalg.norm(other)
    return (cosine * base + np.sqrt(1 - cosine**2) * other).astype(np.float32)


class ToyReader:
    """Reads such files, and notes each reading in `reads.txt` of the output folder."""

    def __init__(self, settings: ReaderSettings) -> None:
        self.settings = settings

    def identity(self) -> dict[str, Any]:
        alignment = self.settings.alignment or "upright"
        return {"toy": 1, "alignment": alignment, **self.settings.pairs.reading()}

    def read(self, path: Path, name: str, out: Path) -> tuple[VideoRecord, np.ndarray]:
        with open(out / "reads.txt", "a") as stream:
            stream.write(name + "\n")
        try:
            said = json.loads(path.read_text())
        except ValueError as error:
            raise UnreadableVideo(f"The video {path} cannot be read at its start.") from error
        people, vectors = [], []
        for number, person in enumerate(said.get("people", [])):
            share = person.get("share", 0.1)
            faces = tuple(
                Face(4 * k, (0.0, 0.0, 9.0, 9.0), ((0.0, 0.0),) * 5, share, 1.0,
                     f"faces/{name}_{number}_{k}.jpg") for k in range(5)
            )
            people.append(PersonFaces(person.get("x", 0.5), share, faces))
            direction = zlib.crc32(f"{name}/{number}".encode())
            vectors.append(vector_at(person["identity"], person.get("cosine", 0.95), direction))
        counts = said.get("counts", [len(people)] * 4)
        record = VideoRecord(
            frames=17, fps=8.0, height=64, width=96, counts=tuple(counts),
            cosines=tuple(said.get("cosines", [0.9] * (len(counts) - 1))), people=tuple(people),
            flow=said.get("flow", 0.1), motion=said.get("motion", 1.0),
            garment=f"subjects/{name}.png" if said.get("garment") else None,
            prints=tuple(said.get("prints", ())),
        )
        shape = np.array(vectors, np.float32).reshape(len(people), -1 if people else 0)
        return record, shape


class SlowReader(ToyReader):
    """Slow enough to be killed in between."""

    def read(self, path: Path, name: str, out: Path) -> tuple[VideoRecord, np.ndarray]:
        time.sleep(0.05)
        return super().read(path, name, out)


def build_slowly(folder: Path) -> None:
    """The build of a `PairWorld`'s folder into its `out`."""
    build(BuildRequest(folder / "videos", folder / "captions.json", folder / "out",
                       ReaderSettings(make_settings()), quiet=True), SlowReader)


class PairWorld:
    """A folder of toy videos with captions."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.videos = folder, folder / "videos"
        self.videos.mkdir()
        self.captions: dict[str, str] = {}

    def add(
        self, name: str, *identities: int, caption: str = "A person smiles.", **more: Any
    ) -> str:
        """A video of these people."""
        people = [{"identity": i, **more.get("each", {})} for i in identities]
        said = {"people": people, **{k: v for k, v in more.items() if k != "each"}}
        (self.videos / name).parent.mkdir(parents=True, exist_ok=True)
        (self.videos / name).write_text(json.dumps(said))
        self.captions[name] = caption
        return name

    def request(self, out: str = "out", workers: int = 1, **more: Any) -> BuildRequest:
        """What to build; `settings` are thresholds."""
        path = self.folder / "captions.json"
        path.write_text(json.dumps(self.captions))
        settings = make_settings(more.pop("settings", {}))
        return BuildRequest(
            self.videos, path, self.folder / out, ReaderSettings(settings), workers, quiet=True,
            **more,
        )

    def build(self, out: str = "out", workers: int = 1, **more: Any) -> Built:
        """Build with the toy reader."""
        return build(self.request(out, workers, **more), ToyReader)

    def reads(self, out: str = "out") -> list[str]:
        """Every reading so far."""
        path = self.folder / out / "reads.txt"
        return path.read_text().split("\n")[:-1] if path.exists() else []


def ten_people(folder: Path) -> PairWorld:
    """Ten people in four videos each, some of them together, and one video for each rule."""
    made = PairWorld(folder)
    rng = random.Random(0)
    for identity in range(10):
        for take in range(4):
            made.add(
                f"{identity}/take{take}.mp4", identity, garment=take == 0,
                each={"cosine": rng.uniform(0.85, 0.999)}, flow=rng.random(),
            )
    for k in range(4):
        made.add(f"two{k}.mp4", k, k + 1, each={"cosine": 0.98})
        made.add(f"three{k}.mp4", k, k + 1, k + 2, each={"cosine": 0.98})
    made.add("landscape.mp4", 1, caption="Waves roll in.")
    made.add("empty.mp4", counts=[0, 0, 0, 0])
    made.add("crowd.mp4", counts=[7, 7, 7, 7])
    made.add("comes-and-goes.mp4", 1, counts=[1, 1, 2, 2])
    made.add("changes.mp4", 1, cosines=[0.9, 0.1, 0.1])
    made.add("order.mp4", counts=[2, 2, 2, 2])
    (made.videos / "broken.mp4").write_text("no video")
    made.captions["broken.mp4"] = "A man."
    made.add("uncaptioned.mp4", 1)
    del made.captions["uncaptioned.mp4"]
    return made
