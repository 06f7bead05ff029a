"""Scoring against its networks alone, against the published scripts' loop, and its memory.

    python benchmarks/scoring.py                       (the embedded networks)
    python benchmarks/scoring.py --full --videos 2     (full-size random networks)
    python benchmarks/scoring.py --memory              (peak memory of 20 and of 200 videos)

In one run and taking turns:
  scoring   what `idbench score` does once its networks are loaded: hash, decode, detect, align,
            embed, match, compute, write; the embedding cache is empty
  networks  the same detector and networks alone, on the same frames, crops and clips (those of
            the references, and the prompts, too), already resized and normalised, each at the
            batch size that is best here
  loop      as published scripts do it: for each video load the models, seek each frame with cv2,
            one crop and one picture a forward, and embed the reference and the prompt anew

The loop is scored by the same networks and the same preparation, so the values agree; its
embeddings are compared. Loading is in the loop's time and, once, in that of `scoring with its
loading`. Times are of the wall clock and of the process; the ratio of the latter does not feel
other work on the machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from scoring_networks import make_weights, with_ir_50  # noqa: E402
from scoring_world import Cost, cost, make_videos  # noqa: E402

from idbench import holding, runs, steps  # noqa: E402
from idbench import manifest as manifests  # noqa: E402
from idbench.baselines.folder import FinishedVideos  # noqa: E402
from idbench.engines import LocalEngine  # noqa: E402
from idbench.metrics.faces.crops import align_crops, find_faces  # noqa: E402
from idbench.metrics.faces.detect import make_detector  # noqa: E402
from idbench.metrics.networks.clip import prepare_pictures  # noqa: E402
from idbench.metrics.networks.recogniser import crops_to_input  # noqa: E402
from idbench.metrics.protocols import sample_frames, sample_video_frames  # noqa: E402
from idbench.metrics.scorer import Scorer  # noqa: E402
from idbench.pictures import read_rgb  # noqa: E402
from idbench.progress import Progress  # noqa: E402
from idbench.records import Identity, ModelName  # noqa: E402
from idbench.scoring import Scoring  # noqa: E402
from idbench.video import read_video  # noqa: E402

BATCHES = (4, 16, 64)


def make_run(folder: Path, name: str, manifest: Path, asked: Scoring) -> runs.Run:
    """A run folder with the manifest's videos, not scored."""
    listed = manifests.listed([], manifest=manifest)
    identity = Identity(kind="videos", suite=listed.title, split=listed.split, seed=0,
                        model=ModelName(name=name))
    with holding.begin(folder / name, identity, listed.listed) as run:
        steps.generate(run, FinishedVideos(name, listed.videos), listed.listed, LocalEngine(1),
                       Progress(quiet=True))
    return run


class Bench:
    """One set of networks and videos."""

    def __init__(self, folder: Path, manifest: Path, asked: Scoring) -> None:
        self.folder, self.manifest, self.asked = folder, manifest, asked
        self.protocol = asked.protocol
        self.loaded: dict[str, Any] = {}
        self.rounds = 0

    def scoring(self, loaded: bool) -> Cost:
        """What `idbench score` does; `loaded`: with the networks that are there already."""
        self.rounds += 1
        run = make_run(self.folder, f"run{self.rounds}", self.manifest, self.asked)
        original = Scorer.__init__

        def prepared(scorer: Scorer, *arguments: Any, **more: Any) -> None:
            original(scorer, *arguments, **more)
            scorer.embedder._loaded.update(self.loaded if loaded else {})
            self.scorer = scorer

        Scorer.__init__ = prepared  # type: ignore[method-assign]
        try:
            took = cost(lambda: steps.score(
                run, run.sample_ids, self.asked, LocalEngine(), Progress(quiet=True)))
        finally:
            Scorer.__init__ = original  # type: ignore[method-assign]
        self.loaded = dict(self.scorer.embedder._loaded)
        self.records = run.records()
        return took

    def prepare(self) -> None:
        """What the networks see in `scoring`, resized and normalised, and each one's best batch."""
        frames, clips, crops = [], [], []
        detection = self.protocol.detection
        for record in self.records:
            assert record.video is not None
            whole = read_video(record.video).frames
            sampled = whole[list(dict.fromkeys(sample_frames(self.protocol, len(whole))))]
            frames.append(sampled)
            clips.append(whole[list(sample_video_frames(self.protocol, len(whole)))])
        # Each reference and prompt once, as scoring does.
        samples = [record.sample for record in self.records]
        paths = dict.fromkeys(r.image for sample in samples for r in sample.references)
        self.frames = frames + [read_rgb(path)[None] for path in paths]
        for shown in self.frames:
            for frame, faces in zip(
                shown, find_faces(self.loaded["detector"], shown, detection), strict=True
            ):
                crops.append(align_crops(frame, faces.landmarks, detection.crop))
        clip, viclip = self.loaded["clip"], self.loaded["viclip"]
        prompts = list(dict.fromkeys(sample.prompt for sample in samples))
        pictures = torch.cat(
            [prepare_pictures(f, clip.size, self.protocol.clip_picture) for f in self.frames]
        )
        videos = torch.stack([
            prepare_pictures(c, viclip.size, self.protocol.video_picture).transpose(0, 1)
            for c in clips
        ])
        flat = np.concatenate(crops)
        self.parts: list[tuple[str, Callable[[int], None], tuple[int, ...]]] = [
            ("detector", self._detect, (4, 16)),
            ("clip", _runner(clip.network.encode_image, pictures), BATCHES),
            ("viclip", _runner(viclip.network.encode_video, videos), (1, 2, 8)),
            ("prompts", lambda _: viclip.texts(prompts), (1,)),
        ]
        for name in ("arcface", "curricularface"):
            network = self.loaded[name].network
            self.parts.append(
                (name, _runner(network, crops_to_input(flat, int(network.size))), BATCHES)
            )
        self.best = {name: _best(run, sizes) for name, run, sizes in self.parts}

    def _detect(self, batch: int) -> None:
        self.loaded["detector"].batches.size = batch
        for sampled in self.frames:
            find_faces(self.loaded["detector"], sampled, self.protocol.detection)

    def networks(self) -> Cost:
        """The networks alone, each at its best batch size."""
        return cost(lambda: [run(self.best[name]) for name, run, _ in self.parts])

    def loop(self, count: int) -> tuple[Cost, list[np.ndarray]]:
        """The published scripts' way, of the first `count` videos; and CLIP's embeddings."""
        found: list[np.ndarray] = []
        return cost(lambda: found.extend(self._loop(self.records[:count]))), found

    def _loop(self, records: list[Any]) -> Iterator[np.ndarray]:
        detection, sources = self.protocol.detection, self.asked.sources
        for record in records:
            detector = make_detector(detection)
            arcface, curricular = (sources[n].load() for n in ("arcface", "curricularface"))
            clip, viclip = sources["clip"].load(), sources["viclip"].load()
            for reference in record.sample.references:
                picture = np.array(Image.open(reference.image).convert("RGB"))
                self._picture(picture, detector, arcface, curricular, clip)
            video = cv2.VideoCapture(str(record.video))
            total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
            vectors = []
            for index in dict.fromkeys(sample_frames(self.protocol, total)):
                frame = _seek(video, index)
                vectors.append(self._picture(frame, detector, arcface, curricular, clip))
            clips = [_seek(video, i) for i in sample_video_frames(self.protocol, total)]
            viclip.video(np.stack(clips), self.protocol.video_picture)
            viclip.texts([record.sample.prompt])
            video.release()
            yield np.concatenate(vectors)

    def _picture(
        self, picture: np.ndarray, detector: Any, arcface: Any, curricular: Any, clip: Any
    ) -> np.ndarray:
        faces = find_faces(detector, picture[None], self.protocol.detection)[0]
        for marks in faces.landmarks:
            crop = align_crops(picture, marks[None], self.protocol.detection.crop)
            arcface.embed(crop)
            curricular.embed(crop)
        return clip.pictures(picture[None], self.protocol.clip_picture)


def _seek(video: cv2.VideoCapture, index: int) -> np.ndarray:
    video.set(cv2.CAP_PROP_POS_FRAMES, index)
    good, frame = video.read()
    assert good
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _best(run: Callable[[int], None], sizes: tuple[int, ...]) -> int:
    """The batch size that costs least."""
    return min(sizes, key=lambda size: cost(lambda: run(size)).processor)


def _runner(network: Any, inputs: torch.Tensor) -> Callable[[int], None]:
    def run(batch: int) -> None:
        with torch.inference_mode():
            for start in range(0, len(inputs), batch):
                network(inputs[start : start + batch])

    return run


def ratios(options: argparse.Namespace) -> None:
    """Print both ratios."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = (480, 720) if options.full else (64, 96)
        frames = 49 if options.full else 9
        manifest = make_videos(folder, options.videos, frames, size)
        given: list[str] = []
        if options.full:
            given = make_weights(options.weights or folder / "weights")
            with_ir_50(options.weights or folder / "weights")
        bench = Bench(folder, manifest, Scoring.of("strict-v3", (), given))
        with_loading = bench.scoring(loaded=False)
        print(f"scoring with its loading, {options.videos} videos: {with_loading}", flush=True)
        bench.prepare()
        print("best batches:", ", ".join(f"{k} {v}" for k, v in bench.best.items()), flush=True)
        pairs = []
        for _ in range(options.rounds):
            pairs.append((bench.scoring(loaded=True), bench.networks()))
            print(f"scoring {pairs[-1][0]}; networks {pairs[-1][1]}", flush=True)
        for clock in ("wall", "processor"):
            ratio = np.median([getattr(a, clock) / getattr(b, clock) for a, b in pairs])
            print(f"scoring / networks, {clock}: {ratio:.2f} (bar: at most 1.25)", flush=True)
        count = min(options.loop, options.videos)
        took, vectors = bench.loop(count)
        share = options.videos / count
        print(f"loop of {count} videos: {took}", flush=True)
        for name, ours in (("loaded", pairs[-1][0]), ("with its loading", with_loading)):
            for clock in ("wall", "processor"):
                ratio = getattr(took, clock) * share / getattr(ours, clock)
                print(f"loop / scoring {name}, {clock}: {ratio:.1f} (bar: at least 8)")
        alone = bench.loaded["clip"].pictures(bench.frames[0], bench.protocol.clip_picture)
        print(f"largest difference of CLIP's embeddings: {np.abs(alone - vectors[0]).max():.1e}")


def memory() -> None:
    """Print the peak memory of 20 and of 200 videos, each in a process of its own."""
    peaks = []
    with tempfile.TemporaryDirectory() as temporary:
        for count in (20, 200):
            folder = Path(temporary) / str(count)
            folder.mkdir()
            made = make_videos(folder, 4, 4, (240, 320))
            text = made.read_text().splitlines()
            made.write_text("".join(
                text[i % 4].replace("{", f'{{"id": "{i}", ', 1) + "\n" for i in range(count)
            ))
            done = subprocess.run(
                [sys.executable, __file__, "--peak", str(made)], capture_output=True, text=True,
                check=True,
            )
            peaks.append(float(done.stdout.split()[-1]))
            print(f"{count} videos: {peaks[-1]:.0f} MB at most", flush=True)
    print(f"10 x the videos: {peaks[1] / peaks[0]:.3f} x the memory (bar: at most 1.1)")


def peak(manifest: Path) -> None:
    """Score the manifest's videos without a cache that would spare the networks; print the peak."""
    asked = Scoring.of("strict-v3", ())
    run = make_run(manifest.parent, "run", manifest, asked)
    from idbench.metrics.embedding_cache import EmbeddingCache

    EmbeddingCache.get = lambda self, source, key: None  # type: ignore[method-assign]
    steps.score(run, run.sample_ids, asked, LocalEngine(), Progress(quiet=True))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="full-size random networks")
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", type=int, default=4, help="videos of the published loop")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--weights", type=Path, help="keep the random weights in this folder")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        peak(options.peak)
    elif options.memory:
        memory()
    else:
        ratios(options)


if __name__ == "__main__":
    main()
