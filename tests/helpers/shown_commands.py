"""The commands that README.md and docs/*.md show, and a folder in which they can be run."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
SHELLS = ("bash", "sh", "shell", "console")


@dataclass(frozen=True)
class Shown:
    """A line of a fenced block of shell: its words, and the file that its output goes to."""

    page: str
    line: str
    words: tuple[str, ...]
    output: str | None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `idbench` is called with, through whatever starts it; empty: it is not called."""
        # `idbench`, a path to it, or `-m idbench.cli`.
        names = [Path(word).name.removesuffix(".cli") for word in self.words]
        return self.words[names.index("idbench") + 1:] if "idbench" in names else ()


def commands(page: Path) -> list[Shown]:
    """Every command that a page shows, in order."""
    found = []
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language not in SHELLS:
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removesuffix(" &"), comments=True)
            if not words:
                continue
            target = words[words.index(">") + 1] if ">" in words else None
            kept = words[:words.index(">")] if target else words
            found.append(Shown(page.name, line, tuple(kept), target))
    return found


def prepare(folder: Path, run_folders: Sequence[Path], clip: Path, suite: Path) -> None:
    """Everything that the pages' commands name: runs, a study's votes, videos, pictures.

    Args:
        run_folders: scored runs with videos; copied to `runs/mine`, `runs/base`, ...
        clip: a video.
        suite: folder of the suite avatars, whose portraits stand for photographs.
    """
    for run in run_folders:
        shutil.copytree(run, folder / "runs" / run.name)
    shutil.copytree(run_folders[0], folder / "runs" / "score-videos")
    portraits = sorted((suite / "references").glob("*.png"))[:4]
    shutil.copyfile(clip, folder / "clip.mp4")
    shutil.copyfile(portraits[0], folder / "person.png")
    with open(folder / "videos.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["video", "prompt", "reference"])
        rows.writerow(["clip.mp4", "a person smiles", "person.png"])
    (folder / "their_videos").mkdir()
    for empty in ("packs/buffalo_l", "models/buffalo_l", "training-pictures", "my-videos"):
        (folder / empty).mkdir(parents=True)
    for number, portrait in enumerate(portraits):
        person = folder / "mine" / f"person{number}"
        person.mkdir(parents=True)
        shutil.copyfile(portrait, person / "front.png")
    (folder / "mine" / "prompts.csv").write_text(
        "prompt,category,people\nA person smiles.,expression,1\nTwo people talk.,scene,2\n")
    write_longer_recipe(folder / "my_single.yaml")


def write_longer_recipe(path: Path) -> None:
    """The copy of `single.yaml` with one phase more that docs/training.md speaks of."""
    recipe = yaml.safe_load((ROOT / "models/concat_id/recipes/single.yaml").read_text())
    recipe["phases"].append({"until": 20000, "restart": True})
    path.write_text(yaml.safe_dump({**recipe, "steps": 20000}))
