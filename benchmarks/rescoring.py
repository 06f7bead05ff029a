"""How long it takes to score many videos again whose embeddings are cached.

    python benchmarks/rescoring.py [VIDEOS]

Scores a few rendered videos of two people with the embedded networks, and makes of them a run
folder of VIDEOS (1,000) samples: each a video file with bytes, and so a sha256, of its own (a
`free` box at its end, which decoders skip), and with its embeddings in the cache under the keys
that belong to it. Then it runs the command `idbench score RUN` in a process of its own, and
counts all of it: start of Python, imports, hashing the videos, reading the cache, scores, tables.
Whether a network was loaded or a video decoded is read from the command itself: torch and PyAV's
decoder are replaced by what fails when used.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from scoring_world import Cost, make_videos  # noqa: E402

DISTINCT = 4
BLOCKED = "raise ImportError('a network would run: torch is imported')\n"


def command(arguments: list[str], folder: Path, warm: bool) -> Cost:
    """`idbench ARGUMENTS` in a process of its own; `warm`: without torch and without a decoder."""
    environment = dict(os.environ)
    if warm:
        guard = folder / "guard"
        guard.mkdir(exist_ok=True)
        (guard / "torch.py").write_text(BLOCKED)
        (guard / "sitecustomize.py").write_text(
            "import sys\n"
            "class Finder:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'idbench.video':\n"
            "            sys.meta_path.remove(self)\n"
            "            import av\n"
            "            def refused(*_, **__): raise SystemExit('a video is decoded')\n"
            "            av.open = refused\n"
            "sys.meta_path.insert(0, Finder())\n"
        )
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(guard), environment.get("PYTHONPATH")])
        )
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "idbench.cli", *arguments], env=environment, cwd=folder,
        capture_output=True, text=True, check=False,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def multiply(run: Path, count: int) -> None:
    """Make of a scored run one of `count` samples, unscored, with everything in the cache."""
    from idbench.files import sha256_file, write_json
    from idbench.metrics.embedding_cache import COUNT, EmbeddingCache
    from idbench.metrics.scorer import Scorer

    meta = json.loads((run / "run.json").read_text())
    scorer = Scorer(meta["scoring"]["protocol"]["name"])
    cache = EmbeddingCache(run / "embeddings")
    originals, samples = list(meta["samples"].items()), {}
    for i in range(count):
        suite_id, old = originals[i % len(originals)]
        sample = json.loads((run / "samples" / old / "sample.json").read_text())
        name = f"{i:016x}"
        folder = run / "samples" / name
        folder.mkdir()
        data = (run / "samples" / old / sample["video"]).read_bytes()
        path = folder / sample["video"]
        path.write_bytes(data + struct.pack(">I4sQ", 16, b"free", i))
        digest, before = sha256_file(path), sample["video_sha256"]
        known = cache.get(before, COUNT)
        assert known is not None
        taken, video = scorer._sampled(int(known["frames"][0]))
        theirs = scorer.embedder.keys(before, tuple(taken), video)
        ours = scorer.embedder.keys(digest, tuple(taken), video)
        arrays = {ours[step]: cache.get(before, theirs[step]) for step in theirs}
        cache.put(digest, {**arrays, COUNT: known})
        sample |= {"id": name, "suite_id": f"{i:x}-{suite_id}", "video_sha256": digest,
                   "video_bytes": path.stat().st_size}
        write_json(folder / "sample.json", sample)
        samples[sample["suite_id"]] = name
    for _, old in originals:
        shutil.rmtree(run / "samples" / old)
    write_json(run / "run.json", {**meta, "samples": samples, "scoring": None, "timings": {}})


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_videos(folder, DISTINCT, people=2)
        run = folder / "run"
        first = command(["score", "--manifest", "videos.jsonl", "--out", "run"], folder, False)
        print(f"{DISTINCT} videos, nothing known: {first}", flush=True)
        values = pd.read_parquet(run / "scores.parquet")["value"].to_numpy()
        multiply(run, count)
        for what, more in (
            ("again, all of it", []),
            ("under another protocol (consisid-v1)", ["--protocol", "consisid-v1"]),
            ("back under the first", []),
            ("nothing to do", []),
        ):
            took = command(["score", "run", *more], folder, True)
            timings = json.loads((run / "run.json").read_text())["timings"]
            inner = ", ".join(f"{name} {seconds:.2f}" for name, seconds in timings.items())
            print(f"{count} videos {what}: {took} (phases so far: {inner})", flush=True)
            found = pd.read_parquet(run / "scores.parquet")
            if not more:  # the values are those of the originals, repeated
                expected = np.resize(values, len(found)) if count % DISTINCT == 0 else None
                if expected is not None:
                    np.testing.assert_array_equal(found["value"].to_numpy(), expected)
                    print(f"  {len(found)} rows, equal to the originals'", flush=True)


if __name__ == "__main__":
    main()
