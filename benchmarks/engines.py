"""Videos a second in this process and by one and two workers of Ray, and the start-up of Ray.

    python benchmarks/engines.py                          (avatars_truth, 16 samples, 6 rounds)
    python benchmarks/engines.py --model concat_id --samples 12

The kinds take turns, and the median of the rounds' ratios counts. The rate is taken between the
finished samples, without the start: from the first one of every worker to the last one.

The share of that time in which no video is generated (it is encoded, written, and the next one
handed out) is taken within one run, so other work on the machine changes it little: that of one
worker less that of a local process is what the engine costs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))
from kills import CLUSTER  # noqa: E402

os.environ["RAY_AUTH_MODE"] = "disabled"  # of the cluster and of those who join it
os.environ["RAY_worker_niceness"] = "0"  # as `ray_pool.start_cluster` has it
KINDS = {"local": (), "1 worker": ("1",), "2 workers": ("2",)}


def rate(files: list[Path], workers: int) -> float:
    """Files a second after the first of each worker."""
    times = sorted(path.stat().st_mtime for path in files)
    return (len(times) - workers) / (times[-1] - times[workers - 1])


def besides(folder: Path) -> float:
    """The share of the time between finished samples, of one process, in which none is generated.
    """
    files = sorted(folder.glob("samples/*/sample.json"), key=lambda path: path.stat().st_mtime_ns)
    generating = sum(json.loads(path.read_text())["seconds"] for path in files[1:])
    return 1 - generating / (files[-1].stat().st_mtime - files[0].stat().st_mtime)


def run(kind: str, folder: Path, address: str, asked: argparse.Namespace) -> dict[str, float]:
    """One run: videos and scores a second, and seconds until the first worker began."""
    shutil.rmtree(folder, ignore_errors=True)
    ray = [x for n in KINDS[kind] for x in (
        "--engine", "ray", "--workers", n, "--address", address)]
    batch = [] if ray else ["--batch", "1"]
    scored = [] if asked.score else ["--no-score"]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "idbench.cli", "run", "--model", asked.model, "--split", "single",
         "--limit", str(asked.samples), "--out", str(folder), *ray, *batch, *scored],
        check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = {"seconds": time.perf_counter() - start}
    workers = int(KINDS[kind][0]) if ray else 1
    found["videos"] = rate(list(folder.glob("samples/*/sample.json")), workers)
    if workers == 1:
        found["besides"] = besides(folder)
    if asked.score and ray:  # a local process writes its scores in windows, not one by one
        found["scores"] = rate(list(folder.glob("samples/*/scores.json")), workers)
    return found


def start_up() -> tuple[float, float]:
    """Seconds to start Ray, and from there until a first worker is ready."""
    code = (
        "import time\nstart = time.perf_counter()\nfrom idbench.ray_engine import RayEngine\n"
        "engine = RayEngine(workers=1)\nengine._start()\ncluster = time.perf_counter()\n"
        "from idbench.worker import Job, Worker\nimport ray\n"
        "class Ready(Worker):\n    def begin(self): pass\n"
        "actor = ray.remote(num_cpus=1)(Ready).remote(None, 'x')\nray.get(actor.begin.remote())\n"
        "print('took', cluster - start, time.perf_counter() - cluster)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = re.search(r"took ([\d.]+) ([\d.]+)", done.stdout)
    assert found
    return float(found[1]), float(found[2])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="avatars_truth")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--score", action="store_true")
    asked = parser.parse_args()
    cluster, worker = start_up()
    print(f"start-up: Ray {cluster:.1f} s, first worker {worker:.1f} s", flush=True)
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as place, subprocess.Popen(
        [sys.executable, "-c", CLUSTER], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as cluster_process:
        assert cluster_process.stdout
        address = cluster_process.stdout.readline().strip()
        for number in range(asked.rounds):
            rounds.append(
                {kind: run(kind, Path(place) / "run", address, asked) for kind in KINDS})
            for kind, found in rounds[-1].items():
                print(number, kind, {k: round(v, 3) for k, v in found.items()}, flush=True)
        cluster_process.communicate("\n")
    for what in ("videos", "scores")[: 1 + asked.score]:
        for first, second in (("local", "1 worker"), ("1 worker", "2 workers")):
            if what not in rounds[0][first]:
                continue
            ratios = [of[second][what] / of[first][what] for of in rounds]
            print(f"{what}: {second} / {first}: median {statistics.median(ratios):.3f} of "
                  f"{', '.join(f'{r:.3f}' for r in ratios)}")
    costs = [100 * (of["1 worker"]["besides"] - of["local"]["besides"]) for of in rounds]
    print(f"the engine costs: median {statistics.median(costs):.1f}% of "
          f"{', '.join(f'{c:.1f}' for c in costs)}")
    print("load:", os.getloadavg())


if __name__ == "__main__":
    main()
