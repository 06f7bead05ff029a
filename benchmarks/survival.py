"""Kills commands at random moments and checks what is left.

    python benchmarks/survival.py                 (100 kills)
    python benchmarks/survival.py --kills 12 --seed 3 --only run "pairs build"

SIGKILL, SIGTERM or SIGINT goes to the command or to one of two shards, SIGKILL also to workers of
Ray. After each round the command is resumed; its result must equal, bit for bit, that of an
undisturbed run, no finished video, score, embedding, record or latent may be written again, no
video read or step computed again that was stored, and nothing temporary may be left.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))
import kills  # noqa: E402
from toy import install_plugin  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="names of scenarios")
    parser.add_argument("--hang", type=float, default=kills.HANGS_SECONDS, metavar="SECONDS",
                        help="a command hangs if it takes longer; raise it on a busy machine")
    asked = parser.parse_args()
    kills.HANGS_SECONDS = asked.hang
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place, cluster(asked.only) as (address, pid):
        base = Path(place)
        every = kills.scenarios(base, install_plugin(base), address, pid)
        chosen = [s for s in every if not asked.only or s.name in asked.only]
        faults = run(chosen, base, asked.kills, rng)
    sys.exit(1 if faults else 0)


@contextmanager
def cluster(only: Sequence[str] | None) -> Iterator[tuple[str, int | None]]:
    """A Ray cluster's address and process, if a scenario needs one."""
    if only and "run by Ray" not in only:
        yield "", None
        return
    with tempfile.TemporaryDirectory() as place:
        environment = {
            **os.environ, "PYTHONPATH": str(install_plugin(Path(place))), "TOY_SECONDS": "0.1",
            "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        with subprocess.Popen(
            [sys.executable, "-c", kills.CLUSTER], env=environment, text=True,
            start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout
            try:
                yield process.stdout.readline().strip(), process.pid
            finally:
                process.communicate("\n")


def run(every: list, base: Path, count: int, rng: random.Random) -> list[str]:
    """Share the kills out over the scenarios and print a table; returns the faults."""
    print("| command | kills | of them | rounds | seconds | faults |\n|---|---|---|---|---|---|")
    faults: list[str] = []
    for k, scenario in enumerate(every):
        share = count // len(every) + (k < count % len(every))
        start = time.monotonic()
        found = kills.kill(scenario, base / scenario.name.replace(" ", "-"), share, rng)
        what = ", ".join(f"{n} {name}" for name, n in sorted(found.kills.items()))
        print(f"| {scenario.name} | {found.kills.total()} | {what} | {found.rounds} | "
              f"{time.monotonic() - start:.0f} | {len(found.faults)} |", flush=True)
        faults += found.faults
        for fault in found.faults:
            print(f"  {fault}", flush=True)
    return faults


if __name__ == "__main__":
    main()
